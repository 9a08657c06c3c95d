"""What a media file holds, and whether its streams can be sent as they are."""

from __future__ import annotations

from dataclasses import dataclass

# Who joins (or loses a picture) waits for the next key frame of a stream that is sent as it is.
MAX_KEYFRAME_GAP_US = 3_000_000
_PASSING_H264_PROFILES = frozenset({"Baseline", "Constrained Baseline", "Main", "High"})
_MAX_PASSING_PIXELS = 1920 * 1088
PASSING_CODECS = ("h264", "vp8")


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What was found out about a picture stream.

    Attributes:
        has_reordering: frames are shown in another order than they are sent in (B-frames).
        keyframe_gap_us: longest time between key frames that was seen.
        bitrate_bps: 0 if not known.
    """

    codec: str
    width: int
    height: int
    fps: float
    profile: str = ""
    pixel_format: str = "yuv420p"
    has_reordering: bool = False
    keyframe_gap_us: int = 0
    bitrate_bps: int = 0
    rotation: int = 0

    def obstacle(self, max_bitrate_bps: int) -> str:
        """Why it cannot be sent as it is; empty if it can."""
        if self.codec not in PASSING_CODECS:
            return f"codec {self.codec}"
        if self.codec == "h264" and self.profile not in _PASSING_H264_PROFILES:
            return f"profile {self.profile}"
        if self.pixel_format not in ("yuv420p", "yuvj420p"):
            return f"pixel format {self.pixel_format}"
        if self.has_reordering:
            return "B-frames"
        if self.rotation:
            return "it is rotated"
        if self.keyframe_gap_us > MAX_KEYFRAME_GAP_US:
            return f"key frames {self.keyframe_gap_us / 1e6:.1f} s apart"
        if self.width * self.height > _MAX_PASSING_PIXELS:
            return f"size {self.width}x{self.height}"
        if self.bitrate_bps > max_bitrate_bps:
            return f"bitrate {self.bitrate_bps} bit/s"
        return ""


@dataclass(frozen=True, slots=True)
class AudioFacts:
    """What was found out about a sound stream."""

    codec: str
    channels: int
    sample_rate: int

    @property
    def passes(self) -> bool:
        """True if it can be sent as it is."""
        return self.codec == "opus" and self.channels in (1, 2)


def scaled_size(width: int, height: int, max_height: int) -> tuple[int, int]:
    """Even size of at most `max_height` lines and twice as many columns, in the same proportion."""
    scale = min(1.0, max_height / height, 2 * max_height / width)
    return max(2, round(width * scale) & ~1), max(2, round(height * scale) & ~1)


def scaled_bitrate(width: int, height: int, max_height: int, bitrate_bps: int) -> int:
    """Bitrate for a size, from that of the largest 16:9 picture; smaller pictures need more per pixel."""
    share: float = min(1.0, width * height / (max_height * max_height * 16 / 9))
    return max(100_000, int(bitrate_bps * share**0.75))
