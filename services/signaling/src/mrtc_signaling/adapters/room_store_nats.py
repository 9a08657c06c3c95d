"""Room records in the KV bucket `mrtc_rooms`, and the recordings of a room in `mrtc_recordings`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc_common import subjects, tables
from mrtc_common.errors import UnavailableError
from mrtc_common.kv import Change as KvChange
from mrtc_common.kv import KeyExistsError, RevisionMismatchError, SnapshotDone
from mrtc_common.nats import NatsLink

from mrtc_signaling.core.room_view import (
    Change,
    CodecWantChange,
    ParticipantChange,
    PublicationChange,
    RecordingChange,
    RoomChange,
)

_UNDER_WAY = frozenset({recording_pb2.RECORDING_STATE_ACTIVE, recording_pb2.RECORDING_STATE_ENDING})
_CAS_TRIES = 5


class NatsRoomStore:
    """See `ports.RoomStore`."""

    def __init__(self, link: NatsLink) -> None:
        self._table = tables.rooms(link)
        self._recordings = tables.recordings(link)

    async def watch(self, room_key: str) -> AsyncIterator[list[Change] | int]:
        """See the port."""
        async with self._table.watch(subjects.room_filter(room_key)) as watch:
            is_complete = False
            async for item in watch:
                if isinstance(item, KvChange) and (change := _room_change(item)) is not None:
                    yield [change]
                is_complete = is_complete or isinstance(item, SnapshotDone)
                if is_complete:
                    yield item.revision

    async def last_revision(self, room_key: str) -> int:
        """See the port."""
        return await self._table.last_revision(subjects.room_filter(room_key))

    async def watch_recordings(self, room_key: str) -> AsyncIterator[RecordingChange]:
        """See the port."""
        async with self._recordings.watch(subjects.room_filter(room_key)) as watch:
            async for item in watch:
                if isinstance(item, KvChange):
                    _, recording_id = subjects.parse_job_key(item.key)
                    is_active = item.value is not None and item.value.state in _UNDER_WAY
                    yield RecordingChange(recording_id, is_active)

    async def get_room(self, room_key: str) -> state_pb2.RoomRecord | None:
        """See the port."""
        entry = await self._table.get(subjects.room_record_key(room_key))
        return entry.value if entry is not None and isinstance(entry.value, state_pb2.RoomRecord) else None

    async def create_room(self, room_key: str, record: state_pb2.RoomRecord) -> state_pb2.RoomRecord:
        """See the port."""
        for _ in range(_CAS_TRIES):
            try:
                await self._table.create(subjects.room_record_key(room_key), record)
                return record
            except KeyExistsError:
                existing = await self.get_room(room_key)
                if existing is not None:
                    return existing
        raise UnavailableError("the room is being created and deleted at once")

    async def list_rooms(self, app_id: str) -> list[state_pb2.RoomRecord]:
        """See the port."""
        entries = await self._table.list(subjects.app_rooms_filter(app_id))
        return [entry.value for entry in entries if isinstance(entry.value, state_pb2.RoomRecord)]

    async def count_rooms(self, app_id: str) -> int:
        """See the port."""
        return await self._table.count(subjects.app_rooms_filter(app_id))

    async def delete_room(self, room_key: str, record: state_pb2.RoomRecord) -> None:
        """See the port."""
        await self._table.delete(subjects.room_record_key(room_key), final=record)

    async def put_participant(self, room_key: str, record: state_pb2.ParticipantRecord) -> None:
        """See the port."""
        await self._table.put(subjects.participant_key(room_key, record.participant.id), record)

    async def delete_participant(
        self, room_key: str, record: state_pb2.ParticipantRecord, reason: common_pb2.LeaveReason.ValueType
    ) -> None:
        """See the port."""
        final = state_pb2.ParticipantRecord()
        final.CopyFrom(record)
        final.leave_reason = reason
        await asyncio.gather(
            self._table.delete(subjects.participant_key(room_key, record.participant.id), final=final),
            self._release_identity(room_key, record.participant.identity, record.participant.id),
        )

    async def put_publication(self, room_key: str, record: state_pb2.PublicationRecord) -> None:
        """See the port."""
        await self._table.put(subjects.publication_key(room_key, record.publication.id), record)

    async def delete_publication(self, room_key: str, record: state_pb2.PublicationRecord) -> None:
        """See the port."""
        await self._table.delete(subjects.publication_key(room_key, record.publication.id), final=record)
        for track in record.publication.tracks:
            if track.kind == common_pb2.TRACK_KIND_VIDEO and not track.alternative_of:
                key = subjects.codec_want_key(room_key, track.id)
                if await self._table.get(key) is not None:
                    await self._table.delete(key)

    async def claim_identity(self, room_key: str, identity: str, participant_id: str) -> str:
        """See the port."""
        key = subjects.identity_key(room_key, identity)
        claim = state_pb2.IdentityRecord(participant_id=participant_id)
        for _ in range(_CAS_TRIES):
            try:
                await self._table.create(key, claim)
                return ""
            except KeyExistsError:
                entry = await self._table.get(key)
            if entry is None or not isinstance(entry.value, state_pb2.IdentityRecord):
                continue
            try:
                await self._table.update(key, claim, entry.revision)
                return entry.value.participant_id
            except RevisionMismatchError:
                continue
        raise UnavailableError("this identity joins and leaves too quickly; try again", retry_after_ms=200)

    async def want_codecs(self, room_key: str, track_id: str, codecs: Sequence[str]) -> None:
        """See the port."""
        key = subjects.codec_want_key(room_key, track_id)
        entry = await self._table.get(key)
        known = list(entry.value.codecs) if entry is not None and isinstance(entry.value, state_pb2.CodecList) else []
        merged = [*known, *(c for c in codecs if c not in known)]
        await self._table.put(key, state_pb2.CodecList(codecs=merged))

    async def _release_identity(self, room_key: str, identity: str, participant_id: str) -> None:
        key = subjects.identity_key(room_key, identity)
        entry = await self._table.get(key)
        if entry is None or not isinstance(entry.value, state_pb2.IdentityRecord):
            return
        if entry.value.participant_id == participant_id:
            try:
                await self._table.delete(key, revision=entry.revision)
            except RevisionMismatchError:
                return  # somebody else has taken it meanwhile


def _room_change(item: KvChange[tables.RoomValue]) -> Change | None:
    key = subjects.parse_room_entry(item.key)
    value = item.value
    match key.kind:
        case subjects.RoomEntryKind.ROOM:
            return RoomChange(value if isinstance(value, state_pb2.RoomRecord) else None)
        case subjects.RoomEntryKind.PARTICIPANT:
            final = item.final
            reason = (
                final.leave_reason
                if isinstance(final, state_pb2.ParticipantRecord)
                else common_pb2.LEAVE_REASON_UNSPECIFIED
            )
            record = value if isinstance(value, state_pb2.ParticipantRecord) else None
            return ParticipantChange(key.id, record, reason)
        case subjects.RoomEntryKind.PUBLICATION:
            return PublicationChange(key.id, value if isinstance(value, state_pb2.PublicationRecord) else None)
        case subjects.RoomEntryKind.CODEC_WANT:
            codecs = tuple(value.codecs) if isinstance(value, state_pb2.CodecList) else None
            return CodecWantChange(key.id, codecs)
        case subjects.RoomEntryKind.IDENTITY:
            return None
