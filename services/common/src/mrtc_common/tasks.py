"""Background tasks: rounds that go on whatever happens, and ends that are certain."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from .errors import MrtcError
from .log import get_logger

_log = get_logger(__name__)

_RECANCEL_S = 0.1


async def repeat(step: Callable[[], Awaitable[None]], interval_s: float, what: str) -> None:
    """Does a step again and again until it is cancelled, each time after an interval; one that fails ends nothing.

    Args:
        what: names the step in logs. That somebody else is away (`MrtcError`) is told on the level debug only.
    """
    while True:
        await asyncio.sleep(interval_s)
        try:
            await step()
        except MrtcError as error:
            _log.debug("a step has to wait for the next round", step=what, error=error.message)
        except Exception:
            _log.exception("a step failed; the next round tries again", step=what)


async def end_tasks(*tasks: asyncio.Task[Any] | None, recancel_s: float = _RECANCEL_S) -> None:
    """Cancels tasks and waits until they have ended.

    Cancels again until they do: `asyncio.wait_for` before Python 3.12, which nats-py uses everywhere, loses a
    cancellation that comes together with its result, and a loop that lost it would go on for ever.

    Args:
        recancel_s: how long a task may take to clean up before it is cancelled again.
    """
    given = [task for task in tasks if task is not None]
    pending = {task for task in given if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=recancel_s)
    for task in given:
        if not task.cancelled():
            task.exception()  # taken note of, so that asyncio does not complain about it later
