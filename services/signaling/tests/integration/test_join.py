"""Joining, seeing each other, publishing, receiving, leaving."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from mrtc.common.v1 import common_pb2 as common
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_common.testing import wait_until
from mrtc_signaling.testing import offer

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.integration

AV_SEND = ["audio send", "video send"]
AV_RECV = ["audio recv", "video recv"]


def camera(mid: str = "1", cid: str = "cam") -> pb.NewPublication:
    track = pb.NewTrack(kind=common.TRACK_KIND_VIDEO, source=common.TRACK_SOURCE_CAMERA, mid=mid)
    return pb.NewPublication(cid=cid, tag="cam", tracks=[track])


def microphone(mid: str = "0", cid: str = "mic") -> pb.NewPublication:
    track = pb.NewTrack(kind=common.TRACK_KIND_AUDIO, source=common.TRACK_SOURCE_MICROPHONE, mid=mid)
    return pb.NewPublication(cid=cid, tag="mic", tracks=[track])


async def test_join_answers_in_one_round_trip(world: World) -> None:
    """Answer, own publications, snapshot and resume data come in the one reply."""
    alice = world.client()
    reply = await alice.join(
        await world.token("alice", name="Alice"), offer=offer(AV_SEND + AV_RECV), publications=[microphone(), camera()]
    )
    assert reply.answer.startswith("v=0")
    assert reply.participant.identity == "alice"
    assert reply.participant.name == "Alice"
    assert [p.tag for p in reply.publications] == ["mic", "cam"]
    assert reply.publications[1].tracks[0].codec == "vp8"
    assert reply.resume_token.startswith(reply.session_id)
    assert [s.mid for s in reply.snapshot.slots] == ["2", "3"]
    assert len(reply.snapshot.publications) == 2
    assert [p.identity for p in reply.snapshot.participants] == ["alice"]


async def test_both_see_and_receive_each_other(world: World) -> None:
    """The second finds the first in its snapshot; the first is told of the second; tracks are in slots at both."""
    alice = await world.joined("alice", offer=offer(AV_SEND + AV_RECV), publications=[microphone(), camera()])
    bob = await world.joined("bob", offer=offer(AV_SEND + AV_RECV), publications=[microphone(), camera()])
    snapshot = bob.joined.snapshot
    assert {p.identity for p in snapshot.participants} == {"alice", "bob"}
    assert {s.track_id for s in snapshot.slots} == {t.id for p in alice.joined.publications for t in p.tracks}
    joined = await alice.wait_push("participant_joined")
    assert joined.participant_joined.participant.identity == "bob"
    assert joined.push_seq >= 1
    mine = {t.id for p in bob.joined.publications for t in p.tracks}
    await wait_until(
        lambda: any({s.track_id for s in f.slots_changed.slots} == mine for f in alice.pushes), what="slots of alice"
    )
    assert [f.push_seq for f in alice.pushes] == list(range(1, len(alice.pushes) + 1))


async def test_publish_and_unpublish_later(world: World) -> None:
    """A later publication reaches the other with its slot, and its end too."""
    alice = await world.joined("alice", offer=offer(AV_SEND))
    bob = await world.joined("bob", offer=offer(AV_RECV))
    reply = await alice.request(publish=pb.PublishRequest(publications=[camera()]))
    publication = reply.publish.publications[0]
    seen = await bob.wait_push("publication_updated")
    assert seen.publication_updated.publication == publication
    slots = (await bob.wait_push("slots_changed")).slots_changed.slots
    assert [s.track_id for s in slots] == ["", publication.tracks[0].id]
    assert (await alice.request(unpublish=pb.UnpublishRequest(publication_id=publication.id))).HasField("done")
    gone = await bob.wait_push("publication_removed")
    assert gone.publication_removed.publication_id == publication.id
    await wait_until(lambda: bob.kinds().count("slots_changed") == 2)


async def test_leave_tells_the_reason_and_frees_everything(world: World) -> None:
    """A leave is seen at once, and nothing of the participant remains."""
    alice = await world.joined("alice")
    bob = await world.joined("bob", offer=offer(AV_SEND), publications=[camera()])
    assert (await bob.request(leave=pb.LeaveRequest())).HasField("done")
    left = (await alice.wait_push("participant_left")).participant_left
    assert left.participant_id == bob.joined.participant.id
    assert left.reason == common.LEAVE_REASON_CLIENT_REQUEST
    assert "publication_removed" in alice.kinds()
    await wait_until(lambda: not world.nodes[0].transports)
    assert await bob.wait_closed() == 1000
    again = await world.joined("bob")
    assert {p.identity for p in again.joined.snapshot.participants} == {"alice", "bob"}


async def test_same_identity_joins_again_newest_wins(world: World) -> None:
    """The former session is closed with the reason; others see one bob."""
    alice = await world.joined("alice")
    first = await world.joined("bob", offer=offer(AV_SEND), publications=[camera()])
    await world.joined("bob", offer=offer(AV_SEND), publications=[camera()])
    closing = await first.wait_push("closing")
    assert closing.closing.reason == common.LEAVE_REASON_DUPLICATE_IDENTITY
    assert not closing.closing.can_resume
    left = await alice.wait_push("participant_left")
    assert left.participant_left.reason == common.LEAVE_REASON_DUPLICATE_IDENTITY
    await wait_until(lambda: alice.kinds().count("participant_joined") == 2)
    third = await world.joined("carol")
    assert sorted(p.identity for p in third.joined.snapshot.participants) == ["alice", "bob", "carol"]


async def test_rooms_of_apps_never_meet(world: World) -> None:
    """The same room name in two apps is two rooms."""
    alice = await world.joined("alice")
    other = world.client()
    reply = await other.join(await world.token("alice", app="other"))
    assert len(reply.snapshot.participants) == 1
    assert alice.kinds() == []


async def test_thirty_joins_at_once(world: World) -> None:
    """Joins side by side all end up seeing each other."""
    clients = [world.client() for _ in range(30)]
    tokens = [await world.token(f"u{i}") for i in range(30)]
    await asyncio.gather(
        *(
            c.join(t, offer=offer(AV_SEND + AV_RECV), publications=[camera()])
            for c, t in zip(clients, tokens, strict=True)
        )
    )
    for client in clients:

        def seen(client: object = client) -> bool:
            names = {p.identity for p in client.joined.snapshot.participants}
            names |= {
                f.participant_joined.participant.identity for f in client.pushes if f.HasField("participant_joined")
            }
            return len(names) == 30

        await wait_until(seen, timeout_s=30)
