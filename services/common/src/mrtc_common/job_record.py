"""The record of a job (a recording, a vod) in NATS: kept equal to what its worker knows, heard for what others want."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Container
from typing import Any, Generic, Protocol, TypeVar

from .errors import UnavailableError
from .kv import Change, KvTable, RevisionMismatchError

_ATTEMPTS = 10

R = TypeVar("R", bound=Any)
"""A protobuf message with `node_id`, `state` and `is_stop_requested`."""


class RecordLostError(Exception):
    """The record is gone, the job has ended, or another worker has it now."""


class JobRecord(Protocol[R]):
    """What a job sees of its record."""

    async def claim(self, change: Callable[[R], R]) -> R:
        """Takes the record over, whoever had it. Raises RecordLostError, UnavailableError."""
        ...

    async def update(self, change: Callable[[R], R]) -> R:
        """Changes the record while this worker has it. Raises RecordLostError, UnavailableError."""
        ...

    async def watch(self, on_stop: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """Calls `on_stop` when the end is asked for, `on_lost` when another worker took over. Never returns."""
        ...


class NatsJobRecord(Generic[R]):
    """`JobRecord` as a key. Writes are compare-and-set: a stop request is never overwritten.

    Args:
        table: the bucket.
        key: key in it.
        node_id: this worker.
        ended: the states of jobs that are over.
    """

    def __init__(self, table: KvTable[R], key: str, node_id: str, ended: Container[Any]) -> None:
        self._table = table
        self._key = key
        self._node_id = node_id
        self._ended = ended

    async def claim(self, change: Callable[[R], R]) -> R:
        """As in `JobRecord`."""
        return await self._write(change, is_owned=False)

    async def update(self, change: Callable[[R], R]) -> R:
        """As in `JobRecord`."""
        return await self._write(change, is_owned=True)

    async def watch(self, on_stop: Callable[[], None], on_lost: Callable[[], None]) -> None:
        """As in `JobRecord`."""
        async with self._table.watch(self._key) as watch:
            async for item in watch:
                if not isinstance(item, Change):
                    continue
                if item.value is None:
                    # Deleted by an operator, or NATS came back without its data: media is worth more than the record.
                    continue
                if item.value.node_id not in ("", self._node_id):
                    on_lost()
                elif item.value.is_stop_requested:
                    on_stop()

    async def _write(self, change: Callable[[R], R], *, is_owned: bool) -> R:
        for _ in range(_ATTEMPTS):
            entry = await self._table.get(self._key)
            if entry is None or entry.value.state in self._ended:
                raise RecordLostError("the job has ended")
            if is_owned and entry.value.node_id != self._node_id:
                raise RecordLostError("another worker has the job")
            changed = change(entry.value)
            if changed == entry.value:
                return changed
            with contextlib.suppress(RevisionMismatchError):
                await self._table.update(self._key, changed, entry.revision)
                return changed
            await asyncio.sleep(0.05)
        raise UnavailableError("the record changes too often")
