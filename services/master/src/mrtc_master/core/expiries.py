"""Sessions that NATS let expire, checked by this process's own clock: the server's wall clock can be set."""

from __future__ import annotations

# What expires in its time is a little younger here: it was heard of after it was written.
_SHARE_OF_TTL = 0.8


class Expiries:
    """Holds back what expired before its time, until that has passed or it is written again.

    Args:
        ttl_s: after this time without being written a session expires.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._heard_at: dict[str, float] = {}
        self._held: set[str] = set()

    def written(self, session_id: str, now: float) -> None:
        """It lives."""
        self._heard_at[session_id] = now
        self._held.discard(session_id)

    def removed(self, session_id: str, now: float, *, is_expired: bool) -> bool:
        """True if it is gone; False if it has only expired too early, which `due` settles."""
        heard_at = self._heard_at.get(session_id)
        if is_expired and heard_at is not None and now - heard_at < self._ttl_s * _SHARE_OF_TTL:
            self._held.add(session_id)
            return False
        self._forget(session_id)
        return True

    def due(self, now: float) -> list[str]:
        """Those that nobody has written again in their time: they are gone now."""
        due = [one for one in self._held if now - self._heard_at[one] >= self._ttl_s]
        for session_id in due:
            self._forget(session_id)
        return due

    def _forget(self, session_id: str) -> None:
        self._heard_at.pop(session_id, None)
        self._held.discard(session_id)
