"""Bad input at the WebSocket: a clear error with a stable code, nothing leaks, nothing stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import websockets
from mrtc.common.v1 import common_pb2 as common
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_common.testing import wait_until
from mrtc_signaling.testing import offer
from websockets.asyncio.client import connect

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.integration


def camera(mid: str = "0", cid: str = "cam") -> pb.NewPublication:
    track = pb.NewTrack(kind=common.TRACK_KIND_VIDEO, source=common.TRACK_SOURCE_CAMERA, mid=mid)
    return pb.NewPublication(cid=cid, tracks=[track])


FIRST_FRAMES: list[tuple[str, bytes, int]] = [
    ("garbage", b"\xff\xff\xff\xff", common.ERROR_CODE_BAD_REQUEST),
    ("empty", b"", common.ERROR_CODE_BAD_REQUEST),
    (
        "no request id",
        pb.ClientFrame(join=pb.JoinRequest(token="x")).SerializeToString(),
        common.ERROR_CODE_BAD_REQUEST,
    ),
    (
        "not a join",
        pb.ClientFrame(request_id=1, leave=pb.LeaveRequest()).SerializeToString(),
        common.ERROR_CODE_FAILED_PRECONDITION,
    ),
    (
        "no token",
        pb.ClientFrame(request_id=1, join=pb.JoinRequest()).SerializeToString(),
        common.ERROR_CODE_UNAUTHENTICATED,
    ),
    (
        "junk token",
        pb.ClientFrame(request_id=1, join=pb.JoinRequest(token="a.b.c")).SerializeToString(),
        common.ERROR_CODE_UNAUTHENTICATED,
    ),
    ("too large", b"\x00" * (1024 * 1024 + 1), common.ERROR_CODE_TOO_LARGE),
]


@pytest.mark.parametrize(("frame", "code"), [f[1:] for f in FIRST_FRAMES], ids=[f[0] for f in FIRST_FRAMES])
async def test_bad_first_frames(world: World, frame: bytes, code: int) -> None:
    """An error, then a close whose code names it."""
    client = await world.client().open()
    client._replies[1] = asyncio.get_running_loop().create_future()
    client._replies[1].add_done_callback(lambda f: f.exception())
    await client.send_raw(frame)
    assert await client.wait_closed() == 4000 + code
    assert len(world.services[0].sessions) == 0


TOKENS: list[tuple[str, dict[str, Any], dict[str, Any], int]] = [
    ("expired", {"ttl_s": -60}, {}, common.ERROR_CODE_TOKEN_EXPIRED),
    ("other room", {}, {"room": "r2"}, common.ERROR_CODE_PERMISSION_DENIED),
    ("no room at all", {"room": ""}, {}, common.ERROR_CODE_BAD_REQUEST),
    ("api token", {"identity": "", "api": True}, {}, common.ERROR_CODE_BAD_REQUEST),
    (
        "may not publish",
        {"publish": False},
        {"offer": "av", "publications": "cam"},
        common.ERROR_CODE_PERMISSION_DENIED,
    ),
    ("publications without offer", {}, {"publications": "cam"}, common.ERROR_CODE_BAD_REQUEST),
    ("offer is no SDP", {}, {"offer": "hello"}, common.ERROR_CODE_BAD_OFFER),
    ("offer that the node refuses", {}, {"offer": "bad"}, common.ERROR_CODE_BAD_OFFER),
    ("mid that is not there", {}, {"offer": "av", "publications": "mid9"}, common.ERROR_CODE_FAILED_PRECONDITION),
    ("metadata too long", {}, {"metadata": "x" * 5000}, common.ERROR_CODE_TOO_LARGE),
]
VALUES: dict[str, Any] = {
    "av": offer(["video send"]),
    "bad": offer(["video send"]) + "a=x-bad\r\n",
    "cam": [camera()],
    "mid9": [camera("9")],
}


@pytest.mark.parametrize(("token", "fields", "code"), [t[1:] for t in TOKENS], ids=[t[0] for t in TOKENS])
async def test_refused_joins(world: World, token: dict[str, Any], fields: dict[str, Any], code: int) -> None:
    """Each has its code, and nothing of the attempt remains."""
    text = await world.token(**token)
    client = await world.client().open()
    values = {k: VALUES.get(v, v) if isinstance(v, str) else v for k, v in fields.items()}
    error = (await client.request(join=pb.JoinRequest(token=text, **values))).error
    assert error.code == code, error
    assert text not in error.message
    assert await client.wait_closed() == 4000 + code
    await wait_until(lambda: not world.nodes[0].transports)
    alice = await world.joined("somebody")
    assert [p.identity for p in alice.joined.snapshot.participants] == ["somebody"]


async def test_tampered_and_foreign_tokens(world: World) -> None:
    """A changed claim, another app's key, a revoked key, the algorithm `none`."""
    good = await world.token("alice")
    head, body, signature = good.split(".")
    other_app = await world.token("alice", app="other")
    await world.services[0].apps.ensure_app("third", "third")
    third = await world.token("alice", app="third")
    await world.services[0].apps.revoke_key(world.keys["third"][0])
    none = "eyJhbGciOiJub25lIiwia2lkIjoieCJ9." + body + "."
    swapped = other_app.split(".")
    cases = [f"{head}.{body}.{signature[:-4]}AAAA", f"{head}.{swapped[1]}.{swapped[2]}", none, third]
    for text in cases:
        client = await world.client().open()
        error = (await client.request(join=pb.JoinRequest(token=text))).error
        assert error.code == common.ERROR_CODE_UNAUTHENTICATED
    assert len(world.services[0].sessions) == 0


