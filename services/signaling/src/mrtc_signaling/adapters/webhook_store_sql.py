"""Webhooks and their deliveries in SQL, beside the apps."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from mrtc_common.errors import FailedPreconditionError, LimitExceededError, NotFoundError, UnavailableError
from mrtc_common.ids import new_id
from mrtc_common.log import get_logger
from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from mrtc_signaling.core.webhooks import (
    LONGEST_RETRY_MS,
    MAX_PER_APP,
    Answer,
    Delivery,
    DeliveryState,
    DueDelivery,
    LogPosition,
    RenderedEvent,
    Webhook,
    secret_text,
)

from .app_tables import AppRow
from .secret_box import SecretBox, SecretBoxError
from .webhook_tables import DeliveryRow, EventRow, LogRow, WebhookRow

_log = get_logger(__name__)

_TIMEOUT_S = 10.0
_PURGE_AT_ONCE = 1000
_LOG_ID = 1


class SqlWebhookStore:
    """See `webhook_ports.WebhookStore`.

    Args:
        retry_ms: for how long a delivery is tried.
        now_ms: the Unix time.
    """

    def __init__(
        self, session: async_sessionmaker[AsyncSession], box: SecretBox, *, retry_ms: int, now_ms: Any
    ) -> None:
        self._session = session
        self._box = box
        self._retry_ms = retry_ms
        self._now_ms = now_ms

    # Webhooks

    async def create(self, app_id: str, url: str, events: Sequence[str]) -> tuple[Webhook, str]:
        """See the port."""
        secret = secret_text(secrets.token_bytes(32))
        row = WebhookRow(id=new_id("wh"), app_id=app_id, url=url, events=list(events), is_enabled=True)
        row.secret_encrypted, row.created_at_ms = self._box.seal(secret, row.id), self._now_ms()
        async with self._transaction() as session:
            # Locked, so that two that are made at once are counted one after the other.
            if await session.scalar(select(AppRow.id).where(AppRow.id == app_id).with_for_update()) is None:
                raise NotFoundError(f"no app {app_id!r}")
            count = await session.scalar(select(func.count()).where(WebhookRow.app_id == app_id))
            if (count or 0) >= MAX_PER_APP:
                raise LimitExceededError(f"an app may have {MAX_PER_APP} webhooks")
            session.add(row)
        return _webhook(row), secret

    async def list_webhooks(self, app_id: str) -> list[Webhook]:
        """See the port."""
        query = select(WebhookRow).where(WebhookRow.app_id == app_id).order_by(WebhookRow.created_at_ms, WebhookRow.id)
        async with self._transaction() as session:
            return [_webhook(row) for row in await session.scalars(query)]

    async def get(self, app_id: str, webhook_id: str) -> Webhook:
        """See the port."""
        async with self._transaction() as session:
            return _webhook(await _row(session, app_id, webhook_id))

    async def change(self, webhook: Webhook) -> Webhook:
        """See the port."""
        async with self._transaction() as session:
            row = await _row(session, webhook.app_id, webhook.id)
            row.url, row.events, row.is_enabled = webhook.url, list(webhook.events), webhook.is_enabled
            return _webhook(row)

    async def delete(self, app_id: str, webhook_id: str) -> None:
        """See the port."""
        async with self._transaction() as session:
            await session.delete(await _row(session, app_id, webhook_id))

    # Deliveries

    async def position(self) -> LogPosition | None:
        """See the port."""
        async with self._transaction() as session:
            return _position(await session.get(LogRow, _LOG_ID))

    async def enqueue(self, events: Sequence[RenderedEvent], since: LogPosition | None, position: LogPosition) -> int:
        """See the port."""
        apps = {event.app_id for event in events}
        made = 0
        async with self._transaction() as session:
            log = await session.get(LogRow, _LOG_ID, with_for_update=True)
            if _position(log) != since:
                raise FailedPreconditionError("another instance goes on with the events")
            await session.merge(LogRow(id=_LOG_ID, stream=position.stream, sequence=position.sequence))
            by_app: dict[str, list[Webhook]] = defaultdict(list)
            for row in await session.scalars(select(WebhookRow).where(WebhookRow.app_id.in_(apps))):
                by_app[row.app_id].append(_webhook(row))
            fresh = {event.id: event for event in events if event.app_id in by_app}
            for known in await session.scalars(select(EventRow.id).where(EventRow.id.in_(fresh))):
                del fresh[known]
            for event in fresh.values():
                session.add(EventRow(id=event.id, taken_at_ms=self._now_ms()))
                for webhook in by_app[event.app_id]:
                    if webhook.wants(event):
                        session.add(self._new_delivery(webhook, event))
                        # One by one, or the ids would not have the order of the events.
                        await session.flush()
                        made += 1
        return made

    async def enqueue_for(self, webhook: Webhook, event: RenderedEvent) -> None:
        """See the port."""
        async with self._transaction() as session:
            session.add(self._new_delivery(webhook, event))

    async def due(self, now_ms: int, limit: int, except_for: Collection[str]) -> list[DueDelivery]:
        """See the port."""
        heads = (
            select(func.min(DeliveryRow.id).label("id"))
            .where(DeliveryRow.state == DeliveryState.PENDING)
            .group_by(DeliveryRow.webhook_id, DeliveryRow.room)
            .subquery()
        )
        when = DeliveryRow.next_attempt_at_ms
        query = (
            select(DeliveryRow, WebhookRow)
            .join(heads, heads.c.id == DeliveryRow.id)
            .join(WebhookRow, WebhookRow.id == DeliveryRow.webhook_id)
            .where(or_(when <= now_ms, when > now_ms + LONGEST_RETRY_MS), WebhookRow.is_enabled)
            .where(WebhookRow.id.not_in(except_for))
            .order_by(DeliveryRow.next_attempt_at_ms, DeliveryRow.id)
            .limit(limit)
        )
        async with self._transaction() as session:
            rows = (await session.execute(query)).all()
        found = [self._due(delivery, webhook) for delivery, webhook in rows]
        return [due for due in found if due is not None]

    async def delivered(self, delivery_id: int, status: int, now_ms: int) -> None:
        """See the port."""
        await self._set(
            delivery_id,
            state=DeliveryState.DELIVERED,
            attempts=DeliveryRow.attempts + 1,
            delivered_at_ms=now_ms,
            last_status=status,
            last_error="",
        )

    async def not_delivered(self, delivery_id: int, answer: Answer, next_attempt_at_ms: int | None) -> None:
        """See the port."""
        fate: dict[str, Any] = {"state": DeliveryState.FAILED}
        if next_attempt_at_ms is not None:
            fate = {"next_attempt_at_ms": next_attempt_at_ms}
        await self._set(
            delivery_id,
            attempts=DeliveryRow.attempts + 1,
            last_status=answer.status,
            last_error=answer.error[:256],
            **fate,
        )

    async def pending(self) -> int:
        """See the port."""
        query = select(func.count()).where(DeliveryRow.state == DeliveryState.PENDING)
        async with self._transaction() as session:
            return int(await session.scalar(query) or 0)

    async def deliveries(
        self, webhook: Webhook, state: DeliveryState | None, room: str, before_id: int, limit: int
    ) -> list[Delivery]:
        """See the port."""
        query = select(DeliveryRow).where(DeliveryRow.webhook_id == webhook.id)
        if state is not None:
            query = query.where(DeliveryRow.state == state)
        if room:
            query = query.where(DeliveryRow.room == room)
        if before_id:
            query = query.where(DeliveryRow.id < before_id)
        async with self._transaction() as session:
            return [_delivery(row) for row in await session.scalars(query.order_by(DeliveryRow.id.desc()).limit(limit))]

    async def replay(
        self,
        webhook: Webhook,
        now_ms: int,
        state: DeliveryState | None,
        event_ids: Sequence[str],
        from_ms: int,
        to_ms: int,
    ) -> int:
        """See the port."""
        statement = update(DeliveryRow).where(
            DeliveryRow.webhook_id == webhook.id,
            DeliveryRow.state != DeliveryState.PENDING,
            DeliveryRow.created_at_ms.between(from_ms, to_ms),
        )
        if state is not None:
            statement = statement.where(DeliveryRow.state == state)
        if event_ids:
            statement = statement.where(DeliveryRow.event_id.in_(event_ids))
        values = {
            "state": DeliveryState.PENDING,
            "attempts": 0,
            "next_attempt_at_ms": now_ms,
            "retry_until_ms": now_ms + self._retry_ms,
        }
        async with self._transaction() as session:
            result: Any = await session.execute(statement.values(**values))
            return int(result.rowcount)

    async def purge(self, before_ms: int) -> int:
        """See the port."""
        async with self._transaction() as session:
            await session.execute(delete(EventRow).where(EventRow.taken_at_ms < before_ms))
        old = (
            select(DeliveryRow.id)
            .where(DeliveryRow.created_at_ms < before_ms, DeliveryRow.state != DeliveryState.PENDING)
            .limit(_PURGE_AT_ONCE)
        )
        async with self._transaction() as session:
            result: Any = await session.execute(delete(DeliveryRow).where(DeliveryRow.id.in_(old)))
            return int(result.rowcount)

    # Inside

    def _new_delivery(self, webhook: Webhook, event: RenderedEvent) -> DeliveryRow:
        now = self._now_ms()
        return DeliveryRow(
            webhook_id=webhook.id,
            event_id=event.id,
            event_type=event.type,
            room=event.room,
            body=event.body,
            state=DeliveryState.PENDING,
            attempts=0,
            created_at_ms=now,
            retry_until_ms=now + self._retry_ms,
            next_attempt_at_ms=now,
            delivered_at_ms=0,
            last_status=0,
            last_error="",
        )

    def _due(self, delivery: DeliveryRow, webhook: WebhookRow) -> DueDelivery | None:
        try:
            secret = self._box.open(webhook.secret_encrypted, webhook.id)
        except SecretBoxError as error:
            _log.error("a webhook's secret cannot be opened", webhook=webhook.id, reason=str(error))
            return None
        return DueDelivery(
            id=delivery.id,
            webhook_id=webhook.id,
            room=delivery.room,
            url=webhook.url,
            secret=secret,
            event_id=delivery.event_id,
            body=delivery.body,
            attempts=delivery.attempts,
            retry_until_ms=delivery.retry_until_ms,
        )

    async def _set(self, delivery_id: int, **values: Any) -> None:
        async with self._transaction() as session:
            await session.execute(update(DeliveryRow).where(DeliveryRow.id == delivery_id).values(**values))

    @contextlib.asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncSession]:
        try:
            async with asyncio.timeout(_TIMEOUT_S), self._session.begin() as session:
                yield session
        except (SQLAlchemyError, OSError, TimeoutError) as error:
            raise UnavailableError(f"the database does not answer: {type(error).__name__}") from error


def _position(row: LogRow | None) -> LogPosition | None:
    return None if row is None else LogPosition(row.stream, row.sequence)


async def _row(session: AsyncSession, app_id: str, webhook_id: str) -> WebhookRow:
    row = await session.get(WebhookRow, webhook_id)
    if row is None or row.app_id != app_id:
        raise NotFoundError("no such webhook")
    return row


def _webhook(row: WebhookRow) -> Webhook:
    return Webhook(row.id, row.app_id, row.url, tuple(row.events), row.is_enabled, row.created_at_ms)


def _delivery(row: DeliveryRow) -> Delivery:
    return Delivery(
        id=row.id,
        webhook_id=row.webhook_id,
        event_id=row.event_id,
        event_type=row.event_type,
        room=row.room,
        state=DeliveryState(row.state),
        attempts=row.attempts,
        created_at_ms=row.created_at_ms,
        next_attempt_at_ms=row.next_attempt_at_ms,
        delivered_at_ms=row.delivered_at_ms,
        last_status=row.last_status,
        last_error=row.last_error,
    )
