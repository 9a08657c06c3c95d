"""With what another media node goes on when a transport's own has died."""

from __future__ import annotations

from dataclasses import dataclass

INTERVAL_S = 2.0
# `MAX_CHECKPOINT_AGE` of the engine: later the dead node may have used the numbers that were left free.
_MAX_AGE_S = 5.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A transport as it was.

    Args:
        state: sealed by its node.
        asked_at: monotonic seconds, before it was taken.
    """

    transport_id: str
    state: bytes
    asked_at: float

    def is_good_for(self, transport_id: str, now: float) -> bool:
        """True if it is of this transport and not too old."""
        return transport_id == self.transport_id and now - self.asked_at < _MAX_AGE_S