REQUESTS: list[tuple[str, dict[str, Any], int]] = [
    ("join twice", {"join": pb.JoinRequest(token="x")}, common.ERROR_CODE_FAILED_PRECONDITION),
    ("resume inside", {"resume": pb.ResumeRequest()}, common.ERROR_CODE_FAILED_PRECONDITION),
    ("nothing", {}, common.ERROR_CODE_BAD_REQUEST),
    (
        "publish on no line",
        {"publish": pb.PublishRequest(publications=[camera("7", "x")])},
        common.ERROR_CODE_FAILED_PRECONDITION,
    ),
    (
        "publish on a taken line",
        {"publish": pb.PublishRequest(publications=[camera("0", "x")])},
        common.ERROR_CODE_BAD_REQUEST,
    ),
    (
        "publish without cid",
        {"publish": pb.PublishRequest(publications=[camera("0", "")])},
        common.ERROR_CODE_BAD_REQUEST,
    ),
    (
        "unpublish nothing",
        {"unpublish": pb.UnpublishRequest(publication_id="pb_x")},
        common.ERROR_CODE_PUBLICATION_NOT_FOUND,
    ),
    ("mute nothing", {"mute": pb.MuteRequest(track_id="tr_x")}, common.ERROR_CODE_PUBLICATION_NOT_FOUND),
    ("empty offer", {"negotiate": pb.NegotiateRequest()}, common.ERROR_CODE_BAD_OFFER),
    ("message too large", {"send_message": pb.SendMessageRequest(payload=b"x" * 65_537)}, common.ERROR_CODE_TOO_LARGE),
    (
        "wish for nothing",
        {"subscribe": pb.SubscribeRequest(wishes=[pb.TrackWish(track_id="tr_x")])},
        common.ERROR_CODE_PUBLICATION_NOT_FOUND,
    ),
    ("long name", {"update_participant": pb.UpdateParticipantRequest(name="x" * 300)}, common.ERROR_CODE_TOO_LARGE),
]


async def test_refused_requests(world: World) -> None:
    """A refused request has its code and no effect; the session goes on."""
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    bob = await world.joined("bob")
    for name, body, code in REQUESTS:
        error = (await alice.request(**body)).error
        assert error.code == code, (name, error)
    assert (await alice.request(update_participant=pb.UpdateParticipantRequest(name="Al"))).HasField("done")
    updated = (await bob.wait_push("participant_updated")).participant_updated.participant
    assert (updated.name, updated.is_connected) == ("Al", True)
    assert "publication_updated" not in bob.kinds()


async def test_grants_are_held(world: World) -> None:
    """Without the grant: no messages, no subscriptions, no speakers, no publications."""
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    track = alice.joined.publications[0].tracks[0].id
    mute = world.client()
    token = await world.token("mute", publish=False, subscribe=False, message=False)
    await mute.join(token, offer=offer(["video recv", "video send"]))
    assert [s.track_id for s in mute.joined.snapshot.slots] == [""]
    for body in (
        {"send_message": pb.SendMessageRequest(payload=b"x")},
        {"subscribe": pb.SubscribeRequest(wishes=[pb.TrackWish(track_id=track)])},
        {"publish": pb.PublishRequest(publications=[camera("1")])},
    ):
        assert (await mute.request(**body)).error.code == common.ERROR_CODE_PERMISSION_DENIED


async def test_app_limits(world: World) -> None:
    """Rooms and publications per app's settings."""
    apps = world.services[0].apps
    await world.token("x")
    app = await apps.app("demo")
    assert app is not None
    limited = type(app.limits)(max_rooms=1, max_publications_per_participant=1)
    await apps.set_limits("demo", limited)
    alice = await world.joined("alice", offer=offer(["video send", "video send"]), publications=[camera()])
    second = await alice.request(publish=pb.PublishRequest(publications=[camera("1", "two")]))
    assert second.error.code == common.ERROR_CODE_LIMIT_EXCEEDED
    client = await world.client().open()
    other = await client.request(join=pb.JoinRequest(token=await world.token("bob", room="r2")))
    assert other.error.code == common.ERROR_CODE_LIMIT_EXCEEDED


