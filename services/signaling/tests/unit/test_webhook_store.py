"""Deliveries that wait, on a real SQLite file."""

from __future__ import annotations

from pathlib import Path

from mrtc_signaling.adapters.app_registry_sql import SqlAppRegistry
from mrtc_signaling.adapters.webhook_store_sql import SqlWebhookStore
from mrtc_signaling.core.webhooks import LONGEST_RETRY_MS, Answer, RenderedEvent

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
