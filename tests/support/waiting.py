"""Waiting for conditions in synchronous tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def wait_for(
    condition: Callable[[], Any], timeout_s: float = 20.0, what: Callable[[], str] | str = "the condition"
) -> Any:
    """Polls a condition until it holds and returns its value. Raises AssertionError that says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what() if callable(what) else what}")
        time.sleep(0.05)
