"""The app events in NATS: a durable consumer of `MRTC_EVENTS`, shared by all instances and read by one at a time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import nats.errors
from google.protobuf.message import DecodeError
from mrtc_common import subjects
from mrtc_common.errors import BadRequestError
from mrtc_common.kv import is_deletion
from mrtc_common.log import get_logger
from mrtc_common.nats import NatsLink, nats_errors
from mrtc_common.nats_schema import parse_bucket_subject
from nats.js import JetStreamContext, api

from mrtc_signaling.core.app_events import AppEvent, StoredWrite, events_of

_log = get_logger(__name__)

_CONSUMER = "webhooks"
_AT_ONCE = 100
_WAIT_S = 5.0
# What a reader took and did not store comes to the next one after this time.
_ACK_WAIT_S = 15.0


class NatsEventBatch:
    """See `webhook_ports.EventBatch`."""

    def __init__(self, messages: Sequence[Any]) -> None:
        self._messages = messages
        self.events = [event for message in messages for event in _events(message)]

    async def taken(self) -> None:
        """See the port."""
        with nats_errors("events"):
            # The policy is "all": the last one stands for those before it.
            await self._messages[-1].ack_sync(timeout=2)


class NatsEventLog:
    """See `webhook_ports.EventLog`."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._epoch = -1

    async def read(self) -> NatsEventBatch | None:
        """See the port."""
        with nats_errors("events"):
            try:
                subscription = await self._subscribe()
                messages = await subscription.fetch(_AT_ONCE, timeout=_WAIT_S)
            except (TimeoutError, nats.errors.TimeoutError):
                return None
            except BaseException:
                self._epoch = -1
                raise
        return NatsEventBatch(messages) if messages else None

    async def aclose(self) -> None:
        """See the port."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(Exception):
                await asyncio.shield(subscription.unsubscribe())

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        epoch = self._link.epoch
        if self._subscription is not None and self._epoch == epoch:
            return self._subscription
        await self.aclose()
        config = api.ConsumerConfig(
            durable_name=_CONSUMER,
            deliver_policy=api.DeliverPolicy.ALL,
            ack_policy=api.AckPolicy.ALL,
            ack_wait=_ACK_WAIT_S,
        )
        await self._link.jetstream.add_consumer(subjects.STREAM_EVENTS, config)
        self._subscription = await self._link.jetstream.pull_subscribe_bind(
            consumer=_CONSUMER, stream=subjects.STREAM_EVENTS
        )
        self._epoch = epoch
        return self._subscription


def _events(message: Any) -> list[AppEvent]:
    try:
        bucket, key = parse_bucket_subject(message.subject)
        at_ms = int(message.metadata.timestamp.timestamp() * 1000)
        return events_of(StoredWrite(bucket, key, message.data or b"", is_deletion(message.headers or {}), at_ms))
    except (DecodeError, BadRequestError):
        _log.warning("a write of the state cannot be read; apps are not told of it", subject=message.subject)
        return []
