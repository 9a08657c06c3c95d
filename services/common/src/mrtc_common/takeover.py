"""Goes on with the jobs of a worker that has just died, long before the queue would hand them out again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Container
from typing import Any, Generic, TypeVar

from .errors import MrtcError
from .jobs import FoundJob, JobWorker
from .kv import Change, KvTable
from .log import get_logger
from .node import NodeDirectory
from .tasks import end_tasks

_log = get_logger(__name__)

R = TypeVar("R", bound=Any)

_CONNECT_TIMEOUT_S = 2.0
_REFUSED_AGAIN_S = 0.05
_RETRY_S = 1.0
# A worker with jobs of its own lets idle ones go first.
_POLITENESS_S = 0.01


class HolderWatch:
    """Notices at once that a process died: its kernel closes its connections and refuses new ones.

    A machine that is gone, or a process that hangs, is not noticed here: the queue hands their jobs out again.

    Args:
        on_dead: told the id of a node that died.
    """

    def __init__(self, directory: NodeDirectory, on_dead: Callable[[str], None]) -> None:
        self._directory = directory
        self._on_dead = on_dead
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._connected: set[str] = set()

    @property
    def watched(self) -> frozenset[str]:
        """Those to whom a connection stands."""
        return frozenset(self._connected)

    def follow(self, node_ids: Collection[str]) -> None:
        """These are to be watched, and no others."""
        for node_id in [node_id for node_id in self._tasks if node_id not in node_ids]:
            self._tasks.pop(node_id).cancel()
        for node_id in node_ids:
            if node_id not in self._tasks:
                self._tasks[node_id] = asyncio.create_task(self._watch(node_id), name=f"holder {node_id}")

    async def aclose(self) -> None:
        """Watches nobody."""
        await end_tasks(*self._tasks.values())

    async def _watch(self, node_id: str) -> None:
        while True:
            with contextlib.suppress(MrtcError):
                node = await self._directory.find(node_id)
                if node is not None and await self._has_died(node_id, node.grpc_address):
                    self._on_dead(node_id)
                    return
            await asyncio.sleep(_RETRY_S)

    async def _has_died(self, node_id: str, address: str) -> bool:
        """Waits until the process that listens there dies: True. False if that cannot be told."""
        host, _, port = address.rpartition(":")
        has_refused = False
        while True:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
            except ConnectionRefusedError:
                if has_refused:
                    return True
                has_refused = True
            except (OSError, TimeoutError, ValueError):
                return False
            else:
                has_refused = False
                self._connected.add(node_id)
                await _until_closed(reader, writer)
                self._connected.discard(node_id)
            await asyncio.sleep(_REFUSED_AGAIN_S)


async def _until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(4096):
            pass
    except OSError:
        pass
    finally:
        writer.close()


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
        self._holders = HolderWatch(directory, self._on_dead)
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
