"""A recording of a call while what it lives on dies, and how much of the call its files lack."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.call import Call
from tests.chaos.people import FPS
from tests.support.probe_file import decode
from tests.support.store import store_of

# Shorter gaps are the publishers' own: a test machine that is busy leaves pictures out before they are sent.
_SHORTEST_GAP_S = 0.1
_COUNTERS = 256
_TONE_S = 0.02
_BEFORE_S, _AFTER_S = 2.0, 2.0
_GROWS_TIMEOUT_S = 40.0


async def record_while(call: Call, trouble: Callable[[str], Awaitable[None]], mode: str = "single") -> float:
    """Records a call while trouble comes to it; returns the milliseconds that the worst of its files lacks.

    Args:
        trouble: given the recording's id; brings it about and returns when the call is whole again.
        mode: of the one file of a mixed recording only gaps in its own time count: a mix shows what it has.

    Raises:
        AssertionError: a publication is not recorded any more, or its files were not joined.
    """
    recording = await asyncio.to_thread(call.api.start_recording, mode)
    await asyncio.to_thread(call.api.wait_for_recording, recording, "active")
    count = 2 * len(call.identities) if mode == "single" else 1  # sound and picture of each
    await _grows(call, recording, count, _BEFORE_S, since_s=0.0)
    await trouble(recording)
    record = await asyncio.to_thread(call.api.recording, recording)
    await _grows(call, recording, count, _AFTER_S, since_s=time.time() - record["started_at_ms"] / 1000)
    done = await asyncio.to_thread(call.api.stop_recording, recording)
    files = Counter(file["publication_id"] for file in done["files"])
    assert len(files) == count, f"{count} publications, recorded {len(files)}: {done['files']}"
    assert set(files.values()) == {1}, f"not joined: {done['files']}"
    with tempfile.TemporaryDirectory(prefix="mrtc-recording-") as folder:
        lost_ms = _lost_ms if mode == "single" else _lost_of_mix_ms
        return max([await asyncio.to_thread(lost_ms, call, file, Path(folder)) for file in done["files"]])


async def recorder_of(call: Call, recording: str) -> str:
    """The name of the process that does a recording."""
    async with store_of(call.suite) as store:
        node_id = (await store.recording(call.room, recording)).node_id
    return await asyncio.to_thread(call.suite.process_of_node, node_id)


async def _grows(call: Call, recording: str, count: int, seconds: float, *, since_s: float) -> None:
    """Waits until every publication is recorded up to so many seconds after a moment of the recording."""
    deadline = time.monotonic() + _GROWS_TIMEOUT_S
    while True:
        ends: dict[str, float] = {}
        files: list[dict[str, Any]] = (await asyncio.to_thread(call.api.recording, recording))["files"]
        for file in files:
            end = (file["offset_ms"] + file["duration_ms"]) / 1000
            ends[file["publication_id"]] = max(ends.get(file["publication_id"], 0.0), end)
        if len(ends) == count and min(ends.values()) >= since_s + seconds:
            return
        assert time.monotonic() < deadline, f"not recorded up to {since_s + seconds:.1f} s: {files}"
        await asyncio.sleep(0.2)


def _lost_ms(call: Call, file: dict[str, Any], folder: Path) -> float:
    contents = decode(call.api.download(file, folder))
    if contents.pictures:
        return 1000 * missing_pictures_s([(at, counter) for at, _, counter in contents.patterns()])
    return 1000 * missing_sound_s([at for at, _ in contents.tones])


def _lost_of_mix_ms(call: Call, file: dict[str, Any], folder: Path) -> float:
    contents = decode(call.api.download(file, folder))
    assert contents.pictures, "a mix without pictures"
    times = [at for at, _ in contents.pictures]
    frame_s = (times[-1] - times[0]) / (len(times) - 1)
    return 1000 * max(missing_sound_s([at for at, _ in contents.tones]), missing_sound_s(times, frame_s))


def missing_pictures_s(pictures: Sequence[tuple[float, int]]) -> float:
    """Seconds of pictures that a file lacks by its (time, frame counter); counters begin anew after 256.

    Times say where a gap is and counters how much was captured in it. A counter misread from a small picture is no gap.
    """
    missing = 0.0
    for (at, counter), (next_at, next_counter) in itertools.pairwise(pictures):
        if next_at - at - 1 / FPS < _SHORTEST_GAP_S:
            continue
        step = (next_counter - counter) % _COUNTERS
        step += _COUNTERS * round(((next_at - at) * FPS - step) / _COUNTERS)
        missing += max(0, step - 1) / FPS
    return missing


def missing_sound_s(times: Sequence[float], frame_s: float = _TONE_S) -> float:
    """Seconds of sound that a file lacks by the times of its frames."""
    gaps = (after - before - frame_s for before, after in itertools.pairwise(times))
    return sum(gap for gap in gaps if gap >= _SHORTEST_GAP_S)
