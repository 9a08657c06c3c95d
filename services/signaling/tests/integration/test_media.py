"""What happens when media nodes fail, codecs differ, slots run out, people speak or are muted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from mrtc.common.v1 import common_pb2 as common
from mrtc.event.v1 import state_pb2
from mrtc.media.v1 import media_service_pb2 as media
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_common import subjects
from mrtc_common.testing import wait_until
from mrtc_signaling.testing import offer

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.integration

ROOM = subjects.room_key("demo", "r1")


def camera(mid: str = "0", cid: str = "cam", alternative_of: str = "") -> pb.NewPublication:
    track = pb.NewTrack(
        kind=common.TRACK_KIND_VIDEO, source=common.TRACK_SOURCE_CAMERA, mid=mid, alternative_of=alternative_of
    )
    return pb.NewPublication(cid=cid, tag="cam", tracks=[track])


async def test_full_node_is_passed_over(world: World) -> None:
    """A node that refuses is left out and the next is asked; when none has room the client is told when to retry."""
    second = await world.add_node()
    world.nodes[0].is_full = True
    await world.joined("alice", offer=offer(["video send"]))
    assert len(second.transports) == 1
    second.is_full = True
    bob = await world.client().open()
    error = (await bob.request(join=pb.JoinRequest(token=await world.token("bob"), offer=offer(["video send"])))).error
    assert error.code == common.ERROR_CODE_NO_CAPACITY
    assert error.HasField("retry_after_ms")
    carol = await world.joined("carol")
    assert {p.identity for p in carol.joined.snapshot.participants} == {"alice", "carol"}


async def test_killed_node_costs_a_new_transport_only(world: World) -> None:
    """The client is told within seconds, negotiates anew, its publication keeps its id, others follow."""
    second = await world.add_node()
    world.nodes.reverse()  # alice goes to the second
    alice = await world.joined("alice", offer=offer(["video send", "video recv"]), publications=[camera()])
    world.nodes.reverse()
    assert len(second.transports) == 1
    bob = await world.joined("bob", offer=offer(["video send", "video recv"]))
    # Placement prefers no node here: bob may be anywhere; what counts is what he is subscribed to.
    await second.die()
    await alice.wait_push("media_lost")
    world.nodes.remove(second)
    track = alice.joined.publications[0].tracks[0]
    world.directory.pop(track.id, None)
    request = pb.NegotiateRequest(
        offer=offer(["video recv", "video send"]), new_transport=True, track_mids={track.id: "1"}
    )
    reply = await alice.request(negotiate=request)
    assert reply.negotiate.answer.startswith("v=0")
    first = world.nodes[0]
    assert first.transport_of(alice.joined.participant.id).tracks[f"{track.id}-1"].mid == "1"
    if any(kind == "media_lost" for kind in bob.kinds()):
        await bob.request(negotiate=pb.NegotiateRequest(offer=offer(["video send", "video recv"]), new_transport=True))
    await wait_until(
        lambda: any(
            t.subscriptions and t.subscriptions[0].origin_node_id == first.id
            for t in first.transports.values()
            if t.participant_id == bob.joined.participant.id
        )
    )
    for client in (alice, bob):
        assert "participant_left" not in client.kinds()
        assert "publication_removed" not in client.kinds()
    await second.aclose()


async def test_lost_transport_alone(world: World) -> None:
    """A transport that timed out is replaced on the same node; subscribers are subscribed again."""
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    bob = await world.joined("bob", offer=offer(["video recv"]))
    node = world.nodes[0]
    transport = node.transport_of(alice.joined.participant.id)
    node.emit(transport.id, closed=media.TransportClosed(reason="ice_timeout"))
    await alice.wait_push("media_lost")
    del node.transports[transport.id]
    track = alice.joined.publications[0].tracks[0]
    calls = node.set_subscriptions_calls
    request = pb.NegotiateRequest(offer=offer(["video send"]), new_transport=True, track_mids={track.id: "0"})
    reply = await alice.request(negotiate=request)
    assert reply.negotiate.answer.startswith("v=0")
    await wait_until(lambda: node.set_subscriptions_calls > calls)
    bob_has = node.transport_of(bob.joined.participant.id)
    await wait_until(lambda: bob_has.slots == {"0": f"{track.id}-1"})


async def test_a_move_keeps_the_former_transport_until_the_new_one_flows(world: World) -> None:
    """Asked by the node; others are told when the new transport is connected, and the former ends after that."""
    first, second = world.nodes[0], await world.add_node()
    alice = await world.joined("alice", offer=offer(["video send", "video recv"]), publications=[camera()])
    bob = await world.joined("bob", offer=offer(["video recv"]))
    track = alice.joined.publications[0].tracks[0].id
    former = first.transport_of(alice.joined.participant.id)
    first.emit(former.id, move_wanted=media.MoveWanted())
    await alice.wait_push("move_requested")
    request = pb.NegotiateRequest(
        offer=offer(["video send", "video recv"]), new_transport=True, is_move=True, track_mids={track: "0"}
    )
    assert (await alice.request(negotiate=request)).negotiate.answer.startswith("v=0")
    fresh = second.transport_of(alice.joined.participant.id)
    assert list(fresh.tracks) == [f"{track}-1"]
    bob_has = first.transport_of(bob.joined.participant.id)
    assert bob_has.slots == {"0": track}
    assert former.id in first.transports

    # An admin mutes in the middle of it, which must not bring the former place back.
    headers = {"authorization": f"Bearer {await world.token('', room='', api=True)}"}
    async with httpx.AsyncClient(base_url=world.url(), headers=headers) as client:
        muted = await client.post(f"/v1/apps/demo/rooms/r1/tracks/{track}/mute", json={"is_muted": True})
        assert muted.status_code == 200
    await alice.wait_push("publication_updated")
    assert former.muted == {track: True}

    second.emit(fresh.id, connected=media.TransportConnected())
    await wait_until(lambda: [s.track_id for s in bob_has.subscriptions] == [f"{track}-1"])
    wanted = bob_has.subscriptions[0]
    assert (wanted.origin_node_id, list(wanted.former_track_ids)) == (second.id, [track])
    await wait_until(lambda: former.id not in first.transports)
    # What others do with the track goes to where it is now, and the client knows one name only.
    await alice.request(mute=pb.MuteRequest(track_id=track, is_muted=False))
    assert fresh.muted == {f"{track}-1": False}
    slots = [s.track_id for f in bob.pushes if f.WhichOneof("body") == "slots_changed" for s in f.slots_changed.slots]
    assert set(slots) <= {track, ""}
    assert not {"participant_left", "publication_removed", "media_lost"} & {*alice.kinds(), *bob.kinds()}


async def test_who_relieves_a_node_that_stays_goes_where_the_master_said(world: World) -> None:
    """Who is asked goes to the node that was found better, or is not asked at all; WHIP never is."""
    node = world.nodes[0]
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    transport = node.transport_of(alice.joined.participant.id)
    optional = media.MoveWanted(is_optional=True)
    node.emit(transport.id, move_wanted=optional)
    await wait_until(lambda: world.master is not None and world.master.reliefs == 1)
    better, other = await world.add_node(), await world.add_node()
    url = f"{world.url()}/whip/r1"
    headers = {"authorization": f"Bearer {await world.token('whip')}", "content-type": "application/sdp"}
    async with httpx.AsyncClient() as client:
        assert (await client.post(url, content=offer(["video send"]), headers=headers)).status_code == 201
    whip = next(t for t in node.transports.values() if t.id != transport.id)
    node.emit(whip.id, move_wanted=optional)
    node.emit(transport.id, move_wanted=optional)
    await alice.wait_push("move_requested")
    assert world.master.reliefs == 2
    assert alice.kinds().count("move_requested") == 1
    world.master.nodes.remove(better)  # it would not be the first choice any more
    request = pb.NegotiateRequest(
        offer=offer(["video send"]),
        new_transport=True,
        is_move=True,
        track_mids={alice.joined.publications[0].tracks[0].id: "0"},
    )
    assert (await alice.request(negotiate=request)).HasField("negotiate")
    assert (len(better.transports), len(other.transports)) == (1, 0)
    world.master.nodes.append(better)


async def test_a_move_that_finds_no_place_changes_nothing(world: World) -> None:
    """Nobody is asked while no other node has room; a client that moves by itself is refused and stays."""
    node = world.nodes[0]
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    track = alice.joined.publications[0].tracks[0].id
    transport = node.transport_of(alice.joined.participant.id)
    node.emit(transport.id, move_wanted=media.MoveWanted())
    request = pb.NegotiateRequest(
        offer=offer(["video send"]), new_transport=True, is_move=True, track_mids={track: "0"}
    )
    reply = await alice.request(negotiate=request)
    assert reply.error.code == common.ERROR_CODE_NO_CAPACITY
    await alice.request(mute=pb.MuteRequest(track_id=track, is_muted=True))
    assert transport.muted == {track: True}
    assert "move_requested" not in alice.kinds()


async def test_the_api_moves_a_participant_to_a_node(world: World) -> None:
    """To a certain node or any other; what cannot be moved is refused with a code."""
    second, third = await world.add_node(), await world.add_node()
    alice = await world.joined("alice", offer=offer(["video recv"]))
    await world.joined("bob")
    path = "/v1/apps/demo/rooms/r1/participants/{}/move"
    headers = {"authorization": f"Bearer {await world.token('', room='', api=True)}"}
    async with httpx.AsyncClient(base_url=world.url(), headers=headers) as client:
        for who, node, status, code in (
            ("bob", "", 409, "failed_precondition"),
            ("alice", world.nodes[0].id, 409, "failed_precondition"),
            ("alice", "mcu_nowhere", 503, "unavailable"),
            ("alice", "../x", 400, "bad_request"),
            ("nobody", "", 404, "participant_not_found"),
        ):
            refused = await client.post(path.format(who), json={"node": node})
            assert (refused.status_code, refused.json()["code"]) == (status, code)
        assert (await client.post(path.format("alice"), json={"node": third.id})).status_code == 202
    await alice.wait_push("move_requested")
    await alice.request(negotiate=pb.NegotiateRequest(offer=offer(["video recv"]), new_transport=True, is_move=True))
    assert not second.transports
    assert len(third.transports) == 1


async def test_the_room_says_how_many_are_heard_and_the_node_who_they_are(world: World) -> None:
    """The node is told the number; its events reach the client as slots, an older one does not."""
    headers = {"authorization": f"Bearer {await world.token('', room='', api=True)}"}
    async with httpx.AsyncClient(base_url=world.url(), headers=headers) as client:
        made = await client.post("/v1/apps/demo/rooms", json={"name": "r1", "audio_top_n": 2})
        assert made.json()["audio_top_n"] == 2
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    bob = await world.joined("bob", offer=offer(["video recv", "audio recv"]))
    node = world.nodes[0]
    transport = node.transport_of(bob.joined.participant.id)
    track = alice.joined.publications[0].tracks[0].id
    await wait_until(lambda: transport.audio_top_n == 2)

    def slots(audio: str, version: int) -> media.SlotsChanged:
        mapped = [media.Slot(mid="0", track_id=track), media.Slot(mid="1", track_id=audio)]
        return media.SlotsChanged(slots=mapped, slots_version=version)

    for audio, version in (("a", 2), ("b", 1), ("c", 3)):
        node.emit(transport.id, slots_changed=slots(audio, version))

    def heard() -> list[str]:
        changes = [frame.slots_changed for frame in bob.pushes if frame.WhichOneof("body") == "slots_changed"]
        return [slot.track_id for change in changes for slot in change.slots if slot.mid == "1"]

    await wait_until(lambda: "c" in heard())
    assert "b" not in heard()


async def test_ice_restart_and_more_slots(world: World) -> None:
    """SlotsNeeded asks for a line; a later offer of the same transport brings it."""
    alice = await world.joined(
        "alice", offer=offer(["video send", "video send"]), publications=[camera("0", "a"), camera("1", "b")]
    )
    bob = await world.joined("bob", offer=offer(["video recv"]))
    needed = (await bob.wait_push("slots_needed")).slots_needed
    assert (needed.audio, needed.video) == (0, 1)
    reply = await bob.request(negotiate=pb.NegotiateRequest(offer=offer(["video recv", "video recv"])))
    tracks = [p.tracks[0].id for p in alice.joined.publications]
    assert [s.track_id for s in reply.negotiate.slots] == tracks
    bad = await bob.request(negotiate=pb.NegotiateRequest(offer=offer(["video recv"]) + "a=x-bad\r\n"))
    assert bad.error.code == common.ERROR_CODE_BAD_OFFER


async def test_join_without_media_then_negotiate(world: World) -> None:
    """Text first, media later."""
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    bob = await world.joined("bob")
    assert bob.joined.answer == ""
    reply = await bob.request(negotiate=pb.NegotiateRequest(offer=offer(["video recv"])))
    assert [s.track_id for s in reply.negotiate.slots] == [alice.joined.publications[0].tracks[0].id]


async def test_manual_subscription(world: World) -> None:
    """Nothing comes unasked; wishes reach the node; what is given up stays given up."""
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    track = alice.joined.publications[0].tracks[0].id
    bob = await world.joined("bob", offer=offer(["video recv"]), manual_subscribe=True)
    assert [s.track_id for s in bob.joined.snapshot.slots] in ([], [""])
    wish = pb.TrackWish(track_id=track, max_height=180, max_fps=15, priority=9)
    reply = await bob.request(subscribe=pb.SubscribeRequest(wishes=[wish]))
    assert [s.track_id for s in reply.subscribe.slots] == [track]
    applied = world.nodes[0].transport_of(bob.joined.participant.id).subscriptions[0]
    assert (applied.max_height, applied.max_fps, applied.priority) == (180, 15, 9)
    assert (await bob.request(unsubscribe=pb.UnsubscribeRequest(track_ids=[track]))).HasField("done")
    assert world.nodes[0].transport_of(bob.joined.participant.id).subscriptions == []
    missing = await bob.request(subscribe=pb.SubscribeRequest(wishes=[pb.TrackWish(track_id="tr_none")]))
    assert missing.error.code == common.ERROR_CODE_PUBLICATION_NOT_FOUND


async def test_alternative_codec_is_asked_for_and_used(world: World) -> None:
    """A receiver of H.264 alone makes the publisher send a second codec; the slot carries the first track's name."""
    alice = await world.joined("alice", offer=offer(["video send", "video send"]), publications=[camera()])
    first = alice.joined.publications[0].tracks[0]
    assert first.codec == "vp8"
    bob = await world.joined("bob", offer=offer(["video recv"], codecs=["h264"]))
    asked = (await alice.wait_push("codec_requested")).codec_requested
    assert (asked.track_id, list(asked.codecs)) == (first.id, ["h264"])
    made = await alice.request(publish=pb.PublishRequest(publications=[camera("1", "alt", first.id)]))
    publication = made.publish.publications[0]
    assert publication.id == alice.joined.publications[0].id
    assert [t.codec for t in publication.tracks] == ["vp8", "h264"]
    slots = (await bob.wait_push("slots_changed")).slots_changed.slots
    while [s.track_id for s in slots] != [first.id]:
        slots = (await bob.wait_push("slots_changed", after=len(bob.pushes) - 1)).slots_changed.slots
    assert "subscription_failed" not in bob.kinds()


