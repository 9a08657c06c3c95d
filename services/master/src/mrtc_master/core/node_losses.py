"""Which sessions must be told that their media node is dead, and when again."""

from __future__ import annotations

from collections.abc import Iterable

from mrtc.event.v1 import state_pb2

REPEAT_S = 1.0
MAX_NOTICES = 30


class NodeLosses:
    """A session is told until its record names another node; the control subject may lose messages."""

    def __init__(self) -> None:
        self._told: dict[tuple[str, str], tuple[float, int]] = {}

    def due(
        self, sessions: Iterable[state_pb2.SessionRecord], alive: set[str], now: float
    ) -> list[state_pb2.SessionRecord]:
        """Sessions to tell now.

        Args:
            alive: ids of all nodes in the registry.
        """
        lost = [session for session in sessions if session.node_id and session.node_id not in alive]
        keys = {(session.session_id, session.node_id) for session in lost}
        self._told = {key: told for key, told in self._told.items() if key in keys}
        due = []
        for session in lost:
            key = (session.session_id, session.node_id)
            at, count = self._told.get(key, (0.0, 0))
            if count < MAX_NOTICES and (count == 0 or now - at >= REPEAT_S):
                self._told[key] = (now, count + 1)
                due.append(session)
        return due
