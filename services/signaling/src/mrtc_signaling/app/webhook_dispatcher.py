"""Carries app events from the log into the store, and from there to their receivers. One instance does it for all."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable

from mrtc_common.clock import Clock
from mrtc_common.errors import MrtcError
from mrtc_common.log import get_logger
from mrtc_common.tasks import end_tasks

from mrtc_signaling.core.app_events import AppEvent
from mrtc_signaling.core.webhooks import DueDelivery, LogPosition, RenderedEvent, retry_delay_ms
from mrtc_signaling.metrics import SignalingMetrics
from mrtc_signaling.webhook_ports import Duty, EventLog, WebhookSender, WebhookStore

_log = get_logger(__name__)

_IDLE_S = 1.0
_AT_ONCE = 64
_AT_ONCE_PER_WEBHOOK = 8
_PURGE_INTERVAL_S = 600.0
# Enough for what is written again and again, as records of recordings are; whatever else comes twice the store knows.
_MAX_RECENT = 2_000


class WebhookDispatcher:
    """Delivers at least once, and in each room in order: an event waits until the one before it was taken or given up.

    Args:
        render: an event as receivers get it.
        keep_s: for how long ended deliveries can be looked at and replayed.
    """

    def __init__(
        self,
        duty: Duty,
        log: EventLog,
        store: WebhookStore,
        sender: WebhookSender,
        render: Callable[[AppEvent], RenderedEvent],
        clock: Clock,
        metrics: SignalingMetrics,
        *,
        keep_s: float,
    ) -> None:
        self._duty = duty
        self._log = log
        self._store = store
        self._sender = sender
        self._render = render
        self._clock = clock
        self._metrics = metrics
        self._keep_ms = round(keep_s * 1000)
        self._wake = asyncio.Event()
        self._recent: OrderedDict[str, None] = OrderedDict()
        # How far the log was read, and how far the store knows that it was; unset: the store is to be asked.
        self._read_to: LogPosition | None = None
        self._stored_to: LogPosition | None = None
        # What is on its way, by delivery; how much of it to each webhook; until when a failing webhook is left alone.
        self._under_way: dict[int, asyncio.Task[None]] = {}
        # What ended while the store was being asked: its answer may still have it.
        self._just_ended: set[int] = set()
        self._busy: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._held_until: dict[str, float] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins."""
        self._tasks = [
            asyncio.create_task(self._repeat(self._take_events), name="webhook-events"),
            asyncio.create_task(self._repeat(self._deliver), name="webhook-deliveries"),
            asyncio.create_task(self._repeat(self._tidy), name="webhook-tidy"),
        ]

    async def aclose(self) -> None:
        """Ends; what was under way is delivered by another instance, perhaps once more."""
        await end_tasks(*self._tasks, *self._under_way.values())
        await self._log.aclose()

    def wake(self) -> None:
        """Something is to be delivered."""
        self._wake.set()

    async def _repeat(self, step: Callable[[], object]) -> None:
        while True:
            try:
                if self._duty.is_held:
                    await step()  # type: ignore[misc]
                else:
                    await asyncio.sleep(_IDLE_S)
            except MrtcError as error:
                _log.debug("webhooks wait", error=error.message)
                await asyncio.sleep(_IDLE_S)
            except Exception:
                _log.exception("webhooks failed; trying on")
                await asyncio.sleep(_IDLE_S)

    async def _take_events(self) -> None:
        if self._read_to is None:
            self._read_to = self._stored_to = await self._store.position()
        # Whatever fails from here on, the store says where to go on.
        read_to, self._read_to = self._read_to, None
        batch = await self._log.read(read_to)
        if batch is None:
            self._read_to = read_to
            return
        # Older ones may have been forgotten by the store; what is read now of them is an echo in a later write.
        oldest_ms = self._clock.unix_ms() - self._keep_ms
        fresh = {event.id: event for event in batch.events if event.at_ms >= oldest_ms and event.id not in self._recent}
        if fresh:
            rendered = [self._render(event) for event in fresh.values()]
            made = await self._store.enqueue(rendered, self._stored_to, batch.position)
            self._stored_to = batch.position
            self._note(fresh)
            self._metrics.app_events.inc(len(fresh))
            if made:
                self._wake.set()
        self._read_to = batch.position

    def _note(self, event_ids: Iterable[str]) -> None:
        """Remembers what was stored: a record that is written every second need not be asked for each time."""
        self._recent.update(dict.fromkeys(event_ids))
        while len(self._recent) > _MAX_RECENT:
            self._recent.popitem(last=False)

    async def _deliver(self) -> None:
        self._wake.clear()
        now = self._clock.unix_ms()
        full = {webhook for webhook, count in self._busy.items() if count >= _AT_ONCE_PER_WEBHOOK}
        moment = self._clock.monotonic()
        self._held_until = {webhook: until for webhook, until in self._held_until.items() if until > moment}
        self._just_ended.clear()
        room = _AT_ONCE - len(self._under_way)
        # Those under way are still the oldest of their rooms and so come again: they are asked for beside the new ones.
        found = await self._store.due(now, room + len(self._under_way), full | set(self._held_until)) if room else []
        begun = 0
        for delivery in found:
            is_new = delivery.id not in self._under_way and delivery.id not in self._just_ended
            if is_new and self._busy[delivery.webhook_id] < _AT_ONCE_PER_WEBHOOK:
                self._busy[delivery.webhook_id] += 1
                self._under_way[delivery.id] = asyncio.create_task(self._try(delivery), name="webhook")
                begun += 1
        if not begun:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_IDLE_S):
                    await self._wake.wait()

    async def _try(self, delivery: DueDelivery) -> None:
        try:
            await self._try_once(delivery)
        except MrtcError as error:
            _log.warning("the fate of a webhook delivery could not be stored; it is tried again", error=error.message)
        finally:
            del self._under_way[delivery.id]
            self._just_ended.add(delivery.id)
            self._busy[delivery.webhook_id] -= 1
            self._wake.set()

    async def _try_once(self, delivery: DueDelivery) -> None:
        answer = await self._sender.send(delivery)
        now, webhook = self._clock.unix_ms(), delivery.webhook_id
        if answer.is_ok:
            self._failures.pop(webhook, None)
            self._metrics.webhook_deliveries.labels("delivered").inc()
            await self._store.delivered(delivery.id, answer.status, now)
            return
        self._failures[webhook] += 1
        held_s = retry_delay_ms(min(self._failures[webhook], 5)) / 1000
        self._held_until[webhook] = self._clock.monotonic() + held_s
        next_attempt: int | None = now + retry_delay_ms(delivery.attempts + 1)
        if now >= delivery.retry_until_ms:
            next_attempt = None
        self._metrics.webhook_deliveries.labels("given_up" if next_attempt is None else "failed").inc()
        _log.info("a webhook was not taken", webhook=webhook, attempts=delivery.attempts + 1, error=answer.error)
        await self._store.not_delivered(delivery.id, answer, next_attempt)

    async def _tidy(self) -> None:
        while await self._store.purge(self._clock.unix_ms() - self._keep_ms):
            pass
        self._metrics.webhooks_pending.set(await self._store.pending())
        await asyncio.sleep(min(_PURGE_INTERVAL_S, 15.0))
