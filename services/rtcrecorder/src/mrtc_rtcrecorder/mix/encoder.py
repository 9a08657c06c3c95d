"""The file of a mixed recording: H.264 and AAC in an MP4 that plays while it grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream

from mrtc_rtcrecorder.media.growing_file import GrowingFile
from mrtc_rtcrecorder.media.muxer import MUXER_OPTIONS

from .sound import RATE, Samples

SAMPLES_PER_BLOCK = 1024  # one AAC frame (ISO/IEC 14496-3)
_KEYFRAME_INTERVAL_S = 2
# A fragment is a picture of 25 per second, and x264 looks at none ahead: what they hold is what a file lacks when this
# process is killed, beside what the timeline runs behind capture and the time that another recorder takes to go on.
_FRAGMENT_US = 40_000


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """What the file holds: picture size in pixels, frames per second, and how x264 and AAC work."""

    width: int
    height: int
    fps: int
    preset: str = "veryfast"
    crf: int = 25
    audio_bitrate_bps: int = 128_000


class MixedFile:
    """One growing mixed file. Use from one thread.

    Times are counted in pictures and samples since the file's beginning, so that both tracks share one timeline.
    """

    def __init__(self, path: Path, config: EncoderConfig) -> None:
        self._config = config
        self._file = GrowingFile(path)
        options = {**MUXER_OPTIONS["mp4"], "frag_duration": str(_FRAGMENT_US)}
        self._output = av.open(self._file, "w", format="mp4", options=options)
        self._video = self._add_video()
        self._audio = self._add_audio()
        self._output.start_encoding()
        self._header_bytes = self._file.pending_bytes
        self._duration_us = 0

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return self._file.size_bytes

    @property
    def duration_us(self) -> int:
        """Time of the latest picture."""
        return self._duration_us

    def write_picture(self, index: int, picture: av.VideoFrame) -> None:
        """Encodes the picture of tick `index`; an index may be left out."""
        picture.pts = index
        picture.time_base = Fraction(1, self._config.fps)
        self._duration_us = (index + 1) * 1_000_000 // self._config.fps
        self._mux(self._video.encode(picture))

    def write_sound(self, position: int, block: Samples) -> None:
        """Encodes a block of `SAMPLES_PER_BLOCK` samples that begins at `position`."""
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="fltp", layout="stereo")
        frame.sample_rate = RATE
        frame.pts = position
        frame.time_base = Fraction(1, RATE)
        self._mux(self._audio.encode(frame))

    def close(self) -> None:
        """Flushes the encoders and completes the file."""
        try:
            self._mux(self._video.encode(None))
            self._mux(self._audio.encode(None))
            self._output.close()
        finally:
            self._file.close()

    def _add_video(self) -> VideoStream:
        config = self._config
        stream = self._output.add_stream("libx264", rate=config.fps)
        stream.width, stream.height = config.width, config.height
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, config.fps)
        stream.codec_context.time_base = Fraction(1, config.fps)
        stream.codec_context.gop_size = config.fps * _KEYFRAME_INTERVAL_S
        stream.codec_context.max_b_frames = 0
        stream.codec_context.thread_count = 1
        params = "rc-lookahead=0:sync-lookahead=0:scenecut=0"
        stream.codec_context.options = {"preset": config.preset, "crf": str(config.crf), "x264-params": params}
        return stream

    def _add_audio(self) -> AudioStream:
        stream = self._output.add_stream("aac", rate=RATE, layout="stereo")
        stream.bit_rate = self._config.audio_bitrate_bps
        return stream

    def _mux(self, packets: Sequence[av.Packet[Any]]) -> None:
        for packet in packets:
            self._output.mux(packet)
        if self._file.size_bytes or self._file.pending_bytes > self._header_bytes:
            self._file.commit()