async def test_no_common_codec_is_said_clearly(world: World) -> None:
    """When the publisher cannot send anything that the receiver decodes, the receiver is told so at once."""
    alice = await world.joined("alice", offer=offer(["video send"], codecs=["vp8"]), publications=[camera()])
    bob = await world.joined("bob", offer=offer(["video recv"], codecs=["h264"]))
    failed = (await bob.wait_push("subscription_failed")).subscription_failed
    assert failed.track_id == alice.joined.publications[0].tracks[0].id
    assert failed.error.code == common.ERROR_CODE_NO_COMMON_CODEC
    assert "vp8" in failed.error.message
    assert "h264" in failed.error.message


async def test_events_of_the_node_reach_the_publisher(world: World) -> None:
    """Wanted layers are pushed; the codec that is really sent is shown to all."""
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    bob = await world.joined("bob")
    node, track = world.nodes[0], alice.joined.publications[0].tracks[0].id
    await wait_until(lambda: bool(node._watchers))
    transport = node.transport_of(alice.joined.participant.id).id
    node.emit(transport, layers_wanted=media.LayersWanted(track_id=track, rids=["q"], spatial_layers=2))
    wanted = (await alice.wait_push("layers_wanted")).layers_wanted
    assert (list(wanted.rids), wanted.spatial_layers) == (["q"], 2)
    node.emit(transport, track_started=media.TrackStarted(track_id=track, codec="vp9"))
    seen = (await bob.wait_push("publication_updated")).publication_updated.publication
    assert seen.tracks[0].codec == "vp9"


