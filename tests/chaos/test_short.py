"""The short form of `make chaos`: the same scenarios, once, on one node less and with fewer people."""

from __future__ import annotations

import uuid

import pytest

from tests.chaos.call import Call, call_of
from tests.chaos.census import descriptors, leaked_descriptors
from tests.chaos.figures import Figures, percentile
from tests.chaos.people import FPS
from tests.chaos.recording import missing_pictures_s, missing_sound_s, record_while, recorder_of
from tests.support.suite import RunningSuite

pytestmark = pytest.mark.chaos

# The machine of the tests is busy with their own decoding: what is asked of a free one is in docs/performance.md.
MAX_MOVE_GAP_MS = 1_000
MAX_KILL_GAP_MS = 10_000
MAX_RECORDING_LOSS_MS = 1_000


async def test_moves_and_deaths_cost_no_message_and_leave_nothing(victims: RunningSuite) -> None:
    """One moves, a node drains, one dies, a signaling instance dies, a node freezes: everybody sees everybody again."""
    figures, before = Figures(), descriptors(victims)
    async with call_of(victims, f"room-{uuid.uuid4().hex[:8]}", 3) as call:
        figures.moves += await call.move(call.identities[0])
        figures.drains += await call.drain()
        figures.media_kills += await call.kill_media_node()
        figures.signaling_kills += await call.kill("signaling-1")
        figures.freezes += await call.freeze_media_node(7.0)
        await _nothing_is_lost(call)
    print(figures.line())
    assert not await leaked_descriptors(victims, before)
    assert percentile(figures.moves + figures.drains, 100) < MAX_MOVE_GAP_MS
    assert percentile(figures.media_kills, 100) < MAX_KILL_GAP_MS
    assert percentile(figures.signaling_kills, 100) < MAX_MOVE_GAP_MS


@pytest.mark.parametrize("mode", ["single", "mixed"])
async def test_a_killed_recorder_costs_a_recording_less_than_a_second(victims: RunningSuite, mode: str) -> None:
    """kill -9 in the middle: another one goes on, and the joined files lack a second at most, of picture and sound."""
    async with call_of(victims, f"room-{uuid.uuid4().hex[:8]}", 2) as call:

        async def kill(recording: str) -> None:
            await call.kill(await recorder_of(call, recording))

        lost_ms = await record_while(call, kill, mode)
        await _nothing_is_lost(call)
    print(f"the {mode} recording lacks {lost_ms:.0f} ms")
    assert lost_ms <= MAX_RECORDING_LOSS_MS


async def _nothing_is_lost(call: Call) -> None:
    assert await call.messages() == (0, 0)
    assert await call.sent() > 0
    assert not any((await call.leftovers()).values())


def test_what_a_recording_lacks_is_counted() -> None:
    """Pictures by counter where time shows a gap, over the wrap of the counter; sound by time; no misread counter."""
    whole = [(n / FPS, (n + 200) % 256) for n in range(600)]
    assert missing_pictures_s(whole) == 0.0
    assert missing_pictures_s(whole[:100] + whole[115:]) == pytest.approx(15 / FPS)
    assert missing_pictures_s(whole[:40] + whole[440:]) == pytest.approx(400 / FPS)
    assert missing_pictures_s([*whole[:50], (50 / FPS, 3), *whole[51:]]) == 0.0
    for misread in (99, 115, 116):
        again = [(at, (counter + 32) % 256 if n == misread else counter) for n, (at, counter) in enumerate(whole)]
        assert missing_pictures_s(again[:100] + again[115:]) == pytest.approx(15 / FPS)
    late = [(at + (0.5 if n >= 100 else 0.0), counter) for n, (at, counter) in enumerate(whole)]
    assert missing_pictures_s(late) == 0.0, "nothing was captured in that time"
    sound = [n * 0.02 for n in range(500)]
    assert missing_sound_s(sound) == 0.0
    assert missing_sound_s(sound[:100] + sound[120:]) == pytest.approx(0.4)
