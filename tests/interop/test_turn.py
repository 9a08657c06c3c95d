"""aiortc whose media may go by TURN only."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from aiortc import RTCIceServer
from mrtc_sdk.pattern import PatternTrack

from tests.support.media import Watcher, joined, remote_track
from tests.support.suite import RunningSuite
from tests.support.turn import TurnServer, running_turn_server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TurnServer]:
    """One for all tests here."""
    with running_turn_server(tmp_path_factory.mktemp("turn")) as server:
        yield server


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_call_by_turn_alone(transport: str, turn: TurnServer, suite: RunningSuite) -> None:
    """Both ways; the other participant goes directly."""
    server = turn.secret(transport).server("someone", int(time.time()))
    ice = RTCIceServer(list(server.urls), server.username, server.credential)
    room = f"room-{uuid.uuid4().hex[:8]}"
    before = turn.allocations()
    async with (
        joined(suite.url, suite.token(room, "relayed"), room, ice_servers=(ice,), is_relay_only=True) as relayed,
        joined(suite.url, suite.token(room, "direct"), room) as direct,
    ):
        await relayed.publish(PatternTrack(17))
        await direct.publish(PatternTrack(202))
        for me, other, number in ((direct, "relayed", 17), (relayed, "direct", 202)):
            picture = Watcher((await remote_track(me, "video", other)).media)
            await picture.sees(number)
            await picture.aclose()
    assert turn.allocations() > before
