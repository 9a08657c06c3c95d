"""All rooms and sessions as the watches tell them, and what in them has lost its owner."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from mrtc.event.v1 import state_pb2
from mrtc_common.subjects import RoomEntryKind, parse_room_entry
from mrtc_common.tables import RoomValue

V = TypeVar("V")


@dataclass(slots=True)
class RoomState:
    """One room's keys. Maps are by id: participant, identity (to its holder), publication (to its owner), track."""

    record: state_pb2.RoomRecord | None = None
    record_revision: int = 0
    participants: dict[str, state_pb2.ParticipantRecord] = field(default_factory=dict)
    identities: dict[str, str] = field(default_factory=dict)
    publications: dict[str, state_pb2.PublicationRecord] = field(default_factory=dict)
    codec_wants: set[str] = field(default_factory=set)
    empty_since: float | None = None

    @property
    def is_gone(self) -> bool:
        """True if no key is left."""
        return not (self.record or self.participants or self.identities or self.publications or self.codec_wants)

    def track_ids(self) -> set[str]:
        """All tracks of all publications."""
        return {track.id for record in self.publications.values() for track in record.publication.tracks}


class RoomsView:
    """Room state of the whole suite, by room key."""

    def __init__(self) -> None:
        self.rooms: dict[str, RoomState] = {}
        self.sessions: dict[str, state_pb2.SessionRecord] = {}

    def apply_room_change(self, key: str, value: RoomValue | None, revision: int, now: float) -> None:
        """Takes one change of bucket `mrtc_rooms`."""
        entry = parse_room_entry(key)
        room = self.rooms.setdefault(entry.room_key, RoomState(empty_since=now))
        match entry.kind:
            case RoomEntryKind.ROOM:
                room.record = value if isinstance(value, state_pb2.RoomRecord) else None
                room.record_revision = revision
            case RoomEntryKind.PARTICIPANT:
                _set(room.participants, entry.id, value if isinstance(value, state_pb2.ParticipantRecord) else None)
            case RoomEntryKind.IDENTITY:
                holder = value.participant_id if isinstance(value, state_pb2.IdentityRecord) else None
                _set(room.identities, entry.id, holder)
            case RoomEntryKind.PUBLICATION:
                _set(room.publications, entry.id, value if isinstance(value, state_pb2.PublicationRecord) else None)
            case RoomEntryKind.CODEC_WANT:
                (room.codec_wants.discard if value is None else room.codec_wants.add)(entry.id)
        if room.participants:
            room.empty_since = None
        elif room.empty_since is None:
            room.empty_since = now
        if room.is_gone:
            del self.rooms[entry.room_key]

    def apply_session_change(self, session_id: str, value: state_pb2.SessionRecord | None) -> None:
        """Takes one change of bucket `mrtc_sessions`."""
        _set(self.sessions, session_id, value)

    def participant_count(self) -> int:
        """Participants of all rooms."""
        return sum(len(room.participants) for room in self.rooms.values())


def _set(mapping: dict[str, V], key: str, value: V | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value
