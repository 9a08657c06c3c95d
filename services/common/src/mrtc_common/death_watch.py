"""Notices that another node's process died, long before its heartbeat expires."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection

from .errors import MrtcError
from .node import NodeDirectory
from .tasks import end_tasks

_CONNECT_TIMEOUT_S = 2.0
_REFUSED_AGAIN_S = 0.02
_RETRY_S = 1.0


class DeathWatch:
    """Notices at once that a process died: its kernel closes its connections and refuses new ones.

    A machine that is gone, or a process that hangs, is not noticed here.

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
                self._tasks[node_id] = asyncio.create_task(self._watch(node_id), name=f"death-watch {node_id}")

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
