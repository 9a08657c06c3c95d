"""The unit of media that the recorder works on, and the facts about codecs that it needs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Sound or picture."""

    AUDIO = "audio"
    VIDEO = "video"


CLOCK_RATES = {
    "opus": 48_000,
    "pcmu": 8_000,
    "pcma": 8_000,
    "g722": 8_000,  # RFC 3551 section 4.5.2: samples at 16 kHz, RTP clock at 8 kHz
    "vp8": 90_000,
    "vp9": 90_000,
    "h264": 90_000,
    "av1": 90_000,
}
"""RTP clock rate in Hz of every codec that the engine hands over."""

AUDIO_CODECS = frozenset({"opus", "pcmu", "pcma", "g722"})


def kind_of(codec: str) -> Kind:
    """Whether a codec carries sound or picture."""
    return Kind.AUDIO if codec in AUDIO_CODECS else Kind.VIDEO


@dataclass(frozen=True, slots=True)
class Frame:
    """One access unit as a sink delivers it, in decode order.

    Attributes:
        codec: lower-case SDP name.
        is_keyframe: starts a decodable sequence; always true for sound.
        is_discontinuous: frames before it were lost, so that it may not decode.
        rtp_time: unwrapped RTP timestamp in units of the codec's clock.
        captured_at_us: when it was captured, Unix microseconds of this node's clock.
        data: Annex B for H.264, a plain frame for VP8 and VP9, OBUs for AV1, a packet for sound.
    """

    codec: str
    is_keyframe: bool
    is_discontinuous: bool
    rtp_time: int
    captured_at_us: int
    data: bytes
