"""Data channels through the real suite, with aiortc: topics, addressees, and two media nodes."""

from __future__ import annotations

import asyncio

import pytest
from mrtc_sdk import Room
from mrtc_sdk.data import DataReceived

from tests.interop.test_python_room import event, new_room
from tests.support.api import RoomApi
from tests.support.media import joined, wait_until
from tests.support.suite import RunningSuite

pytestmark = pytest.mark.integration

WITH_DATA = {"data_channels": True}


async def data_of(room: Room, count: int = 1) -> list[DataReceived]:
    """The next data messages."""
    received = [await event(room, "data") for _ in range(count)]
    return [message for message in received if isinstance(message, DataReceived)]


async def until_heard(sender: Room, receiver: Room) -> None:
    """Both ends' data channels are up: what is sent before is stored for nobody."""

    async def send() -> None:
        while True:
            await sender.publish_data("ready?", topic="ready", reliable=False)
            await asyncio.sleep(0.1)

    sending = asyncio.create_task(send())
    try:
        while (await data_of(receiver))[0].topic != "ready":
            pass
    finally:
        sending.cancel()


async def test_topics_reach_all_others_in_order_with_the_senders_identity(suite: RunningSuite) -> None:
    """Text and bytes, reliable and lossy; `to` names some; nobody hears himself."""
    room = new_room()
    async with (
        joined(suite.url, suite.token(room, "alice"), room, **WITH_DATA) as alice,
        joined(suite.signaling_url(2), suite.token(room, "bob"), room, **WITH_DATA) as bob,
        joined(suite.url, suite.token(room, "carol"), room, **WITH_DATA) as carol,
    ):
        await until_heard(alice, bob)
        await until_heard(alice, carol)
        await until_heard(bob, alice)
        for number in range(50):
            await alice.publish_data(f"{number}".encode() * 1000, topic="file")
        await alice.publish_data("psst", topic="file", to=("carol",))
        await alice.publish_data("the end", topic="file")
        for receiver, private in ((bob, []), (carol, ["psst"])):
            got: list[DataReceived] = []
            while not got or got[-1].payload != "the end":
                got += [message for message in await data_of(receiver) if message.topic == "file"]
            numbers: list[bytes | str] = [f"{number}".encode() * 1000 for number in range(50)]
            assert [message.payload for message in got] == [*numbers, *private, "the end"]
            assert {message.sender for message in got} == {"alice"}
            assert all(message.is_reliable and not message.has_gap for message in got)


async def move(room: Room, api: RoomApi, identity: str) -> None:
    """To another media node, until the former transport is gone."""
    former = room.transport
    await asyncio.to_thread(api.call, "POST", f"participants/{identity}/move", json={"node": ""})
    await wait_until(lambda: former.pc.connectionState == "closed", 20, f"{identity}'s former transport to end")
    assert room.transport is not former


async def test_data_crosses_between_media_nodes(suite: RunningSuite) -> None:
    """Two rtcmcu serve one room: what is said on one is heard on the other, once, in order and both ways."""
    room = new_room()
    api = RoomApi(suite, room)
    async with (
        joined(suite.url, suite.token(room, "alice"), room, **WITH_DATA) as alice,
        joined(suite.url, suite.token(room, "bob"), room, **WITH_DATA) as bob,
    ):
        await wait_until(lambda: bob.transport.pc.connectionState == "connected", what="bob's transport")
        await move(bob, api, "bob")
        participants = (await asyncio.to_thread(api.call, "GET", "participants"))["participants"]
        assert len({one["node_id"] for one in participants}) == 2
        await until_heard(alice, bob)
        await until_heard(bob, alice)
        for sender, receiver in ((alice, bob), (bob, alice)):
            for number in range(30):
                await sender.publish_data(bytes([number]) * 20_000, topic="file")
            got: list[bytes | str] = []
            while len(got) < 30:
                got += [message.payload for message in await data_of(receiver) if message.topic == "file"]
            assert got == [bytes([number]) * 20_000 for number in range(30)]
