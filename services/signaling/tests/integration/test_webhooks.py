"""Webhooks against a real receiver: order, signatures, absences, takeover, replay."""

from __future__ import annotations

import base64
import hashlib
import hmac
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from mrtc.common.v1 import common_pb2 as common
from mrtc.event.v1 import state_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_common import subjects, tables
from mrtc_common.testing import wait_until
from mrtc_signaling.testing import WebhookReceiver, offer

if TYPE_CHECKING:
    from conftest import World

pytestmark = pytest.mark.integration

HOOKS = "/v1/apps/demo/webhooks"
LOOPBACK = {"webhook_networks": ["127.0.0.0/8"]}


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[WebhookReceiver]:
    made = WebhookReceiver()
    await made.start()
    yield made
    await made.aclose()


@pytest_asyncio.fixture
async def api(world: World) -> AsyncIterator[httpx.AsyncClient]:
    """The second service, which may send webhooks to this machine; the first one, which may not, is gone."""
    service = await world.add_service(**LOOPBACK)
    await world.services[0].aclose()
    headers = {"authorization": f"Bearer {await world.token('', room='', api=True)}"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", headers=headers) as client:
        yield client


async def _hook(api: httpx.AsyncClient, receiver: WebhookReceiver, **fields: Any) -> dict[str, Any]:
    made = await api.post(HOOKS, json={"url": receiver.url, **fields})
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    return found


async def _call(world: World, identity: str = "alice") -> None:
    """Joins with a camera, and leaves."""
    track = pb.NewTrack(kind=common.TRACK_KIND_VIDEO, source=common.TRACK_SOURCE_CAMERA, mid="0")
    camera = pb.NewPublication(cid="cam", tag="cam", tracks=[track])
    client = await world.joined(identity, 1, offer=offer(["video send"]), publications=[camera])
    await client.request(leave=pb.LeaveRequest())
    await client.aclose()


async def test_a_call_is_told_in_order_and_signed(
    world: World, api: httpx.AsyncClient, receiver: WebhookReceiver
) -> None:
    """Every event of a call, and a recording's, each once, signed as the standard says."""
    hook = await _hook(api, receiver)
    assert hook["secret"].startswith("whsec_")
    assert "secret" not in (await api.get(f"{HOOKS}/{hook['id']}")).json()
    await _call(world)
    now = time.time_ns() // 1_000_000
    ended = recording_pb2.Recording(id="rec_1", app_id="demo", room="r1", state=4, started_at_ms=now, ended_at_ms=now)
    await wait_until(lambda: "participant.left" in receiver.types(), what="left")
    key = subjects.recording_key(subjects.room_key("demo", "r1"), "rec_1")
    await tables.recordings(world.link).put(key, ended)
    assert (await api.delete("/v1/apps/demo/rooms/r1")).status_code == 204
    await wait_until(lambda: "room.finished" in receiver.types() and "recording.ended" in receiver.types(), what="end")
    told = [kind for kind in receiver.types() if not kind.startswith("recording.")]
    assert [kind for kind in receiver.types() if kind not in told] == ["recording.started", "recording.ended"]
    assert sorted(told[:3]) == ["participant.joined", "publication.started", "room.started"]
    assert told[3:] == ["publication.ended", "participant.left", "room.finished"]
    bodies = {body["type"]: body for _, body in receiver.got}
    assert bodies["participant.left"]["data"]["reason"] == "client_request"
    assert bodies["participant.joined"]["data"]["participant"]["identity"] == "alice"
    assert bodies["publication.started"]["data"]["publication"]["tag"] == "cam"
    assert bodies["recording.ended"]["data"]["recording"]["state"] == "complete"
    key_bytes = base64.b64decode(hook["secret"].removeprefix("whsec_"))
    for headers, _ in receiver.got:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.{headers['raw']}"
        digest = base64.b64encode(hmac.new(key_bytes, signed.encode(), hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{digest}"
        assert headers["host"] == f"127.0.0.1:{receiver.port}"


async def test_a_receiver_that_is_away_loses_nothing(
    world: World, api: httpx.AsyncClient, receiver: WebhookReceiver
) -> None:
    """Down, then failing, then redirecting, then well: everything arrives once, in order; nothing follows redirects."""
    hook = await _hook(api, receiver, events=["participant.joined", "participant.left"])
    await receiver.aclose()
    await _call(world, "alice")

    async def waits() -> list[dict[str, Any]]:
        found = await api.get(f"{HOOKS}/{hook['id']}/deliveries", params={"state": "pending"})
        return list(found.json()["deliveries"])

    await wait_until(lambda: _has(waits, lambda found: len(found) == 2 and found[1]["attempts"] >= 1), what="a try")
    assert (await waits())[1]["last_error"]
    receiver.status = 500
    await receiver.start()
    await wait_until(lambda: receiver.asked >= 1, what="asked", timeout_s=20)
    receiver.status, receiver.asked = 307, 0
    await wait_until(lambda: receiver.asked >= 1, what="asked again", timeout_s=20)
    receiver.status = 200
    await wait_until(lambda: len(receiver.got) == 2, what="both", timeout_s=30)
    assert receiver.types() == ["participant.joined", "participant.left"]


async def test_another_instance_goes_on(world: World, api: httpx.AsyncClient, receiver: WebhookReceiver) -> None:
    """The instance that delivers goes; what it had not delivered comes from the next, and nothing is lost."""
    hook = await _hook(api, receiver)
    receiver.status = 503
    await _call(world)
    await wait_until(lambda: receiver.asked >= 1, what="asked")
    third = await world.add_service(**LOOPBACK)
    await world.services[1].aclose()
    receiver.status = 200
    await wait_until(lambda: "participant.left" in receiver.types(), what="the last event", timeout_s=30)
    assert receiver.types()[-2:] == ["publication.ended", "participant.left"]
    assert len(receiver.got) == len({headers["webhook-id"] for headers, _ in receiver.got}) == 5
    assert await third.apps.app("demo") is not None
    assert hook["is_enabled"]


async def test_what_was_read_and_could_not_be_stored_is_read_again(
    world: World, api: httpx.AsyncClient, receiver: WebhookReceiver
) -> None:
    """While the tables cannot be written events are read in vain; none is missing afterwards, and all come in order."""
    await _hook(api, receiver, events=["participant.joined", "participant.left"])
    await _call(world, "alice")
    await wait_until(lambda: len(receiver.got) == 2, what="alice")
    path = world.tmp / "apps.sqlite3"
    _run_sql(path, "ALTER TABLE webhook_events RENAME TO gone")
    await _call(world, "bob")
    await wait_until(lambda: _is_all_read(world), what="bob's events to be read")
    await _call(world, "carol")
    _run_sql(path, "ALTER TABLE gone RENAME TO webhook_events")
    await wait_until(lambda: len(receiver.got) == 6, what="all", timeout_s=20)
    who = [body["data"]["participant"]["identity"] for _, body in receiver.got]
    assert who == ["alice", "alice", "bob", "bob", "carol", "carol"]


def _run_sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, timeout=10)) as database:
        database.execute(statement)
        database.commit()


async def _is_all_read(world: World) -> bool:
    """Some reader of the log was sent all that it holds."""
    last = (await world.link.jetstream.stream_info(subjects.STREAM_EVENTS)).state.last_seq
    readers = await world.link.jetstream.consumers_info(subjects.STREAM_EVENTS)
    return any(reader.delivered and reader.delivered.stream_seq == last for reader in readers)


async def test_replay(world: World, api: httpx.AsyncClient, receiver: WebhookReceiver) -> None:
    """What was delivered can be had again: all of it, or the events that are named."""
    hook = await _hook(api, receiver, events=["participant.joined", "participant.left"])
    await _call(world)
    await wait_until(lambda: len(receiver.got) == 2, what="both")
    event_id = receiver.got[1][0]["webhook-id"]
    url = f"{HOOKS}/{hook['id']}/replay"
    assert (await api.post(url, json={"event_ids": [event_id]})).json() == {"queued": 1}
    await wait_until(lambda: len(receiver.got) == 3, what="one again")
    assert receiver.got[2][0]["webhook-id"] == event_id
    assert (await api.post(url, json={"state": "delivered"})).json() == {"queued": 2}
    await wait_until(lambda: len(receiver.got) == 5, what="all again")
    assert receiver.types()[3:] == ["participant.joined", "participant.left"]
    assert (await api.post(url, json={"state": "failed"})).json() == {"queued": 0}


async def test_private_addresses_are_not_connected_to(world: World, receiver: WebhookReceiver) -> None:
    """Without permission for its network a receiver on this machine is never asked."""
    headers = {"authorization": f"Bearer {await world.token('', room='', api=True)}"}
    async with httpx.AsyncClient(base_url=world.url(), headers=headers) as api:
        for url in (receiver.url, f"http://localhost:{receiver.port}/hook", f"http://[::ffff:7f00:1]:{receiver.port}/"):
            made = (await api.post(HOOKS, json={"url": url})).json()
            assert (await api.post(f"{HOOKS}/{made['id']}/test")).status_code == 202
            listed = f"{HOOKS}/{made['id']}/deliveries"
            await wait_until(lambda listed=listed: _tried(api, listed), what="a try")
            error = (await api.get(listed)).json()["deliveries"][0]["last_error"]
            assert "no address where webhooks may go" in error
    assert receiver.asked == 0


async def test_bad_input(world: World, api: httpx.AsyncClient, receiver: WebhookReceiver) -> None:
    """Unknown webhooks, bad URLs and types, too many, other apps' tokens: clear errors."""
    for body in ({"url": "ftp://x/"}, {"url": "https://x/", "events": ["nope"]}, {"url": "https://x/", "more": 1}, {}):
        answer = await api.post(HOOKS, json=body)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), answer.text
    for method, path in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("GET", "/deliveries")):
        answer = await api.request(method, f"{HOOKS}/wh_none{path}", json={} if method == "PATCH" else None)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), answer.text
    hook = await _hook(api, receiver)
    changed = await api.patch(f"{HOOKS}/{hook['id']}", json={"is_enabled": False, "events": ["room.started"]})
    assert (changed.json()["is_enabled"], changed.json()["events"]) == (False, ["room.started"])
    foreign = {"authorization": f"Bearer {await world.token('', room='', app='other', api=True)}"}
    assert (await api.get(HOOKS, headers=foreign)).status_code == 403
    assert (await api.get("/v1/apps/other/webhooks/" + hook["id"], headers=foreign)).status_code == 404
    participant = {"authorization": f"Bearer {await world.token('bob')}"}
    assert (await api.get(HOOKS, headers=participant)).status_code == 403
    made = [(await api.post(HOOKS, json={"url": receiver.url})).status_code for _ in range(16)]
    assert made == [201] * 15 + [429]
    assert (await api.delete(f"{HOOKS}/{hook['id']}")).status_code == 204
    assert len((await api.get(HOOKS)).json()["webhooks"]) == 15


