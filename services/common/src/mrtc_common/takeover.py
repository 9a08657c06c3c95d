"""Goes on with the jobs of a worker that has just died, long before the queue would hand them out again."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from typing import Any, Generic, TypeVar

from .death_watch import DeathWatch
from .jobs import FoundJob, JobWorker
from .kv import Change, KvTable
from .log import get_logger
from .node import NodeDirectory
from .tasks import end_tasks

_log = get_logger(__name__)

R = TypeVar("R", bound=Any)

# A worker with jobs of its own lets idle ones go first.
_POLITENESS_S = 0.01


class Takeover(Generic[R]):
    """Follows the records of all jobs, and has this worker go on with those whose holder dies.

    All workers do; who is first to claim the record has the job (`JobRecord.claim`).

    Args:
        table: the records; their value is also the payload of the job.
        node_id: this worker.
        ended: the states of jobs that are over.
    """

    def __init__(
        self, table: KvTable[R], node_id: str, ended: Container[Any], directory: NodeDirectory, worker: JobWorker
    ) -> None:
        self._table = table
        self._node_id = node_id
        self._ended = ended
        self._worker = worker
        self._held: dict[str, R] = {}
        self._holders = DeathWatch(directory, self._on_dead)
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begins; returns at once."""
        self._tasks.add(asyncio.create_task(self._follow(), name="takeover"))

    @property
    def watches(self) -> frozenset[str]:
        """The nodes whose death would be noticed now."""
        return self._holders.watched

    async def aclose(self) -> None:
        """Ends."""
        await end_tasks(*self._tasks)
        await self._holders.aclose()

    async def _follow(self) -> None:
        async with self._table.watch() as watch:
            async for item in watch:
                if isinstance(item, Change):
                    self._apply(item)

    def _apply(self, change: Change[R]) -> None:
        record = change.value
        if record is not None and record.state not in self._ended and record.node_id not in ("", self._node_id):
            self._held[change.key] = record
        elif self._held.pop(change.key, None) is None:
            return
        self._holders.follow({held.node_id for held in self._held.values()})

    def _on_dead(self, node_id: str) -> None:
        jobs = [record for record in self._held.values() if record.node_id == node_id]
        _log.warning("a worker died", gone=node_id, jobs=len(jobs))
        task = asyncio.create_task(self._take(jobs, node_id), name="takeover")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _take(self, jobs: list[R], node_id: str) -> None:
        await asyncio.sleep(_POLITENESS_S * self._worker.jobs)
        for record in jobs:
            await self._worker.adopt(FoundJob(record.SerializeToString(), node_id))
