"""The REST API: rooms, participants, messages, recordings, media, vods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from mrtc.common.v1 import common_pb2 as common
from mrtc.event.v1 import state_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_common import subjects, tables
from mrtc_common.auth import TokenCaps
from mrtc_common.testing import wait_until
from mrtc_signaling.core.caps import Caps
from mrtc_signaling.core.room_view import Change
from mrtc_signaling.ports import AppLimits
from mrtc_signaling.testing import offer

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.integration

APP = "/v1/apps/demo"
ROOM = f"{APP}/rooms/r1"
MP4 = b"\x00\x00\x00\x20ftypisom" + b"\x00" * 1000


@pytest_asyncio.fixture
async def api(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """With an API token of the app."""
    headers = {"authorization": f"Bearer {await world.token('', room='', api=True)}"}
    async with httpx.AsyncClient(base_url=world.url(), headers=headers) as client:
        yield client


def camera() -> pb.NewPublication:
    track = pb.NewTrack(kind=common.TRACK_KIND_VIDEO, source=common.TRACK_SOURCE_CAMERA, mid="0")
    return pb.NewPublication(cid="cam", tag="cam", tracks=[track])


async def test_a_ghost_can_always_be_removed(world: World, api: httpx.AsyncClient) -> None:
    """A participant without session, on a node that is gone, in a room without a record; and such a room as a whole."""
    rooms, room_key = tables.rooms(world.link), subjects.room_key("demo", "r1")

    async def haunt(name: str) -> str:
        person = common.Participant(id=f"pa_{name}", identity=name)
        record = state_pb2.ParticipantRecord(
            participant=person, session_id="se_none", node_id="mcu_gone", transport_id="tp_gone"
        )
        publication = common.Publication(id=f"pub_{name}", participant_id=person.id)
        key = subjects.participant_key(room_key, person.id)
        await rooms.put(key, record)
        await rooms.put(
            subjects.publication_key(room_key, publication.id), state_pb2.PublicationRecord(publication=publication)
        )
        await rooms.put(subjects.identity_key(room_key, name), state_pb2.IdentityRecord(participant_id=person.id))
        return key

    await haunt("ann")
    assert (await api.delete(f"{ROOM}/participants/ann")).status_code == 204
    assert await rooms.list(subjects.room_filter(room_key)) == []
    key = await haunt("bob")
    await wait_until(lambda: _deleted(api), what="the room to be deleted")
    assert await rooms.get(key) is None
    assert await rooms.list(subjects.room_filter(room_key)) == []


async def _deleted(api: httpx.AsyncClient) -> bool:
    return (await api.delete(ROOM)).status_code == 204


async def test_room_life_cycle(world: World, api: httpx.AsyncClient) -> None:
    """Create, show, list, close: everybody in it is told."""
    made = await api.post(f"{APP}/rooms", json={"name": "r1", "metadata": "m", "max_participants": 2})
    assert made.status_code == 201, made.text
    assert made.json()["max_participants"] == 2
    again = await api.post(f"{APP}/rooms", json={"name": "r1", "metadata": "m", "max_participants": 2})
    assert again.status_code == 201
    other = await api.post(f"{APP}/rooms", json={"name": "r1", "metadata": "other"})
    assert (other.status_code, other.json()["code"]) == (409, "already_exists")
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    await world.joined("bob")
    full = await world.client().open()
    error = (await full.request(join=pb.JoinRequest(token=await world.token("carol")))).error
    assert error.code == common.ERROR_CODE_LIMIT_EXCEEDED
    shown = (await api.get(ROOM)).json()
    assert {p["identity"] for p in shown["participants"]} == {"alice", "bob"}
    published = next(p for p in shown["participants"] if p["identity"] == "alice")["publications"]
    assert published[0]["tracks"][0]["codec"] == "vp8"
    assert [r["name"] for r in (await api.get(f"{APP}/rooms")).json()["rooms"]] == ["r1"]
    assert (await api.delete(ROOM)).status_code == 204
    closing = (await alice.wait_push("closing")).closing
    assert closing.reason == common.LEAVE_REASON_ROOM_CLOSED
    await wait_until(lambda: not world.nodes[0].transports)
    assert (await api.get(ROOM)).json()["code"] == "room_not_found"


async def test_who_has_joined_is_found_at_once_by_every_instance(
    world: World, api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app's server may know of a join, by the client, before the instance that it asks hears of it."""
    await api.post(f"{APP}/rooms", json={"name": "r1"})
    other = await world.add_service()
    may_hear = asyncio.Event()
    watch = other.ctx.rooms.watch

    async def watch_late(room_key: str) -> AsyncIterator[list[Change] | int]:
        is_complete = False
        async for news in watch(room_key):
            if is_complete:
                await may_hear.wait()
            is_complete = is_complete or isinstance(news, int)
            yield news

    monkeypatch.setattr(other.ctx.rooms, "watch", watch_late)
    url = world.url(1) + ROOM
    assert (await api.get(url)).json()["participants"] == []
    await world.joined("alice")
    asked = asyncio.create_task(api.get(url))
    done, _ = await asyncio.wait({asked}, timeout=0.2)
    assert not done
    may_hear.set()
    assert [p["identity"] for p in (await asked).json()["participants"]] == ["alice"]


