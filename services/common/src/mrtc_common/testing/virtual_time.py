"""An asyncio loop on which waiting costs nothing: when there is nothing to do, it is as late as the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from mrtc_common.clock import ManualClock


class _Selector(selectors.DefaultSelector):
    clock: ManualClock

    def select(self, timeout: float | None = None) -> list[Any]:
        """Looks, and lets the time pass for which it was to wait."""
        if timeout is not None and timeout > 0:
            self.clock.advance(timeout)
        return super().select(0)


def in_virtual_time(scenario: Callable[[ManualClock], Coroutine[Any, Any, None]]) -> None:
    """Runs a scenario; it is given the clock of its loop."""
    clock, selector = ManualClock(), _Selector()
    selector.clock = clock

    def make_loop() -> asyncio.AbstractEventLoop:
        loop = asyncio.SelectorEventLoop(selector)
        loop.time = clock.monotonic  # type: ignore[method-assign]
        return loop

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(scenario(clock))
