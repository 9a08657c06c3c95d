"""A track that more nodes want than its origin sends to: others pass it on, and are replaced when they die or leave."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from mrtc.media.v1 import media_service_pb2, relay_service_pb2
from mrtc_common.grpc import call
from mrtc_common.relay_types import RelayKey
from mrtc_common.testing import wait_until

from services.rtcmcu.tests.running_node import ROOM, Node, StartNode

pytestmark = pytest.mark.integration


async def published(start_node: StartNode, max_edges: int, **values: Any) -> Node:
    """A node where track `a` begins."""
    origin = await start_node(relay_max_edges=max_edges, **values)
    await origin.create("t1")
    await origin.publish("t1", "a")
    return origin


async def watching(origin: Node, start_node: StartNode, count: int, **values: Any) -> list[Node]:
    """Nodes that each have a viewer of it, in the order in which they came."""
    return [await one_watching(origin, start_node, **values) for _ in range(count)]


async def one_watching(origin: Node, start_node: StartNode, **values: Any) -> Node:
    edge = await start_node(**values)
    await wait_until(lambda: edge.id in origin.mcu.directory.nodes)
    await edge.create("v1")
    assert "a" in [slot.track_id for slot in (await edge.subscribe("v1", "a", origin=origin)).slots]
    return edge


def children(node: Node) -> set[str]:
    """Who takes `a` from a node."""
    return set(node.mcu.relays.server.receivers_of("a"))


async def forget(node: Node) -> None:
    """As when the time for which an unused track is kept has passed."""
    item = node.mcu.relays._imports.find("a")
    assert item is not None
    item.idle_since = 0.0
    await node.mcu.relays._sweep()


def has_gone_on(node: Node) -> bool:
    """The track came from elsewhere, and was the same all the time."""
    return "move a" in node.engine.calls and "unpublish a" not in node.engine.calls


async def test_the_origin_sends_to_so_many_and_they_to_the_rest(start_node: StartNode) -> None:
    origin = await published(start_node, 2)
    nodes = await watching(origin, start_node, 5)
    assert children(origin) == {nodes[0].id, nodes[1].id}
    assert {child for one in nodes for child in children(one)} == {one.id for one in nodes[2:]}
    assert all(len(children(one)) <= 2 for one in nodes)
    # The same request again has no other effect, and a second viewer costs nothing.
    await nodes[4].subscribe("v1", "a", origin=origin)
    await nodes[4].create("v2")
    assert "a" in [slot.track_id for slot in (await nodes[4].subscribe("v2", "a", origin=origin)).slots]
    assert sum(len(children(one)) for one in [origin, *nodes]) == 5
    assert len(nodes[4].mcu.relays.server._relays) == 0


async def test_nodes_that_come_at_once_make_one_tree(start_node: StartNode) -> None:
    """A node may be named while it does not have the track itself yet; nobody is sent it in vain or by one too many."""
    origin = await published(start_node, 1)
    nodes = [await start_node() for _ in range(4)]
    for node in nodes:
        await wait_until(lambda node=node: node.id in origin.mcu.directory.nodes)
        await node.create("v1")
    await asyncio.gather(*(node.subscribe("v1", "a", origin=origin) for node in nodes))
    await wait_until(lambda: all("a" in node.engine.tracks for node in nodes))
    assert sorted(len(children(one)) for one in [origin, *nodes]) == [0, 1, 1, 1, 1]
    assert not any(node.mcu.relays._imports.avoided for node in nodes)


async def test_a_node_keeps_what_it_passes_on_after_its_own_viewers_left(start_node: StartNode) -> None:
    """It goes with the last that takes it, and its place is free again."""
    origin = await published(start_node, 1)
    middle, leaf = await watching(origin, start_node, 2)
    await middle.close("v1")
    await forget(middle)
    assert children(middle) == {leaf.id}
    assert "a" in middle.engine.tracks
    await leaf.close("v1")
    await forget(leaf)
    assert "a" not in leaf.engine.tracks
    assert children(middle) == set()
    await forget(middle)
    assert "a" not in middle.engine.tracks
    await wait_until(lambda: not origin.mcu.relays.server._trees.parents_of("a"))
    (late,) = await watching(origin, start_node, 1)
    assert children(origin) == {late.id}


async def test_nodes_of_a_region_take_it_from_each_other(start_node: StartNode) -> None:
    origin = await published(start_node, 2)
    await watching(origin, start_node, 1, region="east")
    (west,) = await watching(origin, start_node, 1, region="west")
    leaves = await watching(origin, start_node, 2, region="west")
    assert children(west) == {leaf.id for leaf in leaves}


async def test_a_node_that_dies_is_replaced_at_once(start_node: StartNode) -> None:
    """Its process ends without a word: who took the track from it goes on with it from elsewhere, who did not stays."""
    origin = await published(start_node, 1)
    first, second, third = await watching(origin, start_node, 3)
    assert (children(first), children(second)) == ({second.id}, {third.id})
    await wait_until(lambda: first.id in second.mcu.relays._deaths.watched)
    await first.mcu.grpc.server.stop(None)
    # Long before its heartbeat expires (10 s) or its relay is missed (3 s).
    await wait_until(lambda: second.id in children(origin), timeout_s=2)
    await wait_until(lambda: has_gone_on(second))
    assert second.mcu.relays.is_held("a", origin.id, "v1")
    assert children(second) == {third.id}
    assert "move a" not in third.engine.calls
    # Who comes now does not wait for the dead one either.
    late = await one_watching(origin, start_node)
    assert late.id in children(third)


async def test_a_relay_that_falls_silent_is_replaced(start_node: StartNode) -> None:
    """Its process lives, and nothing comes from there."""
    origin = await published(start_node, 1)
    middle, leaf = await watching(origin, start_node, 2)
    client = leaf.mcu.relays._imports.client_of("a")
    assert client is not None
    leaf.engine.emit("RelayLost", relay=client.relay_id)
    await wait_until(lambda: leaf.id in children(origin))
    await wait_until(lambda: has_gone_on(leaf))
    await wait_until(lambda: not children(middle), timeout_s=10)


async def test_a_node_that_drains_is_left_before_it_ends(start_node: StartNode) -> None:
    """Both send for a moment, then the former no more, which its end waits for."""
    origin = await published(start_node, 1)
    middle, leaf, last = await watching(origin, start_node, 3)
    await middle.close("v1")
    middle.mcu.agent.drain()
    await middle.mcu.relays.wait_nothing_passed_on(10)
    assert not children(middle)
    assert leaf.id in children(origin)
    assert has_gone_on(leaf)
    assert children(leaf) == {last.id}
    assert "move a" not in last.engine.calls


async def test_a_node_that_loses_the_track_is_not_waited_for(start_node: StartNode) -> None:
    """Who took it from there asks the origin as soon as it hears that the track ended."""
    origin = await published(start_node, 1)
    middle, leaf = await watching(origin, start_node, 2)
    client = middle.mcu.relays._imports.client_of("a")
    assert client is not None
    middle.mcu.relays._imports.forget(client, list(client.imports.values()))
    client.imports.clear()
    del middle.engine.tracks["a"]
    leaf.engine.end_track("a")
    await wait_until(lambda: leaf.id in children(origin))
    await wait_until(lambda: "a" in leaf.engine.tracks)
    assert leaf.mcu.relays.is_held("a", origin.id, "v1")


async def test_a_track_that_ends_ends_everywhere(start_node: StartNode) -> None:
    origin = await published(start_node, 1)
    nodes = await watching(origin, start_node, 2)
    await origin.unpublish("t1", "a")
    for node in nodes:
        node.engine.end_track("a")
    for node in nodes:
        await wait_until(lambda node=node: "a" in lacking(node))
    assert all("a" not in node.engine.tracks for node in nodes)


def lacking(node: Node) -> list[str]:
    """What the viewer of a node was told last that it lacks."""
    (state,) = node.mcu.media.transports
    return list(state.subscriptions.missing_track_ids) if state.subscriptions is not None else []


async def test_an_older_node_is_sent_the_track(start_node: StartNode) -> None:
    """Who does not say that it takes redirects gets it from its origin, one more than there should be."""
    origin = await published(start_node, 1)
    await watching(origin, start_node, 1)
    key = RelayKey.generate()
    opening = relay_service_pb2.OpenRelayRequest(
        relay_id="r", node_id="older", address="127.0.0.1:5", key=key.key, salt=key.salt
    )
    await call(origin.relay_stub.OpenRelay, opening)
    tracks = [relay_service_pb2.RelayTrack(track_id="a", handle=1)]
    request = relay_service_pb2.StartTracksRequest(relay_id="r", tracks=tracks)
    response = await call(origin.relay_stub.StartTracks, request)
    assert [track.id for track in response.tracks] == ["a"]
    assert len(children(origin)) == 2
    newer = relay_service_pb2.StartTracksRequest(relay_id="r", tracks=tracks, takes_redirects=True)
    assert not (await call(origin.relay_stub.StartTracks, newer)).redirects


async def test_the_edges_of_a_room_can_be_seen(start_node: StartNode) -> None:
    origin = await published(start_node, 1)
    middle, leaf = await watching(origin, start_node, 2)

    async def edges(node: Node) -> tuple[str | None, str | None, list[str]]:
        answer = await call(node.stub.DumpRoom, media_service_pb2.DumpRoomRequest(room_key=ROOM))
        dump = json.loads(answer.json)
        assert all(relay["node_id"] for relay in dump["relays"])
        (track,) = dump["tracks"]
        return track["origin_node_id"], track["from_node_id"], track["to_node_ids"]

    assert await edges(origin) == (None, None, [middle.id])
    assert await edges(middle) == (origin.id, origin.id, [leaf.id])
    assert await edges(leaf) == (origin.id, middle.id, [])
    assert middle.mcu.relays.passed_on == {"a"}
    assert not origin.mcu.relays.passed_on