async def test_figures_of_a_room(world: World, api: httpx.AsyncClient) -> None:
    """Everybody's, by participant; a node that is dead gives none, which is no error."""
    await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    await world.joined("bob")
    people = {p["identity"]: p for p in (await api.get(f"{ROOM}/stats")).json()["participants"]}
    assert people["alice"]["transport"]["rx_packets"] == 1
    assert people["bob"]["transport"] is None
    assert (await api.get(f"{APP}/rooms/none/stats")).status_code == 404


async def test_an_encrypted_room_is_not_recorded(world: World, api: httpx.AsyncClient) -> None:
    """An empty recording would look like a success."""
    publication = camera()
    publication.tracks[0].is_encrypted = True
    await world.joined("alice", offer=offer(["video send"]), publications=[publication])
    shown = (await api.get(ROOM)).json()["participants"][0]["publications"][0]["tracks"][0]
    assert shown["is_encrypted"]
    refused = await api.post(f"{ROOM}/recordings", json={"mode": "mixed"})
    assert (refused.status_code, refused.json()["code"]) == (409, "media_encrypted")


async def test_remove_and_mute(world: World, api: httpx.AsyncClient) -> None:
    """An admin mutes a track, which its owner sees too, and removes a participant."""
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[camera()])
    bob = await world.joined("bob")
    track = alice.joined.publications[0].tracks[0].id
    muted = await api.post(f"{ROOM}/tracks/{track}/mute", json={"is_muted": True})
    assert muted.json()["tracks"][0]["is_muted"] is True
    for client in (alice, bob):
        seen = (await client.wait_push("publication_updated")).publication_updated.publication
        assert seen.tracks[0].is_muted
    assert world.nodes[0].transport_of(alice.joined.participant.id).muted[track]
    assert (await api.post(f"{ROOM}/tracks/none/mute", json={"is_muted": True})).status_code == 404
    assert (await api.delete(f"{ROOM}/participants/alice")).status_code == 204
    assert (await alice.wait_push("closing")).closing.reason == common.LEAVE_REASON_REMOVED
    assert (await bob.wait_push("participant_left")).participant_left.reason == common.LEAVE_REASON_REMOVED
    assert (await api.delete(f"{ROOM}/participants/alice")).json()["code"] == "participant_not_found"


