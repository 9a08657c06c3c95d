"""The sound of a file as Opus packets: sent as they are, or decoded and encoded anew."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.stream import AudioStream

RATE = 48_000
_SAMPLES = 960  # 20 ms: what every receiver handles best
_BITRATE_BPS = 96_000
# A larger step in the file's times is a gap, not rounding.
_GAP_US = 60_000


class AudioChain(Protocol):
    """Makes Opus packets of a file's packets."""

    def take(self, time_us: int, packet: Any | None) -> Iterator[tuple[int, bytes]]:
        """(time, Opus packet) that come out after a packet; None: the rest at the end of the file."""
        ...


class PassingAudio:
    """Opus as it is."""

    def take(self, time_us: int, packet: Any | None) -> Iterator[tuple[int, bytes]]:
        """See `AudioChain`."""
        if packet is not None and packet.size:
            yield time_us, bytes(packet)


class TranscodedAudio:
    """Anything else: 48 kHz stereo Opus in packets of 20 ms.

    Args:
        start_us: time stamp of the file's beginning.
    """

    def __init__(self, stream: AudioStream, start_us: int) -> None:
        self._start_us = start_us
        self._decoder = stream.codec_context
        self._resampler = _resampler()
        self._format: tuple[str, str, int] | None = None
        self._encoder = _encoder()
        self._anchor_us: int | None = None
        self._samples = 0
        self.errors = 0

    def take(self, time_us: int, packet: Any | None) -> Iterator[tuple[int, bytes]]:
        """See `AudioChain`."""
        try:
            decoded = self._decoder.decode(packet)
        except av.EOFError:
            decoded = []
        except av.FFmpegError:
            self.errors += 1
            return
        for frame in decoded:
            # The decoder's time, not the packet's: it knows what is only there to warm it up.
            if frame.pts is not None and frame.time_base is not None:
                time_us = round(frame.pts * frame.time_base * 1_000_000) - self._start_us
            self._follow(time_us)
            frame.pts = None  # times are counted here: the file's may jump
            yield from self._encode(self._resample(frame))
        if packet is None:
            yield from self._encode(self._resample(None))

    def _resample(self, frame: av.AudioFrame | None) -> list[av.AudioFrame]:
        """Pieces of 20 ms; before those of a frame in another format, or of the end, the rest of what was before."""
        form = None if frame is None else (frame.format.name, frame.layout.name, frame.sample_rate)
        rest: list[av.AudioFrame] = []
        if form != self._format:
            rest = self._convert(None)
            self._resampler, self._format = _resampler(), form
        return rest if frame is None else rest + self._convert(frame)

    def _convert(self, frame: av.AudioFrame | None) -> list[av.AudioFrame]:
        try:
            return self._resampler.resample(frame)
        except av.FFmpegError:  # no such format: a damaged file
            self.errors += 1
            return []

    def _follow(self, time_us: int) -> None:
        """Keeps the count of samples with the file's times."""
        if self._anchor_us is None or abs(self._anchor_us + self._played_us() - time_us) > _GAP_US:
            self._anchor_us, self._samples = time_us, 0

    def _played_us(self) -> int:
        return self._samples * 1_000_000 // RATE

    def _encode(self, frames: list[av.AudioFrame]) -> Iterator[tuple[int, bytes]]:
        for frame in frames:
            if frame.samples < _SAMPLES:
                continue  # the last, incomplete piece of a file
            assert self._anchor_us is not None
            time_us = self._anchor_us + self._played_us()
            self._samples += frame.samples
            frame.pts = None
            for packet in self._encoder.encode(frame):
                yield time_us, bytes(packet)


def _resampler() -> av.AudioResampler:
    return av.AudioResampler(format="flt", layout="stereo", rate=RATE, frame_size=_SAMPLES)


def _encoder() -> AudioCodecContext:
    context = av.CodecContext.create("libopus", "w")
    context.sample_rate = RATE
    context.layout = "stereo"
    context.format = "flt"
    context.bit_rate = _BITRATE_BPS
    context.options = {"application": "audio", "frame_duration": "20"}
    return context
