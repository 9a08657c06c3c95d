"""What a recording needs to know of its room, derived from the room's records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc_common import subjects
from mrtc_common.ids import media_track_id
from mrtc_common.subjects import RoomEntryKind
from mrtc_common.tables import RoomValue

from .frames import Kind

_V = TypeVar("_V")
_KINDS = {common_pb2.TRACK_KIND_AUDIO: Kind.AUDIO, common_pb2.TRACK_KIND_VIDEO: Kind.VIDEO}


@dataclass(frozen=True, slots=True)
class WantedTrack:
    """A track to record.

    Attributes:
        media_id: what media nodes call it.
        node_id: the node that receives it from its publisher.
        codec: lower case; empty if not known yet.
    """

    track_id: str
    media_id: str
    kind: Kind
    node_id: str
    codec: str
    is_muted: bool
    publication_id: str
    identity: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Which publications a recording takes: of these identities (empty: all), with a tag that begins so."""

    identities: frozenset[str] = frozenset()
    tag_prefix: str = ""

    def takes(self, identity: str, tag: str) -> bool:
        """True if it takes a publication."""
        return (not self.identities or identity in self.identities) and tag.startswith(self.tag_prefix)


class RoomView:
    """A room as its records tell."""

    def __init__(self) -> None:
        self._room: state_pb2.RoomRecord | None = None
        self._participants: dict[str, state_pb2.ParticipantRecord] = {}
        self._publications: dict[str, state_pb2.PublicationRecord] = {}

    @property
    def is_open(self) -> bool:
        """True while the room's own record exists."""
        return self._room is not None

    @property
    def is_empty(self) -> bool:
        """True if no one but recorders and hidden watchers is in it."""
        return not any(self._counts(record) for record in self._participants.values())

    def apply(self, key: str, value: RoomValue | None) -> None:
        """Takes a change of a key of the room; None: the key is gone."""
        entry = subjects.parse_room_entry(key)
        match entry.kind:
            case RoomEntryKind.ROOM:
                self._room = value if isinstance(value, state_pb2.RoomRecord) else None
            case RoomEntryKind.PARTICIPANT:
                _set(self._participants, entry.id, value if isinstance(value, state_pb2.ParticipantRecord) else None)
            case RoomEntryKind.PUBLICATION:
                _set(self._publications, entry.id, value if isinstance(value, state_pb2.PublicationRecord) else None)
            case _:
                pass

    @property
    def has_encrypted_media(self) -> bool:
        """True if somebody publishes what only other clients can decode."""
        tracks = (track for record in self._publications.values() for track in record.publication.tracks)
        return any(track.is_encrypted for track in tracks)

    def wanted_tracks(self, selection: Selection) -> dict[str, WantedTrack]:
        """The tracks to record, by id, in the order in which their participants joined; encrypted ones are not."""
        wanted: dict[str, WantedTrack] = {}
        for record in sorted(self._publications.values(), key=self._order):
            publisher = self._participants.get(record.publication.participant_id)
            if publisher is None or not self._counts(publisher):
                continue
            if selection.takes(publisher.participant.identity, record.publication.tag):
                wanted.update(self._tracks(record, publisher.participant.identity))
        return wanted

    def _tracks(self, record: state_pb2.PublicationRecord, identity: str) -> dict[str, WantedTrack]:
        return {
            track.id: WantedTrack(
                track_id=track.id,
                media_id=media_track_id(track.id, record.generation),
                kind=_KINDS[track.kind],
                node_id=record.node_id,
                codec=track.codec,
                is_muted=track.is_muted,
                publication_id=record.publication.id,
                identity=identity,
            )
            # An alternative is the same picture once more, for receivers with another codec.
            for track in record.publication.tracks
            if track.kind in _KINDS and not track.alternative_of and not track.is_encrypted and record.node_id
        }

    def _order(self, record: state_pb2.PublicationRecord) -> tuple[int, str]:
        publisher = self._participants.get(record.publication.participant_id)
        joined_at = publisher.participant.joined_at_ms if publisher is not None else 0
        return joined_at, record.publication.id

    @staticmethod
    def _counts(record: state_pb2.ParticipantRecord) -> bool:
        return record.participant.kind != common_pb2.PARTICIPANT_KIND_RECORDER and not record.is_hidden


def _set(into: dict[str, _V], key: str, value: _V | None) -> None:
    if value is None:
        into.pop(key, None)
    else:
        into[key] = value
