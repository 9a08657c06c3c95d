"""What a media file really holds: decoded pictures and sound."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from mrtc_sdk.pattern import frequency_of, read


@dataclass
class Contents:
    """Decoded contents of a file.

    Attributes:
        pictures: (time in seconds, luma plane).
        tones: (time in seconds, frequency in Hz) of every 20 ms or more of sound.
    """

    pictures: list[tuple[float, Any]] = field(default_factory=list)
    tones: list[tuple[float, float]] = field(default_factory=list)
    width: int = 0
    height: int = 0

    def patterns(self) -> list[tuple[float, int, int]]:
        """(time, number, counter) of the pictures that are a pattern as a whole."""
        read_ones = [(at, read(plane)) for at, plane in self.pictures]
        return [(at, *seen) for at, seen in read_ones if seen is not None]

    def has_tone(self, frequency_hz: float) -> bool:
        """True if a tone is the strongest in a tenth of the sound."""
        near = sum(abs(tone - frequency_hz) < 60 for _, tone in self.tones)
        return near * 10 >= len(self.tones) > 0


def decode(path: Path) -> Contents:
    """Decodes everything that can be decoded; a file cut off at its end is read up to there."""
    contents = Contents()
    with av.open(str(path)) as container:
        try:
            for frame in container.decode():
                _take(contents, frame)
        except av.error.FFmpegError:
            pass
    return contents


def _take(contents: Contents, frame: Any) -> None:
    if isinstance(frame, av.VideoFrame):
        contents.width, contents.height = frame.width, frame.height
        contents.pictures.append((frame.time or 0.0, frame.to_ndarray(format="gray")))
    elif isinstance(frame, av.AudioFrame):
        samples = frame.to_ndarray().astype(np.float64)
        mono = samples[0] if frame.format.is_planar else samples.reshape(-1)[:: len(frame.layout.channels)]
        scale = 32_768 if frame.format.name.startswith("s16") else 1.0
        contents.tones.append((frame.time or 0.0, frequency_of(mono / scale, frame.sample_rate)))


def streams(path: Path) -> dict[str, str]:
    """Codec by kind, as ffprobe tells."""
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {stream["codec_type"]: stream["codec_name"] for stream in json.loads(out)["streams"]}
