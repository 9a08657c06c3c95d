"""Removes keys of the room state in NATS, each looked at once more before."""

from __future__ import annotations

from mrtc.common.v1.common_pb2 import LEAVE_REASON_CONNECTION_LOST, LEAVE_REASON_DUPLICATE_IDENTITY, LeaveReason
from mrtc.event.v1 import state_pb2
from mrtc_common import subjects, tables
from mrtc_common.ids import is_id
from mrtc_common.kv import KvTable, RevisionMismatchError

from mrtc_master.core.reaper import (
    CloseRoom,
    Reap,
    ReapCodecWant,
    ReapDuplicate,
    ReapIdentity,
    ReapParticipant,
    ReapPublication,
)


class NatsRoomStore:
    """See `ports.RoomStore`."""

    def __init__(self, rooms: KvTable[tables.RoomValue], sessions: KvTable[state_pb2.SessionRecord]) -> None:
        self._rooms = rooms
        self._sessions = sessions

    async def reap(self, reap: Reap) -> bool:
        """Removes, if it is still due."""
        try:
            match reap:
                case ReapParticipant():
                    return await self._participant(reap)
                case ReapDuplicate():
                    return await self._duplicate(reap)
                case ReapPublication():
                    return await self._publication(reap)
                case ReapIdentity():
                    return await self._identity(reap)
                case ReapCodecWant():
                    await self._rooms.delete(subjects.codec_want_key(reap.room_key, reap.track_id))
                    return True
                case CloseRoom():
                    return await self._room(reap)
        except RevisionMismatchError:
            return False  # somebody changed it meanwhile; the watch will tell

    async def _participant(self, reap: ReapParticipant) -> bool:
        if is_id(reap.session_id) and await self._sessions.get(subjects.session_key(reap.session_id)) is not None:
            return False
        return await self._remove(reap.room_key, reap.participant_id, LEAVE_REASON_CONNECTION_LOST)

    async def _duplicate(self, reap: ReapDuplicate) -> bool:
        """Its session is served by somebody who sees it go, and ends it."""
        entry = await self._rooms.get(subjects.identity_key(reap.room_key, reap.identity))
        holder = entry.value.participant_id if entry and isinstance(entry.value, state_pb2.IdentityRecord) else ""
        if holder == reap.participant_id:
            return False
        is_there = holder and await self._rooms.get(subjects.participant_key(reap.room_key, holder)) is not None
        if reap.has_successor and not is_there:
            return False
        return await self._remove(reap.room_key, reap.participant_id, LEAVE_REASON_DUPLICATE_IDENTITY)

    async def _remove(self, room_key: str, participant_id: str, reason: LeaveReason.ValueType) -> bool:
        key = subjects.participant_key(room_key, participant_id)
        entry = await self._rooms.get(key)
        if entry is None or not isinstance(entry.value, state_pb2.ParticipantRecord):
            return False
        record = state_pb2.ParticipantRecord()
        record.CopyFrom(entry.value)
        if not record.leave_reason:
            record.leave_reason = reason
        for publication in await self._rooms.list(f"{room_key}.{subjects.RoomEntryKind.PUBLICATION}.*"):
            value = publication.value
            if isinstance(value, state_pb2.PublicationRecord) and value.publication.participant_id == participant_id:
                await self._rooms.delete(publication.key, final=value)
        await self._rooms.delete(key, revision=entry.revision, final=record)
        if identity := record.participant.identity:
            await self._identity(ReapIdentity(room_key, identity, participant_id))
        return True

    async def _publication(self, reap: ReapPublication) -> bool:
        key = subjects.publication_key(reap.room_key, reap.publication_id)
        entry = await self._rooms.get(key)
        if entry is None or not isinstance(entry.value, state_pb2.PublicationRecord):
            return False
        owner = subjects.participant_key(reap.room_key, entry.value.publication.participant_id)
        if await self._rooms.get(owner) is not None:
            return False
        await self._rooms.delete(key, revision=entry.revision, final=entry.value)
        return True

    async def _identity(self, reap: ReapIdentity) -> bool:
        key = subjects.identity_key(reap.room_key, reap.identity)
        entry = await self._rooms.get(key)
        if entry is None or not isinstance(entry.value, state_pb2.IdentityRecord):
            return False
        if entry.value.participant_id != reap.participant_id:
            return False
        if await self._rooms.get(subjects.participant_key(reap.room_key, reap.participant_id)) is not None:
            return False
        await self._rooms.delete(key, revision=entry.revision)
        return True

    async def _room(self, reap: CloseRoom) -> bool:
        if await self._rooms.list(f"{reap.room_key}.{subjects.RoomEntryKind.PARTICIPANT}.*"):
            return False
        key = subjects.room_record_key(reap.room_key)
        entry = await self._rooms.get(key)
        if entry is None:
            return False
        await self._rooms.delete(key, revision=reap.revision, final=entry.value)
        return True
