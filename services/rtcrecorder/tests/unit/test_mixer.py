"""The mixing process's own loop: its time is that of what it is told."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from mrtc_rtcrecorder.core.frames import Kind
from mrtc_rtcrecorder.mix import wire
from mrtc_rtcrecorder.mix.__main__ import Message, Mixer
from mrtc_rtcrecorder.mix.wire import MessageKind

EPOCH_US = 1_700_000_000_000_000
SECONDS = 2.0


@pytest.fixture
def media(make_frames: Any) -> list[tuple[int, Any]]:
    """Frames of two tracks in the order of their capture."""
    frames = [(0, f) for f in make_frames("h264", SECONDS)] + [(1, f) for f in make_frames("opus", SECONDS)]
    return sorted(frames, key=lambda item: item[1].captured_at_us)


def said(media: Sequence[tuple[int, Any]]) -> list[Message]:
    """What a recorder says of a room: both tracks from the beginning, each frame 50 ms after its capture."""
    told: list[Message] = []

    def tell(message: bytes, at_us: int) -> None:
        _, kind, _ = wire.parse_header(message[: wire.HEADER_BYTES])
        told.append((kind, at_us, message[wire.HEADER_BYTES :]))

    tell(wire.add_track(0, Kind.VIDEO), EPOCH_US)
    tell(wire.add_track(1, Kind.AUDIO), EPOCH_US)
    for track, frame in media:
        tell(wire.encode_frame(track, frame), frame.captured_at_us + 50_000)
    return told


def mix(path: Path, told: Sequence[Message], *, behind_us: int = 0) -> None:
    """Mixes what was said; it is so much later now than when the first word was said."""
    messages: queue.Queue[Message | None] = queue.Queue()
    for message in told:
        messages.put(message)
    messages.put(None)
    offset_us = EPOCH_US + behind_us - time.monotonic_ns() // 1000
    config = wire.MixConfig(str(path), 320, 180, 25, 400_000, "ultrafast", 30, EPOCH_US, offset_us)
    Mixer(config, messages).run()


def contents(path: Path) -> tuple[list[float], Any]:
    """(times of the pictures, samples)."""
    times, sound = [], []
    with av.open(str(path)) as file:
        for frame in file.decode():
            if isinstance(frame, av.VideoFrame):
                times.append(frame.time or 0.0)
            elif isinstance(frame, av.AudioFrame):
                sound.append(frame.to_ndarray()[0])
    return times, np.concatenate(sound)


def test_a_late_start_costs_no_sound_and_no_gap(tmp_path: Path, media: Any) -> None:
    """Three seconds, as on a busy machine: all the sound as if it had been there at once, and pictures that move."""
    told = said(media)
    mix(tmp_path / "prompt.mp4", told)
    mix(tmp_path / "late.mp4", told, behind_us=3_000_000)
    prompt, late = contents(tmp_path / "prompt.mp4"), contents(tmp_path / "late.mp4")
    assert len(prompt[0]) == pytest.approx(SECONDS * 25, abs=2)
    assert len(late[0]) >= SECONDS * 25 / 3
    assert max(b - a for a, b in itertools.pairwise([0.0, *late[0]])) < 0.15
    assert np.array_equal(prompt[1], late[1])


def test_a_recorder_that_dies_loses_nothing_of_what_it_said(tmp_path: Path, media: Any) -> None:
    """The file ends with the last word; nothing is made up that another recorder has."""
    mix(tmp_path / "f.mp4", said([item for item in media if item[1].captured_at_us < EPOCH_US + 1_000_000]))
    times, sound = contents(tmp_path / "f.mp4")
    assert times[-1] == pytest.approx(1.0, abs=0.1)
    assert len(sound) / 48_000 == pytest.approx(1.0, abs=0.1)


def test_time_goes_on_in_a_silent_room(tmp_path: Path) -> None:
    """Black and silent, as long as the recorder says that it is so."""
    mix(tmp_path / "f.mp4", [(MessageKind.TIME, EPOCH_US + tenth * 100_000, b"") for tenth in range(16)])
    times, sound = contents(tmp_path / "f.mp4")
    assert times[-1] == pytest.approx(1.5, abs=0.1)
    assert not sound.any()
