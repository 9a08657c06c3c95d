"""A node that is too full, beside one that is empty."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from mrtc_sdk.pattern import PatternTrack

from tests.interop.test_python_room import new_room
from tests.support.api import RoomApi
from tests.support.media import Viewer, joined
from tests.support.suite import RunningSuite, running_suite
from tests.support.waiting import wait_for

pytestmark = pytest.mark.chaos

NUMBER = 33
NODES = ("rtcmcu-1", "rtcmcu-2")
MAX_GAP_S = 1.0  # the aim is 0.5 s on an idle machine; the tests share two cores with all that decodes here


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[RunningSuite]:
    """Two nodes for four participants each."""
    options = {
        "mcus": 2,
        "mcu_workers": 1,
        "env": {"MRTC_RTCMCU_MAX_TRANSPORTS": "4", "MRTC_RTCMCU_RELIEF_AFTER_S": "1"},
        "services": ("master", "rtcmcu", "signaling"),
    }
    with running_suite(tmp_path, **options) as it:
        yield it


@contextlib.asynccontextmanager
async def viewer(suite: RunningSuite, room: str, name: str) -> AsyncIterator[Viewer]:
    """Somebody who is in the room and looks on."""
    async with joined(suite.url, suite.token(room, name), room) as one:
        viewer = Viewer(one, NUMBER)
        yield viewer
        await viewer.aclose()


async def test_some_move_from_a_node_that_is_too_full_and_see_nothing_of_it(pair: RunningSuite) -> None:
    """The room fills one node, since it is kept together while that fits; then one of four goes to the other."""
    room = new_room()
    async with contextlib.AsyncExitStack() as stack:
        alice = await stack.enter_async_context(joined(pair.url, pair.token(room, "alice"), room))
        viewers = [await stack.enter_async_context(viewer(pair, room, name)) for name in ("bob", "carol", "dave")]
        await alice.publish(PatternTrack(NUMBER))
        await asyncio.gather(*(one.sees() for one in viewers))
        began = time.monotonic()
        await asyncio.to_thread(wait_for, lambda: transports(pair) == [1, 3], 40, "one of four to move")
        await asyncio.gather(*(one.sees() for one in viewers))
        gaps = [round(1000 * one.longest_gap_s(began)) for one in viewers]
        people = (await asyncio.to_thread(RoomApi(pair, room).call, "GET", "participants"))["participants"]
        assert sorted(Counter(one["node_id"] for one in people).values()) == [1, 3]
    assert sum(sum(pair.metric(name, "mrtc_rtcmcu_relief_asked_total")) for name in NODES) == 1
    print(f"longest gaps in ms while one moved: {gaps}")
    assert max(gaps) < 1000 * MAX_GAP_S


def transports(suite: RunningSuite) -> list[float]:
    """How many are on each node, the fewest first."""
    return sorted(sum(suite.metric(name, "mrtc_rtcmcu_transports_count")) for name in NODES)
