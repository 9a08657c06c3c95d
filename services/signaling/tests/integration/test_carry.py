"""WHIP and WHEP sessions whose transport goes to another node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import httpx
import pytest
import pytest_asyncio
from mrtc.media.v1 import media_service_pb2
from mrtc_common.testing import wait_until
from mrtc_signaling.testing import FakeNode, offer
from mrtc_signaling.testing.media_node import Transport

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.integration

SDP = {"content-type": "application/sdp"}
FRAGMENT = {"content-type": "application/trickle-ice-sdpfrag"}
RESTART = "a=ice-ufrag:newu\r\na=ice-pwd:fedcba9876543210fedcba\r\n"
PUBLISH = offer(["audio send", "video send"])
PLAY = offer(["audio recv", "video recv"])


@pytest_asyncio.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.url()) as client:
        yield client


async def bearer(world: World, identity: str = "cam1") -> dict[str, str]:
    return {"authorization": f"Bearer {await world.token(identity)}"}


async def called(world: World, former: Transport) -> tuple[FakeNode, Transport]:
    """Has the first node ask for a transport's move; the other node, and the transport there that calls the client."""
    node, other = world.nodes[0], await world.add_node()
    await world.ask_to_move(node, former.id, lambda: bool(other.transports))
    await wait_until(lambda: other.is_watched)
    (new,) = other.transports.values()
    assert (former.is_sending, new.is_sending) == (True, False)
    return other, new


def comes(node: FakeNode, transport: Transport) -> None:
    """The client sends at the other node."""
    node.emit(transport.id, connected=media_service_pb2.TransportConnected())


async def test_a_publisher_that_follows_goes_on(world: World, http: httpx.AsyncClient) -> None:
    """One node has it at a time, others go over to its tracks there, and nobody hears of a leave or a join."""
    alice = await world.joined("alice", offer=PLAY)
    auth = await bearer(world)
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | auth)
    await alice.wait_push("publication_updated")
    (former,) = (t for t in world.nodes[0].transports.values() if t.tracks)
    other, new = await called(world, former)
    own = world.nodes[0].transport_of(alice.joined.participant.id)
    assert {s.track_id for s in own.subscriptions} == former.tracks.keys(), "it may stay"
    assert former.is_sending
    told = len(alice.pushes)
    comes(other, new)
    await wait_until(lambda: new.is_sending)
    assert not former.is_sending
    assert len(new.tracks) == 2
    assert not new.tracks.keys() & former.tracks.keys(), "names of their own: both are there for a while"
    await wait_until(lambda: {s.track_id for s in own.subscriptions} == new.tracks.keys())
    assert {name for s in own.subscriptions for name in s.former_track_ids} == former.tracks.keys()
    await wait_until(lambda: former.id not in world.nodes[0].transports)
    assert not {"participant_left", "participant_joined", "publication_removed"} & set(alice.kinds()[told:])
    # The session is where it was, and its ICE session the same.
    asked = auth | FRAGMENT | {"if-match": made.headers["etag"]}
    restarted = await http.patch(made.headers["location"], content=RESTART, headers=asked)
    assert restarted.status_code == 200
    assert new.generation == 1
    assert (await http.delete(made.headers["location"], headers=auth)).status_code == 200
    await wait_until(lambda: not other.transports)


async def test_a_player_that_follows_goes_on(world: World, http: httpx.AsyncClient) -> None:
    """What it plays is subscribed at the other node before that one sends."""
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | await bearer(world))
    assert made.status_code == 201
    played = await http.post("/whep/r1/cam1", content=PLAY, headers=SDP | await bearer(world, "tv"))
    (former,) = (t for t in world.nodes[0].transports.values() if t.subscriptions)
    other, new = await called(world, former)
    assert not new.subscriptions
    comes(other, new)
    await wait_until(lambda: new.is_sending)
    assert list(new.subscriptions) == list(former.subscriptions)
    await wait_until(lambda: former.id not in world.nodes[0].transports)
    assert (await http.delete(played.headers["location"], headers=await bearer(world, "tv"))).status_code == 200
    await wait_until(lambda: not other.transports)


