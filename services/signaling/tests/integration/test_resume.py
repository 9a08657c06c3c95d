"""Lost connections, other instances, killed instances, ended sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mrtc.common.v1 import common_pb2 as common
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_common.testing import wait_until
from mrtc_signaling.testing import Client, offer

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.integration


def camera(mid: str = "0", cid: str = "cam") -> pb.NewPublication:
    track = pb.NewTrack(kind=common.TRACK_KIND_VIDEO, source=common.TRACK_SOURCE_CAMERA, mid=mid)
    return pb.NewPublication(cid=cid, tag="cam", tracks=[track])


async def say(client: Client, text: str, **fields: object) -> int:
    request = pb.SendMessageRequest(payload=text.encode(), **fields)
    return (await client.request(send_message=request)).send_message.message_seq


def heard(client: Client) -> list[str]:
    return [f.message_received.payload.decode() for f in client.pushes if f.HasField("message_received")]


@pytest.mark.parametrize("number", [0, 1])
async def test_resume_goes_on_here_or_elsewhere(world: World, number: int) -> None:
    """Nobody leaves, media is untouched, publications keep their ids, missed messages come once and in order."""
    await world.add_service()
    alice = await world.joined("alice", offer=offer(["video send", "video recv"]), publications=[camera()])
    bob = await world.joined("bob", offer=offer(["video send", "video recv"]), publications=[camera()])
    await say(bob, "one")
    first = (await alice.wait_push("message_received")).message_received
    await alice.drop()
    assert not (await bob.wait_push("participant_updated")).participant_updated.participant.is_connected
    await say(bob, "two")
    await say(bob, "three")

    back = world.client(number)
    reply = (await back.resume(alice.joined.resume_token, first.message_seq)).resume
    assert reply.has_transport
    assert {p.identity for p in reply.snapshot.participants} == {"alice", "bob"}
    assert alice.joined.publications[0] in reply.snapshot.publications
    assert [s.track_id for s in reply.snapshot.slots] == [bob.joined.publications[0].tracks[0].id]
    await say(bob, "four")
    await wait_until(lambda: len(heard(back)) == 3)
    assert heard(back) == ["two", "three", "four"]
    await wait_until(lambda: bob.pushes[-1].participant_updated.participant.is_connected)
    assert "participant_left" not in bob.kinds()
    assert len(world.nodes[0].transports) == 2

    # The session works on: publishing on lines negotiated before, from the record.
    track = alice.joined.publications[0].tracks[0]
    back.next_id = 100
    assert (await back.request(mute=pb.MuteRequest(track_id=track.id, is_muted=True))).HasField("done")
    muted = await bob.wait_push("publication_updated", after=len(bob.pushes) - 1)
    assert muted.publication_updated.publication.tracks[0].is_muted


async def test_repeated_request_has_no_second_effect(world: World) -> None:
    """A request repeated after a resume on another instance publishes nothing twice and says nothing twice."""
    await world.add_service()
    alice = await world.joined("alice", offer=offer(["video send"]))
    bob = await world.joined("bob")
    request = pb.PublishRequest(publications=[camera()])
    first = await alice.request(request_id=7, publish=request)
    message = pb.SendMessageRequest(payload=b"once")
    seq = (await alice.request(request_id=8, send_message=message)).send_message.message_seq
    assert (await alice.request(request_id=7, publish=request)).publish == first.publish
    await alice.drop()
    back = world.client(1)
    await back.resume(alice.joined.resume_token)
    assert (await back.request(request_id=7, publish=request)).publish == first.publish
    again = await back.request(request_id=8, send_message=message)
    assert again.send_message.message_seq == seq
    back.next_id = 20
    await say(back, "end")
    await wait_until(lambda: heard(bob)[-1:] == ["end"])
    assert heard(bob) == ["once", "end"]
    assert bob.kinds().count("publication_updated") == 1


async def test_a_repeated_request_tells_the_slots_of_now(world: World) -> None:
    """What changed between the request and a resume is in the snapshot, and is not undone by the remembered reply."""
    alice = await world.joined("alice", offer=offer(["video recv"]))
    request = pb.SubscribeRequest()
    first = (await alice.request(request_id=7, subscribe=request)).subscribe
    assert [slot.track_id for slot in first.slots] == [""]
    await alice.drop()
    bob = await world.joined("bob", offer=offer(["video send"]), publications=[camera()])
    track_id = bob.joined.publications[0].tracks[0].id
    session = world.services[0].sessions.get(alice.joined.session_id)
    assert session is not None
    await wait_until(lambda: session.subscriber.slots.current[0][1] == track_id)
    back = world.client()
    await back.resume(alice.joined.resume_token)
    again = (await back.request(request_id=7, subscribe=request)).subscribe
    assert [slot.track_id for slot in again.slots] == [track_id]


async def test_grace_over_ends_the_session(world: World) -> None:
    """Without a resume the participant leaves with CONNECTION_LOST, and the token is void."""
    await world.add_service(session_grace_s=2.0)
    alice = await world.joined("alice")
    bob = await world.joined("bob", number=1)
    await bob.drop()
    left = (await alice.wait_push("participant_left")).participant_left
    assert left.reason == common.LEAVE_REASON_CONNECTION_LOST
    error = (await world.client().resume(bob.joined.resume_token)).error
    assert error.code == common.ERROR_CODE_SESSION_NOT_FOUND
    assert not error.HasField("retry_after_ms")


async def test_shutdown_tells_to_resume_elsewhere(world: World) -> None:
    """SIGTERM's path: Closing with can_resume, and the session goes on at another instance."""
    await world.add_service()
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    bob = await world.joined("bob", number=1)
    await world.services[0].aclose()
    closing = (await alice.wait_push("closing")).closing
    assert closing.reason == common.LEAVE_REASON_SERVER_SHUTDOWN
    assert closing.can_resume
    back = world.client(1)
    reply = (await back.resume(alice.joined.resume_token)).resume
    assert reply.has_transport
    assert alice.joined.publications[0] in reply.snapshot.publications
    assert "participant_left" not in bob.kinds()


