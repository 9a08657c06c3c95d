"""The picture of a file: sent as it is, or decoded and encoded anew, or both (an alternative in a further codec)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from mrtc_rtcvod.core.media import scaled_bitrate, scaled_size

_MICROSECOND = Fraction(1, 1_000_000)
_CLOCK = Fraction(1, 90_000)
_KEYFRAME_INTERVAL_S = 2

_ENCODER_OPTIONS = {
    "vp8": {
        "deadline": "realtime",
        "cpu-used": "8",
        "lag-in-frames": "0",
        "auto-alt-ref": "0",
        "error-resilient": "0",
        "static-thresh": "0",
    },
    # forced-idr: a key frame that is asked for is one that a new receiver can begin with.
    "h264": {
        "preset": "veryfast",
        "tune": "zerolatency",
        "profile": "baseline",
        "forced-idr": "1",
        "x264-params": "scenecut=0:sliced-threads=0",
    },
}


@dataclass(frozen=True, slots=True)
class EncodedPicture:
    """An encoded picture and its time in the file."""

    time_us: int
    is_keyframe: bool
    data: bytes


class PassingVideo:
    """Hands packets out as a source needs them: H.264 as Annex B with parameter sets before every key frame.

    Damaged ones are left out up to the next key frame.
    """

    def __init__(self, stream: VideoStream, codec: str) -> None:
        self._filter = av.BitStreamFilterContext("h264_mp4toannexb", stream) if codec == "h264" else None
        self._awaits_keyframe = False

    def take(self, time_us: int, packet: Any) -> Iterator[EncodedPicture]:
        """The pictures of a packet."""
        self._awaits_keyframe = self._awaits_keyframe and not packet.is_keyframe
        if self._awaits_keyframe:
            return
        try:
            packets = self._filter.filter(packet) if self._filter is not None else [packet]
        except av.FFmpegError:
            self._awaits_keyframe = True
            return
        for one in packets:
            if one.size:
                yield EncodedPicture(time_us, bool(one.is_keyframe), bytes(one))


class VideoDecoder:
    """Decodes packets; damaged ones are left out up to the next key frame."""

    def __init__(self, stream: VideoStream) -> None:
        self._context = stream.codec_context
        self._context.thread_type = "SLICE"  # frame threads would delay pictures by one per thread
        self._awaits_keyframe = True
        self.errors = 0

    def take(self, packet: Any | None) -> Iterator[av.VideoFrame]:
        """The pictures that come out after a packet; None: the rest at the end of the file."""
        if packet is not None:
            if packet.is_keyframe:
                self._awaits_keyframe = False
            if self._awaits_keyframe:
                return
        try:
            yield from self._context.decode(packet)
        except av.EOFError:
            return
        except av.FFmpegError:
            self.errors += 1
            self._awaits_keyframe = True


class VideoEncoder:
    """Encodes pictures in real time for receivers of any kind.

    Args:
        codec: vp8 or h264.
        width, height, fps: of what comes in.
        rotation: degrees counterclockwise by which it is to be turned: 0, 90, 180 or 270.
    """

    def __init__(
        self,
        codec: str,
        width: int,
        height: int,
        fps: float,
        *,
        max_height: int,
        max_fps: int,
        bitrate_bps: int,
        rotation: int = 0,
    ) -> None:
        self.codec = codec
        self._rotation = rotation
        if rotation % 180:
            width, height = height, width
        self.width, self.height = scaled_size(width, height, max_height)
        self._min_step_us = round(1_000_000 / max_fps * 0.9)
        self._bitrate_bps = scaled_bitrate(self.width, self.height, max_height, bitrate_bps)
        self._rate = max(1, min(max_fps, round(fps)))
        self._scaler = VideoReformatter()
        self._context = self._open()
        self._last_us: int | None = None
        self._wants_keyframe = True

    def request_keyframe(self) -> None:
        """The next picture is a key frame."""
        self._wants_keyframe = True

    def encode(self, time_us: int, picture: av.VideoFrame) -> Iterator[EncodedPicture]:
        """What comes out for a picture; nothing if the frame rate would be too high."""
        if self._last_us is not None and time_us - self._last_us < self._min_step_us:
            return
        self._last_us = time_us
        is_upright = self._rotation % 180 == 0
        frame = self._scaler.reformat(
            picture,
            width=self.width if is_upright else self.height,
            height=self.height if is_upright else self.width,
            format="yuv420p",
            interpolation=Interpolation.BILINEAR,
        )
        if self._rotation:
            frame = _turned(frame, self._rotation // 90)
        frame.pts = time_us * 9 // 100
        frame.time_base = _CLOCK
        frame.pict_type = PictureType.I if self._wants_keyframe else PictureType.NONE
        self._wants_keyframe = False
        for packet in self._context.encode(frame):
            yield EncodedPicture(time_us, packet.is_keyframe, bytes(packet))

    def _open(self) -> VideoCodecContext:
        name = {"vp8": "libvpx", "h264": "libx264"}[self.codec]
        context = cast(VideoCodecContext, av.CodecContext.create(name, "w"))
        context.width, context.height, context.pix_fmt = self.width, self.height, "yuv420p"
        context.time_base = _CLOCK
        context.framerate = Fraction(self._rate)
        context.gop_size = self._rate * _KEYFRAME_INTERVAL_S
        context.max_b_frames = 0
        context.bit_rate = self._bitrate_bps
        context.thread_count = 2
        context.options = dict(_ENCODER_OPTIONS[self.codec])
        if self.codec == "h264":
            context.options |= {"maxrate": str(self._bitrate_bps), "bufsize": str(self._bitrate_bps)}
        return context


def _turned(picture: av.VideoFrame, quarters: int) -> av.VideoFrame:
    """A picture turned by quarters counterclockwise."""
    turned = av.VideoFrame(
        *((picture.height, picture.width) if quarters % 2 else (picture.width, picture.height)), "yuv420p"
    )
    for source, target in zip(picture.planes, turned.planes, strict=True):
        pixels = np.frombuffer(memoryview(source), np.uint8).reshape(-1, source.line_size)[:, : source.width]
        rows = np.zeros((target.height, target.line_size), np.uint8)
        rows[:, : target.width] = np.rot90(pixels[: source.height], quarters)
        target.update(rows.tobytes())
    return turned
