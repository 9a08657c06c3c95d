"""Ends background tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

_RECANCEL_S = 0.1


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
