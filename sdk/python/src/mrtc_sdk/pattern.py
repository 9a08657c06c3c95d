"""Pictures and tones that identify their sender, and how to read them back after compression and scaling.

A picture's upper half is a row of 16 cells, white for 1 and black for 0: eight bits of the sender's number, most
significant first, then eight bits of the frame counter. A bar moves through the lower half. A tone has the sender's
own frequency.
"""

from __future__ import annotations

import asyncio
import fractions
import math
import time
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

CELLS = 16
SAMPLE_RATE = 48_000
SAMPLES_PER_FRAME = 960  # 20 ms, as Opus has it


def draw(number: int, counter: int, width: int, height: int) -> npt.NDArray[np.uint8]:
    """A luma plane, `height` x `width`, for sender `number` (0..255) and a frame counter (taken modulo 256)."""
    bits = [number >> (7 - i) & 1 for i in range(8)] + [counter >> (7 - i) & 1 for i in range(8)]
    plane = np.full((height, width), 128, np.uint8)
    for index, bit in enumerate(bits):
        plane[: height // 2, index * width // CELLS : (index + 1) * width // CELLS] = 235 if bit else 16
    bar = counter * 4 % width
    plane[height // 2 :, bar : bar + width // 16] = 235
    return plane


def read(plane: npt.NDArray[np.uint8]) -> tuple[int, int] | None:
    """(number, counter) of a luma plane; None if it is not such a picture."""
    height, width = plane.shape
    values: list[float] = []
    for index in range(CELLS):
        left, right = index * width // CELLS, (index + 1) * width // CELLS
        margin = (right - left) // 4
        values.append(float(plane[height // 8 : 3 * height // 8, left + margin : right - margin].mean()))
    if any(80 < value < 170 for value in values):
        return None
    return _number(value > 128 for value in values[:8]), _number(value > 128 for value in values[8:])


def read_frame(frame: VideoFrame) -> tuple[int, int] | None:
    """As `read`, of a decoded frame."""
    return read(frame.to_ndarray(format="gray").astype(np.uint8))


def frequency_of(samples: npt.NDArray[np.float64], sample_rate: int = SAMPLE_RATE) -> float:
    """The strongest frequency in Hz of at least 20 ms of sound; 0.0 for silence."""
    if samples.size == 0 or float(np.abs(samples).max()) < 1e-3:
        return 0.0
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(samples.size)))
    return float(np.argmax(spectrum) * sample_rate / samples.size)


def _number(bits: Iterable[bool]) -> int:
    value = 0
    for bit in bits:
        value = value * 2 + int(bit)
    return value


class PatternTrack(MediaStreamTrack):
    """Video of a sender's pattern.

    Attributes:
        sent_at: `time.monotonic()` of the newest frame by counter, for measuring delay.
    """

    kind = "video"

    def __init__(self, number: int, width: int = 640, height: int = 360, fps: int = 30) -> None:
        super().__init__()
        self.number = number
        self.sent_at: dict[int, float] = {}
        self._size = (width, height)
        self._fps = fps
        self._count = 0
        self.began = 0.0  # set by the first frame

    async def recv(self) -> VideoFrame:
        """The next frame, when it is due."""
        await _sleep_until(self, self._count / self._fps)
        width, height = self._size
        chroma = np.full((height // 2, width), 128, np.uint8)
        planes = np.vstack([draw(self.number, self._count, width, height), chroma])
        frame = VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts = int(self._count * 90_000 / self._fps)
        frame.time_base = fractions.Fraction(1, 90_000)
        self.sent_at[self._count % 256] = time.monotonic()
        self._count += 1
        return frame


class ToneTrack(MediaStreamTrack):
    """A sine of one frequency at half of full scale, mono, 48 kHz."""

    kind = "audio"

    def __init__(self, frequency_hz: float) -> None:
        super().__init__()
        self.frequency_hz = frequency_hz
        self._count = 0
        self.began = 0.0  # set by the first frame

    async def recv(self) -> AudioFrame:
        """The next 20 ms, when they are due."""
        await _sleep_until(self, self._count * SAMPLES_PER_FRAME / SAMPLE_RATE)
        first = self._count * SAMPLES_PER_FRAME
        phase = 2 * math.pi * self.frequency_hz * np.arange(first, first + SAMPLES_PER_FRAME) / SAMPLE_RATE
        samples = (np.sin(phase) * 16_384).astype(np.int16)
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = first
        frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
        self._count += 1
        return frame


async def _sleep_until(track: PatternTrack | ToneTrack, at_s: float) -> None:
    """Sleeps until a time on the track's own clock, from its first frame on. Raises MediaStreamError if it ended."""
    if track.readyState != "live":
        raise MediaStreamError
    now = time.monotonic()
    if not track.began:
        track.began = now
    # Also when it is late: whoever reads as fast as it can must not keep everybody else from running.
    await asyncio.sleep(max(0.0, track.began + at_s - now))
