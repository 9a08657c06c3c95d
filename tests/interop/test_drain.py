"""A media node ends under a WHIP publisher and a WHEP player.

A browser follows the other node's call and its session goes on; pion does not follow, and begins anew there.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mrtc_sdk import Room
from mrtc_sdk.room import RemoteTrack

from tests.interop.test_foreign_stacks import elementary, new_room, pion, running
from tests.support.api import RoomApi
from tests.support.media import Watcher, joined, wait_until
from tests.support.pattern_file import make_pattern_file
from tests.support.suite import RunningSuite, running_suite
from tests.support.whip_page import whip_pages

__all__ = ["pion"]
pytestmark = [pytest.mark.integration, pytest.mark.alone]

# What is asked of the whole: a new POST, ICE, DTLS, a key frame, and for the player the same after the publisher.
MAX_GAP_S = 5.0
# Publisher and player go over at once, on two cores with all else; what it is by itself is in docs/performance.md.
MAX_DEATH_GAP_S = 3.0
MAX_CARRIED_GAP_S = 1.0


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite whose media nodes may end; drains last as long as they must."""
    services = ("master", "rtcmcu", "signaling")
    with running_suite(tmp_path_factory.mktemp("drain"), mcu_workers=1, drain_timeout_s=60.0, services=services) as it:
        yield it


async def picture_of(room: Room, identity: str, but: str = "") -> RemoteTrack:
    """The picture of a participant that is not this track."""

    def find() -> RemoteTrack | None:
        for track in room.tracks.values():
            owner = room.participants.get(track.publication.participant_id)
            if track.media.kind == "video" and track.id != but and owner is not None and owner.identity == identity:
                return track
        return None

    found: RemoteTrack = await wait_until(find, 20, f"a picture of {identity}")
    return found


async def player_in(room: Room, but: str = "") -> str:
    """The id of a WHEP player in the room that is not this one."""
    found: str = await wait_until(
        lambda: next((p.id for p in room.participants.values() if p.identity.startswith("tv~") and p.id != but), ""),
        20,
        "a player",
    )
    return found


async def test_pion_begins_anew_when_its_node_drains(ending: RunningSuite, pion: list[str], tmp_path: Path) -> None:
    """DTLS tells both at once; the node ends long before its deadline, and nobody waits for a timeout of ICE."""
    video, audio = elementary(make_pattern_file(tmp_path / "in.webm", 41, 600.0, 4, video="libvpx", audio="libopus"))
    room, out = new_room(), (tmp_path / "out.ivf", tmp_path / "out.ogg")
    api = await asyncio.to_thread(RoomApi, ending, room)
    cam, tv = ending.token(room, "cam"), ending.token(room, "tv")
    async with joined(ending.url, ending.token(room, "alice"), room) as alice:
        async with running(pion, "publish", f"{ending.url}/whip/{room}", cam, video, audio) as published:
            former = await picture_of(alice, "cam")
            first = Watcher(former.media)
            await first.sees(41)
            async with running(pion, "play", f"{ending.url}/whep/{room}/cam", tv, *out) as played:
                player = await player_in(alice)
                await first.sees(41, frames=30)
                listed = (await asyncio.to_thread(api.call, "GET", "participants"))["participants"]
                node = next(one["node_id"] for one in listed if one["identity"] == "cam")
                name = await asyncio.to_thread(ending.process_of_node, node)
                stopping = asyncio.create_task(asyncio.to_thread(ending.stop, name))
                second = Watcher((await picture_of(alice, "cam", former.id)).media)
                await player_in(alice, player)
                await second.sees(41, frames=60)
                assert await stopping, f"{name} ended by itself"
        # The new picture may come in the slot of the former.
        seen = sorted(at for watcher in (first, second) for _, _, at in watcher.pictures)
        gap_s = max(after - before for before, after in itertools.pairwise(seen))
        await asyncio.gather(first.aclose(), second.aclose())
    await asyncio.to_thread(ending.restart, name)
    print(f"publisher, as others see it: {gap_s * 1000:.0f} ms; player: {played['longest_gap_ms']} ms")
    assert (published["reconnects"], published["deleted"]) == (1, 200)
    assert (played["reconnects"], played["deleted"]) == (1, 200)
    assert gap_s < MAX_GAP_S
    assert played["longest_gap_ms"] < 1000 * MAX_GAP_S


