"""Ends transports that no session knows: of a signaling instance that died before it wrote down what it had made."""

from __future__ import annotations

import asyncio

from mrtc_common.clock import Clock
from mrtc_common.errors import MrtcError
from mrtc_common.log import get_logger
from mrtc_common.nats import NatsLink
from mrtc_common.tasks import end_tasks, repeat

from .core.orphans import Orphans
from .media import Media
from .ports import Owners

_log = get_logger(__name__)

REASON = "orphan"
_MAX_INTERVAL_S = 5.0
_ROUNDS_PER_GRACE = 4


class Sweeper:
    """Asks about every transport once in a while. Only an answer counts: while NATS is away nobody is an orphan."""

    def __init__(self, media: Media, owners: Owners, link: NatsLink, clock: Clock, *, grace_s: float) -> None:
        self._media = media
        self._owners = owners
        self._link = link
        self._clock = clock
        self._orphans = Orphans(grace_s)
        self._interval_s = min(_MAX_INTERVAL_S, grace_s / _ROUNDS_PER_GRACE)
        self._epoch = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins; returns at once."""
        self._task = asyncio.create_task(repeat(self._sweep, self._interval_s, "sweep"), name="sweeper")

    async def aclose(self) -> None:
        """Ends."""
        await end_tasks(self._task)

    async def _sweep(self) -> None:
        try:
            await self._ask()
        except MrtcError:
            self._orphans.begin_anew()
            raise

    async def _ask(self) -> None:
        if not self._link.is_ready or self._link.epoch != self._epoch:
            # What was in memory there is written again, but not at once.
            self._epoch = self._link.epoch
            self._orphans.begin_anew()
            return
        present = {state.transport_id: state for state in self._media.transports}
        for transport_id in self._orphans.due(present, self._clock.monotonic()):
            is_owned = await self._owners.know(present[transport_id])
            if self._orphans.answered(transport_id, is_owned=is_owned, now=self._clock.monotonic()):
                _log.warning("a transport that no session knows is closed", transport=transport_id)
                await self._media.close_transport(transport_id, REASON)
