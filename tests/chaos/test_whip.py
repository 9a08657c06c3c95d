"""The signaling instance of a WHIP publisher is killed: another one takes the session over, and nobody notices."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest
from aiortc import RTCPeerConnection
from mrtc_sdk.pattern import PatternTrack

from tests.interop.test_whip_whep import offer
from tests.support.media import Watcher, joined, remote_track, wait_until
from tests.support.suite import RunningSuite, running_suite

pytestmark = pytest.mark.chaos

GRACE_S = 4.0
# The machine of the tests is busy; what would cut the media off lasts.
MAX_GAP_S = 1.0


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """Two signaling instances, whose sessions end soon when nobody keeps them."""
    env, services = {"MRTC_SESSION_GRACE_S": str(GRACE_S)}, ("master", "rtcmcu", "signaling")
    data = tmp_path_factory.mktemp("whip")
    with running_suite(data, mcus=1, signalings=2, mcu_workers=1, env=env, services=services) as it:
        yield it


async def test_a_whip_session_outlives_its_signaling_instance(brief: RunningSuite) -> None:
    """Thrice the grace time later the picture still moves, and DELETE ends the session at the other instance."""
    room, publisher = f"room-{uuid.uuid4().hex[:8]}", RTCPeerConnection()
    publisher.addTrack(PatternTrack(51))
    async with joined(brief.signaling_url(1), brief.token(room, "alice"), room) as alice:
        async with httpx.AsyncClient(base_url=brief.signaling_url(2), timeout=15) as second:
            resource = await offer(second, publisher, f"/whip/{room}", brief.token(room, "cam"))
        watcher = Watcher((await remote_track(alice, "video", "cam")).media)
        await watcher.sees(51)
        killed_at = time.monotonic()
        await asyncio.to_thread(brief.kill, "signaling-2")
        await asyncio.sleep(3 * GRACE_S)
        await watcher.sees(51)
        assert watcher.longest_gap_s(killed_at) < MAX_GAP_S
        assert {one.identity for one in alice.participants.values()} == {"alice", "cam"}
        headers = {"authorization": f"Bearer {brief.token(room, 'cam')}"}
        async with httpx.AsyncClient(base_url=brief.signaling_url(1), timeout=15) as first:
            assert (await first.delete(httpx.URL(resource).path, headers=headers)).status_code == 200
        await wait_until(lambda: len(alice.participants) == 1, 10, "the publisher to leave")
        await watcher.aclose()
    await publisher.close()
