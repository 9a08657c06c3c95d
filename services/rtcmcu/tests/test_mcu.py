"""Whole nodes with a real nats-server and real gRPC, around an engine without packets."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from mrtc.common.v1.common_pb2 import TRACK_KIND_VIDEO, Track
from mrtc.event.v1.state_pb2 import NodeSpeakers
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc.media.v1 import media_service_pb2_grpc, relay_service_pb2, relay_service_pb2_grpc
from mrtc_common import subjects, tables
from mrtc_common.errors import (
    AlreadyExistsError,
    BadOfferError,
    BadRequestError,
    LimitExceededError,
    MrtcError,
    NoCapacityError,
    NotFoundError,
    PermissionDeniedError,
    PublicationNotFoundError,
    TransportNotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from mrtc_common.grpc import Channels, GrpcSecurity, call, stream
from mrtc_common.nats import NatsLink
from mrtc_common.testing import NatsServer, wait_until
from mrtc_rtcmcu.adapters.engine_mrtc import EngineKit
from mrtc_rtcmcu.bootstrap import Mcu
from mrtc_rtcmcu.config import McuSettings

from services.rtcmcu.tests.fake_engine import FakeEngine, FakeWorld

pytestmark = pytest.mark.integration

SECRET = "a secret of the tests"
ROOM = subjects.room_key("app", "room")


class Node:
    """A running node and a client of it."""

    def __init__(self, mcu: Mcu, engine: FakeEngine, channels: Channels) -> None:
        self.mcu, self.engine = mcu, engine
        channel = channels.get(f"127.0.0.1:{mcu.grpc_port}")
        self.stub = media_service_pb2_grpc.MediaServiceStub(channel)
        self.relay_stub = relay_service_pb2_grpc.RelayServiceStub(channel)
        self.id = mcu.node_id

    async def create(self, transport_id: str, offer: str = "offer", **fields: Any) -> pb.CreateTransportResponse:
        values = {"transport_id": transport_id, "room_key": ROOM, "participant_id": f"p-{transport_id}", "offer": offer}
        return await call(self.stub.CreateTransport, pb.CreateTransportRequest(**(values | fields)))

    async def publish(self, transport_id: str, *track_ids: str) -> list[Track]:
        tracks = [Track(id=track_id, mid=track_id, kind=TRACK_KIND_VIDEO) for track_id in track_ids]
        request = pb.PublishTracksRequest(transport_id=transport_id, tracks=tracks)
        return list((await call(self.stub.PublishTracks, request)).tracks)

    async def unpublish(self, transport_id: str, *track_ids: str) -> None:
        request = pb.UnpublishTracksRequest(transport_id=transport_id, track_ids=track_ids)
        await call(self.stub.UnpublishTracks, request)

    async def subscribe(
        self, transport_id: str, *track_ids: str, origin: "Node | None" = None
    ) -> pb.SetSubscriptionsResponse:
        wanted = [
            pb.Subscription(track_id=t, kind=TRACK_KIND_VIDEO, origin_node_id=(origin or self).id) for t in track_ids
        ]
        request = pb.SetSubscriptionsRequest(transport_id=transport_id, subscriptions=wanted)
        return await call(self.stub.SetSubscriptions, request)

    async def close(self, transport_id: str) -> None:
        await call(self.stub.CloseTransport, pb.CloseTransportRequest(transport_id=transport_id))


StartNode = Callable[..., Awaitable[Node]]


@pytest_asyncio.fixture
async def start_node(nats_server: NatsServer) -> AsyncIterator[StartNode]:
    world = FakeWorld()
    async with contextlib.AsyncExitStack() as stack:
        channels = await stack.enter_async_context(Channels(GrpcSecurity(SECRET)))

        async def start(*, wait: bool = True, slots: int = 2, **values: Any) -> Node:
            defaults = {
                "cluster_secret": SECRET,
                "bind_ip": "127.0.0.1",
                "grpc_port": 0,
                "http_port": 0,
                "nats_urls": nats_server.url,
                "drain_timeout_s": 0.2,
            }
            engine = FakeEngine(world, f"e{len(world.exports)}", slots=slots)
            kit = EngineKit(lambda _settings: engine, dict)
            mcu = await stack.enter_async_context(Mcu(McuSettings.from_values(defaults | values), engine_kit=kit))
            if wait:
                await wait_until(lambda: mcu.health.is_ready and mcu.node_id in mcu.directory.nodes)
            return Node(mcu, engine, channels)

        yield start


@pytest_asyncio.fixture
async def node(start_node: StartNode) -> Node:
    return await start_node()


def _slots(response: pb.SetSubscriptionsResponse) -> list[str]:
    return [slot.track_id for slot in response.slots]


async def test_a_repeated_create_gives_the_same_answer_and_opens_one_transport(node: Node) -> None:
    answers = await asyncio.gather(*(node.create("t1") for _ in range(5)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].answer == "answer to offer"
    assert answers[0].lines[0].is_inbound
    assert node.engine.calls.count("create_transport") == 1


async def test_a_create_with_another_offer_is_refused(node: Node) -> None:
    await node.create("t1")
    with pytest.raises(AlreadyExistsError):
        await node.create("t1", offer="other")


async def test_a_refused_offer_leaves_nothing(node: Node) -> None:
    with pytest.raises(BadOfferError, match="line 1: no"):
        await node.create("t1", offer="bad")
    assert (await node.create("t1")).answer


@pytest.mark.parametrize(
    "fields",
    [
        {"transport_id": ""},
        {"transport_id": "a b"},
        {"transport_id": "x" * 65},
        {"participant_id": "../x"},
        {"room_key": ""},
        {"room_key": "a"},
        {"room_key": "A.B"},
        {"offer": ""},
        {"offer": "x" * (512 * 1024 + 1)},
    ],
)
async def test_malformed_creates_are_refused(node: Node, fields: dict[str, str]) -> None:
    with pytest.raises(BadRequestError):
        await node.create(**({"transport_id": "t1"} | fields))


async def test_a_repeated_negotiation_gives_the_same_answer(node: Node) -> None:
    await node.create("t1")
    request = pb.NegotiateTransportRequest(transport_id="t1", offer="second")
    first = await call(node.stub.NegotiateTransport, request)
    assert await call(node.stub.NegotiateTransport, request) == first
    assert node.engine.calls.count("negotiate") == 1


async def test_calls_for_an_unknown_transport_say_so(node: Node) -> None:
    with pytest.raises(TransportNotFoundError):
        await node.publish("nope", "a")
    with pytest.raises(TransportNotFoundError):
        await node.subscribe("nope")
    await node.close("nope")
    await node.unpublish("nope", "a")


async def test_a_transport_goes_to_another_node(start_node: StartNode) -> None:
    """Its state passes sealed, with a key that the nodes derive from their secret; repeated calls change nothing."""
    node, other = await start_node(), await start_node()
    await node.create("t1")
    met = await call(node.stub.ExportTransport, pb.ExportTransportRequest(transport_id="t1"))
    assert (await other.create("t2", state=met.state)).answer == "answer to offer"
    final = [
        await call(node.stub.ExportTransport, pb.ExportTransportRequest(transport_id="t1", is_final=True))
        for _ in range(2)
    ]
    assert final[0] == final[1]
    for one in final:
        await call(other.stub.CompleteTransport, pb.CompleteTransportRequest(transport_id="t2", state=one.state))
    assert other.engine.calls.count("complete t2") == node.engine.calls.count("export t1") == 1
    with pytest.raises(BadRequestError):
        await other.create("t3", state=b"of another suite")
    assert len(other.mcu.media.transports) == 1
    with pytest.raises(TransportNotFoundError):
        await call(node.stub.ExportTransport, pb.ExportTransportRequest(transport_id="nope"))


async def test_it_tells_with_what_another_node_goes_on_if_it_dies(start_node: StartNode) -> None:
    """One call for many; who has none (not there, not connected, too quick) is left out."""
    node, other = await start_node(), await start_node()
    await node.create("t1")
    asked = pb.CheckpointTransportsRequest(transport_ids=["t1", "nope"])
    (one,) = (await call(node.stub.CheckpointTransports, asked)).checkpoints
    assert one.transport_id == "t1"
    await other.create("t2", state=one.state)
    with pytest.raises(BadRequestError):
        await call(node.stub.CheckpointTransports, pb.CheckpointTransportsRequest(transport_ids=["t"] * 1001))


async def test_a_full_node_refuses(start_node: StartNode) -> None:
    node = await start_node(max_transports=1)
    await node.create("t1")
    with pytest.raises(NoCapacityError) as caught:
        await node.create("t2")
    assert caught.value.retry_after_ms
    await node.close("t1")
    await node.create("t2")


async def test_publish_tells_the_codec_and_is_idempotent(node: Node) -> None:
    await node.create("t1")
    first = await node.publish("t1", "a", "b")
    assert [(track.id, track.codec) for track in first] == [("a", "vp8"), ("b", "vp8")]
    assert await node.publish("t1", "a", "b") == first


async def test_a_track_moves_to_the_transport_that_publishes_it_last(node: Node) -> None:
    await node.create("t1")
    await node.create("t2")
    await node.create("viewer")
    await node.publish("t1", "a")
    assert _slots(await node.subscribe("viewer", "a")) == ["a", ""]
    await node.publish("t2", "a")
    assert node.engine.origin["a"] == "t2"
    await node.unpublish("t1", "a")  # the former owner's late word changes nothing
    assert "a" in node.engine.tracks
    await wait_until(lambda: node.engine.calls[-1] == "set_subscriptions")
    await node.close("t1")
    assert "a" in node.engine.tracks


async def test_muting_needs_an_own_track(node: Node) -> None:
    await node.create("t1")
    await node.publish("t1", "a")
    await call(node.stub.MuteTrack, pb.MuteTrackRequest(transport_id="t1", track_id="a", is_muted=True))
    assert node.engine.muted == {"a": True}
    with pytest.raises(PublicationNotFoundError):
        await call(node.stub.MuteTrack, pb.MuteTrackRequest(transport_id="t1", track_id="b", is_muted=True))


async def test_caps_are_set_at_creation_and_later(node: Node) -> None:
    """Of a transport and of a track of its own."""
    request = pb.CreateTransportRequest(
        transport_id="t1", room_key=ROOM, participant_id="p-t1", offer="offer", max_egress_bps=5, max_track_bps=3
    )
    await call(node.stub.CreateTransport, request)
    assert node.engine.caps["t1"] == {"max_egress_bps": 5, "max_ingress_bps": 0, "max_track_bps": 3}
    await call(node.stub.SetCaps, pb.SetCapsRequest(transport_id="t1", max_ingress_bps=7))
    assert node.engine.caps["t1"] == {"max_egress_bps": 0, "max_ingress_bps": 7, "max_track_bps": 0}
    track = Track(id="a", mid="a", kind=TRACK_KIND_VIDEO, max_bitrate_bps=9)
    await call(node.stub.PublishTracks, pb.PublishTracksRequest(transport_id="t1", tracks=[track]))
    assert node.engine.track_caps == {"a": 9}
    await call(node.stub.SetTrackCap, pb.SetTrackCapRequest(transport_id="t1", track_id="a", max_bitrate_bps=2))
    assert node.engine.track_caps == {"a": 2}
    with pytest.raises(PublicationNotFoundError):
        await call(node.stub.SetTrackCap, pb.SetTrackCapRequest(transport_id="t1", track_id="b", max_bitrate_bps=2))
    with pytest.raises(TransportNotFoundError):
        await call(node.stub.SetCaps, pb.SetCapsRequest(transport_id="t2"))


async def test_subscriptions_fill_slots_and_name_what_does_not_fit_or_exist(node: Node) -> None:
    await node.create("t1")
    await node.publish("t1", "a", "b", "c")
    await node.create("viewer")
    response = await node.subscribe("viewer", "a", "b", "c", "nope")
    assert _slots(response) == ["a", "b"]
    assert list(response.unplaced_track_ids) == ["c"]
    assert list(response.missing_track_ids) == ["nope"]


async def test_watchers_get_the_present_state_then_changes_until_the_transport_ends(node: Node) -> None:
    await node.create("t1")
    await node.publish("t1", "a")
    node.engine.emit("TransportConnected", transport="t1")
    node.engine.emit("TrackStarted", track="a", codec="h264")
    node.engine.emit("LayersWanted", track="a", rids=["q"], spatial_layers=2)
    await wait_until(lambda: all(state.tracks["a"].wanted for state in node.mcu.media.transports))
    kinds = []
    async for item in stream(node.stub.WatchTransports, pb.WatchTransportsRequest(transport_ids=["t1"])):
        kinds.append(item.WhichOneof("event"))
        if len(kinds) == 3:
            node.engine.emit("TransportClosed", transport="t1", reason="ice_timeout")
    assert kinds == ["connected", "track_started", "layers_wanted", "closed"]


async def test_a_watcher_that_was_away_learns_of_an_end(node: Node) -> None:
    await node.create("t1")
    await node.close("t1")
    async for item in stream(node.stub.WatchTransports, pb.WatchTransportsRequest()):
        assert (item.transport_id, item.closed.reason) == ("t1", "closed")
        break


async def test_speakers_are_published_with_their_participants(node: Node, nats_link: NatsLink) -> None:
    heard: list[list[tuple[str, int]]] = []

    async def on_speakers(_subject: str, payload: bytes) -> None:
        message = NodeSpeakers.FromString(payload)
        heard.append([(track.participant_id, track.level) for track in message.tracks])

    await nats_link.subscribe(subjects.speakers_subject(ROOM), on_speakers)
    await nats_link.client.flush()
    await node.create("t1")
    await node.publish("t1", "a")
    node.engine.emit("ActiveSpeakers", room=ROOM, worker=0, speakers=[("a", 90)])
    await wait_until(lambda: [("p-t1", 90)] in heard)
    node.engine.emit("ActiveSpeakers", room=ROOM, worker=0, speakers=[])
    await wait_until(lambda: heard[-1] == [])


async def test_who_is_heard_comes_as_an_event(node: Node) -> None:
    await node.create("t1")
    request = pb.SetSubscriptionsRequest(transport_id="t1", audio_top_n=3)
    await call(node.stub.SetSubscriptions, request)
    assert node.engine.audio_top_n == {"t1": 3}

    async def told() -> pb.SlotsChanged:
        async for item in stream(node.stub.WatchTransports, pb.WatchTransportsRequest()):
            if item.HasField("connected"):
                slots = [("0", "audio", "a"), ("1", "audio", None)]
                node.engine.emit("SlotsChanged", transport="t1", slots=slots, version=7)
            if item.HasField("slots_changed"):
                return item.slots_changed
        raise AssertionError

    node.engine.emit("TransportConnected", transport="t1")
    changed = await told()
    assert [(slot.mid, slot.track_id) for slot in changed.slots] == [("0", "a"), ("1", "")]
    assert changed.slots_version == 7


async def test_a_track_of_another_node_is_imported_once_and_let_go(start_node: StartNode) -> None:
    origin, edge = await start_node(), await start_node()
    await origin.create("t1")
    await origin.publish("t1", "a")
    for viewer in ("v1", "v2"):
        await edge.create(viewer)
    responses = await asyncio.gather(*(edge.subscribe(v, "a", origin=origin) for v in ("v1", "v2")))
    assert [_slots(response)[0] for response in responses] == ["a", "a"]
    assert len(origin.engine.world.exports) == 1
    await edge.close("v1")
    assert "a" in edge.engine.tracks
    await edge.subscribe("v2")
    await wait_until(lambda: "a" not in edge.engine.tracks and not origin.engine.world.exports)


async def test_data_channels_are_opened_only_for_offers_that_have_them(node: Node) -> None:
    """Identity and grant reach the engine with the offer, or with the later one that adds the line."""
    who = {"identity": "alice", "can_publish_data": True}
    await node.create("t1", "m=application", **who)
    await node.create("t2", **who)
    await node.create("t3", "m=application")
    assert node.engine.data_access == {"t1": ("alice", True)}
    request = pb.NegotiateTransportRequest(transport_id="t2", offer="later: m=application")
    await call(node.stub.NegotiateTransport, request)
    assert node.engine.data_access.keys() == {"t1", "t2"}


async def test_data_comes_from_the_nodes_that_transports_name_while_they_last(start_node: StartNode) -> None:
    """One relay, one import of a room however many transports name the node; it ends with the last of them."""
    near, far = await start_node(), await start_node()
    who = {"identity": "alice", "can_publish_data": True}
    for transport_id in ("t1", "t2"):
        await near.create(transport_id, "m=application", **who)
        request = pb.SetDataPeersRequest(transport_id=transport_id, node_ids=[near.id, far.id])
        await call(near.stub.SetDataPeers, request)
    assert [room for _, room in near.engine.data_in] == [ROOM]
    assert near.engine.data_in == far.engine.data_out
    await near.close("t1")
    assert far.engine.data_out
    await near.close("t2")
    await wait_until(lambda: not near.engine.data_in and not far.engine.data_out)


async def test_a_track_that_is_not_there_yet_is_missing_and_found_later(start_node: StartNode) -> None:
    origin, edge = await start_node(), await start_node()
    await edge.create("v1")
    assert list((await edge.subscribe("v1", "a", origin=origin)).missing_track_ids) == ["a"]
    await origin.create("t1")
    await origin.publish("t1", "a")
    assert _slots(await edge.subscribe("v1", "a", origin=origin))[0] == "a"


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
                told.append(_slots(item.subscriptions)[0])

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
    assert _slots(await edge.subscribe("v1", "a", origin=edge))[0] == "a"


async def test_a_publisher_that_moves_between_other_nodes_is_followed(start_node: StartNode) -> None:
    first, second, edge = await start_node(), await start_node(), await start_node()
    for node in (first, second):
        await node.create("t1")
        await node.publish("t1", "a")
    await edge.create("v1")
    await edge.subscribe("v1", "a", origin=first)
    before = edge.engine.origin["a"]
    assert _slots(await edge.subscribe("v1", "a", origin=second))[0] == "a"
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
    assert _slots(response)[0] == "a"
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


async def test_a_draining_node_refuses_and_says_so_in_the_registry(node: Node, nats_link: NatsLink) -> None:
    await tables.drains(nats_link).put(subjects.drain_key(node.id), (await _entry(nats_link, node.id)))
    await wait_until(lambda: not node.mcu.health.is_ready)
    with pytest.raises(NoCapacityError):
        await node.create("t1")


async def test_a_draining_node_asks_its_clients_to_move_each_in_its_turn_and_again(
    start_node: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrtc_rtcmcu.core.turns.ASK_AGAIN_S", 0.3)
    node = await start_node(drain_moves_per_s=50.0, drain_spread_s=0.1)
    for transport_id in ("t1", "t2", "t3"):
        await node.create(transport_id)
    # Who is not connected yet is not asked.
    for transport_id in ("t1", "t2"):
        node.engine.emit("TransportConnected", transport=transport_id)
    asked: list[str] = []

    async def watch() -> None:
        async for item in stream(node.stub.WatchTransports, pb.WatchTransportsRequest()):
            if item.WhichOneof("event") == "move_wanted":
                asked.append(item.transport_id)

    task = asyncio.create_task(watch())
    await wait_until(lambda: len(node.mcu.media.watchers))
    node.mcu.mover.set(True)
    await wait_until(lambda: asked[:2] == ["t1", "t2"])
    await node.close("t1")
    await wait_until(lambda: asked.count("t2") >= 2)
    assert "t3" not in asked
    # Taken back: nobody is asked any more.
    node.mcu.mover.set(False)
    node.engine.emit("TransportConnected", transport="t3")
    await node.subscribe("t2")
    assert "t3" not in asked
    task.cancel()


async def _entry(link: NatsLink, node_id: str) -> Any:
    entry = await tables.nodes(link).get(subjects.node_key(node_id))
    assert entry is not None
    return entry.value


async def test_the_end_of_the_process_closes_transports_with_a_reason(start_node: StartNode) -> None:
    node = await start_node()
    await node.create("t1")
    reasons = []

    async def watch() -> None:
        with contextlib.suppress(UnavailableError):
            async for item in stream(node.stub.WatchTransports, pb.WatchTransportsRequest()):
                reasons.append(item.closed.reason)

    task = asyncio.create_task(watch())
    await wait_until(lambda: len(node.mcu.media.watchers))
    await node.mcu.drain()
    await asyncio.wait_for(task, 5)
    assert reasons == ["node_shutdown"]
    assert not node.mcu.health.is_ready


async def test_a_node_that_was_taken_for_dead_gives_up_its_transports_and_serves_on(start_node: StartNode) -> None:
    node = await start_node()
    await node.create("t1")
    reasons: list[str] = []

    async def watch() -> None:
        async for item in stream(node.stub.WatchTransports, pb.WatchTransportsRequest()):
            reasons.append(item.closed.reason)

    task = asyncio.create_task(watch())
    await wait_until(lambda: len(node.mcu.media.watchers))
    node.mcu.media.abandon()
    await wait_until(lambda: reasons == ["node_lost"])
    assert (await node.create("t2")).answer
    task.cancel()


async def test_calls_are_served_and_the_node_registers_anew_over_a_restart_of_nats(
    node: Node, nats_server: NatsServer, nats_link: NatsLink
) -> None:
    await node.create("t1")
    nats_server.kill()
    await wait_until(lambda: not node.mcu.health.is_ready)
    await node.publish("t1", "a")
    await node.create("v1")
    assert _slots(await node.subscribe("v1", "a"))[0] == "a"
    nats_server.start()
    await wait_until(lambda: node.mcu.health.is_ready, timeout_s=15)
    await nats_link.wait_ready(15)

    async def is_registered() -> bool:
        with contextlib.suppress(UnavailableError):
            return await tables.nodes(nats_link).get(subjects.node_key(node.id)) is not None
        return False

    await wait_until(is_registered)


async def test_a_node_starts_without_nats_and_joins_when_it_comes(
    start_node: StartNode, nats_server: NatsServer
) -> None:
    nats_server.kill()
    node = await start_node(wait=False)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{node.mcu.http_port}") as client:
        answer = await client.get("/readyz")
        assert (answer.status_code, list(answer.json()["missing"])) == (503, ["nats"])
        nats_server.start()
        await wait_until(lambda: node.mcu.health.is_ready, timeout_s=15)
        text = (await client.get("/metrics")).text
    assert 'mrtc_rtcmcu_engine_tx_rtp_packets_total{worker="0"} 7.0' in text
    assert 'mrtc_rtcmcu_engine_drops_total{reason="malformed",worker="0"} 2.0' in text
    delay = "mrtc_rtcmcu_engine_tx_delay_seconds"
    found = [line.removeprefix(delay) for line in text.splitlines() if line.startswith(delay)]
    assert found == [
        '_bucket{le="0.00025",worker="0"} 3.0',
        '_bucket{le="0.001",worker="0"} 5.0',
        '_bucket{le="+Inf",worker="0"} 6.0',
        '_count{worker="0"} 6.0',
        '_sum{worker="0"} 2.5',
    ]


async def test_load_is_the_largest_part(start_node: StartNode, nats_link: NatsLink) -> None:
    node = await start_node(max_transports=4)
    for n in range(3):
        await node.create(f"t{n}")

    async def load() -> bool:
        value = (await _entry(nats_link, node.id)).load
        return value.load >= 0.75 and value.transports == 3 and value.rooms == 1

    await wait_until(load)


async def test_figures_of_many_transports_are_asked_for_in_batches(node: Node) -> None:
    """No engine worker is held up by a question about hundreds of transports; an unknown one is left out."""
    ids = [f"t{n}" for n in range(70)]
    await asyncio.gather(*(node.create(transport_id) for transport_id in ids))
    for asked in ([], [*ids, "unknown"]):
        node.engine.calls.clear()
        answer = await call(node.stub.GetStats, pb.GetStatsRequest(transport_ids=asked))
        found = json.loads(answer.json)["transports"]
        assert {(entry["id"], entry["participant_id"]) for entry in found} == {(i, f"p-{i}") for i in ids}
        assert node.engine.calls == ["stats"] * 3


async def test_captures_are_off_unless_a_folder_is_set(node: Node) -> None:
    request = pb.StartCaptureRequest(room_key=ROOM, content=pb.CAPTURE_CONTENT_HEADERS)
    with pytest.raises(PermissionDeniedError, match="capture_dir"):
        await call(node.stub.StartCapture, request)
    assert "start_capture" not in node.engine.calls


async def test_a_capture_needs_the_secret_of_the_cluster(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(capture_dir=str(tmp_path / "captures"))
    request = pb.StartCaptureRequest(room_key=ROOM, content=pb.CAPTURE_CONTENT_PACKETS)
    async with Channels(GrpcSecurity("a secret of somebody else")) as channels:
        stub = media_service_pb2_grpc.MediaServiceStub(channels.get(f"127.0.0.1:{node.mcu.grpc_port}"))
        with pytest.raises(UnauthenticatedError):
            await call(stub.StartCapture, request)
    assert "start_capture" not in node.engine.calls
    assert not (tmp_path / "captures").exists()


async def test_limits_of_a_capture_are_the_nodes(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(capture_dir=str(tmp_path), capture_max_bytes=5000, capture_max_s=7)
    base = {"room_key": ROOM, "content": pb.CAPTURE_CONTENT_HEADERS}
    for asked, given in (({}, (5000, 7)), ({"max_bytes": 4500, "max_duration_ms": 500}, (4500, 0.5))):
        begun = await call(node.stub.StartCapture, pb.StartCaptureRequest(**base, **asked))
        assert (node.engine.capture["max_bytes"], node.engine.capture["max_duration_s"]) == given
        await call(node.stub.StopCapture, pb.StopCaptureRequest(capture_id=begun.capture_id))
    over = {"max_bytes": 1 << 40, "max_duration_ms": 1 << 31}
    await call(node.stub.StartCapture, pb.StartCaptureRequest(**base, **over))
    assert (node.engine.capture["max_bytes"], node.engine.capture["max_duration_s"]) == (5000, 7)


async def test_one_capture_at_a_time_which_must_say_what_it_takes(start_node: StartNode, tmp_path: Path) -> None:
    node = await start_node(capture_dir=str(tmp_path / "captures"))
    content = pb.CAPTURE_CONTENT_PACKETS
    for wrong in (
        pb.StartCaptureRequest(room_key=ROOM),
        pb.StartCaptureRequest(content=content),
        pb.StartCaptureRequest(room_key=ROOM, transport_id="t1", content=content),
        pb.StartCaptureRequest(room_key="../x", content=content),
    ):
        with pytest.raises(BadRequestError):
            await call(node.stub.StartCapture, wrong)
    request = pb.StartCaptureRequest(room_key=ROOM, content=content)
    begun = await call(node.stub.StartCapture, request)
    assert Path(begun.path).parent == tmp_path / "captures"
    with pytest.raises(LimitExceededError):
        await call(node.stub.StartCapture, request)
    with pytest.raises(NotFoundError):
        await call(node.stub.StopCapture, pb.StopCaptureRequest(capture_id="other"))
    ended = await call(node.stub.StopCapture, pb.StopCaptureRequest(capture_id=begun.capture_id))
    assert (ended.packets, ended.bytes, ended.dropped) == (5, 600, 1)
