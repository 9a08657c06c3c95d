"""Decides which sessions master keeps alive: all of them while no signaling instance is there to resume them at."""

from __future__ import annotations

from collections.abc import Collection

from mrtc_common.subjects import is_vod_session

_ROUNDS_PER_TTL = 4


class SessionKeeper:
    """The grace time of a session is the time in which its client can come back. It does not pass while nobody serves.

    Args:
        ttl_s: after this time a session's record expires unless it is written again.
    """

    def __init__(self, ttl_s: float) -> None:
        self._interval_s = ttl_s / _ROUNDS_PER_TTL
        self._next_round_at = 0.0
        self._was_served = True

    def due(self, sessions: Collection[str], *, is_served: bool, now: float) -> list[str]:
        """The sessions whose records are to be written again now. Vods' are their worker's: it needs no signaling."""
        has_returned, self._was_served = is_served and not self._was_served, is_served
        if has_returned:
            self._next_round_at = now  # once more, so that each has its full grace time from now on
        elif is_served or now < self._next_round_at:
            return []
        self._next_round_at = now + self._interval_s
        return [session_id for session_id in sessions if not is_vod_session(session_id)]
