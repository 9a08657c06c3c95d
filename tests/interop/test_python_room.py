"""aiortc participants in one room, through the real suite."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest
from mrtc_sdk import Room, RoomOptions
from mrtc_sdk.pattern import PatternTrack, ToneTrack

from tests.support.api import RoomApi
from tests.support.media import Watcher, joined, remote_track, wait_until
from tests.support.suite import RunningSuite

pytestmark = pytest.mark.integration


def new_room() -> str:
    """A name nobody used."""
    return f"room-{uuid.uuid4().hex[:8]}"


async def test_two_participants_see_and_hear_each_other(suite: RunningSuite) -> None:
    """Each decodes the other's picture and tone, on whichever nodes they sit."""
    room = new_room()
    async with (
        joined(suite.url, suite.token(room, "alice"), room) as alice,
        joined(suite.signaling_url(2), suite.token(room, "bob"), room) as bob,
    ):
        await alice.publish(PatternTrack(17))
        await alice.publish(ToneTrack(500.0))
        await bob.publish(PatternTrack(202))
        await bob.publish(ToneTrack(1000.0))
        for me, other, number, tone in ((alice, "bob", 202, 1000.0), (bob, "alice", 17, 500.0)):
            picture = Watcher((await remote_track(me, "video", other)).media)
            sound = Watcher((await remote_track(me, "audio", other)).media)
            await asyncio.gather(picture.sees(number), sound.hears(tone))
            await asyncio.gather(picture.aclose(), sound.aclose())


async def test_mute_stops_the_media_and_is_told(suite: RunningSuite) -> None:
    """A muted track is not forwarded, whatever its client sends; unmuting brings it back."""
    room = new_room()
    async with (
        joined(suite.url, suite.token(room, "alice"), room) as alice,
        joined(suite.url, suite.token(room, "bob"), room) as bob,
    ):
        publication = await alice.publish(PatternTrack(5))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(5)
        track_id = publication.tracks[0].id
        await alice.mute(track_id, True)
        await wait_until(lambda: bob.publications[publication.id].tracks[0].is_muted, what="the mute notice")
        await wait_until(lambda: watcher.longest_gap_s(watcher.pictures[-1][2]) > 0.7, what="the picture to stop")
        await alice.mute(track_id, False)
        await watcher.sees(5)
        await watcher.aclose()


async def test_messages_reach_everybody_in_order_and_once(suite: RunningSuite) -> None:
    """Messages to the room reach all but the sender in one order; private ones their addressee only."""
    room = new_room()
    async with (
        joined(suite.url, suite.token(room, "alice"), room) as alice,
        joined(suite.signaling_url(2), suite.token(room, "bob"), room) as bob,
        joined(suite.url, suite.token(room, "carol"), room) as carol,
    ):
        await wait_until(lambda: len(alice.participants) == 3, what="all three")
        for number in range(10):
            await alice.send_message(str(number).encode(), topic="count")
        await alice.send_message(b"psst", to=("carol",))
        await alice.send_message(b"end")
        assert await messages_until(bob, b"end") == [*(str(n).encode() for n in range(10)), b"end"]
        assert await messages_until(carol, b"end") == [*(str(n).encode() for n in range(10)), b"psst", b"end"]


async def test_a_cut_connection_resumes_on_another_instance_without_loss(suite: RunningSuite) -> None:
    """WebSockets of both are cut while messages flow: nobody leaves, nothing is lost or doubled, media goes on."""
    room = new_room()
    async with (
        joined(suite.url, suite.token(room, "alice"), room) as alice,
        joined(suite.signaling_url(2), suite.token(room, "bob"), room) as bob,
    ):
        await alice.publish(PatternTrack(99))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(99)
        cut_at = time.monotonic()
        sending = asyncio.create_task(_send_numbers(alice, 40))
        for _ in range(3):
            await asyncio.gather(alice.drop_connection(), bob.drop_connection())
            await asyncio.sleep(0.3)
        await sending
        received = await messages_until(bob, b"39")
        assert received == [str(n).encode() for n in range(40)]
        assert {p.identity for p in bob.participants.values()} == {"alice", "bob"}
        await watcher.sees(99)
        assert watcher.longest_gap_s(cut_at) < 1.0
        await watcher.aclose()


async def _send_numbers(room: Room, count: int) -> None:
    for number in range(count):
        await room.send_message(str(number).encode())
        await asyncio.sleep(0.03)


async def test_a_vp8_and_an_h264_receiver_both_see_the_publisher(suite: RunningSuite) -> None:
    """A2: a receiver of the other codec is served, or told clearly that it cannot be."""
    room = new_room()
    async with (
        joined(suite.url, suite.token(room, "alice"), room, video_codecs=("vp8",)) as alice,
        joined(suite.url, suite.token(room, "bob"), room, video_codecs=("vp8",)) as bob,
        joined(suite.url, suite.token(room, "carol"), room, video_codecs=("h264",)) as carol,
    ):
        await alice.publish(PatternTrack(64))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(64)
        failed = await event(carol, "subscription_failed")
        assert "h264" in failed.error.message.lower() or "codec" in failed.error.message.lower()
        await watcher.aclose()


async def test_the_same_identity_replaces_its_older_session(suite: RunningSuite) -> None:
    """C5: an identity is held once; the newer session wins and the older is told why."""
    room = new_room()
    first = await Room.connect(suite.url, suite.token(room, "alice"), room, RoomOptions())
    async with joined(suite.signaling_url(2), suite.token(room, "alice"), room):
        reason = await event(first, "disconnected")
        assert "DUPLICATE_IDENTITY" in reason
    await first.aclose()


async def messages_until(room: Room, last: bytes, timeout_s: float = 15.0) -> list[bytes]:
    """Payloads of the messages that come, up to and with the last one."""
    payloads: list[bytes] = []
    async with asyncio.timeout(timeout_s):
        while not payloads or payloads[-1] != last:
            payloads.append((await event(room, "message", timeout_s)).payload)
    return payloads


async def event(room: Room, name: str, timeout_s: float = 15.0) -> object:
    """The next event of a name; others are passed over."""
    async with asyncio.timeout(timeout_s):
        while True:
            seen, value = await room.next_event()
            if seen == name:
                return value


async def test_leaving_in_the_middle_of_a_move_closes_both_transports(suite: RunningSuite) -> None:
    """The former one lingers for seconds after a move; nothing of it stays when its participant leaves meanwhile."""
    room = new_room()
    api = RoomApi(suite, room)
    async with joined(suite.url, suite.token(room, "alice"), room) as alice:
        await alice.publish(ToneTrack(500.0))
        former = alice.transport
        await wait_until(lambda: former.pc.connectionState == "connected", what="the transport")
        await asyncio.to_thread(api.call, "POST", "participants/alice/move", json={"node": ""})
        await wait_until(lambda: alice.transport is not former, 20, "the move")
        present = alice.transport
        await alice.leave()
        assert (former.pc.connectionState, present.pc.connectionState) == ("closed", "closed")