async def _tried(api: httpx.AsyncClient, url: str) -> bool:
    return bool((await api.get(url)).json()["deliveries"][0]["last_error"])


async def _has(load: Any, check: Any) -> bool:
    return bool(check(await load()))


async def test_what_was_there_before_is_not_told(
    world: World, api: httpx.AsyncClient, receiver: WebhookReceiver
) -> None:
    """A webhook hears of nothing older than itself, though the records of old participants are written again."""
    clock = world.services[1].ctx.clock
    rooms, room_key = tables.rooms(world.link), subjects.room_key("demo", "r1")
    await _hook(api, receiver)
    long_ago = clock.unix_ms() - 60_000
    for name, joined_at_ms in (("pa_old", long_ago), ("pa_new", clock.unix_ms())):
        person = common.Participant(id=name, identity=name, joined_at_ms=joined_at_ms)
        record = state_pb2.ParticipantRecord(participant=person, session_id="se_none")
        for _ in range(3):
            await rooms.put(subjects.participant_key(room_key, name), record)
    # Gone before anybody read that it came.
    brief = common.Participant(id="pa_brief", identity="b", joined_at_ms=clock.unix_ms())
    last = state_pb2.ParticipantRecord(participant=brief, leave_reason=common.LEAVE_REASON_REMOVED)
    await rooms.delete(subjects.participant_key(room_key, "pa_brief"), final=last)
    await wait_until(lambda: "participant.left" in receiver.types(), what="the last")
    told = [(body["type"], body["data"]["participant"]["id"]) for _, body in receiver.got]
    assert told == [
        ("participant.joined", "pa_new"),
        ("participant.joined", "pa_brief"),
        ("participant.left", "pa_brief"),
    ]
