"""When a frame leaves: at its time, or a little ahead; a player that falls behind goes on later, never faster."""

from __future__ import annotations

from collections.abc import Callable

AHEAD_US = 300_000
"""How far ahead of its time a frame is handed out: smooths out a busy machine. A key frame that is asked for comes so
much later."""

_TOO_LATE_US = 500_000


class Pacer:
    """Paces the frames of all tracks of a file on one clock.

    The first frame of each track leaves exactly at its time, since the engine starts the track's clock with it: so
    sound and picture stay together.

    Args:
        now_us: a monotonic clock in microseconds.
        sleep: waits for seconds.
    """

    def __init__(self, now_us: Callable[[], int], sleep: Callable[[float], None], ahead_us: int = AHEAD_US) -> None:
        self._now_us = now_us
        self._sleep = sleep
        self._ahead_us = ahead_us
        self._epoch_us: int | None = None
        self._shift_us = 0
        self._started: set[int] = set()

    def pace(self, track: int, time_us: int) -> int:
        """Waits until a frame may leave; returns the time under which it leaves, which all tracks share."""
        if self._epoch_us is None:
            self._epoch_us = self._now_us() - time_us
        out_us = time_us + self._shift_us
        ahead_us = self._ahead_us if track in self._started else 0
        wait_us = self._epoch_us + out_us - ahead_us - self._now_us()
        if wait_us > 0:
            self._sleep(wait_us / 1e6)
        elif self._now_us() - self._epoch_us - out_us > _TOO_LATE_US:
            late_us = self._now_us() - self._epoch_us - out_us
            self._shift_us += late_us
            out_us += late_us
        self._started.add(track)
        return out_us
