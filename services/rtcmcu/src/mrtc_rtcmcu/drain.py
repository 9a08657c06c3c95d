"""Empties the node: asks its transports' clients to move to other nodes, at a limited rate, until none is left."""

from __future__ import annotations

import asyncio

from mrtc_common.clock import Clock
from mrtc_common.tasks import end_tasks

from .core.transports import Transports
from .core.turns import Turns
from .core.watchers import Watchers

_POLL_S = 0.05


class Drain:
    """Runs while the node is to be emptied.

    Args:
        moves_per_s: how many clients are asked per second: each makes a handshake and needs key frames elsewhere.
        spread_s: see `Turns`.
    """

    def __init__(
        self, transports: Transports, watchers: Watchers, clock: Clock, *, moves_per_s: float, spread_s: float
    ) -> None:
        self._transports = transports
        self._watchers = watchers
        self._clock = clock
        self._interval_s = 1 / moves_per_s
        self._spread_s = spread_s
        self._task: asyncio.Task[None] | None = None

    def set(self, is_draining: bool) -> None:
        """Begins to ask, or no longer asks."""
        if is_draining and self._task is None:
            self._task = asyncio.create_task(self._run(), name="drain")
        elif not is_draining and self._task is not None:
            self._task.cancel()
            self._task = None

    async def wait_empty(self, timeout_s: float) -> None:
        """Returns when no transport is left, or after the timeout."""
        deadline = self._clock.monotonic() + timeout_s
        # Polled: a drain is rare, and a wake-up per transport would be more to get wrong.
        while len(self._transports) and self._clock.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_S)

    async def aclose(self) -> None:
        """Asks nobody any more."""
        await end_tasks(self._task)
        self._task = None

    async def _run(self) -> None:
        turns = Turns(self._spread_s)
        while True:
            if transport_id := turns.next(self._transports, self._clock.monotonic()):
                self._watchers.want_move(transport_id)
            await asyncio.sleep(self._interval_s if transport_id else max(self._interval_s, _POLL_S))
