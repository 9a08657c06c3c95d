"""Capture times, smoothed."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st
from mrtc_rtcrecorder.core.media_clock import MediaClock

EPOCH_US = 1_700_000_000_000_000
STEP = 960  # 20 ms at 48 kHz


def mapped(captures: list[int], clock_rate: int = 48_000, step: int = STEP) -> list[int]:
    clock = MediaClock(clock_rate)
    return [clock.map(1_000 + index * step, captured) for index, captured in enumerate(captures)]


def test_exact_capture_times_pass_through() -> None:
    """A sender whose clocks agree is not touched."""
    captures = [EPOCH_US + index * 20_000 for index in range(500)]
    assert max(abs(a - b) for a, b in zip(mapped(captures), captures, strict=True)) <= 20


def test_arrival_jitter_is_smoothed() -> None:
    """Before the first sender report capture times are arrival times; 20 ms apart stays nearly that."""
    captures = [EPOCH_US + index * 20_000 + (index * 7_919 % 15_000) for index in range(500)]
    result = mapped(captures)
    steps = [b - a for a, b in itertools.pairwise(result[50:])]
    assert max(abs(step - 20_000) for step in steps) < 1_500


def test_a_small_correction_is_followed_smoothly() -> None:
    """The first sender report moves the timeline by 80 ms: reached within seconds, without a step over 1 ms."""
    captures = [EPOCH_US + index * 20_000 - (80_000 if index >= 50 else 0) for index in range(500)]
    result = mapped(captures)
    steps = [b - a for a, b in itertools.pairwise(result)]
    assert max(abs(step - 20_000) for step in steps) <= 1_001
    assert abs(result[-1] - captures[-1]) < 2_000


def test_a_large_correction_is_followed_at_once() -> None:
    """A restarted sender or an hour of mute is no jitter."""
    captures = [EPOCH_US + index * 20_000 + (3_600_000_000 if index >= 50 else 0) for index in range(60)]
    assert mapped(captures)[50] == captures[50]


def test_drift_does_not_add_up() -> None:
    """Two hours at 100 ppm end within the 40 ms that sound and picture may be apart."""
    captures = [EPOCH_US + index * 20_002 for index in range(360_000)]
    assert abs(mapped(captures)[-1] - captures[-1]) < 5_000


@given(st.lists(st.tuples(st.integers(0, 100_000), st.integers(-(10**9), 10**9)), min_size=1, max_size=50))
def test_times_grow_whatever_comes(steps: list[tuple[int, int]]) -> None:
    """Broken RTP and capture times never make time stand or go back."""
    clock, rtp, result = MediaClock(90_000), 0, []
    for rtp_step, jump in steps:
        rtp += rtp_step
        result.append(clock.map(rtp, EPOCH_US + jump))
    assert all(a < b for a, b in itertools.pairwise(result))
