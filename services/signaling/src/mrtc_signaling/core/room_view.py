"""Folds the ordered changes of a room's keys into what the room looks like, and says what changed for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2

KINDS_NEVER_SHOWN = frozenset({common_pb2.PARTICIPANT_KIND_RECORDER})


@dataclass(frozen=True, slots=True)
class RoomChange:
    """One change of the room's record; None: the room is closed."""

    record: state_pb2.RoomRecord | None


@dataclass(frozen=True, slots=True)
class ParticipantChange:
    """One change of a participant's record; None: deleted, for `reason` if it was given."""

    participant_id: str
    record: state_pb2.ParticipantRecord | None
    reason: common_pb2.LeaveReason.ValueType = common_pb2.LEAVE_REASON_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class PublicationChange:
    """One change of a publication's record; None: deleted."""

    publication_id: str
    record: state_pb2.PublicationRecord | None


@dataclass(frozen=True, slots=True)
class CodecWantChange:
    """Further codecs in which a track is wanted; None: no longer."""

    track_id: str
    codecs: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class RecordingChange:
    """A recording of the room is under way, or not (any more)."""

    recording_id: str
    is_active: bool


Change = RoomChange | ParticipantChange | PublicationChange | CodecWantChange | RecordingChange


@dataclass(frozen=True, slots=True)
class RoomClosed:
    """The room's record is gone."""


@dataclass(frozen=True, slots=True)
class Joined:
    """A participant is new."""

    record: state_pb2.ParticipantRecord


@dataclass(frozen=True, slots=True)
class Updated:
    """What others see of a participant changed."""

    record: state_pb2.ParticipantRecord


@dataclass(frozen=True, slots=True)
class Left:
    """A participant is gone."""

    record: state_pb2.ParticipantRecord
    reason: common_pb2.LeaveReason.ValueType


