"""Decides when a room's speakers are worth a notice: at once when they change, at most twice a second for levels."""

from __future__ import annotations

from dataclasses import dataclass, field

from mrtc_common.speakers import Levels, merged

LEVEL_INTERVAL_S = 0.5
CHANGE_INTERVAL_S = 0.1  # a flapping detector must not flood either
REPEAT_INTERVAL_S = 1.0  # notices are lossy, and whoever hears none for a few seconds takes the node for gone


@dataclass(slots=True)
class _Room:
    sent: Levels = ()
    sent_at: float = float("-inf")
    newest: Levels = ()
    by_worker: dict[int, Levels] = field(default_factory=dict)

    def due_at(self) -> float | None:
        """When it is to be published; None: not before an update."""
        if [name for name, _ in self.newest] != [name for name, _ in self.sent]:
            return self.sent_at + CHANGE_INTERVAL_S
        if self.newest != self.sent:
            return self.sent_at + LEVEL_INTERVAL_S
        return self.sent_at + REPEAT_INTERVAL_S if self.sent else None


class SpeakerPacing:
    """Keeps what was said of each room and what is new."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}

    def update(self, room_key: str, speakers: Levels, worker: int = 0) -> None:
        """Takes what a worker of the engine heard, the dominant one first; empty: silence."""
        room = self._rooms.setdefault(room_key, _Room())
        if speakers:
            room.by_worker[worker] = speakers
        else:
            room.by_worker.pop(worker, None)
        room.newest = merged(room.by_worker.values(), room.newest)

    def due(self, now: float) -> list[tuple[str, Levels]]:
        """Rooms whose speakers are to be published now."""
        due = []
        for room_key, room in list(self._rooms.items()):
            due_at = room.due_at()
            if due_at is None:
                del self._rooms[room_key]
            elif now >= due_at:
                room.sent, room.sent_at = room.newest, now
                due.append((room_key, room.sent))
        return due

    def next_at(self, now: float) -> float | None:
        """When `due` may give something next; None: not before an update."""
        pending = [at for room in self._rooms.values() if (at := room.due_at()) is not None]
        return max(now, min(pending)) if pending else None