def _who_sends(participants: list[dict[str, Any]]) -> dict[str, Any]:
    """What nobody may see change, by identity: participants and their publications."""
    return {one["identity"]: (one["id"], one["publications"]) for one in participants}


@pytest.mark.browser
async def test_a_browser_goes_on_when_its_node_drains(ending: RunningSuite) -> None:
    """Publisher and player follow to the other node in their sessions; there an ICE restart by PATCH works as ever."""
    room = new_room()
    api = await asyncio.to_thread(RoomApi, ending, room)

    async def people() -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await asyncio.to_thread(api.call, "GET", "participants"))["participants"]
        return listed

    async with whip_pages(ending.url, 2) as (cam, tv):
        await cam.begin(f"{ending.url}/whip/{room}", ending.token(room, "cam"))
        etag = await tv.begin(f"{ending.url}/whep/{room}/cam", ending.token(room, "tv"))
        await tv.sees(60)
        before = await people()
        (node,) = {one["node_id"] for one in before}
        name = await asyncio.to_thread(ending.process_of_node, node)
        first = len(await tv.seen()) - 10
        assert await asyncio.to_thread(ending.stop, name), f"{name} ended by itself"
        await tv.sees(60)
        after = await people()
        seen = (await tv.seen())[first:]
        assert (await cam.state(), await tv.state()) == ("connected", "connected")
        assert _who_sends(after) == _who_sends(before)
        assert node not in {one["node_id"] for one in after}
        assert await tv.restart() != etag
        await tv.sees(60)
        assert (await tv.end(), await cam.end()) == (200, 200)
    await asyncio.to_thread(ending.restart, name)
    gap_s = max(later - earlier for earlier, later in itertools.pairwise(seen))
    carried = sum(ending.metric("signaling-1", "mrtc_signaling_carries_total", result="followed"))
    print(f"player and publisher carried over at once: {gap_s * 1000:.0f} ms")
    assert carried == 2
    assert gap_s < MAX_CARRIED_GAP_S


@pytest.mark.browser
async def test_a_browser_goes_on_when_its_node_is_killed(ending: RunningSuite) -> None:
    """Another node goes on from the last checkpoint and calls both; the page notices nothing but a short gap."""
    room = new_room()
    api = await asyncio.to_thread(RoomApi, ending, room)

    async def people() -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = (await asyncio.to_thread(api.call, "GET", "participants"))["participants"]
        return listed

    async with whip_pages(ending.url, 2) as (cam, tv):
        await cam.begin(f"{ending.url}/whip/{room}", ending.token(room, "cam"))
        await tv.begin(f"{ending.url}/whep/{room}/cam", ending.token(room, "tv"))
        await tv.sees(60)
        await wait_until(
            lambda: sum(ending.metric("signaling-1", "mrtc_signaling_checkpoints_count")) == 2, 20, "two checkpoints"
        )
        before = await people()
        (node,) = {one["node_id"] for one in before}
        name = await asyncio.to_thread(ending.process_of_node, node)
        first = len(await tv.seen()) - 10
        await asyncio.to_thread(ending.kill, name)
        await tv.sees(60)
        after = await people()
        seen = (await tv.seen())[first:]
        assert (await cam.state(), await tv.state()) == ("connected", "connected")
        assert _who_sends(after) == _who_sends(before)
        assert node not in {one["node_id"] for one in after}
        assert (await tv.end(), await cam.end()) == (200, 200)
    await asyncio.to_thread(ending.restart, name)
    gap_s = max(later - earlier for earlier, later in itertools.pairwise(seen))
    print(f"player and publisher went on from checkpoints: {gap_s * 1000:.0f} ms")
    assert sum(ending.metric("signaling-1", "mrtc_signaling_carries_total", result="revived")) == 2
    assert gap_s < MAX_DEATH_GAP_S
