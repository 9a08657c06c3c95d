"""Files of several recorders as one."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from mrtc_rtcrecorder.media.join import Segment, fit, join
from mrtc_rtcrecorder.mix.encoder import SAMPLES_PER_BLOCK, EncoderConfig, MixedFile

FPS = 25


def make(path: Path, seconds: float, luma: int) -> Path:
    """A mixed file of one shade of grey."""
    file = MixedFile(path, EncoderConfig(64, 64, FPS, "ultrafast"))
    plane = np.full((96, 64), 128, np.uint8)
    plane[:64] = luma
    for index in range(round(seconds * FPS)):
        file.write_picture(index, av.VideoFrame.from_ndarray(plane, format="yuv420p"))
    for block in range(round(seconds * 48_000 / SAMPLES_PER_BLOCK)):
        file.write_sound(block * SAMPLES_PER_BLOCK, np.full((2, SAMPLES_PER_BLOCK), 0.1, np.float32))
    file.close()
    return path


def shades(path: Path) -> list[tuple[float, bool]]:
    """(time, whether it is bright) of every picture."""
    with av.open(str(path)) as file:
        return [(frame.time or 0.0, bool(frame.to_ndarray()[:64].mean() > 128)) for frame in file.decode(video=0)]


def sound_gap_s(path: Path) -> float:
    """The longest time without sound."""
    with av.open(str(path)) as file:
        times = [frame.time or 0.0 for frame in file.decode(audio=0)]
    return max(b - a for a, b in itertools.pairwise(times)) - SAMPLES_PER_BLOCK / 48_000


def test_what_two_have_is_taken_from_the_later_one(tmp_path: Path) -> None:
    """It begins with a key frame, so that nothing is missing; the next key frame would be two seconds later."""
    first, second = make(tmp_path / "0.mp4", 3.0, 40), make(tmp_path / "1.mp4", 2.0, 200)
    assert fit(first, second)
    duration_us = join([Segment(first, 0), Segment(second, 2_000_000)])
    seen = shades(first)
    assert max(b - a for (a, _), (b, _) in itertools.pairwise(seen)) < 1.5 / FPS
    assert [bright for _, bright in seen] == [False] * (2 * FPS) + [True] * (2 * FPS)
    assert sound_gap_s(first) < 0.05
    assert duration_us == pytest.approx(4_000_000, abs=50_000)


def test_a_gap_stays_a_gap(tmp_path: Path) -> None:
    """What nobody recorded is not hidden: everything stays at its time."""
    first, second = make(tmp_path / "0.mp4", 1.0, 40), make(tmp_path / "1.mp4", 1.0, 200)
    join([Segment(first, 0), Segment(second, 1_500_000)])
    begins = next(at for at, bright in shades(first) if bright)
    assert begins == pytest.approx(1.5, abs=0.01)
    assert sound_gap_s(first) == pytest.approx(0.5, abs=0.06)


def test_to_join_again_changes_nothing(tmp_path: Path) -> None:
    """A recorder may die between the joining and its record."""
    first, second = make(tmp_path / "0.mp4", 2.0, 40), make(tmp_path / "1.mp4", 2.0, 200)
    join([Segment(first, 0), Segment(second, 1_500_000)])
    once = shades(first)
    join([Segment(first, 0), Segment(second, 1_500_000)])
    assert shades(first) == once
