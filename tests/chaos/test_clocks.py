"""The wall clocks of processes are set by an hour, forth and back, while a call runs and is recorded."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.call import Call, call_of
from tests.chaos.recording import record_while
from tests.support.suite import RunningSuite, running_suite
from tests.support.wall_clock import WallClock

pytestmark = [pytest.mark.chaos, pytest.mark.long]

NAMES = ("master", "rtcmcu-1", "rtcmcu-2", "rtcrecorder", "signaling-1")
# By how many hours the clocks of `NAMES` are off, one step after the other.
STEPS = ((1, 1, 0, 1, -1), (-1, 0, 1, -1, 1), (0, -1, -1, 0, 0), (0, 0, 0, 0, 0))
# More than a heartbeat and some rounds of what happens once a second.
FELT_S = 3.0
MAX_GAP_MS = 2_000
MAX_RECORDING_LOSS_MS = 1_000


@pytest.fixture
def clocks(tmp_path: Path) -> dict[str, WallClock]:
    """A wall clock for each process."""
    return {name: WallClock(tmp_path, name) for name in NAMES}


@pytest.fixture
def timed(tmp_path: Path, clocks: dict[str, WallClock]) -> Iterator[RunningSuite]:
    """A suite whose processes have clocks of their own."""
    env_of = {name: clock.env for name, clock in clocks.items()}
    with running_suite(tmp_path / "suite", mcus=2, mcu_workers=1, env_of=env_of) as running:
        yield running


@pytest.mark.timeout(300)
async def test_a_call_and_its_recording_bear_clocks_that_are_set(
    timed: RunningSuite, clocks: dict[str, WallClock]
) -> None:
    """Nobody leaves, no media stops, no node is taken for dead, and the files have no hole of an hour."""
    async with call_of(timed, f"room-{uuid.uuid4().hex[:8]}", 2) as call:
        before = await _placed(call)
        gaps: list[float] = []

        async def set_clocks(_recording: str) -> None:
            await call.mark()
            for hours in STEPS:
                for name, off in zip(NAMES, hours, strict=True):
                    clocks[name].set(off * 3600)
                await asyncio.sleep(FELT_S)  # the time itself is what is tested
            gaps.extend(await call.gaps_ms())
            await call.is_whole()

        lost_ms = await record_while(call, set_clocks)
        print(f"longest gap {max(gaps):.0f} ms, the recording lacks {lost_ms:.0f} ms")
        assert max(gaps) < MAX_GAP_MS
        assert lost_ms <= MAX_RECORDING_LOSS_MS
        assert await _placed(call) == before
        assert await call.time_to_join() < 20_000
        assert await call.messages() == (0, 0)
        assert not any((await call.leftovers()).values())


async def _placed(call: Call) -> tuple[dict[str, str], dict[str, str]]:
    """Everybody's node and session."""
    return await call.nodes(), {identity: one.session_id for identity, one in (await call.reports()).items()}