async def test_second_connection_replaces_the_first(world: World) -> None:
    """A half-open connection does not keep its client out."""
    alice = await world.joined("alice")
    back = world.client()
    assert (await back.resume(alice.joined.resume_token)).HasField("resume")
    assert await alice.wait_closed() == 4000
    assert (await back.request(request_id=50, ping=pb.Ping(client_time_ms=5))).pong.client_time_ms == 5


async def test_taken_over_session_is_dropped_by_its_former_owner(world: World) -> None:
    """The instance that lost a session by compare-and-set closes its connection and touches nothing."""
    await world.add_service()
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    back = world.client(1)
    await back.resume(alice.joined.resume_token)
    session = world.services[0].sessions.get(alice.joined.session_id)
    assert session is not None
    await world.services[0].sessions.save(session)
    await alice.wait_closed()
    assert len(world.services[0].sessions) == 0
    assert len(world.nodes[0].transports) == 1
    assert (await back.request(request_id=50, ping=pb.Ping())).HasField("pong")


async def test_wrong_resume_tokens(world: World) -> None:
    """A guessed, damaged or empty token says the same as an expired one."""
    alice = await world.joined("alice")
    for token in ("", "x", alice.joined.session_id, f"{alice.joined.session_id}.guess", "se_.x", "a" * 500 + ".b"):
        client = world.client()
        error = (await client.resume(token)).error
        assert error.code == common.ERROR_CODE_SESSION_NOT_FOUND
        assert await client.wait_closed() == 4000 + common.ERROR_CODE_SESSION_NOT_FOUND


async def test_sessions_outlive_a_nats_restart(world: World) -> None:
    """While NATS is away requests are refused with a retry; afterwards everything goes on."""
    alice = await world.joined("alice")
    bob = await world.joined("bob")
    world.nats.kill()
    await wait_until(lambda: not world.services[0].health.is_ready)
    refused = await world.client().open()
    error = (await refused.request(join=pb.JoinRequest(token=await world.token("carol")))).error
    assert error.code == common.ERROR_CODE_UNAVAILABLE
    assert error.retry_after_ms > 0
    world.nats.start()
    await wait_until(lambda: world.services[0].health.is_ready)
    carol = await world.joined("carol")
    assert {p.identity for p in carol.joined.snapshot.participants} == {"alice", "bob", "carol"}
    await alice.wait_push("participant_joined", after=1)
    await say(alice, "hello again")
    await wait_until(lambda: heard(bob) == ["hello again"])
