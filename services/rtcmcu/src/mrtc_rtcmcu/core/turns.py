"""Whose turn it is to be asked to move while the node drains."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .transports import TransportState

# A move and the end of the former transport after it. Until then the client sends and decodes everything twice, and the
# others of its room make key frames for it: the next one of the room begins when that is over.
MOVE_S = 3.5
# Who could not move (nowhere to go, not connected just now) is asked again after this.
ASK_AGAIN_S = 5.0


class Turns:
    """One drain's: in each room one after the other, in all rooms at the same time.

    Args:
        spread_s: within this time everybody of a room is asked, however many they are.
    """

    def __init__(self, spread_s: float) -> None:
        self._spread_s = spread_s
        self._asked_at: dict[str, float] = {}
        self._interval_s: dict[str, float] = {}
        self._room_due_at: dict[str, float] = {}

    def next(self, transports: Iterable[TransportState], now: float) -> str:
        """Id of the transport whose client is to be asked now; empty: nobody. `now`: monotonic seconds."""
        present = [state for state in transports if state.is_connected]
        ids = {one.transport_id for one in present}
        self._asked_at = {name: at for name, at in self._asked_at.items() if name in ids}
        due = [one for one in present if self._is_due(one, now)]
        if not due:
            return ""
        # Who was never asked comes first: whoever cannot go must not keep the others from it.
        chosen = min(due, key=lambda one: self._asked_at.get(one.transport_id, -math.inf))
        self._asked_at[chosen.transport_id] = now
        interval_s = self._interval_of(chosen.room_key, present)
        # By when it was due: the pauses between two looks must not add up.
        due_at = max(self._room_due_at.get(chosen.room_key, now), now - interval_s)
        self._room_due_at[chosen.room_key] = due_at + interval_s
        return chosen.transport_id

    def _is_due(self, one: TransportState, now: float) -> bool:
        since = now - self._asked_at.get(one.transport_id, -math.inf)
        return since >= ASK_AGAIN_S and now >= self._room_due_at.get(one.room_key, -math.inf)

    def _interval_of(self, room_key: str, present: list[TransportState]) -> float:
        """By the people who were there when the first was asked: as they go the others do not slow down."""
        if room_key not in self._interval_s:
            people = sum(one.room_key == room_key for one in present)
            self._interval_s[room_key] = min(MOVE_S, self._spread_s / people)
        return self._interval_s[room_key]