async def test_caps_hold_from_the_join_on_and_change_while_the_call_goes_on(
    world: World, api: httpx.AsyncClient
) -> None:
    """The app's, the token's and those set by API: the smaller counts, over a new transport too."""
    apps = world.services[0].apps
    app = (await apps.ensure_app("demo", "demo")) and await apps.app("demo")
    assert app is not None
    await apps.set_limits("demo", AppLimits(max_egress_bps_per_participant=5_000_000, max_track_bps=2_000_000))
    alice = world.client()
    token = await world.token("alice", caps=TokenCaps(max_egress_bps=9_000_000, max_ingress_bps=800_000))
    await alice.join(token, offer=offer(["video send"]), publications=[camera()])
    node, me = world.nodes[0], alice.joined.participant.id
    assert node.transport_of(me).caps == Caps(5_000_000, 800_000, 2_000_000)

    path = f"{ROOM}/participants/alice/caps"
    assert (await api.post(path, json={"max_egress_bps": 400_000, "max_track_bps": 0})).status_code == 202
    await wait_until(lambda: node.transport_of(me).caps == Caps(400_000, 800_000, 2_000_000), what="the new cap")
    assert (await api.post(path, json={"max_ingress_bps": 0})).status_code == 202
    await wait_until(lambda: node.transport_of(me).caps == Caps(400_000, 0, 2_000_000), what="the cap to go")
    await alice.request(negotiate=pb.NegotiateRequest(offer=offer(["video send"]), new_transport=True))
    assert node.transport_of(me).caps == Caps(400_000, 0, 2_000_000)

    assert (await api.post(path, json={"max_egress_bps": -1})).json()["code"] == "bad_request"
    assert (await api.post(path, json={"max_egress": 1})).json()["code"] == "bad_request"
    unknown = await api.post(f"{ROOM}/participants/nobody/caps", json={})
    assert unknown.json()["code"] == "participant_not_found"


async def test_a_track_has_a_cap_of_its_own(world: World, api: httpx.AsyncClient) -> None:
    """Given when it is published, changed by API; everybody sees it."""
    publication = camera()
    publication.tracks[0].max_bitrate_bps = 700_000
    alice = await world.joined("alice", offer=offer(["video send"]), publications=[publication])
    track = alice.joined.publications[0].tracks[0]
    made = world.nodes[0].transport_of(alice.joined.participant.id).tracks[track.id]
    assert track.max_bitrate_bps == made.max_bitrate_bps == 700_000
    changed = await api.post(f"{ROOM}/tracks/{track.id}/cap", json={"max_bitrate_bps": 300_000})
    assert changed.json()["tracks"][0]["max_bitrate_bps"] == made.max_bitrate_bps == 300_000
    seen = (await alice.wait_push("publication_updated")).publication_updated.publication
    assert seen.tracks[0].max_bitrate_bps == 300_000
    assert (await api.post(f"{ROOM}/tracks/none/cap", json={"max_bitrate_bps": 1})).status_code == 404


async def test_message_of_the_app(world: World, api: httpx.AsyncClient) -> None:
    """A message goes to all or to those named."""
    alice, bob = await world.joined("alice"), await world.joined("bob")
    sent = await api.post(f"{ROOM}/messages", json={"text": "hi", "topic": "news", "to": ["bob"]})
    assert sent.status_code == 201
    await api.post(f"{ROOM}/messages", json={"payload_base64": "AAE="})
    got = await alice.wait_push("message_received")
    assert got.message_received.payload == b"\x00\x01"
    private = (await bob.wait_push("message_received")).message_received
    assert (private.payload, private.topic, private.is_private) == (b"hi", "news", True)
    assert private.message_seq == sent.json()["message_seq"]
    for body in ({}, {"text": "a", "payload_base64": "AA=="}, {"payload_base64": "%%"}, {"text": "a", "too": []}):
        assert (await api.post(f"{ROOM}/messages", json=body)).status_code == 400