async def test_garbage_in_a_session_costs_the_connection_only(world: World) -> None:
    """The error is said, the connection closed, the session resumed."""
    alice = await world.joined("alice")
    await alice.send_raw(b"\xff\xff")
    assert await alice.wait_closed() == 4000 + common.ERROR_CODE_BAD_REQUEST
    assert alice.pushes[-1].error.code == common.ERROR_CODE_BAD_REQUEST
    assert (await world.client().resume(alice.joined.resume_token)).HasField("resume")


async def test_flood_is_refused_not_served(world: World) -> None:
    """Beyond the burst requests get LIMIT_EXCEEDED with a time to wait; the session lives."""
    await world.add_service(max_requests_per_s=1, max_request_burst=5)
    alice = world.client(1)
    await alice.join(await world.token("alice"))
    replies = await asyncio.gather(*(alice.request(mute=pb.MuteRequest(track_id="t")) for _ in range(20)))
    refused = [r for r in replies if r.error.code == common.ERROR_CODE_LIMIT_EXCEEDED]
    assert 10 <= len(refused) <= 15
    assert all(r.error.retry_after_ms > 0 for r in refused)
    assert (await alice.request(ping=pb.Ping())).HasField("pong")


async def test_silence_is_ended(world: World) -> None:
    """No first frame, and later no heartbeat, end the connection."""
    await world.add_service(first_frame_timeout_s=1, heartbeat_interval_s=1)
    silent = await world.client(1, is_mute=True).open()
    assert await silent.wait_closed() == 4000 + common.ERROR_CODE_FAILED_PRECONDITION
    alice = world.client(1, is_mute=True)
    await alice.join(await world.token("alice"))
    assert await alice.wait_closed() == 4000
    assert (await world.client(1).resume(alice.joined.resume_token)).HasField("resume")


async def test_connection_limit_and_subprotocols(world: World) -> None:
    """Too many connections and unknown versions are refused before they are accepted."""
    await world.add_service(max_connections=1)
    await world.client(1).open()
    with pytest.raises(websockets.InvalidStatus) as full:
        await world.client(1).open()
    assert full.value.response.status_code == 503
    url = world.url().replace("http", "ws") + "/v1/connect"
    with pytest.raises(websockets.InvalidStatus) as unknown:
        await connect(url, subprotocols=[websockets.Subprotocol("mrtc.v9")], proxy=None)
    assert unknown.value.response.status_code == 400
    assert b"unsupported_version" in (unknown.value.response.body or b"")


async def test_json_subprotocol(world: World) -> None:
    """The same conversation in JSON."""
    alice = world.client(json=True)
    await alice.join(await world.token("alice"), offer=offer(["video send"]), publications=[camera()])
    bob = await world.joined("bob")
    assert (await alice.wait_push("participant_joined")).participant_joined.participant.identity == "bob"
    sent = await alice.request(send_message=pb.SendMessageRequest(payload=b"\x00\xff"))
    assert sent.send_message.message_seq > 0
    assert (await bob.wait_push("message_received")).message_received.payload == b"\x00\xff"
    await alice.send_raw(b"binary in a text protocol")
    assert await alice.wait_closed() == 4000 + common.ERROR_CODE_BAD_REQUEST


async def test_plain_http_on_the_socket_path(world: World) -> None:
    """A browser that opens the URL gets a problem document."""
    async with httpx.AsyncClient(base_url=world.url()) as http:
        answer = await http.get("/v1/connect")
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


async def test_starts_alone_and_joins_when_the_rest_comes(world: World) -> None:
    """Without master it says so, refuses with a time to retry, and is ready once the master is there."""
    assert world.master is not None
    address = world.master.address
    await world.master.aclose()
    check: Callable[[], bool] = lambda: "master" in world.services[0].health.missing  # noqa: E731
    await wait_until(check)
    client = await world.client().open()
    request = pb.JoinRequest(token=await world.token("alice"), offer=offer(["video send"]))
    error = (await client.request(join=request)).error
    assert (error.code, error.HasField("retry_after_ms")) == (common.ERROR_CODE_UNAVAILABLE, True)
    from mrtc_common.grpc import GrpcSecurity
    from mrtc_signaling.testing import FakeMaster

    again = FakeMaster(GrpcSecurity("cluster-secret-of-the-tests"), world.nodes)
    await again._server.start("127.0.0.1", int(address.rsplit(":", 1)[1]))
    world.master = again
    await wait_until(lambda: world.services[0].health.is_ready)
    await world.joined("alice", offer=offer(["video send"]))
