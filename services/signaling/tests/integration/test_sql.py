"""Apps, webhooks and migrations on both databases: what one of them forgives the other need not."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from mrtc_common.errors import AlreadyExistsError, FailedPreconditionError, NotFoundError, UnavailableError
from mrtc_signaling.adapters.app_registry_sql import SqlAppRegistry
from mrtc_signaling.adapters.webhook_store_sql import SqlWebhookStore
from mrtc_signaling.core.webhooks import Answer, DeliveryState, LogPosition, RenderedEvent
from mrtc_signaling.ports import AppLimits
from sqlalchemy import text

from tests.support.postgres import Postgres, running_postgres

pytestmark = pytest.mark.integration

KEY = "secrets-key-of-the-tests"
NOW_MS = 1_700_000_000_000
RETRY_MS = 3_600_000


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A PostgreSQL."""
    with running_postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, server: Postgres, tmp_path: Path) -> str:
    """Of an empty database."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'mrtc.sqlite3'}"
    return await asyncio.to_thread(server.new_database)


@asynccontextmanager
async def registry(url: str) -> AsyncIterator[SqlAppRegistry]:
    """As an instance has it, migrated."""
    apps = SqlAppRegistry(url, KEY)
    try:
        await apps.migrate()
        yield apps
    finally:
        await apps.aclose()


def store_of(apps: SqlAppRegistry) -> SqlWebhookStore:
    """Its webhooks."""
    return SqlWebhookStore(apps.session, apps.box, retry_ms=RETRY_MS, now_ms=lambda: NOW_MS)


def happened(identifier: str, room: str = "room") -> RenderedEvent:
    """An event of the app."""
    return RenderedEvent(identifier, "room.started", "app", room, NOW_MS, "{}")


async def test_instances_that_start_together_make_one_database(url: str) -> None:
    """Several processes find it empty."""
    command = [sys.executable, "-m", "mrtc_signaling", "app", "list"]
    env = os.environ | {"MRTC_SECRETS_KEY": KEY, "MRTC_SIGNALING_DATABASE_URL": url}
    pipe = asyncio.subprocess.PIPE
    started = [await asyncio.create_subprocess_exec(*command, env=env, stderr=pipe) for _ in range(4)]
    ended = [((await process.communicate())[1].decode(), process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * 4, ended
    async with registry(url) as apps:
        assert (await apps.create_app("An app", app_id="app")).id == "app"


async def test_a_database_of_a_newer_version_serves(url: str) -> None:
    """An upgrade has migrated it, and a pod of the former version starts beside it, or after it was given up."""
    async with registry(url) as apps, apps.session.begin() as session:
        await session.execute(text("UPDATE mrtc_signaling_version SET version_num = '9999'"))
    async with registry(url) as apps:
        assert (await apps.create_app("An app", app_id="app")).id == "app"
        async with apps.session.begin() as session:
            assert await session.scalar(text("SELECT version_num FROM mrtc_signaling_version")) == "9999"
            await session.execute(text("UPDATE mrtc_signaling_version SET version_num = 'stranger'"))
    with pytest.raises(UnavailableError, match="CommandError"):
        async with registry(url):
            pass


async def test_apps_and_keys(url: str) -> None:
    """Made once, limited, and revoked."""
    async with registry(url) as apps:
        app = await apps.create_app("My app", limits=AppLimits(max_rooms=5))
        assert app.limits.max_rooms == 5
        with pytest.raises(AlreadyExistsError):
            await apps.create_app("again", app_id=app.id)
        key_id, secret = await apps.create_key(app.id)
        assert await apps.key_secret(app.id, key_id) == secret
        await apps.revoke_key(key_id)
        assert await apps.any_key(app.id) is None
        with pytest.raises(NotFoundError):
            await apps.revoke_key("none")


async def test_deliveries_from_an_event_to_the_end(url: str) -> None:
    """One at a time for each room, in the order of the events; then replayed, and purged."""
    async with registry(url) as apps:
        await apps.ensure_app("app", "App")
        store = store_of(apps)
        webhook, secret = await store.create("app", "https://example.com/hook", [])
        events = [happened("e1"), happened("e2"), happened("e3", "other")]
        assert await store.enqueue(events, None, LogPosition("log", 3)) == 3
        first, other = await store.due(NOW_MS, 10, ())
        assert (first.event_id, other.event_id, first.secret) == ("e1", "e3", secret)
        assert await store.due(NOW_MS, 10, [webhook.id]) == []
        await store.delivered(first.id, 200, NOW_MS)
        await store.not_delivered(other.id, Answer(500), NOW_MS + 1000)
        [second] = await store.due(NOW_MS, 10, ())
        assert second.event_id == "e2"
        await store.not_delivered(second.id, Answer(0, "x" * 1000), None)
        listed = await store.deliveries(webhook, None, "", 0, 10)
        assert [(one.event_id, one.state) for one in listed] == [
            ("e3", DeliveryState.PENDING),
            ("e2", DeliveryState.FAILED),
            ("e1", DeliveryState.DELIVERED),
        ]
        assert await store.replay(webhook, NOW_MS, DeliveryState.FAILED, [], 0, NOW_MS) == 1
        assert [one.event_id for one in await store.due(NOW_MS, 10, ())] == ["e2"]
        assert await store.purge(NOW_MS + 1) == 1
        assert await store.pending() == 2
        await store.delete("app", webhook.id)
        assert await store.pending() == 0


async def test_two_instances_take_an_event_once(url: str) -> None:
    """Both believe to have the lease: the place in the log decides, also of its first row."""
    async with registry(url) as apps, registry(url) as second:
        await apps.ensure_app("app", "App")
        stores = [store_of(apps), store_of(second)]
        await stores[0].create("app", "https://example.com/hook", [])
        place: LogPosition | None = None
        for number in range(1, 6):
            following = LogPosition("log", number)
            taken = await asyncio.gather(
                *(store.enqueue([happened(f"e{number}")], place, following) for store in stores), return_exceptions=True
            )
            assert taken.count(1) == 1, taken
            # SQLite has no locks of rows: there the second may find that it knows the event.
            others = [one for one in taken if one not in (0, 1)]
            assert all(isinstance(one, FailedPreconditionError | UnavailableError) for one in others), others
            place = following
        assert await stores[0].pending() == 5
