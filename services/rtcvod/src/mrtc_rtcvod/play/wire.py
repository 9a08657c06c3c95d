"""What rtcvod and its playing process say to each other.

To the player: one JSON object a line. From the player: messages of a 5-byte header (little endian: u32 length of the
body, u8 kind) and a body. Both ends are the same program, so there is no version.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from enum import IntEnum

HEADER = struct.Struct("<IB")
_FRAME = struct.Struct("<BBqq")  # track, is_keyframe, pts_us, position_us
MAX_BODY_BYTES = 16 << 20


class MessageKind(IntEnum):
    """What a message says."""

    OPENED = 1
    FRAME = 2
    ENDED = 3
    FAILED = 4


class TrackNumber(IntEnum):
    """The tracks of a player."""

    VIDEO = 0
    AUDIO = 1
    ALTERNATIVE = 2


@dataclass(frozen=True, slots=True)
class PlayOptions:
    """The first line: what to play and how.

    Attributes:
        path: the file.
        start_us: position to begin at.
        is_loop: begin again at the end.
        video_codec: codec for pictures that must be transcoded.
        max_height, max_fps, video_bitrate_bps: of transcoded pictures.
        pass_bitrate_bps: larger ones are transcoded.
    """

    path: str
    start_us: int = 0
    is_loop: bool = False
    video_codec: str = "vp8"
    max_height: int = 720
    max_fps: int = 30
    video_bitrate_bps: int = 2_000_000
    pass_bitrate_bps: int = 8_000_000
    memory_limit_bytes: int = 2 << 30

    def encode(self) -> bytes:
        """As a line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> PlayOptions:
        """From a line."""
        return cls(**json.loads(line))


@dataclass(frozen=True, slots=True)
class Opened:
    """The file is open. Codecs are empty if there is no such track."""

    duration_us: int
    video_codec: str = ""
    width: int = 0
    height: int = 0
    audio_codec: str = ""
    note: str = ""

    def encode(self) -> bytes:
        """As a message."""
        return message(MessageKind.OPENED, json.dumps(asdict(self)).encode())

    @classmethod
    def decode(cls, body: bytes) -> Opened:
        """From a message's body."""
        return cls(**json.loads(body))


@dataclass(frozen=True, slots=True)
class PlayedFrame:
    """A frame that is due.

    Attributes:
        pts_us: its time on a clock that all tracks share and that never goes back.
        position_us: where in the file it is.
    """

    track: int
    is_keyframe: bool
    pts_us: int
    position_us: int
    data: bytes

    def encode(self) -> bytes:
        """As a message."""
        head = _FRAME.pack(self.track, self.is_keyframe, self.pts_us, self.position_us)
        return message(MessageKind.FRAME, head + self.data)

    @classmethod
    def decode(cls, body: bytes) -> PlayedFrame:
        """From a message's body."""
        track, is_keyframe, pts_us, position_us = _FRAME.unpack_from(body)
        return cls(track, bool(is_keyframe), pts_us, position_us, body[_FRAME.size :])


def message(kind: MessageKind, body: bytes = b"") -> bytes:
    """A message of any kind."""
    return HEADER.pack(len(body), kind) + body


def parse_header(header: bytes) -> tuple[int, MessageKind]:
    """(length of the body, kind). Raises ValueError."""
    length, kind = HEADER.unpack(header)
    if length > MAX_BODY_BYTES:
        raise ValueError("message is too long")
    return length, MessageKind(kind)


def keyframe_command(track: int) -> bytes:
    """Asks for a key frame of a track."""
    return json.dumps({"keyframe": track}).encode() + b"\n"


def alternative_command(codec: str) -> bytes:
    """Asks for the picture in a further codec."""
    return json.dumps({"alternative": codec}).encode() + b"\n"
