"""Whom a node that is too full asks to move to other nodes, and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .transports import TransportState

# The load falls this long after clients have gone: it is smoothed, and a former transport lingers for seconds.
SETTLE_S = 20.0
# Of the clients that are here so many are asked at once.
SHARE = 0.05
# Who did not go is asked again after this at the earliest.
ASK_AGAIN_S = 120.0


@dataclass(frozen=True, slots=True)
class ReliefPolicy:
    """A load of `above` (0: never) for `after_s` begins it, one under `below` ends it."""

    above: float
    below: float
    after_s: float


class Relief:
    """One node's; call `due` at each measurement of its load."""

    def __init__(self, policy: ReliefPolicy) -> None:
        self._policy = policy
        self._above_since: float | None = None
        self._is_on = False
        self._next_at = 0.0
        self._asked: dict[str, float] = {}

    def due(self, load: float, transports: Iterable[TransportState], now: float) -> list[str]:
        """Ids of the transports whose clients are to be asked now. `load`: 0 to 1; `now`: monotonic seconds."""
        if not self._is_wanted(load, now) or now < self._next_at:
            return []
        self._next_at = now + SETTLE_S
        self._asked = {name: at for name, at in self._asked.items() if now - at < ASK_AGAIN_S}
        present = list(transports)
        people = Counter(state.room_key for state in present)
        able = [state for state in present if state.is_connected and state.transport_id not in self._asked]
        # Rooms of few go whole, and need no relay back; who leaves a large one needs its tracks at both nodes.
        able.sort(key=lambda state: (people[state.room_key], state.room_key, state.transport_id))
        chosen = [state.transport_id for state in able[: max(1, round(SHARE * len(present)))]]
        self._asked |= dict.fromkeys(chosen, now)
        return chosen

    def _is_wanted(self, load: float, now: float) -> bool:
        policy = self._policy
        if not policy.above or load < (policy.below if self._is_on else policy.above):
            self._is_on, self._above_since = False, None
            return False
        if self._above_since is None:
            self._above_since = now
        self._is_on = self._is_on or now - self._above_since >= policy.after_s
        return self._is_on
