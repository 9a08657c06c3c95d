"""kill -9 of each kind of process while a call runs."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest
from mrtc_sdk import Room
from mrtc_sdk.pattern import PatternTrack

from tests.support.api import RoomApi
from tests.support.media import Watcher, joined, remote_track
from tests.support.suite import RunningSuite

pytestmark = pytest.mark.chaos


def new_room() -> str:
    """A name nobody used."""
    return f"room-{uuid.uuid4().hex[:8]}"


async def test_a_killed_signaling_instance_costs_no_media_and_no_message(victims: RunningSuite) -> None:
    """Media goes on untouched; when the instance is back the session resumes and messages come once."""
    room = new_room()
    async with (
        joined(victims.signaling_url(2), victims.token(room, "alice"), room) as alice,
        joined(victims.url, victims.token(room, "bob"), room) as bob,
    ):
        await alice.publish(PatternTrack(41))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(41)
        killed_at = time.monotonic()
        await asyncio.to_thread(victims.kill, "signaling-2")
        sent = [await bob.send_message(f"m{n}".encode()) for n in range(5)]
        await asyncio.to_thread(victims.restart, "signaling-2")
        received: list[bytes] = []
        async with asyncio.timeout(30):
            while len(received) < len(sent):
                name, value = await alice.next_event()
                if name == "message":
                    received.append(value.payload)
        assert received == [b"m0", b"m1", b"m2", b"m3", b"m4"]
        await watcher.sees(41)
        assert watcher.longest_gap_s(killed_at) < 0.5
        assert {p.identity for p in bob.participants.values()} == {"alice", "bob"}
        await watcher.aclose()


async def test_a_killed_master_costs_nothing_to_those_in_a_call(victims: RunningSuite) -> None:
    """Media goes on, and joins work again when the master is back."""
    room = new_room()
    async with (
        joined(victims.url, victims.token(room, "alice"), room) as alice,
        joined(victims.url, victims.token(room, "bob"), room) as bob,
    ):
        await alice.publish(PatternTrack(42))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(42)
        killed_at = time.monotonic()
        await asyncio.to_thread(victims.kill, "master")
        await watcher.sees(42, frames=20)
        await asyncio.to_thread(victims.restart, "master")
        assert watcher.longest_gap_s(killed_at) < 0.5
        async with joined(victims.url, victims.token(room, "carol"), room) as carol:
            third = Watcher((await remote_track(carol, "video", "alice")).media)
            await third.sees(42)
            await third.aclose()
        await watcher.aclose()


async def test_a_killed_rtcmcu_is_replaced_and_the_call_comes_back(victims: RunningSuite) -> None:
    """Its sessions are told, make new transports on the other node, and see each other again."""
    room = new_room()
    async with (
        joined(victims.url, victims.token(room, "alice"), room) as alice,
        joined(victims.url, victims.token(room, "bob"), room) as bob,
    ):
        await alice.publish(PatternTrack(44))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(44)
        api = await asyncio.to_thread(RoomApi, victims, room)
        people = (await asyncio.to_thread(api.call, "GET", "participants"))["participants"]
        node_id = next(person["node_id"] for person in people if person["identity"] == "alice")
        victim = await asyncio.to_thread(victims.process_of_node, node_id)
        await asyncio.to_thread(victims.kill, victim)
        on_victim = {person["identity"] for person in people if person["node_id"] == node_id}
        hit = [person for person in (alice, bob) if person.local.identity in on_victim]
        await asyncio.gather(*(_event(participant, "media_restored") for participant in hit))
        restored = Watcher((await remote_track(bob, "video", "alice", 20)).media)
        await restored.sees(44, timeout_s=30)
        await restored.aclose()
        await asyncio.to_thread(victims.restart, victim)
        await watcher.aclose()


async def _event(room: Room, name: str) -> None:
    async with asyncio.timeout(40):
        while (await room.next_event())[0] != name:
            pass
