"""Tracks that come from other nodes."""

import asyncio
from typing import Any

import pytest
from mrtc.common.v1.common_pb2 import TRACK_KIND_VIDEO
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc.media.v1 import relay_service_pb2
from mrtc_common.errors import (
    BadRequestError,
    MrtcError,
    NotFoundError,
)
from mrtc_common.grpc import call, stream
from mrtc_common.testing import wait_until

from services.rtcmcu.tests.running_node import Node, StartNode, slots_of

pytestmark = pytest.mark.integration


async def test_a_track_of_another_node_is_imported_once_and_let_go(start_node: StartNode) -> None:
    origin, edge = await start_node(), await start_node()
    await origin.create("t1")
    await origin.publish("t1", "a")
    for viewer in ("v1", "v2"):
        await edge.create(viewer)
    responses = await asyncio.gather(*(edge.subscribe(v, "a", origin=origin) for v in ("v1", "v2")))
    assert [slots_of(response)[0] for response in responses] == ["a", "a"]
    assert len(origin.engine.world.exports) == 1
    await edge.close("v1")
    assert "a" in edge.engine.tracks
    await edge.subscribe("v2")
    await wait_until(lambda: "a" not in edge.engine.tracks and not origin.engine.world.exports)


async def test_a_track_that_is_not_there_yet_is_missing_and_found_later(start_node: StartNode) -> None:
    origin, edge = await start_node(), await start_node()
    await edge.create("v1")
    assert list((await edge.subscribe("v1", "a", origin=origin)).missing_track_ids) == ["a"]
    await origin.create("t1")
    await origin.publish("t1", "a")
    assert slots_of(await edge.subscribe("v1", "a", origin=origin))[0] == "a"


async def test_a_lost_relay_is_opened_again_with_all_its_tracks(start_node: StartNode) -> None:
    origin, edge = await start_node(), await start_node()
    await origin.create("t1")
    await origin.publish("t1", "a")
    await edge.create("v1")
    await edge.subscribe("v1", "a", origin=origin)
    (relay_id,) = edge.engine.relays
    await call(origin.relay_stub.CloseRelay, relay_service_pb2.CloseRelayRequest(relay_id=relay_id))
    assert not origin.engine.world.exports
    edge.engine.emit("RelayLost", relay=relay_id)
    await wait_until(lambda: (relay_id, "a") in origin.engine.world.exports)
    assert "a" in edge.engine.tracks


async def test_an_imported_track_that_ends_and_comes_back_is_given_to_its_slot_again(start_node: StartNode) -> None:
    origin, edge = await start_node(), await start_node()
    await origin.create("t1")
    await origin.publish("t1", "a")
    await edge.create("v1")
    await edge.subscribe("v1", "a", origin=origin)
    told = []

    async def watch() -> None:
        async for item in stream(edge.stub.WatchTransports, pb.WatchTransportsRequest()):
            if item.WhichOneof("event") == "subscriptions":
                told.append(slots_of(item.subscriptions)[0])

    task = asyncio.create_task(watch())
    await wait_until(lambda: len(edge.mcu.media.watchers))
    await origin.unpublish("t1", "a")
    edge.engine.end_track("a")
    await wait_until(lambda: told == [""])
    await origin.publish("t1", "a")
    await wait_until(lambda: told == ["", "a"], timeout_s=15)
    task.cancel()


async def test_a_publisher_that_moves_to_the_edge_replaces_the_import(start_node: StartNode) -> None:
    origin, edge = await start_node(), await start_node()
    await origin.create("t1")
    await origin.publish("t1", "a")
    await edge.create("v1")
    await edge.subscribe("v1", "a", origin=origin)
    await edge.create("t2")
    await edge.publish("t2", "a")
    assert edge.engine.origin["a"] == "t2"
    assert slots_of(await edge.subscribe("v1", "a", origin=edge))[0] == "a"


async def test_a_publisher_that_moves_between_other_nodes_is_followed(start_node: StartNode) -> None:
    first, second, edge = await start_node(), await start_node(), await start_node()
    for node in (first, second):
        await node.create("t1")
        await node.publish("t1", "a")
    await edge.create("v1")
    await edge.subscribe("v1", "a", origin=first)
    before = edge.engine.origin["a"]
    assert slots_of(await edge.subscribe("v1", "a", origin=second))[0] == "a"
    assert edge.engine.origin["a"] != before


async def test_a_track_that_is_followed_to_another_node_stays_for_all_who_have_it(start_node: StartNode) -> None:
    """The first subscriber brings it over, for the second too; it stays when the first one leaves."""
    first, second, edge = await start_node(), await start_node(), await start_node()
    for node, tracks in ((first, ["a"]), (second, ["a", "b"])):
        await node.create("t1")
        await node.publish("t1", *tracks)
    for viewer in ("v1", "v2", "v3"):
        await edge.create(viewer)
    for origin in (first, second):
        for viewer in ("v1", "v2"):
            await edge.subscribe(viewer, "a", origin=origin)
    await edge.close("v1")
    # What was let go later is gone: so would be what was let go before.
    await edge.subscribe("v3", "b", origin=second)
    await edge.close("v3")
    await wait_until(lambda: "b" not in edge.engine.tracks)
    assert "a" in edge.engine.tracks


async def test_a_node_that_is_not_alive_makes_its_tracks_missing_and_no_others(start_node: StartNode) -> None:
    node = await start_node()
    await node.create("t1")
    await node.publish("t1", "a")
    await node.create("v1")
    wanted = [
        pb.Subscription(track_id="a", kind=TRACK_KIND_VIDEO, origin_node_id=node.id),
        pb.Subscription(track_id="x", kind=TRACK_KIND_VIDEO, origin_node_id="mcu_gone"),
    ]
    response = await call(
        node.stub.SetSubscriptions, pb.SetSubscriptionsRequest(transport_id="v1", subscriptions=wanted)
    )
    assert slots_of(response)[0] == "a"
    assert list(response.missing_track_ids) == ["x"]


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"key": b"short"}, BadRequestError),
        ({"salt": b""}, BadRequestError),
        ({"address": "nowhere"}, BadRequestError),
        ({"address": "224.0.0.1:5"}, BadRequestError),
        ({"address": "127.0.0.1:0"}, BadRequestError),
        ({"relay_id": ""}, BadRequestError),
        ({"node_id": "a.b"}, BadRequestError),
    ],
)
async def test_malformed_relays_are_refused(node: Node, fields: dict[str, Any], error: type[MrtcError]) -> None:
    good = {"relay_id": "r", "node_id": "n", "address": "127.0.0.1:5", "key": b"k" * 16, "salt": b"s" * 12}
    with pytest.raises(error):
        await call(node.relay_stub.OpenRelay, relay_service_pb2.OpenRelayRequest(**(good | fields)))


async def test_tracks_cannot_be_started_on_an_unknown_relay(node: Node) -> None:
    with pytest.raises(NotFoundError):
        await call(node.relay_stub.StartTracks, relay_service_pb2.StartTracksRequest(relay_id="nope"))
