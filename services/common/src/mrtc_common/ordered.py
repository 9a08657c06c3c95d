"""Reads a JetStream stream in order, each message once, over lost consumers, slow readers and restarted servers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nats.js import api

from .errors import UnavailableError
from .log import get_logger
from .nats import NatsLink, nats_errors
from .tasks import end_tasks

_log = get_logger(__name__)

_IDLE_HEARTBEAT_S = 4.0
_QUIET_LIMIT_S = 10.0  # two heartbeats and a half: then the consumer is taken for dead
_INACTIVE_THRESHOLD_S = 5.0
_QUEUE_SIZE = 1024
_RETRY_INTERVAL_S = 0.2


class ConsumerLostError(Exception):
    """The consumer is gone or a message was missed; open another one."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream.

    Args:
        sequence: its place in the stream.
        pending: how many more match at this moment; 0: this is the newest.
        stored_at_ms: Unix milliseconds.
    """

    subject: str
    payload: bytes
    headers: Mapping[str, str]
    sequence: int
    pending: int
    stored_at_ms: int


class OrderedConsumer:
    """One life of an ephemeral push consumer with flow control; the first irregularity is a `ConsumerLostError`."""

    def __init__(self, link: NatsLink, stream: str, filter_subject: str) -> None:
        self._link = link
        self._stream = stream
        self._filter = filter_subject
        # The last element may be a loss, so the queue is never closed by being full.
        self._queue: asyncio.Queue[StoredMessage | None] = asyncio.Queue(_QUEUE_SIZE)
        self._subscription: Any = None
        self._lost = asyncio.Event()
        self._expected = 1
        self._heard_at = 0.0
        self._remove_listener: Any = None
        self._initial = 0
        self._name = ""

    @property
    def initial_pending(self) -> int:
        """How many messages matched when the consumer was made."""
        return self._initial

    async def open(self, policy: api.DeliverPolicy, start_sequence: int | None = None) -> None:
        """Makes the consumer. Raises UnavailableError."""
        loop = asyncio.get_running_loop()
        self._heard_at = loop.time()
        with nats_errors("watch"):
            client, js = self._link.client, self._link.jetstream
            inbox = client.new_inbox()
            self._subscription = await client.subscribe(inbox, cb=self._on_message, pending_msgs_limit=65_536)
            try:
                info = await js.add_consumer(
                    self._stream,
                    api.ConsumerConfig(
                        deliver_subject=inbox,
                        deliver_policy=policy,
                        opt_start_seq=start_sequence,
                        filter_subject=self._filter,
                        ack_policy=api.AckPolicy.NONE,
                        max_deliver=1,
                        flow_control=True,
                        idle_heartbeat=_IDLE_HEARTBEAT_S,
                        inactive_threshold=_INACTIVE_THRESHOLD_S,
                        mem_storage=True,
                        num_replicas=1,
                    ),
                )
            except BaseException:
                await self.aclose()
                raise
        self._name = info.name
        delivered = info.delivered.consumer_seq if info.delivered else 0
        self._initial = (info.num_pending or 0) + delivered
        self._remove_listener = self._link.on_change(self._on_link_change)

    async def next(self) -> StoredMessage:
        """The next message. Raises ConsumerLostError. Not to be cancelled and called again."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue.empty():
                message = self._queue.get_nowait()
                if message is not None:
                    return message
                continue
            if self._lost.is_set():
                raise ConsumerLostError
            quiet_until = self._heard_at + _QUIET_LIMIT_S
            try:
                async with asyncio.timeout(max(0.05, quiet_until - loop.time())):
                    message = await self._queue.get()
            except TimeoutError:
                if loop.time() >= self._heard_at + _QUIET_LIMIT_S:
                    raise ConsumerLostError from None
                continue
            if message is not None:
                return message

    async def aclose(self) -> None:
        """Ends it; the server is told, and forgets it by itself a few seconds after it was not heard."""
        if self._remove_listener is not None:
            self._remove_listener()
            self._remove_listener = None
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()
        name, self._name = self._name, ""
        if name:
            # Without waiting for an answer: it would be gone anyway, but only after many more lists.
            with contextlib.suppress(Exception):
                await self._link.client.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{name}", b"")

    def _on_link_change(self, ready: bool) -> None:
        if not ready:
            self._lose()

    def _lose(self) -> None:
        self._lost.set()
        with contextlib.suppress(asyncio.QueueFull):
            self._queue.put_nowait(None)

    async def _on_message(self, message: Any) -> None:
        if self._lost.is_set():
            return
        self._heard_at = asyncio.get_running_loop().time()
        headers = message.headers or {}
        if headers.get("Status") == "100":
            await self._answer_control(message, headers)
            return
        metadata = message.metadata
        if metadata.sequence.consumer != self._expected:
            self._lose()
            return
        self._expected += 1
        await self._queue.put(
            StoredMessage(
                subject=message.subject,
                payload=message.data,
                headers=headers,
                sequence=metadata.sequence.stream,
                pending=metadata.num_pending,
                stored_at_ms=int(metadata.timestamp.timestamp() * 1000),
            )
        )

    async def _answer_control(self, message: Any, headers: Mapping[str, str]) -> None:
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != self._expected - 1:
            self._lose()
            return
        reply = message.reply or headers.get("Nats-Consumer-Stalled")
        if reply:
            with contextlib.suppress(Exception):
                await self._link.client.publish(reply, b"")


