"""Removes keys of the room state in NATS, each looked at once more before."""

from __future__ import annotations

from mrtc.common.v1.common_pb2 import LEAVE_REASON_CONNECTION_LOST
from mrtc.event.v1 import state_pb2
from mrtc_common import subjects, tables
from mrtc_common.ids import is_id
from mrtc_common.kv import RevisionMismatchError
from mrtc_common.nats import NatsLink

from mrtc_master.core.reaper import CloseRoom, Reap, ReapCodecWant, ReapIdentity, ReapParticipant, ReapPublication


class NatsRoomStore:
    """See `ports.RoomStore`."""

    def __init__(self, link: NatsLink) -> None:
        self._rooms = tables.rooms(link)
        self._sessions = tables.sessions(link)

    async def reap(self, reap: Reap) -> bool:
        """Removes, if it is still due."""
        try:
            match reap:
                case ReapParticipant():
                    return await self._participant(reap)
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
        key = subjects.participant_key(reap.room_key, reap.participant_id)
        entry = await self._rooms.get(key)
        if entry is None or not isinstance(entry.value, state_pb2.ParticipantRecord):
            return False
        record = state_pb2.ParticipantRecord()
        record.CopyFrom(entry.value)
        if not record.leave_reason:
            record.leave_reason = LEAVE_REASON_CONNECTION_LOST
        for publication in await self._rooms.list(f"{reap.room_key}.{subjects.RoomEntryKind.PUBLICATION}.*"):
            value = publication.value
            if (
                isinstance(value, state_pb2.PublicationRecord)
                and value.publication.participant_id == reap.participant_id
            ):
                await self._rooms.delete(publication.key, final=value)
        await self._rooms.delete(key, revision=entry.revision, final=record)
        identity = ReapIdentity(reap.room_key, record.participant.identity, reap.participant_id)
        if identity.identity:
            await self._identity(identity)
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
