"""A room over four media nodes that send each track to one other each: a chain, out of which nodes die and leave."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any

import pytest
from mrtc.common.v1 import common_pb2
from mrtc_embedded.dump import DEMO_APP, dump_room, read_access
from mrtc_sdk import Room
from mrtc_sdk.errors import RequestFailed
from mrtc_sdk.pattern import PatternTrack

from tests.interop.test_python_room import new_room
from tests.support.api import RoomApi
from tests.support.media import Watcher, joined, remote_track
from tests.support.suite import RunningSuite, running_suite

pytestmark = pytest.mark.chaos

NUMBER = 31
MAX_DEATH_GAP_S = 3.0
MAX_MOVE_GAP_S = 1.0  # the aim is 0.5 s on an idle machine; the tests share two cores with all that decodes here
NEXT = "to_node_ids"


@pytest.fixture(scope="module")
def row(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """Nodes for one participant each, and one to spare."""
    options = {
        "mcus": 5,
        "mcu_workers": 1,
        "env": {"MRTC_RTCMCU_RELAY_MAX_EDGES": "1", "MRTC_RTCMCU_MAX_TRANSPORTS": "1"},
        "services": ("master", "rtcmcu", "signaling"),
        "drain_timeout_s": 60.0,
    }
    with running_suite(tmp_path_factory.mktemp("row"), **options) as it:
        yield it


class Call:
    """One publishes a picture, the others see it."""

    def __init__(self, suite: RunningSuite, room: str, viewers: dict[str, Room]) -> None:
        self.suite, self.room, self.viewers = suite, room, viewers
        self.watchers: dict[str, Watcher] = {}

    async def watch(self, *identities: str) -> None:
        """Waits until these see the picture."""
        for identity in identities:
            if former := self.watchers.pop(identity, None):
                await former.aclose()
            self.watchers[identity] = Watcher((await remote_track(self.viewers[identity], "video", "alice", 20)).media)
        await asyncio.gather(*(self.watchers[identity].sees(NUMBER, timeout_s=20) for identity in identities))

    async def edges(self) -> dict[str, dict[str, Any]]:
        """By node: where the track comes from there and where it goes to."""
        dumped = await dump_room(read_access(self.suite.data_dir), DEMO_APP, self.room)
        found = {node["id"]: track for node in dumped["nodes"] for track in node.get("dump", {}).get("tracks", [])}
        # One that was killed is sent to until its heartbeat expires.
        return {node: track | {NEXT: [to for to in track[NEXT] if to in found]} for node, track in found.items()}

    async def middle(self) -> tuple[str, str, list[str]]:
        """The origin, who passes the track on, and the viewers who have it through that node and are not on it."""
        edges = await self.edges()
        origin = next(node for node, edge in edges.items() if edge["origin"] == "transport")
        middle = next(node for node in edges[origin][NEXT] if edges[node][NEXT])
        at = await self.nodes()
        behind, reached = [], list(edges[middle][NEXT])
        while reached:
            node = reached.pop()
            behind += [identity for identity in self.viewers if at[identity] == node]
            reached += edges[node][NEXT]
        return origin, middle, behind

    async def nodes(self) -> dict[str, str]:
        """The node of each participant."""
        api = await asyncio.to_thread(RoomApi, self.suite, self.room)
        people = (await asyncio.to_thread(api.call, "GET", "participants"))["participants"]
        return {one["identity"]: one["node_id"] for one in people}

    async def sent_per_packet(self, node_id: str, seconds: float) -> float:
        """Datagrams to other nodes for each packet that came from the publisher, in this time."""
        name = await asyncio.to_thread(self.suite.process_of_node, node_id)

        def read() -> tuple[float, float]:
            sent = self.suite.metric(name, "mrtc_rtcmcu_engine_tx_relay_datagrams_total")
            came = self.suite.metric(name, "mrtc_rtcmcu_engine_rx_rtp_packets_total")
            return sum(sent), sum(came)

        before = await asyncio.to_thread(read)
        await asyncio.sleep(seconds)
        after = await asyncio.to_thread(read)
        return (after[0] - before[0]) / (after[1] - before[1])


@contextlib.asynccontextmanager
async def call_on(suite: RunningSuite) -> Any:
    """Alice publishes, three see her, each of them on a node of its own."""
    room = new_room()
    async with contextlib.AsyncExitStack() as stack:

        async def join(name: str) -> Room:
            while True:
                try:
                    return await stack.enter_async_context(joined(suite.url, suite.token(room, name), room))
                except RequestFailed as error:
                    # The heartbeats of nodes that are full now are still to come.
                    if error.code != common_pb2.ERROR_CODE_NO_CAPACITY:
                        raise
                    await asyncio.sleep((error.retry_after_ms or 500) / 1000)

        alice = await join("alice")
        viewers = {name: await join(name) for name in ("bob", "carol", "dave")}
        call = Call(suite, room, viewers)
        await alice.publish(PatternTrack(NUMBER))
        await call.watch(*viewers)
        yield call
        await asyncio.gather(*(watcher.aclose() for watcher in call.watchers.values()))


async def test_a_chain_of_nodes_mends_itself(row: RunningSuite) -> None:
    """Each node sends to one other; those behind a node that is killed, or drains, see little of it."""
    async with call_on(row) as call:
        assert len(set((await call.nodes()).values())) == 4
        assert [len(edge[NEXT]) for edge in (await call.edges()).values()].count(1) == 3
        origin, middle, behind = await call.middle()
        # One for each packet, and what nodes tell each other.
        assert await call.sent_per_packet(origin, 3) < 1.5

        name = await asyncio.to_thread(row.process_of_node, middle)
        began = time.monotonic()
        await asyncio.to_thread(row.kill, name)
        await asyncio.gather(*(call.watchers[identity].sees(NUMBER, 30) for identity in behind))
        dead = {identity: round(call.watchers[identity].longest_gap_s(began) * 1000) for identity in behind}
        assert len(behind) == 2
        await call.watch(*(call.viewers.keys() - set(behind)))

        await asyncio.to_thread(row.restart, name)
        origin, middle, behind = await call.middle()
        name = await asyncio.to_thread(row.process_of_node, middle)
        began = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(row.stop, name))
        await asyncio.gather(*(call.watchers[identity].sees(NUMBER, 60) for identity in behind))
        assert await stopping, f"{name} ended by itself"
        left = {identity: round(call.watchers[identity].longest_gap_s(began) * 1000) for identity in behind}
        assert behind
        await call.watch(*call.viewers)
    print(f"longest gaps in ms behind a node that was killed: {dead}, behind one that drained: {left}")
    assert max(dead.values()) < 1000 * MAX_DEATH_GAP_S
    assert max(left.values()) < 1000 * MAX_MOVE_GAP_S