async def pause(link: NatsLink, reader: str, error: Exception, *, is_told: bool) -> bool:
    """Waits before a reader tries again, and says so once if NATS is there and refuses it; True: it was said."""
    if isinstance(error, UnavailableError) and link.is_ready and not is_told:
        _log.warning("the message bus refuses a reader, trying on", reader=reader, error=error.message)
        is_told = True
    await asyncio.sleep(_RETRY_INTERVAL_S)
    return is_told


class OrderedReader:
    """An endless async iterator of the messages of a stream from a sequence on, in order, none twice.

    ::

        async with OrderedReader(link, STREAM_MESSAGES, message_subject(room), start_sequence=last + 1) as reader:
            async for message in reader: ...

    Args:
        start_sequence: the first wanted; None: only what comes from now on.
    """

    def __init__(self, link: NatsLink, stream: str, filter_subject: str, *, start_sequence: int | None = None) -> None:
        self._link = link
        self._stream = stream
        self._filter = filter_subject
        self._next_sequence = start_sequence
        self._queue: asyncio.Queue[StoredMessage] = asyncio.Queue(_QUEUE_SIZE)
        self._task: asyncio.Task[None] | None = None
        self._is_open = asyncio.Event()

    async def __aenter__(self) -> OrderedReader:
        self._task = asyncio.create_task(self._run(), name=f"reader {self._filter}")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()

    async def wait_open(self) -> None:
        """Waits until the first consumer stands: what is stored from then on will be read."""
        await self._is_open.wait()

    async def aclose(self) -> None:
        """Ends it."""
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None

    def take_waiting(self, limit: int) -> list[StoredMessage]:
        """What has come and was not taken yet, so many at most."""
        return [self._queue.get_nowait() for _ in range(min(limit, self._queue.qsize()))]

    def __aiter__(self) -> OrderedReader:
        return self

    async def __anext__(self) -> StoredMessage:
        return await self._queue.get()

    async def _run(self) -> None:
        is_told = False
        while True:
            await self._link.wait_ready()
            consumer = OrderedConsumer(self._link, self._stream, self._filter)
            try:
                await self._read(consumer)
            except (UnavailableError, ConsumerLostError) as error:
                is_told = await pause(self._link, self._filter, error, is_told=is_told)
            finally:
                await consumer.aclose()

    async def _read(self, consumer: OrderedConsumer) -> None:
        if self._next_sequence is None:
            # Fix "from now on" to a number, so that a consumer lost before its first message misses nothing.
            with nats_errors("read"):
                info = await self._link.jetstream.stream_info(self._stream)
            self._next_sequence = info.state.last_seq + 1
        await consumer.open(api.DeliverPolicy.BY_START_SEQUENCE, max(1, self._next_sequence))
        self._is_open.set()
        while True:
            message = await consumer.next()
            if message.sequence < self._next_sequence:
                continue
            await self._queue.put(message)
            self._next_sequence = message.sequence + 1
