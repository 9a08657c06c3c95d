"""What the delivery of events to apps needs of the world outside."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from .core.app_events import AppEvent
from .core.webhooks import Answer, Delivery, DeliveryState, DueDelivery, LogPosition, RenderedEvent, Webhook


class EventBatch(Protocol):
    """Events that are to be taken over."""

    @property
    def events(self) -> Sequence[AppEvent]:
        """The events, in order."""
        ...

    @property
    def position(self) -> LogPosition:
        """Where the log goes on after them."""
        ...


class EventLog(Protocol):
    """All app events of the suite, in order."""

    async def read(self, after: LogPosition | None) -> EventBatch | None:
        """The next ones; None after some seconds without any. Raises UnavailableError.

        Args:
            after: what was taken; None, or a position in a log that is no more: nothing.
        """
        ...

    async def aclose(self) -> None:
        """Reads no more."""
        ...


class Duty(Protocol):
    """What one instance does for all."""

    @property
    def is_held(self) -> bool:
        """True while it is certain that no other instance does it."""
        ...


class WebhookSender(Protocol):
    """Sends requests to receivers."""

    async def send(self, delivery: DueDelivery) -> Answer:
        """One signed request; never raises for what the receiver does."""
        ...


class WebhookStore(Protocol):
    """Webhooks and their deliveries. All calls raise UnavailableError while the database is away."""

    async def create(self, app_id: str, url: str, events: Sequence[str]) -> tuple[Webhook, str]:
        """A new webhook and its secret, which is not shown again. Raises LimitExceededError, NotFoundError."""
        ...

    async def list_webhooks(self, app_id: str) -> list[Webhook]:
        """The webhooks of an app, oldest first."""
        ...

    async def get(self, app_id: str, webhook_id: str) -> Webhook:
        """One. Raises NotFoundError."""
        ...

    async def change(self, webhook: Webhook) -> Webhook:
        """Writes URL, events and whether it is enabled. Raises NotFoundError."""
        ...

    async def delete(self, app_id: str, webhook_id: str) -> None:
        """Deletes it with its deliveries. Raises NotFoundError."""
        ...

    async def position(self) -> LogPosition | None:
        """How far the log was taken over; None: not at all."""
        ...

    async def enqueue(self, events: Sequence[RenderedEvent], since: LogPosition | None, position: LogPosition) -> int:
        """A delivery of each event to each webhook that wants it; one that is there already is not made again.

        In one transaction with the new position. Returns how many were made.

        Args:
            since: the position as this instance knows it.

        Raises:
            FailedPreconditionError: it is another one: another instance goes on with the log.
        """
        ...

    async def enqueue_for(self, webhook: Webhook, event: RenderedEvent) -> None:
        """A delivery of one event to this webhook, wanted or not."""
        ...

    async def due(self, now_ms: int, limit: int, except_for: Collection[str]) -> list[DueDelivery]:
        """Deliveries to be tried: of each webhook and room the oldest only, so that order is kept.

        Args:
            except_for: webhooks that are to be left alone for now.
        """
        ...

    async def delivered(self, delivery_id: int, status: int, now_ms: int) -> None:
        """The receiver has it."""
        ...

    async def not_delivered(self, delivery_id: int, answer: Answer, next_attempt_at_ms: int | None) -> None:
        """It failed; None: for good."""
        ...

    async def pending(self) -> int:
        """Deliveries that wait."""
        ...

    async def deliveries(
        self, webhook: Webhook, state: DeliveryState | None, room: str, before_id: int, limit: int
    ) -> list[Delivery]:
        """Deliveries of a webhook, newest first. 0 as `before_id`: from the newest on; no `room`: of all."""
        ...

    async def replay(
        self,
        webhook: Webhook,
        now_ms: int,
        state: DeliveryState | None,
        event_ids: Sequence[str],
        from_ms: int,
        to_ms: int,
    ) -> int:
        """Makes stored deliveries wait again; returns how many."""
        ...

    async def purge(self, before_ms: int) -> int:
        """Deletes deliveries that ended, and were made before this time; returns how many."""
        ...
