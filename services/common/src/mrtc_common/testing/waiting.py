"""Waiting on conditions."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def wait_until(
    condition: Callable[[], T | Awaitable[T]], *, timeout_s: float = 10.0, interval_s: float = 0.02, what: str = ""
) -> T:
    """Polls a condition (plain or coroutine) until it is true and returns its value. Raises AssertionError."""
    deadline = time.monotonic() + timeout_s
    while True:
        result = condition()
        value: T = await result if inspect.isawaitable(result) else result
        if value:
            return value
        if time.monotonic() >= deadline:
            raise AssertionError(f"did not happen within {timeout_s} s: {what or condition}")
        await asyncio.sleep(interval_s)
