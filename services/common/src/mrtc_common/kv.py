"""Typed key-value tables on JetStream: protobuf values, compare-and-set, and watches that outlive every disturbance."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import nats.errors
import nats.js.errors
from google.protobuf.message import DecodeError, Message
from nats.js import api

from .errors import AlreadyExistsError, FailedPreconditionError, MrtcError, UnavailableError
from .log import get_logger
from .nats import NatsLink, nats_errors
from .nats_schema import DELETE_MARKER_TTL_S, bucket_stream, bucket_subject
from .ordered import ConsumerLostError, OrderedConsumer, StoredMessage, pause
from .tasks import end_tasks

_log = get_logger(__name__)

M = TypeVar("M", bound=Message)

_OPERATION = "KV-Operation"
_MARKER_REASON = "Nats-Marker-Reason"
_MAX_AGE = "MaxAge"
_EXPECTED_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
_WRONG_SEQUENCE_CODES = (10071, 10164)
_QUEUE_SIZE = 1024
# A list, or the beginning of a watch, that is not whole and gets nothing for so long is an error: half of it would be
# worse than none.
_LIST_QUIET_S = 3.0
# After this time a watch of keys that are written all the time has begun once it has seen as many keys as there were.
_BUSY_SNAPSHOT_S = 1.0


class KeyExistsError(AlreadyExistsError):
    """`create` found the key."""


class RevisionMismatchError(FailedPreconditionError):
    """`update` or `delete` came with a revision that is not the newest."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[M]):
    """A key that exists."""

    key: str
    value: M
    revision: int


@dataclass(frozen=True, slots=True)
class Change(Generic[M]):
    """A key was written, or is gone (`value` is None).

    Args:
        final: of a deleted key: the last words of whoever deleted it (for example a record with its leave reason), if
            any. None for keys that expired or went while the watch was away.
        is_inferred: the key was found missing after the link was away. With a bucket in memory that may only mean that
            NATS was restarted and the owner has not written it again yet.
        is_expired: NATS let the key expire, by its own wall clock, which may have been set.
    """

    key: str
    value: M | None
    revision: int
    final: M | None = None
    is_inferred: bool = False
    is_expired: bool = False


