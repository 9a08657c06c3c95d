"""Data channels through the real suite, with aiortc: topics, addressees, and two media nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from mrtc.node.v1 import master_service_pb2, master_service_pb2_grpc
from mrtc_common.grpc import Channels, GrpcSecurity, call
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


@asynccontextmanager
async def draining(suite: RunningSuite, node_id: str) -> AsyncIterator[None]:
    """Nobody new is placed on this node meanwhile."""
    async with Channels(GrpcSecurity(suite.suite.cluster_secret)) as channels:
        master = master_service_pb2_grpc.MasterServiceStub(channels.get(f"127.0.0.1:{suite.suite.master_port}"))

        async def state(is_draining: bool) -> bool:
            nodes = (await call(master.ListNodes, master_service_pb2.ListNodesRequest())).nodes
            found = next(node for node in nodes if node.id == node_id)
            return (found.state == master_service_pb2.NODE_STATE_DRAINING) == is_draining

        async def order(is_draining: bool) -> None:
            request = master_service_pb2.SetNodeDrainingRequest(node_id=node_id, is_draining=is_draining)
            await call(master.SetNodeDraining, request)
            for _ in range(150):
                if await state(is_draining):
                    return
                await asyncio.sleep(0.1)
            raise AssertionError(f"{node_id} does not follow the order")

        await order(True)
        try:
            yield
        finally:
            await order(False)


async def test_data_crosses_between_media_nodes(suite: RunningSuite) -> None:
    """Two rtcmcu serve one room: what is said on one is heard on the other, once, in order and both ways."""
    room = new_room()
    api = RoomApi(suite, room)
    async with joined(suite.url, suite.token(room, "alice"), room, **WITH_DATA) as alice:
        await wait_until(lambda: alice.transport.pc.connectionState == "connected", what="alice's transport")
        participants = (await asyncio.to_thread(api.call, "GET", "participants"))["participants"]
        node_id = participants[0]["node_id"]
        async with draining(suite, node_id), joined(suite.url, suite.token(room, "bob"), room, **WITH_DATA) as bob:
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
