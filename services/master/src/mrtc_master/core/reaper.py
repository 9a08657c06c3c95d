"""Decides what to remove: participants without session, what they left behind, and rooms that are empty for long."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass

from .rooms_view import RoomState, RoomsView


@dataclass(frozen=True, slots=True)
class ReapParticipant:
    """Its session has ended without it being removed."""

    room_key: str
    participant_id: str
    session_id: str


@dataclass(frozen=True, slots=True)
class ReapDuplicate:
    """Its identity is not its own any more.

    Attributes:
        has_successor: whoever has the identity is in the room: both were joining at once. If not, the successor died
            while it took this one out, perhaps in the middle.
    """

    room_key: str
    participant_id: str
    identity: str
    has_successor: bool


@dataclass(frozen=True, slots=True)
class ReapPublication:
    """Its participant is gone."""

    room_key: str
    publication_id: str


@dataclass(frozen=True, slots=True)
class ReapIdentity:
    """Its holder is gone."""

    room_key: str
    identity: str
    participant_id: str


@dataclass(frozen=True, slots=True)
class ReapCodecWant:
    """Its track is gone."""

    room_key: str
    track_id: str


@dataclass(frozen=True, slots=True)
class CloseRoom:
    """Empty for its timeout."""

    room_key: str
    revision: int


Reap = ReapParticipant | ReapDuplicate | ReapPublication | ReapIdentity | ReapCodecWant | CloseRoom


class Reaper:
    """Turns the rooms view and the time into removals; each is proposed again until the view shows it done.

    Args:
        orphan_grace_s: how long something must have been without owner. Keys of one change arrive one after the other.
        claim_grace_s: the same for an identity. It is claimed before the media node is asked, which may take its time.
        empty_timeout_s: for rooms whose record says nothing.
    """

    def __init__(self, *, orphan_grace_s: float, claim_grace_s: float, empty_timeout_s: float) -> None:
        self._grace_s, self._claim_grace_s = orphan_grace_s, claim_grace_s
        self._empty_timeout_s = empty_timeout_s
        self._since: dict[Hashable, float] = {}
        self._not_before = 0.0

    def hold_until(self, when: float) -> None:
        """Removes nobody before that monotonic time: after NATS was away, sessions need time to be written again."""
        self._not_before = max(self._not_before, when)

    def due(self, view: RoomsView, now: float) -> list[Reap]:
        """What to remove now."""
        orphans = [reap for key, room in view.rooms.items() for reap in _orphans(key, room, view)]
        current = set(orphans)
        self._since = {reap: self._since.get(reap, now) for reap in current}
        if now < self._not_before:
            return []
        due: list[Reap] = [reap for reap in orphans if now - self._since[reap] >= self._grace_of(reap)]
        due += [CloseRoom(key, room.record_revision) for key, room in view.rooms.items() if self._is_expired(room, now)]
        return due

    def _grace_of(self, reap: Reap) -> float:
        match reap:
            case ReapIdentity() | ReapDuplicate(has_successor=False):
                return self._claim_grace_s
            case _:
                return self._grace_s

    def _is_expired(self, room: RoomState, now: float) -> bool:
        if room.record is None or room.empty_since is None:
            return False
        timeout_s = room.record.empty_timeout_ms / 1000 or self._empty_timeout_s
        return now - room.empty_since >= timeout_s


def _orphans(key: str, room: RoomState, view: RoomsView) -> Iterator[Reap]:
    for participant_id, record in room.participants.items():
        identity = record.participant.identity
        if record.session_id not in view.sessions:
            yield ReapParticipant(key, participant_id, record.session_id)
        elif identity and (holder := room.identities.get(identity)) != participant_id:
            yield ReapDuplicate(key, participant_id, identity, holder in room.participants)
    for publication_id, publication in room.publications.items():
        if publication.publication.participant_id not in room.participants:
            yield ReapPublication(key, publication_id)
    for identity, participant_id in room.identities.items():
        if participant_id not in room.participants:
            yield ReapIdentity(key, identity, participant_id)
    if room.codec_wants:
        for track_id in room.codec_wants - room.track_ids():
            yield ReapCodecWant(key, track_id)
