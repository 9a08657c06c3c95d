"""Media files whose pictures and sound identify them, made at test time."""

from __future__ import annotations

import fractions
import math
from pathlib import Path

import av
import numpy as np
from mrtc_sdk.pattern import SAMPLE_RATE, draw

WIDTH, HEIGHT, FPS = 640, 360, 30


def make_pattern_file(
    path: Path, number: int, tone_hz: float, seconds: float, *, video: str = "libx264", audio: str = "aac"
) -> Path:
    """Writes a file of a sender's pattern and tone.

    Args:
        path: the suffix chooses the container.
        number: shown by the pattern.
        tone_hz: heard.
        seconds: length.
        video: FFmpeg encoder; H.264 is written without B-frames.
        audio: FFmpeg encoder.
    """
    with av.open(str(path), "w") as container:
        options = (
            {"bf": "0", "g": "30", "preset": "ultrafast"} if video == "libx264" else {"g": "30", "deadline": "realtime"}
        )
        picture = container.add_stream(video, rate=FPS, options=options)
        picture.width, picture.height, picture.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream(audio, rate=SAMPLE_RATE, layout="stereo")
        chroma = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
        samples_per_frame = SAMPLE_RATE // FPS
        for index in range(round(seconds * FPS)):
            plane = np.vstack([draw(number, index, WIDTH, HEIGHT), chroma])
            frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
            frame.pts, frame.time_base = index, fractions.Fraction(1, FPS)
            container.mux(picture.encode(frame))
            container.mux(sound.encode(_tone(tone_hz, index * samples_per_frame, samples_per_frame)))
        container.mux(picture.encode(None))
        container.mux(sound.encode(None))
    return path


def _tone(frequency_hz: float, first: int, count: int) -> av.AudioFrame:
    phase = 2 * math.pi * frequency_hz * np.arange(first, first + count) / SAMPLE_RATE
    samples = np.repeat((np.sin(phase) * 0.5).astype(np.float32)[None, :], 2, axis=0)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts = SAMPLE_RATE, first
    frame.time_base = fractions.Fraction(1, SAMPLE_RATE)
    return frame
