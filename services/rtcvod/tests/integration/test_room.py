"""A vod's place in its room, as NATS has it."""

from __future__ import annotations

import asyncio

import pytest
from mrtc.vod.v1 import vod_pb2
from mrtc_common import subjects, tables
from mrtc_common.clock import SystemClock
from mrtc_common.nats import NatsLink
from mrtc_common.tasks import end_tasks
from mrtc_rtcvod.adapters.room_nats import NatsVodRoom
from mrtc_rtcvod.core.records import PlayedTracks, VodIds

pytestmark = pytest.mark.integration

ROOM_KEY = subjects.room_key("app", "room")


class Place:
    """One vod in the room, and what it is told."""

    def __init__(self, link: NatsLink, vod_id: str) -> None:
        self.vod = vod_pb2.Vod(id=vod_id, app_id="app", room="room", identity="film")
        self.ids = VodIds.of(vod_id)
        self.room = NatsVodRoom(
            link,
            room_key=ROOM_KEY,
            identity=self.vod.identity,
            ids=self.ids,
            node_id="node",
            clock=SystemClock(),
            session_interval_s=5.0,
        )

    async def watched(self) -> str:
        """What its watch says first: "removed" or "published"."""
        told: asyncio.Queue[str] = asyncio.Queue()
        watching = asyncio.create_task(
            self.room.watch(
                lambda: told.put_nowait("removed"), lambda _: told.put_nowait("published"), lambda _codecs: None
            )
        )
        try:
            async with asyncio.timeout(10):
                return await told.get()
        finally:
            await end_tasks(watching)


async def test_who_is_there_is_not_removed(nats_link: NatsLink) -> None:
    """The first that is told is its publication."""
    place = Place(nats_link, "vod_a")
    await place.room.join(place.vod)
    await place.room.publish(place.vod, PlayedTracks("vp8", 64, 48, "opus"))
    assert await place.watched() == "published"


async def test_a_removal_before_anybody_watches_counts(nats_link: NatsLink) -> None:
    """A participant that was removed right after its join would play on for ever, seen by nobody."""
    place = Place(nats_link, "vod_b")
    await place.room.join(place.vod)
    await tables.rooms(nats_link).delete(subjects.participant_key(ROOM_KEY, place.ids.participant))
    assert await place.watched() == "removed"


async def test_a_newer_one_of_its_identity_counts_before_anybody_watches(nats_link: NatsLink) -> None:
    """The newest of an identity wins, however soon it comes."""
    former, newer = Place(nats_link, "vod_c"), Place(nats_link, "vod_d")
    await former.room.join(former.vod)
    await newer.room.join(newer.vod)
    assert await former.watched() == "removed"