async def test_speakers_are_merged_over_nodes(world: World) -> None:
    """Two nodes' lists become one, loudest first."""
    alice = await world.joined("alice")
    for node, who, level in (("n1", "pa_1", 50), ("n2", "pa_2", 90)):
        heard = state_pb2.NodeSpeakers(
            node_id=node, tracks=[state_pb2.TrackLevel(track_id="t", participant_id=who, level=level)]
        )
        await world.link.publish(subjects.speakers_subject(ROOM), heard.SerializeToString())
    await wait_until(
        lambda: any([s.participant_id for s in f.speakers_changed.speakers] == ["pa_2", "pa_1"] for f in alice.pushes)
    )


async def test_forced_mute_by_control(world: World) -> None:
    """An order on the session's control subject mutes and tells its client."""
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    track = alice.joined.publications[0].tracks[0].id
    order = state_pb2.SessionControl(force_mute=state_pb2.ForceMute(track_id=track, is_muted=True))
    await world.link.publish(subjects.control_subject(alice.joined.session_id), order.SerializeToString())
    seen = (await alice.wait_push("publication_updated")).publication_updated.publication
    assert seen.tracks[0].is_muted
    end = state_pb2.SessionControl(end=state_pb2.EndSession(reason=common.LEAVE_REASON_REMOVED))
    await world.link.publish(subjects.control_subject(alice.joined.session_id), end.SerializeToString())
    assert (await alice.wait_push("closing")).closing.reason == common.LEAVE_REASON_REMOVED