async def published_and_played(world: World, http: httpx.AsyncClient) -> tuple[Transport, Transport]:
    """The transports of one who publishes and one who plays that, both at the first node."""
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | await bearer(world))
    assert made.status_code == 201
    played = await http.post("/whep/r1/cam1", content=PLAY, headers=SDP | await bearer(world, "tv"))
    assert played.status_code == 201
    publisher, player = world.nodes[0].transports.values()
    return publisher, player


async def test_a_player_follows_its_publisher_first(world: World, http: httpx.AsyncClient) -> None:
    """Both are asked at once: the player is called when the publisher is over and sent from there."""
    publisher, player = await published_and_played(world, http)
    other, new = await called(world, publisher)
    world.nodes[0].emit(player.id, move_wanted=media_service_pb2.MoveWanted())
    comes(other, new)
    await wait_until(lambda: len(other.transports) == 2)
    assert new.is_sending
    assert {s.track_id for s in player.subscriptions} == new.tracks.keys()
    (moved,) = (t for t in other.transports.values() if t is not new)
    comes(other, moved)
    await wait_until(lambda: moved.is_sending and not player.is_sending)


async def test_a_player_on_its_way_is_told_of_what_changes(world: World, http: httpx.AsyncClient) -> None:
    """Its publisher goes over while it is called: its former node, which sends until then, follows the publisher."""
    publisher, player = await published_and_played(world, http)
    other, called_player = await called(world, player)
    world.nodes[0].emit(publisher.id, move_wanted=media_service_pb2.MoveWanted())
    await wait_until(lambda: len(other.transports) == 2)
    (called_publisher,) = (t for t in other.transports.values() if t is not called_player)
    comes(other, called_publisher)
    await wait_until(lambda: len(called_publisher.tracks) == 2)
    await wait_until(lambda: {s.track_id for s in player.subscriptions} == called_publisher.tracks.keys())
    assert player.is_sending
    comes(other, called_player)
    await wait_until(lambda: called_player.is_sending and not player.is_sending)
    assert {s.track_id for s in called_player.subscriptions} == called_publisher.tracks.keys()


async def test_who_stays_begins_anew(world: World) -> None:
    """The session ends, and its former transport, which tells the client; no transport is left."""
    await world.add_service(carry_timeout_s=0.2)
    auth = await bearer(world)
    async with httpx.AsyncClient(base_url=world.url(1)) as http:
        made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | auth)
        (former,) = world.nodes[0].transports.values()
        other, _ = await called(world, former)
        await wait_until(lambda: not world.nodes[0].transports and not other.transports)
        assert former.is_sending, "nothing was given up before"
        assert (await http.delete(made.headers["location"], headers=auth)).status_code == 404


async def test_a_restart_of_ice_leads_to_the_other_node(world: World, http: httpx.AsyncClient) -> None:
    """A PATCH that comes while the client is called is answered by the node that calls; the ETag changes."""
    auth = await bearer(world)
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | auth)
    where, etag = made.headers["location"], made.headers["etag"]
    (former,) = world.nodes[0].transports.values()
    other, new = await called(world, former)
    restarted = await http.patch(where, content=RESTART, headers=auth | FRAGMENT | {"if-match": etag})
    assert (restarted.status_code, former.generation, new.generation) == (200, 0, 1)
    assert restarted.headers["etag"] != etag
    again = await http.patch(where, content=RESTART, headers=auth | FRAGMENT | {"if-match": etag})
    assert again.status_code == 412
    comes(other, new)
    await wait_until(lambda: new.is_sending and not former.is_sending)
    assert (await http.delete(where, headers=auth)).status_code == 200
    # At once, not when the former would have ended.
    await wait_until(lambda: not world.nodes[0].transports and not other.transports, timeout_s=2)


async def test_who_has_data_channels_is_not_called(world: World, http: httpx.AsyncClient) -> None:
    """Their state cannot be carried: the session ends at once."""
    auth = await bearer(world)
    with_data = PUBLISH + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n"
    made = await http.post("/whip/r1", content=with_data, headers=SDP | auth)
    assert made.status_code == 201
    (former,) = world.nodes[0].transports.values()
    other = await world.add_node()
    world.nodes[0].emit(former.id, move_wanted=media_service_pb2.MoveWanted())
    await wait_until(lambda: not world.nodes[0].transports)
    assert not other.transports
    assert (await http.delete(made.headers["location"], headers=auth)).status_code == 404
