"""Decides when a room's speakers are worth a notice: at once when they change, at most twice a second for levels."""

from __future__ import annotations

from dataclasses import dataclass

Levels = tuple[tuple[str, int], ...]

LEVEL_INTERVAL_S = 0.5
CHANGE_INTERVAL_S = 0.1  # a flapping detector must not flood either


@dataclass(slots=True)
class _Room:
    sent: Levels
    sent_at: float
    newest: Levels


class SpeakerPacing:
    """Keeps what was said of each room and what is new."""

    def __init__(self) -> None:
        self._rooms: dict[str, _Room] = {}

    def update(self, room_key: str, speakers: Levels) -> None:
        """Takes what the engine heard, loudest first; empty: silence."""
        room = self._rooms.get(room_key)
        if room is None:
            self._rooms[room_key] = _Room((), float("-inf"), speakers)
        else:
            room.newest = speakers

    def due(self, now: float) -> list[tuple[str, Levels]]:
        """Rooms whose speakers are to be published now."""
        due = []
        for room_key, room in list(self._rooms.items()):
            if room.newest == room.sent:
                if not room.sent:
                    del self._rooms[room_key]
                continue
            is_same_order = [track for track, _ in room.newest] == [track for track, _ in room.sent]
            if now - room.sent_at >= (LEVEL_INTERVAL_S if is_same_order else CHANGE_INTERVAL_S):
                room.sent, room.sent_at = room.newest, now
                due.append((room_key, room.sent))
        return due

    def next_at(self, now: float) -> float | None:
        """When `due` may give something next; None: not before an update."""
        pending = [
            room.sent_at
            + (
                LEVEL_INTERVAL_S
                if [track for track, _ in room.newest] == [track for track, _ in room.sent]
                else CHANGE_INTERVAL_S
            )
            for room in self._rooms.values()
            if room.newest != room.sent
        ]
        return max(now, min(pending)) if pending else None
