"""Sound on the common timeline."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc_rtcrecorder.mix.sound import MAX_BUFFERED_SAMPLES, Limiter, SoundBuffer, SoundMixer


def constant(value: float, count: int = 960) -> npt.NDArray[np.float32]:
    return np.full((2, count), value, np.float32)


def test_samples_are_read_where_they_were_put() -> None:
    """With silence before and after."""
    buffer = SoundBuffer()
    buffer.push(1000, constant(0.5, 100))
    read = buffer.read(900, 300)
    assert read is not None
    assert np.flatnonzero(read[0]).tolist() == list(range(100, 200))


def test_what_is_all_silence_costs_nothing() -> None:
    """A muted track is not summed."""
    assert SoundBuffer().read(0, 1024) is None


@pytest.mark.parametrize("jitter", [-700, -1, 0, 1, 700])
def test_packets_that_nearly_join_do_join(jitter: int) -> None:
    """Jitter and drift of some milliseconds make no click."""
    buffer = SoundBuffer()
    buffer.push(0, constant(0.5))
    buffer.push(960 + jitter, constant(0.5))
    read = buffer.read(0, 1920)
    assert read is not None
    assert (read[0] == 0.5).all()


def test_a_real_gap_stays_a_gap() -> None:
    """Lost packets are silence of the right length: what follows stays in sync."""
    buffer = SoundBuffer()
    buffer.push(0, constant(0.5))
    buffer.push(4800, constant(0.5))
    read = buffer.read(0, 5760)
    assert read is not None
    assert not read[0][960:4800].any()
    assert read[0][4800:].all()


def test_sound_that_goes_back_is_cut() -> None:
    """Samples are never heard twice at once."""
    buffer = SoundBuffer()
    buffer.push(0, constant(0.5, 9600))
    buffer.push(4800, constant(0.9, 9600))
    read = buffer.read(0, 14400)
    assert read is not None
    assert (read[0][:9600] == 0.5).all()
    assert (read[0][9600:] == np.float32(0.9)).all()


def test_sound_that_comes_too_late_is_dropped() -> None:
    """The timeline does not wait."""
    buffer = SoundBuffer()
    buffer.read(0, 4800)
    buffer.push(0, constant(0.5, 4800))
    assert buffer.buffered_samples == 0


def test_a_track_cannot_fill_the_memory() -> None:
    """A sender far ahead of time."""
    buffer = SoundBuffer()
    for index in range(2_000):
        buffer.push(index * 960, constant(0.1))
    assert buffer.buffered_samples <= MAX_BUFFERED_SAMPLES + 960


def test_tracks_are_summed() -> None:
    """Everybody is heard."""
    mixer = SoundMixer()
    for track in range(3):
        mixer.push(track, 0, constant(0.2))
    assert mixer.read(0, 960)[0] == pytest.approx(np.full(960, 0.6), abs=1e-6)


def test_a_loud_sum_is_turned_down_not_cut() -> None:
    """Three who shout: below full scale, and the wave keeps its form after the attack."""
    limiter = Limiter()
    wave = 2.0 * np.sin(np.arange(960) / 10, dtype=np.float32)[None, :].repeat(2, axis=0)
    limiter.apply(wave)
    second = limiter.apply(wave)
    assert np.abs(second).max() <= 0.981
    assert np.corrcoef(second[0], wave[0])[0, 1] > 0.9999


def test_the_limiter_lets_go_slowly() -> None:
    """No pumping: full gain is back after about a second, not at once."""
    limiter = Limiter()
    limiter.apply(constant(4.0))
    gains = [float(limiter.apply(constant(0.1))[0, -1]) / 0.1 for _ in range(60)]
    assert gains[0] < 0.3
    assert gains[-1] == pytest.approx(1.0)
    assert all(b - a < 0.03 for a, b in itertools.pairwise(gains))


@given(st.lists(st.tuples(st.integers(-2000, 20_000), st.integers(0, 2000)), max_size=30))
def test_any_order_of_packets_reads_as_one_wave(packets: list[tuple[int, int]]) -> None:
    """No packet, however placed, is summed onto another of its track."""
    buffer = SoundBuffer()
    for position, count in packets:
        buffer.push(position, constant(0.25, count))
    read = buffer.read(0, 40_000)
    assert read is None or float(np.abs(read).max()) <= 0.25
