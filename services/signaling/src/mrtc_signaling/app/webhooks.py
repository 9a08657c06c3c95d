"""What an app does with its webhooks; who may is checked by the entry point."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence

from mrtc_common.clock import Clock
from mrtc_common.ids import new_id

from mrtc_signaling.core.webhooks import (
    TEST_EVENT,
    Delivery,
    DeliveryState,
    RenderedEvent,
    Webhook,
    check_events,
    check_url,
)
from mrtc_signaling.webhook_ports import WebhookStore


class Webhooks:
    """The use cases.

    Args:
        wake: tells the dispatcher that something waits.
    """

    def __init__(self, store: WebhookStore, clock: Clock, wake: Callable[[], None]) -> None:
        self._store = store
        self._clock = clock
        self._wake = wake

    async def create(self, app_id: str, url: str, events: Sequence[str]) -> tuple[Webhook, str]:
        """A new webhook and its secret. Raises BadRequestError, LimitExceededError."""
        return await self._store.create(app_id, check_url(url), check_events(events))

    async def list_webhooks(self, app_id: str) -> list[Webhook]:
        """The webhooks of an app."""
        return await self._store.list_webhooks(app_id)

    async def get(self, app_id: str, webhook_id: str) -> Webhook:
        """One. Raises NotFoundError."""
        return await self._store.get(app_id, webhook_id)

    async def change(
        self, app_id: str, webhook_id: str, *, url: str | None, events: Sequence[str] | None, is_enabled: bool | None
    ) -> Webhook:
        """Changes what is given. Raises NotFoundError, BadRequestError."""
        webhook = await self._store.get(app_id, webhook_id)
        changed = dataclasses.replace(
            webhook,
            url=webhook.url if url is None else check_url(url),
            events=webhook.events if events is None else check_events(events),
            is_enabled=webhook.is_enabled if is_enabled is None else is_enabled,
        )
        return await self._store.change(changed)

    async def delete(self, app_id: str, webhook_id: str) -> None:
        """Deletes it with what it has not been told yet. Raises NotFoundError."""
        await self._store.delete(app_id, webhook_id)

    async def send_test(self, app_id: str, webhook_id: str) -> str:
        """Queues an event that says nothing, for whoever sets a receiver up; returns its id. Raises NotFoundError."""
        webhook = await self._store.get(app_id, webhook_id)
        event_id, now = new_id("ev"), self._clock.unix_ms()
        body = {
            "id": event_id,
            "type": TEST_EVENT,
            "app": app_id,
            "room": "",
            "at_ms": now,
            "data": {},
        }
        await self._store.enqueue_for(webhook, RenderedEvent(event_id, TEST_EVENT, app_id, "", now, json.dumps(body)))
        self._wake()
        return event_id

    async def deliveries(
        self, app_id: str, webhook_id: str, *, state: DeliveryState | None, room: str, before_id: int, limit: int
    ) -> list[Delivery]:
        """What was sent and what waits, newest first. Raises NotFoundError."""
        webhook = await self._store.get(app_id, webhook_id)
        return await self._store.deliveries(webhook, state, room, before_id, limit)

    async def replay(
        self,
        app_id: str,
        webhook_id: str,
        *,
        state: DeliveryState | None,
        event_ids: Sequence[str],
        from_ms: int,
        to_ms: int,
    ) -> int:
        """Has stored events delivered again, in their order; returns how many. Raises NotFoundError."""
        webhook = await self._store.get(app_id, webhook_id)
        now = self._clock.unix_ms()
        queued = await self._store.replay(webhook, now, state, event_ids, from_ms, to_ms or now)
        self._wake()
        return queued
