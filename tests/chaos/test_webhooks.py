"""Webhooks while everything dies that can: each thing that happened is told, once, in the order of its room."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_signaling.testing import Client, WebhookReceiver

from tests.support.api import APP, RoomApi, api_token
from tests.support.media import wait_until
from tests.support.postgres import Postgres, running_postgres
from tests.support.suite import RunningSuite, running_suite

pytestmark = pytest.mark.chaos

HOOKS = f"/v1/apps/{APP}/webhooks"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """The database of a deployment."""
    with running_postgres() as running:
        yield running


@pytest.fixture(scope="module")
def hooked(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[RunningSuite]:
    """A suite without media jobs, whose dead sessions end soon."""
    data: Path = tmp_path_factory.mktemp("webhook-victims")
    database = {"MRTC_SIGNALING_DATABASE_URL": postgres.new_database()}
    env_of = {"signaling-1": database, "signaling-2": database}
    env = {"MRTC_SIGNALING_WEBHOOK_NETWORKS": "127.0.0.0/8", "MRTC_SESSION_GRACE_S": "5"}
    services = ("master", "rtcmcu", "signaling")
    with running_suite(data, signalings=2, mcus=1, mcu_workers=1, env=env, env_of=env_of, services=services) as running:
        yield running


async def _join_half(hooked: RunningSuite, number: int, room: str, count: int, kill_after: int = 0) -> list[Client]:
    """Joins one instance; with `kill_after` it is killed after so many answers, the others being under way."""
    tokens = [await asyncio.to_thread(hooked.token, room, f"p{number}-{n}") for n in range(count)]
    clients = [Client(hooked.signaling_url(number)) for _ in tokens]
    joins = [asyncio.create_task(client.join(token)) for client, token in zip(clients, tokens, strict=True)]
    answered = 0
    for join in asyncio.as_completed(joins):
        try:
            await join
        except Exception:
            continue
        answered += 1
        if answered == kill_after:
            await asyncio.to_thread(hooked.kill, f"signaling-{number}")
    return clients


async def test_nothing_is_lost_and_nothing_is_disordered(hooked: RunningSuite, postgres: Postgres) -> None:
    """Joins under way in a killed instance, NATS, PostgreSQL and deliverers killed, a receiver away: all is told."""
    room, receiver = f"room-{uuid.uuid4().hex[:8]}", WebhookReceiver()
    api = RoomApi(hooked, room, await api_token(hooked))
    await asyncio.to_thread(api.call, "POST", HOOKS, json={"url": receiver.url})
    staying = await _join_half(hooked, 2, room, 12)
    doomed = await _join_half(hooked, 1, room, 12, kill_after=4)
    await asyncio.to_thread(postgres.kill)
    await asyncio.gather(*(client.request(leave=pb.LeaveRequest()) for client in staying[:6]))
    await asyncio.to_thread(hooked.kill, "nats")
    await asyncio.to_thread(hooked.restart, "nats")
    await asyncio.to_thread(postgres.start)
    await asyncio.to_thread(hooked.restart, "signaling-1")
    await wait_until(lambda: hooked.readiness("signaling-2")[0] == 200, 30, "signaling-2 to be ready")
    receiver.is_open.clear()
    await receiver.start()
    await wait_until(lambda: receiver.asked, 30, "a delivery to be under way")
    for name in ("signaling-1", "signaling-2"):
        await asyncio.to_thread(hooked.kill, name)
    await asyncio.to_thread(postgres.kill)
    await asyncio.to_thread(postgres.start)
    receiver.is_open.set()
    for name in ("signaling-1", "signaling-2"):
        await asyncio.to_thread(hooked.restart, name)
    await asyncio.to_thread(api.call, "DELETE", f"/v1/apps/{APP}/rooms/{room}")
    await wait_until(lambda: "room.finished" in receiver.types(), 40, lambda: f"the end; got {receiver.types()}")
    _check([body for _, body in receiver.got], [client.joined.participant.id for client in (*staying, *doomed)])
    await asyncio.gather(*(client.aclose() for client in (*staying, *doomed)))
    await receiver.aclose()


def _check(bodies: list[dict[str, Any]], answered: list[str]) -> None:
    # At least once: what was under way when its deliverer died comes again, under the same id.
    told = list({body["id"]: body for body in bodies}.values())
    assert (told[0]["type"], told[-1]["type"]) == ("room.started", "room.finished")
    stays: dict[str, list[str]] = {}
    for body in told[1:-1]:
        stays.setdefault(body["data"]["participant"]["id"], []).append(body["type"])
    assert {participant for participant in answered if participant} <= set(stays)
    assert all(stay == ["participant.joined", "participant.left"] for stay in stays.values()), stays
    assert len(stays) >= 16
