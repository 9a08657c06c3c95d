"""Deliveries that wait, on a real SQLite file."""

from __future__ import annotations

from pathlib import Path

import pytest
from mrtc_common.errors import FailedPreconditionError
from mrtc_signaling.adapters.app_registry_sql import SqlAppRegistry
from mrtc_signaling.adapters.webhook_store_sql import SqlWebhookStore
from mrtc_signaling.core.webhooks import LONGEST_RETRY_MS, Answer, LogPosition, RenderedEvent

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


async def test_a_clock_that_is_set_back_holds_up_no_delivery(tmp_path: Path) -> None:
    """A delivery waits for its next attempt; one that waits for longer than any wait is due at once."""
    apps = SqlAppRegistry(f"sqlite+aiosqlite:///{tmp_path / 'apps.sqlite3'}", "secrets-key-of-the-tests")
    await apps.migrate()
    await apps.ensure_app("app", "App")
    store = SqlWebhookStore(apps.session, apps.box, retry_ms=24 * HOUR_MS, now_ms=lambda: NOW_MS)
    webhook, _ = await store.create("app", "https://example.com/hook", [])
    await store.enqueue_for(webhook, RenderedEvent("e1", "room.started", "app", "room", NOW_MS, "{}"))
    [due] = await store.due(NOW_MS, 10, ())
    await store.not_delivered(due.id, Answer(500), NOW_MS + LONGEST_RETRY_MS)
    assert await store.due(NOW_MS, 10, ()) == []
    assert [one.id for one in await store.due(NOW_MS - HOUR_MS, 10, ())] == [due.id]
    assert [one.id for one in await store.due(NOW_MS + LONGEST_RETRY_MS, 10, ())] == [due.id]
    await apps.aclose()


async def test_events_are_taken_together_with_their_place_in_the_log(tmp_path: Path) -> None:
    """Who does not know how far the log was taken over stores nothing."""
    apps = SqlAppRegistry(f"sqlite+aiosqlite:///{tmp_path / 'apps.sqlite3'}", "secrets-key-of-the-tests")
    await apps.migrate()
    await apps.ensure_app("app", "App")
    store = SqlWebhookStore(apps.session, apps.box, retry_ms=24 * HOUR_MS, now_ms=lambda: NOW_MS)
    await store.create("app", "https://example.com/hook", [])
    first, second = (RenderedEvent(name, "room.started", "app", "room", NOW_MS, "{}") for name in ("e1", "e2"))
    assert await store.position() is None
    assert await store.enqueue([first], None, LogPosition("log", 7)) == 1
    for stale in (None, LogPosition("log", 6), LogPosition("another log", 7)):
        with pytest.raises(FailedPreconditionError):
            await store.enqueue([second], stale, LogPosition("log", 9))
    assert (await store.position(), await store.pending()) == (LogPosition("log", 7), 1)
    assert await store.enqueue([first, second], LogPosition("log", 7), LogPosition("log", 9)) == 1
    assert (await store.position(), await store.pending()) == (LogPosition("log", 9), 2)
    await apps.aclose()
