"""Time behind an interface, so that cores are tested in virtual time."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Gives the time."""

    def monotonic(self) -> float:
        """Seconds that never go back; for timeouts and intervals."""
        ...

    def unix_ms(self) -> int:
        """Unix time in milliseconds; for records."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    def unix_ms(self) -> int:
        """See `Clock`."""
        return time.time_ns() // 1_000_000


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, monotonic: float = 1_000.0, unix_ms: int = 1_700_000_000_000) -> None:
        self._monotonic = monotonic
        self._unix_ms = unix_ms

    def monotonic(self) -> float:
        """See `Clock`."""
        return self._monotonic

    def unix_ms(self) -> int:
        """See `Clock`."""
        return self._unix_ms

    def advance(self, seconds: float) -> None:
        """Moves both clocks on."""
        self._monotonic += seconds
        self._unix_ms += round(seconds * 1000)
