"""A recording of a call while what it lives on dies, and how much of the call its files lack."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import av
from mrtc_rtcrecorder.core.grid import fit, grid
from mrtc_sdk.pattern import frequency_of, read

from tests.chaos.call import Call
from tests.chaos.people import FPS, SIZE
from tests.support.probe_file import decode
from tests.support.store import store_of

# Shorter gaps are the publishers' own: a test machine that is busy leaves pictures out before they are sent.
_SHORTEST_GAP_S = 0.1
_COUNTERS = 256
# Pictures on each side of a gap that are asked for the counter.
_NEIGHBOURS = 9
_TONE_S = 0.02
_AAC_FRAME_S = 1024 / 48_000
# The mean of a picture's lower half, which is grey: a black cell would read as that of number 0.
_BLACK = 60
_BEFORE_S, _AFTER_S = 2.0, 2.0


async def record_while(call: Call, trouble: Callable[[str], Awaitable[None]], mode: str = "single") -> float:
    """Records a call while trouble comes to it; returns the milliseconds that the worst of its files lacks.

    Who comes while it lasts does not count.

    Args:
        trouble: given the recording's id; brings it about and returns when the call is whole again.
        mode: "single" or "mixed".

    Raises:
        AssertionError: a publication is not recorded any more, or its files were not joined.
    """
    recording = await asyncio.to_thread(call.api.start_recording, mode)
    await asyncio.to_thread(call.api.wait_for_recording, recording, "active")
    count = 2 * len(call.identities) if mode == "single" else 1  # sound and picture of each
    await asyncio.to_thread(call.api.wait_until_recorded, recording, count, _BEFORE_S)
    await trouble(recording)
    record = await asyncio.to_thread(call.api.recording, recording)
    until_s = time.time() - record["started_at_ms"] / 1000 + _AFTER_S
    await asyncio.to_thread(call.api.wait_until_recorded, recording, count, until_s)
    done = await asyncio.to_thread(call.api.stop_recording, recording)
    files = [file for file in done["files"] if mode == "mixed" or file["participant_identity"] in call.identities]
    pieces = Counter(file["publication_id"] for file in files)
    assert len(pieces) == count, f"{count} publications, recorded {len(pieces)}: {files}"
    assert set(pieces.values()) == {1}, f"not joined: {files}"
    with tempfile.TemporaryDirectory(prefix="mrtc-recording-") as folder:
        lost_ms = _lost_ms if mode == "single" else _lost_of_mix_ms
        return max([await asyncio.to_thread(lost_ms, call, file, Path(folder)) for file in files])


async def recorder_of(call: Call, recording: str) -> str:
    """The name of the process that does a recording."""
    async with store_of(call.suite) as store:
        node_id = (await store.recording(call.room, recording)).node_id
    return await asyncio.to_thread(call.suite.process_of_node, node_id)


def _lost_ms(call: Call, file: dict[str, Any], folder: Path) -> float:
    contents = decode(call.api.download(file, folder))
    if contents.pictures:
        return 1000 * missing_pictures_s([(at, counter) for at, _, counter in contents.patterns()])
    return 1000 * missing_sound_s([at for at, _ in contents.tones])


def _lost_of_mix_ms(call: Call, file: dict[str, Any], folder: Path) -> float:
    """What the mix lacks of anybody's picture, by what is seen in their place in it, and of the sound of all."""
    path = call.api.download(file, folder)
    seen, heard = _seen_in_mix(path, len(call.identities)), _heard(path)
    assert len(seen) == len(call.identities), f"{len(call.identities)} people, seen {len(seen)}"
    of_pictures = {number: round(missing_pictures_s(pictures), 2) for number, pictures in seen.items()}
    of_sound = missing_sound_s(heard, _AAC_FRAME_S)
    rate = {number: round(len(pictures) / (pictures[-1][0] - pictures[0][0])) for number, pictures in seen.items()}
    print(
        f"of the mix lacks: seconds of pictures {of_pictures}, of sound {of_sound:.2f}; new pictures/s {rate}",
        file=sys.stderr,
    )
    return 1000 * max(*of_pictures.values(), of_sound)


def _seen_in_mix(path: Path, count: int) -> dict[int, list[tuple[float, int]]]:
    """By person the (time, frame counter) of the new pictures in their part of a mixed recording."""
    seen: dict[int, list[tuple[float, int]]] = {}
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            plane = frame.to_ndarray(format="gray")
            for cell in grid(count, frame.width, frame.height):
                area = fit(cell, *SIZE)
                part = plane[area.y : area.y + area.height, area.x : area.x + area.width]
                found = read(part) if part[area.height // 2 :].mean() > _BLACK else None
                if found is not None:
                    pictures = seen.setdefault(found[0], [])
                    if not pictures or pictures[-1][1] != found[1]:
                        pictures.append((frame.time or 0.0, found[1]))
    # A number that was misread from a picture that is just changing is nobody.
    return {number: pictures for number, pictures in seen.items() if number < count}


def _heard(path: Path) -> list[float]:
    """The times at which anything is heard."""
    with av.open(str(path)) as container:
        frames = ((frame.time or 0.0, frame.to_ndarray()[0]) for frame in container.decode(audio=0))
        return [at for at, samples in frames if frequency_of(samples.astype(float))]


def missing_pictures_s(pictures: Sequence[tuple[float, int]]) -> float:
    """Seconds of pictures that a file lacks by its (time, frame counter); counters begin anew after 256.

    Times say where a gap is and counters how much was captured in it. A counter misread from a small picture, as the
    first one behind a gap often is, is no gap.
    """
    missing = 0.0
    for index, ((at, _), (next_at, _)) in enumerate(itertools.pairwise(pictures), 1):
        if next_at - at - 1 / FPS < _SHORTEST_GAP_S:
            continue
        counter = _counter_at(at, pictures[max(0, index - _NEIGHBOURS) : index])
        next_counter = _counter_at(next_at, pictures[index : index + _NEIGHBOURS])
        step = (next_counter - counter) % _COUNTERS
        step += _COUNTERS * round(((next_at - at) * FPS - step) / _COUNTERS)
        missing += max(0, step - 1) / FPS
    return missing


def _counter_at(at: float, pictures: Sequence[tuple[float, int]]) -> int:
    """What most of these pictures say that the counter was at a time."""
    said = [(counter + round((at - then) * FPS)) % _COUNTERS for then, counter in pictures]
    return max(
        said, key=lambda one: sum(min((one - other) % _COUNTERS, (other - one) % _COUNTERS) <= 1 for other in said)
    )


def missing_sound_s(times: Sequence[float], frame_s: float = _TONE_S) -> float:
    """Seconds of sound that a file lacks by the times of its frames."""
    gaps = (after - before - frame_s for before, after in itertools.pairwise(times))
    return sum(gap for gap in gaps if gap >= _SHORTEST_GAP_S)
