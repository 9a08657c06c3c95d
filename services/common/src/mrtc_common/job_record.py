"""The record of a job (a recording, a vod) in NATS: kept equal to what its worker knows, heard for what others want."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Container
from typing import Any, Generic, Protocol, TypeVar

from .errors import UnavailableError
from .kv import Change, KvTable, RevisionMismatchError

_ATTEMPTS = 10

R = TypeVar("R", bound=Any)
"""A protobuf message with `node_id`, `state`, `is_stop_requested` and `claims`."""


class RecordLostError(Exception):
    """The record is gone, the job has ended, or another worker has it now."""


class JobHeldError(Exception):
    """The worker that has the job is well, or it is this one."""


class JobRecord(Protocol[R]):
    """What a job sees of its record."""

    async def claim(self, change: Callable[[R], R], former_holder: str = "") -> R:
        """Takes the record over from whoever had it, and counts that.

        Args:
            former_holder: who died; empty: it has to be found out whether the holder lives.

        Raises:
            RecordLostError: the job has ended, or another worker was quicker.
            JobHeldError: the holder does the job.
            UnavailableError: nothing can be said.
        """
        ...

    def release(self) -> None:
        """Says that this worker does the job no more; however it ended."""
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
        held_here: the keys of the jobs that this worker does.
        holds: asks a node whether it does the job of a key.
    """

    def __init__(
        self,
        table: KvTable[R],
        key: str,
        node_id: str,
        ended: Container[Any],
        held_here: set[str],
        holds: Callable[[str, str], Awaitable[bool]],
    ) -> None:
        self._held_here = held_here
        self._holds = holds
        self._table = table
        self._key = key
        self._node_id = node_id
        self._ended = ended

    async def claim(self, change: Callable[[R], R], former_holder: str = "") -> R:
        """As in `JobRecord`."""
        entry = await self._table.get(self._key)
        holder = entry.value.node_id if entry is not None else ""
        if self._key in self._held_here or (not former_holder and holder and await self._is_held(holder)):
            raise JobHeldError

        def claimed(record: R) -> R:
            changed = change(record)
            changed.node_id = self._node_id
            changed.claims += 1
            return changed

        result = await self._write(claimed, former_holder or holder)
        self._held_here.add(self._key)
        return result

    def release(self) -> None:
        """As in `JobRecord`."""
        self._held_here.discard(self._key)

    async def _is_held(self, holder: str) -> bool:
        return holder != self._node_id and await self._holds(holder, self._key)

    async def update(self, change: Callable[[R], R]) -> R:
        """As in `JobRecord`."""
        return await self._write(change, self._node_id)

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

    async def _write(self, change: Callable[[R], R], holder: str) -> R:
        for _ in range(_ATTEMPTS):
            entry = await self._table.get(self._key)
            if entry is None or entry.value.state in self._ended:
                raise RecordLostError("the job has ended")
            if entry.value.node_id != holder:
                raise RecordLostError("another worker has the job")
            changed = change(entry.value)
            if changed == entry.value:
                return changed
            with contextlib.suppress(RevisionMismatchError):
                await self._table.update(self._key, changed, entry.revision)
                return changed
            await asyncio.sleep(0.05)
        raise UnavailableError("the record changes too often")
