"""Time behind an interface, so that cores are tested in virtual time; and time that never jumps, for media."""

from __future__ import annotations

import time
from typing import Protocol

_OFFSET_US = time.time_ns() // 1000 - time.monotonic_ns() // 1000


def steady_offset_us() -> int:
    """What this process adds to the monotonic clock to have Unix microseconds; a child is given its parent's."""
    return _OFFSET_US


def steady_unix_us() -> int:
    """Unix microseconds that never jump: the time when this process began, and what has passed since.

    For the timelines of media, as the engine has it. A wall clock that is set would tear a hole of that size into them.
    """
    return _OFFSET_US + time.monotonic_ns() // 1000


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