async def test_recordings(world: World, api: httpx.AsyncClient) -> None:
    """A job is queued, its state shown, clients told, its file served with ranges."""
    alice = await world.joined("alice")
    made = await api.post(f"{ROOM}/recordings", json={"mode": "mixed", "width": 640, "height": 360})
    assert (made.status_code, made.json()["state"]) == (201, "queued"), made.text
    recording_id = made.json()["id"]
    table = tables.recordings(world.link)
    key = subjects.recording_key(subjects.room_key("demo", "r1"), recording_id)
    entry = await table.get(key)
    assert entry is not None
    assert entry.value.mode == recording_pb2.RECORDING_MODE_MIXED
    job = await world.link.jetstream.get_msg(subjects.STREAM_JOBS, subject=subjects.JOB_RECORD)
    assert recording_pb2.Recording.FromString(job.data).id == recording_id

    entry.value.state = recording_pb2.RECORDING_STATE_ACTIVE
    file_key = f"demo/r1/{recording_id}/mixed-000.mp4"
    entry.value.files.add(key=file_key, content_type="video/mp4", size_bytes=len(MP4), duration_ms=1000)
    await table.put(key, entry.value)
    changed = (await alice.wait_push("recording_changed")).recording_changed
    assert (changed.recording_id, changed.is_active) == (recording_id, True)
    path = world.tmp / "files" / file_key
    path.parent.mkdir(parents=True)
    path.write_bytes(MP4)
    shown = (await api.get(f"{ROOM}/recordings/{recording_id}")).json()
    url = shown["files"][0]["url"]
    whole = await api.get(url)
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, MP4, "video/mp4")
    part = await api.get(url, headers={"range": "bytes=4-7"})
    assert (part.status_code, part.content) == (206, b"ftyp")
    assert part.headers["content-range"] == f"bytes 4-7/{len(MP4)}"
    assert (await api.get(url, headers={"range": "bytes=99999-"})).status_code == 416
    assert (await api.get(url, headers={"range": "bytes=-4"})).content == MP4[-4:]
    async with httpx.AsyncClient(base_url=world.url()) as anonymous:
        assert (await anonymous.get(url)).status_code == 401
        assert (await anonymous.get(url, params={"access_token": await world.token(admin=True)})).status_code == 200
        assert (await anonymous.get(url, params={"access_token": await world.token()})).status_code == 403
    for name in ("other.mp4", "..%2Fsecret", "%2e%2e"):
        assert (await api.get(url.rsplit("/", 1)[0] + "/" + name)).status_code == 404
    stopped = await api.post(f"{ROOM}/recordings/{recording_id}/stop")
    assert (stopped.status_code, stopped.json()["is_stop_requested"]) == (202, True)
    assert len((await api.get(f"{ROOM}/recordings")).json()["recordings"]) == 1
    assert len((await api.get(f"{APP}/recordings")).json()["recordings"]) == 1
    assert (await api.get(f"{ROOM}/recordings/none")).status_code == 404
    snapshot = (await world.joined("bob")).joined.snapshot
    assert [r.recording_id for r in snapshot.recordings] == [recording_id]


async def test_media_and_vods(world: World, api: httpx.AsyncClient) -> None:
    """An upload is judged by its content; a vod is queued and stopped."""
    put = await api.put(f"{APP}/media/clip.mp4", content=MP4)
    assert (put.status_code, put.json()["content_type"]) == (201, "video/mp4"), put.text
    assert (await api.put(f"{APP}/media/x.mp4", content=b"<html>not a film</html>")).json()["code"] == "bad_media"
    assert (await api.put(f"{APP}/media/empty.mp4", content=b"")).status_code == 415
    assert [f["name"] for f in (await api.get(f"{APP}/media")).json()["media"]] == ["clip.mp4"]
    made = await api.post(f"{ROOM}/vods", json={"media": "clip.mp4", "name": "Clip", "tag": "film"})
    assert (made.status_code, made.json()["state"]) == (201, "queued"), made.text
    vod = made.json()["id"]
    assert (await api.get(f"{ROOM}/vods/{vod}")).json()["media"] == "clip.mp4"
    assert (await api.post(f"{ROOM}/vods/{vod}/stop")).json()["is_stop_requested"] is True
    assert (await api.post(f"{ROOM}/vods", json={"media": "none.mp4"})).json()["code"] == "not_found"
    for name in ("../apps.sqlite3", "..", "a/b", ".hidden"):
        refused = await api.post(f"{ROOM}/vods", json={"media": name})
        assert refused.status_code in (400, 404), name
    mine = await api.put(
        f"{APP}/media/clip.mp4", content=MP4, headers={"authorization": f"Bearer {await world.token(admin=True)}"}
    )
    assert mine.status_code == 201
    assert mine.json()["name"].endswith("-clip.mp4")
    assert (await api.delete(f"{APP}/media/clip.mp4")).status_code == 204
    assert (await api.delete(f"{APP}/media/clip.mp4")).status_code == 404


