"""Transports, tracks and subscriptions of a node."""

import asyncio

import pytest
from mrtc.common.v1.common_pb2 import TRACK_KIND_VIDEO, Track
from mrtc.event.v1.state_pb2 import NodeSpeakers
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc_common import subjects
from mrtc_common.errors import (
    AlreadyExistsError,
    BadOfferError,
    BadRequestError,
    NoCapacityError,
    PublicationNotFoundError,
    TransportNotFoundError,
)
from mrtc_common.grpc import call, stream
from mrtc_common.nats import NatsLink
from mrtc_common.testing import wait_until

from services.rtcmcu.tests.running_node import ROOM, Node, StartNode, slots_of

pytestmark = pytest.mark.integration


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
    assert slots_of(await node.subscribe("viewer", "a")) == ["a", ""]
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
    assert slots_of(response) == ["a", "b"]
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