@dataclass(frozen=True, slots=True)
class Published:
    """A publication is new or changed.

    Args:
        is_visible_change: what clients are shown of it changed.
        is_media_change: its media is made anew (elsewhere, with other tracks): who receives it must subscribe again.
    """

    record: state_pb2.PublicationRecord
    is_visible_change: bool
    is_media_change: bool


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A publication is gone."""

    record: state_pb2.PublicationRecord


@dataclass(frozen=True, slots=True)
class CodecWanted:
    """Somebody needs a track in one of these codecs."""

    track_id: str
    codecs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RecordingUpdated:
    """A recording began or ended."""

    recording_id: str
    is_active: bool


Event = RoomClosed | Joined | Updated | Left | Published | Unpublished | CodecWanted | RecordingUpdated


@dataclass(slots=True)
class RoomView:
    """One room as its keys say. Feed `apply` with the changes in their order; it returns what happened."""

    room: state_pb2.RoomRecord | None = None
    participants: dict[str, state_pb2.ParticipantRecord] = field(default_factory=dict)
    publications: dict[str, state_pb2.PublicationRecord] = field(default_factory=dict)
    codec_wants: dict[str, tuple[str, ...]] = field(default_factory=dict)
    recordings: set[str] = field(default_factory=set)
    # Publications whose participant is not known yet: the two records of one join may be written side by side.
    _early: dict[str, state_pb2.PublicationRecord] = field(default_factory=dict)
    # Participants whose end was told; their deletion follows and is no news.
    _leaving: set[str] = field(default_factory=set)
    # How many participants each node has.
    _seats: Counter[str] = field(default_factory=Counter)

    @property
    def has_encrypted_media(self) -> bool:
        """True if somebody publishes what only other clients can decode."""
        tracks = (track for record in self.publications.values() for track in record.publication.tracks)
        return any(track.is_encrypted for track in tracks)

    def apply(self, change: Change) -> list[Event]:
        """Takes one change; returns what it means, in the order in which it shall be told."""
        match change:
            case RoomChange(record):
                return self._room(record)
            case ParticipantChange(participant_id, None, reason):
                self._leaving.discard(participant_id)
                return self._left(participant_id, reason)
            case ParticipantChange(participant_id, record):
                assert record is not None
                return self._participant(participant_id, record)
            case PublicationChange(publication_id, None):
                self._early.pop(publication_id, None)
                gone = self.publications.pop(publication_id, None)
                return [Unpublished(gone)] if gone else []
            case PublicationChange(publication_id, record):
                assert record is not None
                return self._publication(publication_id, record)
            case CodecWantChange(track_id, codecs):
                return self._codec_want(track_id, codecs)
            case RecordingChange(recording_id, is_active):
                return self._recording(recording_id, is_active)

    def apply_all(self, changes: Iterable[Change]) -> list[Event]:
        """Takes many changes."""
        return [event for change in changes for event in self.apply(change)]

    def _room(self, record: state_pb2.RoomRecord | None) -> list[Event]:
        was_open, self.room = self.room is not None, record
        return [RoomClosed()] if was_open and record is None else []

    def _participant(self, participant_id: str, record: state_pb2.ParticipantRecord) -> list[Event]:
        if record.leave_reason:
            self._leaving.add(participant_id)
            return self._left(participant_id, record.leave_reason)
        if participant_id in self._leaving:
            return []  # a late write of a session that did not know of its end yet
        before = self.participants.get(participant_id)
        self.participants[participant_id] = record
        self._seat(before, -1)
        self._seat(record, 1)
        if before is None:
            early = [i for i, pub in self._early.items() if pub.publication.participant_id == participant_id]
            published: list[Event] = []
            for publication_id in early:
                published += self._publication(publication_id, self._early.pop(publication_id))
            return [Joined(record), *published]
        return [Updated(record)] if before.participant != record.participant else []

    def _left(self, participant_id: str, reason: common_pb2.LeaveReason.ValueType) -> list[Event]:
        record = self.participants.pop(participant_id, None)
        for publication_id in [i for i, p in self._early.items() if p.publication.participant_id == participant_id]:
            del self._early[publication_id]
        if record is None:
            return []
        self._seat(record, -1)
        events: list[Event] = []
        for publication_id in [p.publication.id for p in self.publications_of(participant_id)]:
            events.append(Unpublished(self.publications.pop(publication_id)))
        return [*events, Left(record, reason)]

    def _seat(self, record: state_pb2.ParticipantRecord | None, step: int) -> None:
        # Kept, not counted when asked for: everybody who joins a large room asks.
        if record is not None and record.node_id and record.participant.kind != common_pb2.PARTICIPANT_KIND_VOD:
            self._seats[record.node_id] += step
            if not self._seats[record.node_id]:
                del self._seats[record.node_id]

    def _publication(self, publication_id: str, record: state_pb2.PublicationRecord) -> list[Event]:
        participant_id = record.publication.participant_id
        if participant_id in self._leaving:
            return []
        if participant_id not in self.participants:
            self._early[publication_id] = record
            return []
        before = self.publications.get(publication_id)
        self.publications[publication_id] = record
        if before is None:
            return [Published(record, is_visible_change=True, is_media_change=True)]
        # A record written again as it was says that the same tracks now come by another transport.
        is_media_change = before == record or _media_of(before) != _media_of(record)
        return [Published(record, before.publication != record.publication, is_media_change)]

    def _codec_want(self, track_id: str, codecs: tuple[str, ...] | None) -> list[Event]:
        if not codecs:
            self.codec_wants.pop(track_id, None)
            return []
        if self.codec_wants.get(track_id) == codecs:
            return []
        self.codec_wants[track_id] = codecs
        return [CodecWanted(track_id, codecs)]

    def _recording(self, recording_id: str, is_active: bool) -> list[Event]:
        if is_active == (recording_id in self.recordings):
            return []
        (self.recordings.add if is_active else self.recordings.discard)(recording_id)
        return [RecordingUpdated(recording_id, is_active)]

    # Questions

    def is_shown(self, participant_id: str) -> bool:
        """True if others see this participant."""
        record = self.participants.get(participant_id)
        return record is not None and is_shown(record)

    def publications_of(self, participant_id: str) -> list[state_pb2.PublicationRecord]:
        """The publications of one participant, oldest first."""
        return [p for p in self.publications.values() if p.publication.participant_id == participant_id]

    def find_track(self, track_id: str) -> tuple[state_pb2.PublicationRecord, common_pb2.Track] | None:
        """A track and its publication."""
        for record, track in self.tracks():
            if track.id == track_id:
                return record, track
        return None

    def tracks(self) -> Iterator[tuple[state_pb2.PublicationRecord, common_pb2.Track]]:
        """Every track of the room with its publication."""
        for record in self.publications.values():
            for track in record.publication.tracks:
                yield record, track

    def by_identity(self, identity: str) -> state_pb2.ParticipantRecord | None:
        """The participant that has an identity."""
        for record in self.participants.values():
            if record.participant.identity == identity:
                return record
        return None

    def media_nodes(self) -> list[str]:
        """Nodes that have transports of this room, the one with most first."""
        return sorted(self._seats, key=lambda node: (-self._seats[node], node))


def is_shown(record: state_pb2.ParticipantRecord) -> bool:
    """True if others see this participant."""
    return record.participant.kind not in KINDS_NEVER_SHOWN and not record.is_hidden


def _media_of(record: state_pb2.PublicationRecord) -> tuple[object, ...]:
    return (record.node_id, tuple((t.id, t.codec, t.alternative_of) for t in record.publication.tracks))
