"""Whom clients are shown of a room, and when: publishers at once, listeners of a large room in batches or only counted.

In a room of N people that all join within a minute, N notices to each of N clients are what breaks first. So, for
clients that take batches (`JoinRequest.takes_participants_changed`):

- Rooms of up to `batch_above` people are as they always were: everybody is told of everybody at once.
- In larger rooms whoever publishes is told at once, for his tracks are to be subscribed to. Changes of those who only
  listen are noted under a rising version, and a flush tells each client what is newer than the version it has. The time
  between two flushes grows with the room; the first change after a calm time goes at once.
- Of them no more than `max_listeners` are listed; of the rest clients are told the number.

A client that reads slowly costs its version and no backlog: what it is told is made when its socket takes it. All who
have one version share one message.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from mrtc.common.v1 import common_pb2
from mrtc.signaling.v1 import client_pb2

from .room_view import Event, Joined, Left, Published, RoomView, Updated, is_shown

# A room of two hundred is told once a second, one of fifty four times: what a client gets in a storm stays the same.
WINDOW_PER_PARTICIPANT_S = 0.005
MAX_WINDOW_S = 1.0
# Leaves that are remembered for clients that fall behind. Who is farther behind is told the whole list.
MAX_GONE = 1024


@dataclass(frozen=True, slots=True)
class RosterOptions:
    """Where a room begins to be large, and how many listeners of a large room are listed."""

    batch_above: int = 20
    max_listeners: int = 500


class Roster:
    """One room's list as clients are shown it. Feed `take` with all events; `flush` when `due_at` has come."""

    def __init__(self, view: RoomView, options: RosterOptions | None = None) -> None:
        self._view, self._options = view, options or RosterOptions()
        # Whoever has published something since he joined; then the others, listed and not.
        self._publishers: set[str] = set()
        self._listeners: set[str] = set()
        self._unlisted: dict[str, None] = {}
        # Listeners by the version of their last change, and leaves; both in the order of their versions.
        self._changed: dict[str, int] = {}
        self._gone: dict[str, int] = {}
        self._reasons: dict[str, common_pb2.LeaveReason.ValueType] = {}
        self._forgotten = 0
        self._flushed_at = float("-inf")
        # Messages of the last flush by the version of the client that they are for.
        self._messages: dict[int, client_pb2.ParticipantsChanged] = {}
        self.head = 0
        self.told = 0

    def __len__(self) -> int:
        return len(self._publishers) + len(self._listeners) + len(self._unlisted)

    @property
    def is_large(self) -> bool:
        """True if listeners are told of in batches."""
        return len(self) > self._options.batch_above

    def is_listed(self, participant_id: str) -> bool:
        """False if it is only counted."""
        return participant_id not in self._unlisted

    def unlisted_count(self, own_id: str) -> int:
        """How many are only counted; who asks knows of itself."""
        return len(self._unlisted) - (own_id in self._unlisted)

    # What happens

    def take(self, event: Event) -> list[Event]:
        """Takes an event that the view has applied; returns what clients are to be told at once, in this order."""
        match event:
            case Joined(record) if is_shown(record):
                is_at_once = self._joined(record.participant.id)
            case Updated(record) if is_shown(record):
                is_at_once = self._updated(record.participant.id)
            case Left(record, reason) if is_shown(record):
                is_at_once = self._left(record.participant.id, reason)
            case Published(record, _, _) if self._published(record.publication.participant_id):
                return [Joined(self._view.participants[record.publication.participant_id]), event]
            case _:
                return [event]
        return [event] if is_at_once else []

    def _joined(self, participant_id: str) -> bool:
        if len(self) < self._options.batch_above:
            self._listeners.add(participant_id)
            return True
        self._unlisted[participant_id] = None
        self._list_more()
        self.head += 1
        return False

    def _updated(self, participant_id: str) -> bool:
        if participant_id in self._publishers:
            return True
        if participant_id in self._unlisted:
            return False
        if self.is_large or self._changed.get(participant_id, 0) > self.told:
            self._touch(participant_id)
            return False
        return True

    def _left(self, participant_id: str, reason: common_pb2.LeaveReason.ValueType) -> bool:
        was_large = self.is_large
        was_publisher, was_unlisted = participant_id in self._publishers, participant_id in self._unlisted
        self._publishers.discard(participant_id)
        self._listeners.discard(participant_id)
        self._unlisted.pop(participant_id, None)
        is_untold = self._changed.pop(participant_id, 0) > self.told
        self._list_more()
        if was_publisher or not (was_large or is_untold):
            self._messages.clear()
            return True
        self.head += 1
        if not was_unlisted:
            self._forget_leaves()
            self._gone[participant_id], self._reasons[participant_id] = self.head, reason
        return False

    def _published(self, participant_id: str) -> bool:
        """True if clients may not know the publisher."""
        if participant_id in self._unlisted:
            del self._unlisted[participant_id]
            self._publishers.add(participant_id)
            self.head += 1
            return True
        if participant_id not in self._listeners:
            return False
        self._listeners.discard(participant_id)
        self._publishers.add(participant_id)
        is_untold = self._changed.get(participant_id, 0) > self.told
        if is_untold:
            del self._changed[participant_id]
        self._list_more()
        return is_untold

    def _list_more(self) -> None:
        """Lists whom there is room for, those first who have waited longest."""
        while self._unlisted and (not self.is_large or len(self._listeners) < self._options.max_listeners):
            participant_id = next(iter(self._unlisted))
            del self._unlisted[participant_id]
            self._listeners.add(participant_id)
            self._touch(participant_id)

    def _forget_leaves(self) -> None:
        while len(self._gone) >= MAX_GONE:
            oldest = next(iter(self._gone))
            self._forgotten = self._gone.pop(oldest)
            del self._reasons[oldest]

    def _touch(self, participant_id: str) -> None:
        self.head += 1
        self._changed.pop(participant_id, None)
        self._changed[participant_id] = self.head

    # What is told later

    def due_at(self) -> float | None:
        """When `flush` is to be called, on the clock of its `now`; None: there is nothing to tell."""
        if self.head == self.told:
            return None
        return self._flushed_at + min(MAX_WINDOW_S, len(self) * WINDOW_PER_PARTICIPANT_S)

    def flush(self, now: float) -> None:
        """From now on `changes` has all that was taken."""
        self.told, self._flushed_at = self.head, now
        self._messages.clear()

    def changes(self, since: int, own_id: str) -> tuple[client_pb2.ParticipantsChanged | None, int]:
        """What was flushed after version `since`, and the version that the client has then. None: nothing."""
        if since >= self.told:
            return None, since
        message = self._messages.get(since)
        if message is None:
            message = self._messages[since] = self._make(since)
        if own_id in self._unlisted:
            own = client_pb2.ParticipantsChanged()
            own.CopyFrom(message)
            own.unlisted_count -= 1
            message = own
        return message, self.told

    def _make(self, since: int) -> client_pb2.ParticipantsChanged:
        people = self._view.participants
        message = client_pb2.ParticipantsChanged(unlisted_count=len(self._unlisted))
        if since < self._forgotten:
            message.is_complete = True
            message.participants.extend(
                record.participant for name, record in people.items() if is_shown(record) and self.is_listed(name)
            )
            return message
        message.participants.extend(people[name].participant for name in self._flushed(self._changed, since))
        message.left.extend(
            client_pb2.ParticipantLeft(participant_id=name, reason=told_reason(self._reasons[name]))
            for name in self._flushed(self._gone, since)
        )
        return message

    def _flushed(self, versions: dict[str, int], since: int) -> list[str]:
        newer = takewhile(lambda entry: entry[1] > since, reversed(versions.items()))
        return [name for name, version in newer if version <= self.told][::-1]


def told_reason(reason: common_pb2.LeaveReason.ValueType) -> common_pb2.LeaveReason.ValueType:
    """A record that was deleted without a word is one whose session ran out."""
    return reason or common_pb2.LEAVE_REASON_CONNECTION_LOST
