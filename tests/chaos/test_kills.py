"""kill -9 of each kind of process while a call runs."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest
from mrtc_sdk.pattern import PatternTrack

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
