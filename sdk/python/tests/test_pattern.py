"""Patterns and tones are read back as they were drawn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc_sdk import pattern


@given(st.integers(0, 255), st.integers(0, 255), st.sampled_from([(640, 360), (320, 180), (160, 90), (1280, 720)]))
def test_a_drawn_picture_is_read_back(number: int, counter: int, size: tuple[int, int]) -> None:
    """Number and counter survive in every size that simulcast makes."""
    assert pattern.read(pattern.draw(number, counter, *size)) == (number, counter)


def test_a_grey_picture_is_not_a_pattern() -> None:
    """What is not a pattern is not taken for one."""
    assert pattern.read(np.full((90, 160), 128, np.uint8)) is None


@pytest.mark.parametrize("frequency", [300.0, 440.0, 1000.0])
async def test_a_tone_has_its_frequency(frequency: float) -> None:
    """The tone track's spectrum peaks where it should."""
    track = pattern.ToneTrack(frequency)
    frames = [await track.recv() for _ in range(5)]
    samples = np.concatenate([frame.to_ndarray().reshape(-1) for frame in frames]) / 32_768
    assert pattern.frequency_of(samples) == pytest.approx(frequency, abs=10)


def test_silence_has_no_frequency() -> None:
    """Silence reads as 0 Hz."""
    assert pattern.frequency_of(np.zeros(960)) == 0.0
