"""Says that an instance serves: a key that it writes again and again, and those of all instances as others see them."""

from __future__ import annotations

import asyncio
import contextlib

from mrtc.node.v1.master_service_pb2 import Node

from . import subjects, tables
from .clock import Clock
from .errors import MrtcError
from .kv import Change
from .nats import NatsLink
from .tasks import end_tasks

_MAX_INTERVAL_S = 2.0
_INTERVALS_PER_GRACE = 10
_SILENT_INTERVALS = 3


def interval_s(grace_s: float) -> float:
    """How often an instance writes its key: often enough that its absence is known well before a session expires."""
    return min(_MAX_INTERVAL_S, grace_s / _INTERVALS_PER_GRACE)


class Presence:
    """Writes this instance's key until it is closed.

    Args:
        service: what it serves, for example `signaling`.
        grace_s: how long sessions wait for their client; see `interval_s`.
    """

    def __init__(self, link: NatsLink, service: str, instance_id: str, grace_s: float) -> None:
        self._table = tables.leases(link)
        self._key = subjects.presence_key(service, instance_id)
        self._value = Node(id=instance_id)
        self._interval_s = interval_s(grace_s)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins; returns at once."""
        self._task = asyncio.create_task(self._run(), name="presence")

    async def aclose(self) -> None:
        """Takes the key back, so that others know at once."""
        if self._task is None:
            return
        await end_tasks(self._task)
        self._task = None
        with contextlib.suppress(MrtcError, TimeoutError):
            async with asyncio.timeout(1):
                await self._table.delete(self._key)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(MrtcError):
                await self._table.put(self._key, self._value)
            await asyncio.sleep(self._interval_s)


class PresenceWatch:
    """Tells whether any instance of a service serves."""

    def __init__(self, link: NatsLink, service: str, grace_s: float, clock: Clock) -> None:
        self._table = tables.leases(link)
        self._filter = subjects.presence_filter(service)
        self.silent_s = _SILENT_INTERVALS * interval_s(grace_s)
        """Whoever was not heard for so long does not serve."""
        self._clock = clock
        self._heard_at: dict[str, float] = {}
        self._task: asyncio.Task[None] | None = None
        self.has_heard = False
        """True once any instance was heard: those of before this key was written say nothing."""

    async def start(self) -> None:
        """Begins to watch; returns at once."""
        self._task = asyncio.create_task(self._follow(), name="presence-watch")

    async def aclose(self) -> None:
        """Ends."""
        await end_tasks(self._task)

    @property
    def is_served(self) -> bool:
        """True while an instance was heard lately."""
        return bool(self.present())

    def present(self) -> frozenset[str]:
        """Ids of the instances that were heard lately."""
        since = self._clock.monotonic() - self.silent_s
        return frozenset(key.rpartition(".")[2] for key, at in self._heard_at.items() if at > since)

    async def _follow(self) -> None:
        async with self._table.watch(self._filter) as watch:
            async for item in watch:
                if not isinstance(item, Change):
                    continue
                if item.value is None:
                    self._heard_at.pop(item.key, None)
                else:
                    self._heard_at[item.key] = self._clock.monotonic()
                    self.has_heard = True