@dataclass(frozen=True, slots=True)
class SnapshotDone:
    """Everything that existed when the watch began has been told. Comes again after every time the link was away.

    Args:
        revision: the newest that was told, or 0.
    """

    is_resync: bool
    revision: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A write that told nothing new (a deleted key was deleted again): for those who wait for a revision."""

    revision: int


class KvTable(Generic[M]):
    """A bucket, or the part of it that has values of one type.

    Args:
        link: may be down; then calls raise UnavailableError and watches wait.
        bucket: one of `subjects.BUCKET_*`.
        decode: the type of the values, or what makes a value of a key and bytes.
    """

    def __init__(self, link: NatsLink, bucket: str, decode: type[M] | Callable[[str, bytes], M]) -> None:
        self._link = link
        self._bucket = bucket
        self._stream = bucket_stream(bucket)
        self._prefix = bucket_subject(bucket, "")
        self._decode: Callable[[str, bytes], M]
        if isinstance(decode, type):
            message_type: type[M] = decode
            self._decode = lambda _key, payload: message_type.FromString(payload)
        else:
            self._decode = decode

    async def get(self, key: str) -> Entry[M] | None:
        """The entry, or None. Raises UnavailableError."""
        return await self._get(key, self._decode)

    async def put(self, key: str, value: M) -> int:
        """Writes whatever was there; returns the revision."""
        return await self._publish(key, value.SerializeToString(), {})

    async def create(self, key: str, value: M) -> int:
        """Writes if the key does not exist (any more); returns the revision. Raises KeyExistsError."""
        payload = value.SerializeToString()
        try:
            return await self._publish(key, payload, {_EXPECTED_SEQUENCE: "0"})
        except RevisionMismatchError:
            # The newest may be the marker of a deleted key, over which a new one may be written.
            message = await self._get_raw(key)
            if message is not None and not is_deletion(message.headers or {}):
                raise KeyExistsError(f"{self._bucket}: the key exists already") from None
        revision = int(message.seq) if message is not None and message.seq else 0
        try:
            return await self._publish(key, payload, {_EXPECTED_SEQUENCE: str(revision)})
        except RevisionMismatchError:
            raise KeyExistsError(f"{self._bucket}: the key exists already") from None

    async def update(self, key: str, value: M, revision: int) -> int:
        """Writes if `revision` is the newest; returns the new one. Raises RevisionMismatchError."""
        return await self._publish(key, value.SerializeToString(), {_EXPECTED_SEQUENCE: str(revision)})

    async def delete(self, key: str, *, revision: int | None = None, final: M | None = None) -> None:
        """Deletes a key; no error if it does not exist. Raises RevisionMismatchError if `revision` is not the newest.

        Args:
            final: handed to watchers as `Change.final`.
        """
        headers = {_OPERATION: "PURGE", "Nats-Rollup": "sub", "Nats-TTL": str(DELETE_MARKER_TTL_S)}
        if revision is not None:
            headers[_EXPECTED_SEQUENCE] = str(revision)
        await self._publish(key, final.SerializeToString() if final is not None else b"", headers)

    async def list(self, key_filter: str = ">") -> list[Entry[M]]:
        """All entries that match at this moment (`*` one token, `>` all further tokens). Raises UnavailableError."""
        consumer = OrderedConsumer(self._link, self._stream, self._prefix + key_filter)
        try:
            await consumer.open(api.DeliverPolicy.LAST_PER_SUBJECT)
            entries = await self._read(consumer, await self._keys(key_filter))
        except (TimeoutError, ConsumerLostError):
            raise UnavailableError(f"{self._bucket}: the message bus went away") from None
        finally:
            await consumer.aclose()
        return list(entries.values())

    async def _read(self, consumer: OrderedConsumer, missing: set[str]) -> dict[str, Entry[M]]:
        """All entries that the consumer brings, and those of these keys that it does not."""
        entries: dict[str, Entry[M]] = {}
        seen, pending = 0, consumer.initial_pending
        # The old value of a key that is written meanwhile is gone, and for a moment the server counts neither it nor
        # the new one; if it is written all the time there is always one to come. So keys decide, and not the count.
        while pending and (missing or seen < consumer.initial_pending):
            async with asyncio.timeout(_LIST_QUIET_S):
                message = await consumer.next()
            key = message.subject.removeprefix(self._prefix)
            seen, pending = seen + 1, message.pending
            missing.discard(key)
            entries.pop(key, None)
            if not is_deletion(message.headers) and (value := self._try_decode(key, message.payload)) is not None:
                entries[key] = Entry(key, value, message.sequence)
        for key in missing:
            if (entry := await self._get(key, self._try_decode)) is not None:
                entries[key] = entry
        return entries

    async def _keys(self, key_filter: str) -> set[str]:
        """Keys that have a value or a marker at this moment; of more than 100,000 some."""
        with nats_errors(self._bucket):
            info = await self._link.jetstream.stream_info(self._stream, subjects_filter=self._prefix + key_filter)
        return {subject.removeprefix(self._prefix) for subject in info.state.subjects or {}}

    async def count(self, key_filter: str = ">") -> int:
        """How many keys match; those that were deleted in the last minute may be counted. Raises UnavailableError."""
        return len(await self._keys(key_filter))

    async def last_revision(self, key_filter: str = ">") -> int:
        """The newest write to keys that match, 0 without any: asked of the server that takes the writes.

        A watch that has told of this revision has told of all that was written before the call. Raises
        UnavailableError.
        """
        with nats_errors(self._bucket):
            try:
                message = await self._link.jetstream.get_msg(self._stream, subject=self._prefix + key_filter)
            except nats.js.errors.NotFoundError:
                return 0
        return int(message.seq or 0)

    def watch(self, key_filter: str = ">") -> Watch[M]:
        """Follows all keys that match; use as `async with table.watch(f) as watch: async for item in watch`."""
        return Watch(self._link, self._stream, self._prefix, key_filter, self._try_decode, self._exists)

    async def _get(self, key: str, decode: Callable[[str, bytes], M | None]) -> Entry[M] | None:
        message = await self._get_present(key)
        if message is None or (value := decode(key, message.data or b"")) is None:
            return None
        return Entry(key, value, int(message.seq))

    async def _exists(self, key: str) -> bool:
        return await self._get_present(key) is not None

    async def _get_present(self, key: str) -> Any:
        """The newest message, if that is no marker."""
        message = await self._get_raw(key)
        return None if message is None or is_deletion(message.headers or {}) else message

    async def _get_raw(self, key: str) -> Any:
        with nats_errors(self._bucket):
            try:
                return await self._link.jetstream.get_msg(self._stream, subject=self._prefix + key, direct=True)
            except nats.js.errors.NotFoundError:
                return None

    async def _publish(self, key: str, payload: bytes, headers: dict[str, str]) -> int:
        with nats_errors(self._bucket):
            try:
                ack = await self._link.jetstream.publish(self._prefix + key, payload, headers=headers or None)
            except nats.js.errors.APIError as error:
                if error.err_code in _WRONG_SEQUENCE_CODES:
                    raise RevisionMismatchError(f"{self._bucket}: the key has changed meanwhile") from None
                raise
        return int(ack.seq)

    def _try_decode(self, key: str, payload: bytes) -> M | None:
        try:
            return self._decode(key, payload)
        except (DecodeError, MrtcError, ValueError):
            _log.warning("a value cannot be decoded; it is ignored", bucket=self._bucket, key=key)
            return None


class Watch(Generic[M]):
    """Follows keys: first what exists, then `SnapshotDone`, then every change in order.

    After the link was away it compares what exists with what it told before and tells the difference, then
    `SnapshotDone(is_resync=True)`. Values that were overwritten between two looks may be skipped; the newest never is.
    Between snapshots every write is told, as `Unchanged` if there is nothing to it.
    """

    def __init__(
        self,
        link: NatsLink,
        stream: str,
        prefix: str,
        key_filter: str,
        decode: Callable[[str, bytes], M | None],
        exists: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._link = link
        self._exists = exists
        self._stream = stream
        self._prefix = prefix
        self._filter = key_filter
        self._decode = decode
        self._queue: asyncio.Queue[Change[M] | SnapshotDone | Unchanged] = asyncio.Queue(_QUEUE_SIZE)
        self._task: asyncio.Task[None] | None = None
        # Revision and hash of what was told, by key: the hash because revisions begin anew with an emptied server.
        self._told: dict[str, tuple[int, int]] = {}
        self._has_synced = False

    async def __aenter__(self) -> Watch[M]:
        self._task = asyncio.create_task(self._run(), name=f"watch {self._filter}")
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends it."""
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None

    def __aiter__(self) -> Watch[M]:
        return self

    async def __anext__(self) -> Change[M] | SnapshotDone | Unchanged:
        return await self._queue.get()

    async def _run(self) -> None:
        is_told = False
        while True:
            await self._link.wait_ready()
            consumer = OrderedConsumer(self._link, self._stream, self._prefix + self._filter)
            try:
                await consumer.open(api.DeliverPolicy.LAST_PER_SUBJECT)
                await self._follow(consumer)
            except (UnavailableError, ConsumerLostError) as error:
                is_told = await pause(self._link, self._prefix + self._filter, error, is_told=is_told)
            finally:
                await consumer.aclose()

    async def _follow(self, consumer: OrderedConsumer) -> None:
        try:
            async with asyncio.timeout(None) as patience:
                present, revision = await self._take_snapshot(consumer, patience)
        except TimeoutError:
            raise ConsumerLostError from None
        await self._finish_snapshot(present, revision)
        while True:
            message = await consumer.next()
            change = self._change(message.subject.removeprefix(self._prefix), message)
            await self._queue.put(change or Unchanged(message.sequence))

    async def _take_snapshot(self, consumer: OrderedConsumer, patience: asyncio.Timeout) -> tuple[set[str], int]:
        """Tells what exists; returns the keys and the newest revision."""
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        present: set[str] = set()
        seen: set[str] = set()
        pending, revision = consumer.initial_pending, 0
        while pending:
            patience.reschedule(loop.time() + _LIST_QUIET_S)
            message = await consumer.next()
            patience.reschedule(None)
            key = message.subject.removeprefix(self._prefix)
            seen.add(key)
            if (change := self._change(key, message)) is not None:
                await self._queue.put(change)
            (present.add if key in self._told else present.discard)(key)
            pending, revision = message.pending, message.sequence
            # The old value of a key that is written meanwhile is gone, and the new one comes last: keys count, not
            # messages. Of keys that are new the count knows nothing, so it decides only when no end is in sight.
            if len(seen) >= consumer.initial_pending and loop.time() - began_at >= _BUSY_SNAPSHOT_S:
                break
        return present, revision

    def _change(self, key: str, message: StoredMessage) -> Change[M] | None:
        """What is new by this message, which is noted as told."""
        if is_deletion(message.headers):
            if self._told.pop(key, None) is None:
                return None
            final = self._decode(key, message.payload) if message.payload else None
            is_expired = message.headers.get(_MARKER_REASON) == _MAX_AGE
            return Change(key, None, message.sequence, final, is_expired=is_expired)
        value = self._decode(key, message.payload)
        mark = (message.sequence, hash(message.payload))
        if value is None or self._told.get(key) == mark:
            return None
        self._told[key] = mark
        return Change(key, value, message.sequence)

    async def _finish_snapshot(self, present: set[str], revision: int) -> None:
        for key in [key for key in self._told if key not in present]:
            # Asked for, since it may have been written anew while the watch began: then its value is still to come.
            if await self._exists(key):
                continue
            last_told, _ = self._told.pop(key)
            await self._queue.put(Change(key, None, last_told, is_inferred=True))
        await self._queue.put(SnapshotDone(self._has_synced, revision))
        self._has_synced = True


def is_deletion(headers: Any) -> bool:
    """True if a stored message with these headers says that its key is gone."""
    return headers.get(_OPERATION) in ("DEL", "PURGE") or _MARKER_REASON in headers