async def test_messages_in_order_to_whom_they_are_for(world: World) -> None:
    """All get them in one order, the sender does not, private ones only those named."""
    alice, bob, carol = [await world.joined(name) for name in ("alice", "bob", "carol")]
    for number in range(20):
        await alice.request(send_message=pb.SendMessageRequest(payload=str(number).encode()))
    await alice.request(send_message=pb.SendMessageRequest(payload=b"secret", to=["bob"]))
    await bob.request(send_message=pb.SendMessageRequest(payload=b"end"))
    got = lambda c: [f.message_received.payload for f in c.pushes if f.HasField("message_received")]  # noqa: E731
    await wait_until(lambda: got(carol)[-1:] == [b"end"] and len(got(bob)) == 21)
    numbers = [str(n).encode() for n in range(20)]
    assert got(carol) == [*numbers, b"end"]
    assert got(bob) == [*numbers, b"secret"]
    await wait_until(lambda: got(alice) == [b"end"])
    late = await world.joined("late")
    assert got(late) == []
    assert late.joined.snapshot.last_message_seq > 0


async def test_hidden_participant(world: World) -> None:
    """It sees and receives, is not shown, and cannot publish."""
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    ghost = world.client()
    await ghost.join(await world.token("ghost", hidden=True), offer=offer(["video recv", "video send"]))
    assert [s.track_id for s in ghost.joined.snapshot.slots] == [alice.joined.publications[0].tracks[0].id]
    refused = await ghost.request(publish=pb.PublishRequest(publications=[camera("1")]))
    assert refused.error.code == common.ERROR_CODE_PERMISSION_DENIED
    bob = await world.joined("bob")
    assert {p.identity for p in bob.joined.snapshot.participants} == {"alice", "bob"}
    await alice.wait_push("participant_joined")
    assert [f.participant_joined.participant.identity for f in alice.pushes if f.HasField("participant_joined")] == [
        "bob"
    ]
