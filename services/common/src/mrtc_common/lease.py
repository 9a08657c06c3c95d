"""A lease in NATS: one key, taken by compare-and-set, kept by renewal, free when its TTL passes."""

from __future__ import annotations

import asyncio
import contextlib

from mrtc.node.v1.master_service_pb2 import Node

from . import subjects, tables
from .clock import Clock, SystemClock
from .errors import MrtcError
from .kv import KeyExistsError, RevisionMismatchError
from .log import get_logger
from .nats import NatsLink
from .nats_schema import LEASE_TTL_S
from .tasks import end_tasks

_log = get_logger(__name__)

_RENEW_INTERVAL_S = 2.0
# A holder that could not renew stops acting this much before another one may begin.
_SAFETY_S = 3.0


class NatsLease:
    """Tries to hold the lease `name` for as long as it runs.

    Args:
        holder: this process, for people.
    """

    def __init__(self, link: NatsLink, name: str, holder: str, clock: Clock | None = None) -> None:
        self._leases = tables.leases(link)
        self._key = subjects.lease_key(name)
        self._holder = holder
        self._clock = clock or SystemClock()
        self._revision: int | None = None
        self._held_until = 0.0
        self._link = link
        self._try_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """True while it is certain that nobody else holds it."""
        return self._revision is not None and self._clock.monotonic() < self._held_until

    async def start(self) -> None:
        """Begins to try."""
        self._task = asyncio.create_task(self._run(), name="lease")
        self._remove_listener = self._link.on_change(lambda ready: self._try_now.set() if ready else None)

    async def aclose(self) -> None:
        """Gives it back, so that another one takes over at once."""
        if self._task is not None:
            self._remove_listener()
            await end_tasks(self._task)
            self._task = None
        revision, self._revision = self._revision, None
        if revision is not None:
            with contextlib.suppress(MrtcError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._leases.delete(self._key, revision=revision)

    async def _run(self) -> None:
        while True:
            self._try_now.clear()
            await self._try()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_RENEW_INTERVAL_S):
                    await self._try_now.wait()

    async def _try(self) -> None:
        value = Node(id=self._holder)
        asked_at = self._clock.monotonic()
        was_held = self._revision is not None
        try:
            if self._revision is None:
                self._revision = await self._leases.create(self._key, value)
            else:
                self._revision = await self._leases.update(self._key, value, self._revision)
        except (KeyExistsError, RevisionMismatchError):
            self._revision = None
            if was_held:  # NATS may have lost the key at a restart; it may be free
                self._try_now.set()
        except MrtcError:
            # NATS is away; until the lease could have expired it is still ours.
            if asked_at >= self._held_until:
                self._revision = None
        else:
            self._held_until = asked_at + LEASE_TTL_S - _SAFETY_S
        if was_held != (self._revision is not None):
            _log.info("lease lost" if was_held else "lease taken", lease=self._key)
