"""Sound of a mixed recording: places each track's samples on the common timeline and sums them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RATE = 48_000
CHANNELS = 2

Samples = npt.NDArray[np.float32]  # shape (2, n), full scale is 1.0

# Sound that comes within this of where the last piece ended is taken to go on there: no click for clock drift or
# jitter. Half of the 40 ms that picture and sound may be apart.
_JOIN_SAMPLES = RATE * 20 // 1000
# Bound of what one track may hold: the timeline is up to 0.4 s behind the newest sound, a burst may add some seconds.
MAX_BUFFERED_SAMPLES = RATE * 10


class SoundBuffer:
    """Samples of one track by position on the timeline, in samples since its start. Gaps read as silence."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, Samples]] = []
        self._end: int | None = None
        self._read_to = 0

    @property
    def buffered_samples(self) -> int:
        """Samples that wait to be read."""
        return sum(piece.shape[1] for _, piece in self._pieces)

    def push(self, position: int, samples: Samples) -> None:
        """Adds samples that belong at a position; those that come too late to be read are dropped."""
        if self._end is not None and abs(position - self._end) <= _JOIN_SAMPLES:
            position = self._end
        elif self._end is not None and position < self._end:
            cut = min(self._end - position, samples.shape[1])
            position, samples = position + cut, samples[:, cut:]
        late = max(0, min(self._read_to - position, samples.shape[1]))
        position, samples = position + late, samples[:, late:]
        self._end = position + samples.shape[1]
        if samples.shape[1] and self.buffered_samples < MAX_BUFFERED_SAMPLES:
            self._pieces.append((position, samples))

    def read(self, position: int, count: int) -> Samples | None:
        """Takes what lies in [position, position + count) away; None if that is all silence."""
        end = position + count
        self._read_to = end
        result: Samples | None = None
        kept: list[tuple[int, Samples]] = []
        for start, piece in self._pieces:
            stop = start + piece.shape[1]
            left, right = max(start, position), min(stop, end)
            if left < right:
                if result is None:
                    result = np.zeros((CHANNELS, count), np.float32)
                result[:, left - position : right - position] = piece[:, left - start : right - start]
            if stop > end:
                kept.append((start, piece) if start >= end else (end, piece[:, end - start :]))
        self._pieces = kept
        return result


class Limiter:
    """Keeps a sum below full scale: turns down at once, up again slowly, without a step in between."""

    _CEILING = 0.98
    _RELEASE_PER_BLOCK = 0.02

    def __init__(self) -> None:
        self._gain = 1.0

    def apply(self, block: Samples) -> Samples:
        """The block, turned down as far as needed."""
        peak = float(np.abs(block).max(initial=0.0))
        needed = min(1.0, self._CEILING / peak) if peak > 0 else 1.0
        target = min(needed, self._gain + self._RELEASE_PER_BLOCK)
        if target >= 1.0 and self._gain >= 1.0:
            return block
        # The ramp ends where the block's peak fits; what stands above it before the ramp is through is clipped.
        ramp = np.full(block.shape[1], target, np.float32)
        steps = min(96, block.shape[1])
        ramp[:steps] = np.linspace(self._gain, target, steps, dtype=np.float32)
        self._gain = target
        limited: Samples = np.clip(block * ramp, -self._CEILING, self._CEILING)
        return limited


class SoundMixer:
    """Sums all tracks."""

    def __init__(self) -> None:
        self._buffers: dict[int, SoundBuffer] = {}
        self._limiter = Limiter()

    def push(self, track: int, position: int, samples: Samples) -> None:
        """Adds samples of a track."""
        self._buffers.setdefault(track, SoundBuffer()).push(position, samples)

    def remove(self, track: int) -> None:
        """Forgets a track."""
        self._buffers.pop(track, None)

    def read(self, position: int, count: int) -> Samples:
        """The sum of [position, position + count); positions only go forward."""
        total = np.zeros((CHANNELS, count), np.float32)
        for buffer in self._buffers.values():
            samples = buffer.read(position, count)
            if samples is not None:
                total += samples
        return self._limiter.apply(total)