async def test_upload_limit(world: World) -> None:
    """A file above the limit is refused and nothing of it stays."""
    await world.add_service(max_upload_bytes=2000)
    headers = {"authorization": f"Bearer {await world.token('', room='', api=True)}"}
    async with httpx.AsyncClient(base_url=world.url(1), headers=headers) as api:
        refused = await api.put(f"{APP}/media/big.mp4", content=MP4 * 10)
        assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
        assert (await api.get(f"{APP}/media")).json()["media"] == []


@pytest.mark.parametrize(
    ("token", "path", "status", "code"),
    [
        ({}, f"{APP}/rooms", 403, "permission_denied"),
        ({}, ROOM, 403, "permission_denied"),
        ({"admin": True}, f"{APP}/rooms", 403, "permission_denied"),
        ({"admin": True}, f"{APP}/rooms/r2", 403, "permission_denied"),
        ({"admin": True, "app": "other"}, ROOM, 403, "permission_denied"),
        ({"api": True, "app": "other", "room": ""}, f"{APP}/rooms", 403, "permission_denied"),
        ({"admin": True, "ttl_s": -60}, ROOM, 401, "token_expired"),
        ({"admin": True}, ROOM, 404, "room_not_found"),
        ({"api": True, "room": ""}, f"{APP}/nothing", 404, "not_found"),
    ],
)
async def test_who_may_ask(world: World, token: dict[str, Any], path: str, status: int, code: str) -> None:
    """Tokens reach exactly as far as they say."""
    headers = {"authorization": f"Bearer {await world.token(**token)}"}
    async with httpx.AsyncClient(base_url=world.url(), headers=headers) as api:
        answer = await api.get(path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_bad_bodies(api: httpx.AsyncClient) -> None:
    """Malformed bodies are told where and why, without repeating them."""
    for body in (b"", b"{", b"[]", b'{"name": 5}', b'{"name": ""}', b'{"name": "x", "secret": "hunter2"}', b"\xff"):
        answer = await api.post(f"{APP}/rooms", content=body, headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), body
        assert "hunter2" not in answer.text


async def test_openapi_health_and_demo(world: World) -> None:
    """The API is described, health and figures are served, the demo gives tokens."""
    async with httpx.AsyncClient(base_url=world.url()) as http:
        paths = (await http.get("/openapi.json")).json()["paths"]
        assert "/v1/apps/{app}/rooms/{room}/recordings" in paths
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).json()["is_ready"] is True
        assert "mrtc_signaling_sessions" in (await http.get("/metrics")).text
        token = (await http.get("/demo/token", params={"room": "r1", "identity": "zoe"})).json()
        assert token["app"] == "demo"
    client = world.client()
    assert (await client.join(token["token"])).participant.identity == "zoe"


async def test_page_does_not_hide_wrong_methods(world: World) -> None:
    """The page is served at `/`; below the API a wrong method stays 405 and an unknown path a problem document."""
    page = world.tmp / "page"
    page.mkdir()
    (page / "index.html").write_text("<title>page</title>")
    await world.add_service(static_dir=str(page))
    async with httpx.AsyncClient(base_url=world.url(1)) as http:
        assert "<title>page" in (await http.get("/")).text
        for method, path, status in (
            ("GET", "/whip/r1", 405),
            ("PATCH", f"{APP}/rooms", 405),
            ("GET", "/v1/none", 404),
            ("GET", "/none.js", 404),
            ("GET", "/..%2f..%2fapps.sqlite3", 404),
        ):
            answer = await http.request(method, path)
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), path
