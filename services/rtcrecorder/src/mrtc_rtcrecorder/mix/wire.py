"""What the recorder and its mixing process say to each other over a pipe.

To the mixer: messages of a 13-byte header (little endian: u32 length of the body, u8 kind, i64 Unix microseconds at
which it was said) and a body. From the mixer: one JSON object a line. Both ends are the same program, so there is no
version.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field
from enum import IntEnum

from mrtc_common.clock import steady_offset_us, steady_unix_us

from mrtc_rtcrecorder.core.frames import CLOCK_RATES, Frame, Kind

_HEADER = struct.Struct("<IBq")
_FRAME = struct.Struct("<HBBqQ")  # track, codec, flags, captured_at_us, rtp_time
_CODECS = sorted(CLOCK_RATES)
_IS_KEYFRAME, _IS_DISCONTINUOUS = 1, 2

HEADER_BYTES = _HEADER.size
MAX_BODY_BYTES = 8 << 20
"""A key frame of a 4K screen has some 2 MiB."""


class MessageKind(IntEnum):
    """What a message says."""

    CONFIG = 1
    ADD_TRACK = 2
    REMOVE_TRACK = 3
    HIDE_TRACK = 4
    FRAME = 5
    FINISH = 6
    TIME = 7


@dataclass(frozen=True, slots=True)
class MixConfig:
    """The first message: what to make.

    Attributes:
        path: the file, in a folder of the storage root.
        width, height, fps: of the picture.
        delay_us: how long at most the mixer waits for media that is late.
        preset, crf: x264's.
        begins_at_us: where its timeline begins, Unix microseconds: when the process was asked for, not when it was up.
        clock_offset_us: makes the monotonic clock, which all processes share, the recorder's Unix time.
    """

    path: str
    width: int
    height: int
    fps: int
    delay_us: int
    preset: str
    crf: int
    begins_at_us: int
    clock_offset_us: int = field(default_factory=steady_offset_us)

    def encode(self) -> bytes:
        """As a message."""
        return message(MessageKind.CONFIG, json.dumps(asdict(self)).encode())

    @classmethod
    def decode(cls, body: bytes) -> MixConfig:
        """From a message's body."""
        return cls(**json.loads(body))


@dataclass(frozen=True, slots=True)
class MixProgress:
    """What the mixer tells once a second and at its end.

    Attributes:
        began_at_us: capture time of the first tick.
        size_bytes, duration_us: of the file so far.
        skipped_pictures: left out since the machine could not keep up.
        is_complete: the file is complete; nothing follows.
        error: why it gave up; empty if it did not.
    """

    began_at_us: int
    size_bytes: int = 0
    duration_us: int = 0
    skipped_pictures: int = 0
    is_complete: bool = False
    error: str = ""

    def encode(self) -> bytes:
        """As a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> MixProgress:
        """From a line. Raises ValueError, TypeError."""
        return cls(**json.loads(line))


def message(kind: MessageKind, body: bytes = b"", at_us: int | None = None) -> bytes:
    """A message of any kind, said now if no time is given."""
    return _HEADER.pack(len(body), kind, steady_unix_us() if at_us is None else at_us) + body


def parse_header(header: bytes) -> tuple[int, MessageKind, int]:
    """(length of the body, kind, when it was said). Raises ValueError."""
    length, kind, at_us = _HEADER.unpack(header)
    if length > MAX_BODY_BYTES:
        raise ValueError("message is too long")
    return length, MessageKind(kind), at_us


def add_track(track: int, kind: Kind, at_us: int | None = None) -> bytes:
    """A track joins, or comes anew."""
    return message(MessageKind.ADD_TRACK, json.dumps([track, kind.value]).encode(), at_us)


def parse_add_track(body: bytes) -> tuple[int, Kind]:
    """(track, kind) of `ADD_TRACK`."""
    track, kind = json.loads(body)
    return int(track), Kind(kind)


def track_message(kind: MessageKind, track: int) -> bytes:
    """`REMOVE_TRACK` or `HIDE_TRACK`."""
    return message(kind, json.dumps(track).encode())


def parse_track(body: bytes) -> int:
    """The track of `REMOVE_TRACK` or `HIDE_TRACK`."""
    return int(json.loads(body))


def encode_frame(track: int, frame: Frame) -> bytes:
    """A frame of a track."""
    flags = (_IS_KEYFRAME if frame.is_keyframe else 0) | (_IS_DISCONTINUOUS if frame.is_discontinuous else 0)
    head = _FRAME.pack(track, _CODECS.index(frame.codec), flags, frame.captured_at_us, frame.rtp_time)
    return message(MessageKind.FRAME, head + frame.data)


def parse_frame(body: bytes) -> tuple[int, Frame]:
    """(track, frame). Raises struct.error, IndexError."""
    track, codec, flags, captured_at_us, rtp_time = _FRAME.unpack_from(body)
    data = body[_FRAME.size :]
    is_keyframe, is_discontinuous = bool(flags & _IS_KEYFRAME), bool(flags & _IS_DISCONTINUOUS)
    return track, Frame(_CODECS[codec], is_keyframe, is_discontinuous, rtp_time, captured_at_us, data)
