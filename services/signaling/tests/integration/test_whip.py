"""WHIP publishers and WHEP players, and every status they can get."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from mrtc.common.v1 import common_pb2 as common
from mrtc.media.v1 import media_service_pb2
from mrtc_common.testing import wait_until
from mrtc_signaling.testing import offer
from mrtc_signaling.testing.media_node import CHECKPOINT

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.integration

SDP = {"content-type": "application/sdp"}
FRAGMENT = {"content-type": "application/trickle-ice-sdpfrag"}
PUBLISH = offer(["audio send", "video send"])
PLAY = offer(["audio recv", "video recv"])


@pytest_asyncio.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=world.url()) as client:
        yield client


async def bearer(world: World, identity: str = "cam1", **options: object) -> dict[str, str]:
    return {"authorization": f"Bearer {await world.token(identity, **options)}"}


async def test_publish_play_and_end(world: World, http: httpx.AsyncClient) -> None:
    """A publisher is a participant that others see; a player gets its tracks; DELETE ends both."""
    alice = await world.joined("alice", offer=PLAY)
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | await bearer(world))
    assert made.status_code == 201
    assert made.headers["content-type"] == "application/sdp"
    assert made.headers["accept-patch"] == FRAGMENT["content-type"]
    assert made.headers["etag"].startswith('"')
    joined = (await alice.wait_push("participant_joined")).participant_joined.participant
    assert (joined.identity, joined.kind) == ("cam1", common.PARTICIPANT_KIND_INGRESS)
    publication = (await alice.wait_push("publication_updated")).publication_updated.publication
    assert [t.source for t in publication.tracks] == [common.TRACK_SOURCE_FILE] * 2

    played = await http.post("/whep/r1", content=PLAY, headers=SDP | await bearer(world, "viewer"))
    assert played.status_code == 201
    own = alice.joined.participant.id
    player = next(t for t in world.nodes[0].transports.values() if t.subscriptions and t.participant_id != own)
    assert set(player.slots.values()) == {t.id for t in publication.tracks}

    for door, identity in ((played, "viewer"), (made, "cam1")):
        ended = await http.delete(door.headers["location"], headers=await bearer(world, identity))
        assert ended.status_code == 200
        assert (await http.delete(door.headers["location"], headers=await bearer(world, identity))).status_code == 404
    await wait_until(lambda: alice.kinds().count("participant_left") == 2)
    await wait_until(lambda: len(world.nodes[0].transports) == 1)


async def test_many_players_share_one_token(world: World, http: httpx.AsyncClient) -> None:
    """A link for viewers: each player is a participant of its own; the wanted publisher may be named."""
    for name in ("cam1", "cam2"):
        token = await bearer(world, "ops", admin=True)
        made = await http.post(f"/whip/r1/{name}", content=PUBLISH, headers=SDP | token)
        assert made.status_code == 201, made.text
    token = await bearer(world, "viewer", hidden=True)
    for path in ("/whep/r1/cam2", "/whep/r1?participant=cam2"):
        assert (await http.post(path, content=PLAY, headers=SDP | token)).status_code == 201
    transports = list(world.nodes[0].transports.values())
    cam2 = [t for t in transports if t.tracks][1]
    players = [t for t in transports if t.slots]
    assert [set(p.slots.values()) for p in players] == [set(cam2.tracks), set(cam2.tracks)]
    alice = await world.joined("alice")
    assert {p.identity for p in alice.joined.snapshot.participants} == {"alice", "cam1", "cam2"}


async def test_player_of_a_silent_room_is_told_to_come_again(world: World, http: httpx.AsyncClient) -> None:
    """409 with Retry-After, as the draft says."""
    answer = await http.post("/whep/r1", content=PLAY, headers=SDP | await bearer(world))
    assert answer.status_code == 409
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["code"] == "failed_precondition"


@pytest.mark.parametrize("instance", [0, 1])
async def test_trickle_and_ice_restart(world: World, http: httpx.AsyncClient, instance: int) -> None:
    """204 for candidates, 200 with a fragment for a restart, 412 and 428 for wrong and missing If-Match.

    The same at another instance than the one that made the session, as behind a load balancer.
    """
    await world.add_service()
    auth = await bearer(world)
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | auth)
    where, etag = made.headers["location"], made.headers["etag"]
    trickle = "\r\n".join(
        [
            "a=ice-ufrag:ufrg",
            "a=ice-pwd:0123456789abcdef0123456789",
            "m=audio 9 RTP/AVP 0",
            "a=mid:0",
            "a=candidate:1 1 udp 1 192.0.2.1 9 typ host",
            "",
        ]
    )
    restart = "a=ice-ufrag:newu\r\na=ice-pwd:fedcba9876543210fedcba\r\n"

    async def patch(body: str | bytes, **headers: str) -> httpx.Response:
        return await http.patch(world.url(instance) + where, content=body, headers=auth | FRAGMENT | headers)

    assert (await patch(trickle, **{"if-match": etag})).status_code == 204
    assert (await patch(trickle)).status_code == 428
    assert (await patch(trickle, **{"if-match": '"other"'})).status_code == 412
    assert (await patch("garbage", **{"if-match": etag})).status_code == 400
    assert (await patch(trickle, **{"if-match": etag, "content-type": "text/plain"})).status_code == 415
    restarted = await patch(restart, **{"if-match": "*"})
    assert restarted.status_code == 200
    assert restarted.headers["content-type"] == FRAGMENT["content-type"]
    assert restarted.headers["etag"] != etag
    assert "a=ice-ufrag:srv1" in restarted.text
    assert (await patch(trickle, **{"if-match": etag})).status_code == 412
    assert (await patch(b"\xff\xfe", **{"if-match": "*"})).status_code == 400
    stranger = await http.delete(world.url(instance) + where, headers=await bearer(world, "stranger"))
    assert (stranger.status_code, stranger.json()["code"]) == (403, "permission_denied")
    assert (await http.delete(world.url(instance) + where, headers=auth)).status_code == 200
    await wait_until(lambda: not world.nodes[0].transports)
    assert (await http.delete(world.url(instance) + where, headers=auth)).status_code == 404


async def test_the_sessions_of_an_instance_that_is_gone_answer_at_another(
    world: World, http: httpx.AsyncClient
) -> None:
    """Whoever is asked for one takes it over, as when a client resumes; a restart of ICE goes on from its offer."""
    other = await world.add_service()
    auth = await bearer(world)
    async with httpx.AsyncClient(base_url=world.url(1)) as elsewhere:
        made = await elsewhere.post("/whip/r1", content=PUBLISH, headers=SDP | auth)
    await other.aclose()
    world.services.remove(other)
    where, restart = made.headers["location"], "a=ice-ufrag:newu\r\na=ice-pwd:fedcba9876543210fedcba\r\n"
    wrong = await http.patch(where, content=restart, headers=auth | FRAGMENT | {"if-match": '"other"'})
    assert wrong.status_code == 412
    asked = auth | FRAGMENT | {"if-match": made.headers["etag"]}
    restarted = await http.patch(where, content=restart, headers=asked)
    assert restarted.status_code == 200
    assert restarted.headers["etag"] != made.headers["etag"]
    assert (await http.delete(where, headers=auth)).status_code == 200
    await wait_until(lambda: not world.nodes[0].transports)
    assert (await http.delete(where, headers=auth)).status_code == 404


async def test_nobody_need_ask_for_the_sessions_of_an_instance_that_is_gone(world: World) -> None:
    """Exactly one of the others takes each over; its publisher stays in the room and ends with its transport."""
    gone = await world.add_service()
    await world.add_service()
    alice = await world.joined("alice", offer=PLAY)
    async with httpx.AsyncClient(base_url=world.url(1)) as elsewhere:
        made = await elsewhere.post("/whip/r1", content=PUBLISH, headers=SDP | await bearer(world))
        assert made.status_code == 201
        played = await elsewhere.post("/whep/r1", content=PLAY, headers=SDP | await bearer(world, "viewer"))
        assert played.status_code == 201
    await alice.wait_push("publication_updated")
    await gone.aclose()
    world.services.remove(gone)

    def kept() -> int:
        return sum(int(service.metrics.sessions.labels("http")._value.get()) for service in world.services)

    await wait_until(lambda: kept() == 2, timeout_s=15)
    own = alice.joined.participant.id
    node = world.nodes[0]
    publisher = next(t for t in node.transports.values() if t.tracks)
    player = next(t for t in node.transports.values() if t.participant_id != own and not t.tracks)
    assert set(player.slots.values()) == set(publisher.tracks)
    assert "participant_left" not in alice.kinds()
    # What its transport tells is heard by whoever has it now.
    node.emit(publisher.id, closed=media_service_pb2.TransportClosed(reason="peer_closed"))
    left = (await alice.wait_push("participant_left")).participant_left
    assert left.reason == common.LEAVE_REASON_CLIENT_REQUEST
    await wait_until(lambda: kept() == 1)


async def test_a_publisher_is_sent_away_when_its_node_drains(world: World, http: httpx.AsyncClient) -> None:
    """It ends, so that its client begins anew, which another node takes; without another node it stays."""
    auth = await bearer(world)
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | auth)
    node = world.nodes[0]
    (transport_id,) = node.transports
    node.emit(transport_id, move_wanted=media_service_pb2.MoveWanted())
    asked = world.master.placements if world.master else 0
    await wait_until(lambda: world.master is not None and world.master.placements > asked)
    assert list(node.transports) == [transport_id]
    await world.add_node()
    node.is_full = True
    await world.ask_to_move(node, transport_id, lambda: not node.transports)
    assert (await http.delete(made.headers["location"], headers=auth)).status_code == 404
    assert (await http.post("/whip/r1", content=PUBLISH, headers=SDP | auth)).status_code == 201
    await wait_until(lambda: len(world.nodes[1].transports) == 1)


def with_checkpoints(world: World) -> int:
    """How many sessions would go on if their node died."""
    return sum(int(service.metrics.checkpoints._value.get()) for service in world.services)


async def test_a_publisher_goes_on_elsewhere_when_its_node_has_died(world: World, http: httpx.AsyncClient) -> None:
    """From the last checkpoint, called from there; nobody in the room sees it leave."""
    alice = await world.joined("alice")
    auth = await bearer(world)
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | auth)
    before = (await alice.wait_push("publication_updated")).publication_updated.publication
    node, other = world.nodes[0], await world.add_node()
    await wait_until(lambda: with_checkpoints(world) == 1, timeout_s=10)
    node.is_full = True
    await node.die()
    await wait_until(lambda: bool(other.transports) and other.is_watched, timeout_s=10)
    (transport,) = other.transports.values()
    await wait_until(lambda: len(transport.tracks) == 2)
    assert transport.is_sending
    other.emit(transport.id, connected=media_service_pb2.TransportConnected())
    revived = world.services[0].metrics.carries.labels("revived")._value
    await wait_until(lambda: revived.get() == 1)
    assert "participant_left" not in alice.kinds()
    admin = await bearer(world, "ops", api=True)

    async def cam() -> dict[str, Any]:
        people = (await http.get("/v1/apps/demo/rooms/r1/participants", headers=admin)).json()["participants"]
        return next(one for one in people if one["identity"] == "cam1")

    async def is_shown_there() -> bool:
        return (await cam())["node_id"] == other.id

    await wait_until(is_shown_there)
    shown = await cam()
    assert {track["id"] for one in shown["publications"] for track in one["tracks"]} == {t.id for t in before.tracks}
    assert (await http.delete(made.headers["location"], headers=auth)).status_code == 200


async def test_who_does_not_follow_after_the_death_of_its_node_is_gone(world: World, http: httpx.AsyncClient) -> None:
    alice = await world.joined("alice")
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | await bearer(world))
    await alice.wait_push("publication_updated")
    other = await world.add_node()
    await wait_until(lambda: with_checkpoints(world) == 1, timeout_s=10)
    await world.nodes[0].die()
    left = (await alice.wait_push("participant_left")).participant_left
    assert left.reason == common.LEAVE_REASON_MEDIA_FAILURE
    await wait_until(lambda: not other.transports)
    assert (await http.delete(made.headers["location"], headers=await bearer(world))).status_code == 404


async def test_a_checkpoint_goes_to_one_node_only(world: World, http: httpx.AsyncClient) -> None:
    """Two that go on would seal different packets with the same numbers: if one perhaps took it, no other gets it."""
    alice = await world.joined("alice")
    assert (await http.post("/whip/r1", content=PUBLISH, headers=SDP | await bearer(world))).status_code == 201
    await alice.wait_push("publication_updated")
    second, third = await world.add_node(), await world.add_node()
    second.is_silent = True
    await wait_until(lambda: with_checkpoints(world) == 1, timeout_s=10)
    await world.nodes[0].die()
    left = (await alice.wait_push("participant_left")).participant_left
    assert left.reason == common.LEAVE_REASON_MEDIA_FAILURE
    assert second.states == [CHECKPOINT]
    assert third.states == []


async def test_a_client_that_follows_no_call_has_no_checkpoint(world: World, http: httpx.AsyncClient) -> None:
    pion = PUBLISH.replace("o=- 1 1 IN IP4 127.0.0.1", "o=- 1 1 IN IP4 0.0.0.0")
    assert (await http.post("/whip/r1", content=pion, headers=SDP | await bearer(world))).status_code == 201
    assert (await http.post("/whip/r1", content=PUBLISH, headers=SDP | await bearer(world, "cam2"))).status_code == 201
    await wait_until(lambda: with_checkpoints(world) == 1, timeout_s=10)
    assert [one.checkpoint is not None for one in world.services[0].sessions] == [False, True]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status", "code"),
    [
        ("POST", "/whip/r1", SDP, PUBLISH, 401, "unauthenticated"),
        ("POST", "/whip/r1", SDP | {"authorization": "Basic x"}, PUBLISH, 401, "unauthenticated"),
        ("POST", "/whip/r1", SDP | {"authorization": "Bearer junk"}, PUBLISH, 401, "unauthenticated"),
        ("POST", "/whip/r1", {"content-type": "text/plain", "auth": "ok"}, PUBLISH, 415, "bad_request"),
        ("POST", "/whip/r1", SDP | {"accept": "text/html", "auth": "ok"}, PUBLISH, 406, "bad_request"),
        ("POST", "/whip/r1", SDP | {"auth": "ok"}, "", 400, "bad_offer"),
        ("POST", "/whip/r1", SDP | {"auth": "ok"}, "not sdp", 400, "bad_offer"),
        ("POST", "/whip/r1", SDP | {"auth": "ok"}, PLAY, 406, "bad_offer"),
        ("POST", "/whip/r1", SDP | {"auth": "ok"}, PUBLISH + "a=x-bad\r\n", 406, "bad_offer"),
        ("POST", "/whep/r1", SDP | {"auth": "ok"}, PUBLISH, 406, "bad_offer"),
        ("POST", "/whip/r1", SDP | {"auth": "ok"}, "v=0" + "a" * 600_000, 413, "too_large"),
        ("POST", "/whip/r1", SDP | {"auth": "ok"}, b"v=0\xff\xfe", 406, "bad_offer"),
        ("POST", "/whip/r2", SDP | {"auth": "ok"}, PUBLISH, 403, "permission_denied"),
        ("POST", "/whip/r1/other", SDP | {"auth": "ok"}, PUBLISH, 403, "permission_denied"),
        ("GET", "/whip/r1", {}, "", 405, "bad_request"),
        ("PUT", "/whep/r1", {}, "", 405, "bad_request"),
        ("DELETE", "/whip/r1/se_none", {"auth": "ok"}, "", 404, "session_not_found"),
        ("PATCH", "/whip/r1/se_none", {"auth": "ok"}, "", 404, "session_not_found"),
        ("POST", "/whip", SDP | {"auth": "ok"}, PUBLISH, 404, "not_found"),
    ],
)
async def test_refusals(
    world: World,
    http: httpx.AsyncClient,
    method: str,
    path: str,
    headers: dict[str, str],
    body: str | bytes,
    status: int,
    code: str,
) -> None:
    """Each wrong request gets its status and a problem document."""
    headers = dict(headers)
    if headers.pop("auth", ""):
        headers |= await bearer(world)
    answer = await http.request(method, path, headers=headers, content=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    assert not world.nodes[0].transports


async def test_session_is_its_owners(world: World, http: httpx.AsyncClient) -> None:
    """Without a token 401, with another identity's 403, with another app's 404; a token in the query needs none."""
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | await bearer(world))
    where = made.headers["location"]
    assert (await http.delete(where)).status_code == 401
    assert (await http.delete(where, headers=await bearer(world, "mallory"))).status_code == 403
    assert (await http.delete(where, headers=await bearer(world, app="other"))).status_code == 404
    assert (await http.delete(where, headers=await bearer(world))).status_code == 200
    token = await world.token("tv")
    made = await http.post(f"/whip/r1?access_token={token}", content=PUBLISH, headers=SDP)
    assert made.status_code == 201
    assert token not in made.headers["location"]
    assert (await http.delete(made.headers["location"])).status_code == 200


async def test_options_and_cors(http: httpx.AsyncClient) -> None:
    """OPTIONS tells what is accepted; pages of other origins may call and read the headers they need."""
    plain = await http.options("/whip/r1")
    assert plain.status_code == 204
    assert plain.headers["accept-post"] == "application/sdp"
    preflight = await http.options(
        "/whip/r1",
        headers={
            "origin": "https://example.org",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )
    assert preflight.status_code == 200
    answer = await http.post("/whip/r1", headers={"origin": "https://example.org"})
    assert "Location" in answer.headers["access-control-expose-headers"]


async def test_publisher_leaves_with_its_transport(world: World, http: httpx.AsyncClient) -> None:
    """When the transport ends the participant leaves, and its session URL is gone."""
    alice = await world.joined("alice")
    made = await http.post("/whip/r1", content=PUBLISH, headers=SDP | await bearer(world))
    await alice.wait_push("publication_updated")
    node = world.nodes[0]
    transport = next(iter(node.transports))
    await wait_until(lambda: bool(node._watchers))
    node.emit(transport, closed=media_service_pb2.TransportClosed(reason="ice_timeout"))
    left = (await alice.wait_push("participant_left")).participant_left
    assert left.reason == common.LEAVE_REASON_CONNECTION_LOST
    assert (await http.delete(made.headers["location"], headers=await bearer(world))).status_code == 404
