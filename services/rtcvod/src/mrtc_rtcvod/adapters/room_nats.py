"""`VodRoom` in NATS: the records that signaling writes for other participants, written for this one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc_common import subjects, tables
from mrtc_common.clock import Clock
from mrtc_common.errors import UnavailableError
from mrtc_common.kv import Change, KeyExistsError, RevisionMismatchError, SnapshotDone
from mrtc_common.nats import NatsLink
from mrtc_common.tables import RoomValue

from mrtc_rtcvod.core import records
from mrtc_rtcvod.core.records import PlayedTracks, Vod, VodIds

_ATTEMPTS = 5


class NatsVodRoom:
    """See `VodRoom`.

    Args:
        session_interval_s: how often the session is written; well within its time to live.
    """

    def __init__(
        self,
        link: NatsLink,
        *,
        room_key: str,
        identity: str,
        ids: VodIds,
        node_id: str,
        clock: Clock,
        session_interval_s: float,
    ) -> None:
        self._link = link
        self._rooms = tables.rooms(link)
        self._sessions = tables.sessions(link)
        self._room_key = room_key
        self._identity_key = subjects.identity_key(room_key, identity)
        self._ids = ids
        self._node_id = node_id
        self._clock = clock
        self._session_interval_s = session_interval_s
        self._muted: set[str] = set()
        self._last_participant: state_pb2.ParticipantRecord | None = None
        self._last_publication: state_pb2.PublicationRecord | None = None

    async def is_open(self) -> bool:
        """See `VodRoom`."""
        return await self._rooms.get(subjects.room_record_key(self._room_key)) is not None

    async def join(self, vod: Vod) -> None:
        """See `VodRoom`."""
        # The session first: a participant without one is reaped.
        await self._write_session(vod)
        await self._make_room(vod)
        await self._take_identity()
        known = await self._rooms.get(self._participant_key)
        joined_at_ms = self._clock.unix_ms()
        if known is not None and isinstance(known.value, state_pb2.ParticipantRecord):
            joined_at_ms = known.value.participant.joined_at_ms
        record = records.participant_record(vod, self._ids, self._node_id, joined_at_ms)
        self._last_participant = record
        await self._rooms.put(self._participant_key, record)

    async def publish(self, vod: Vod, tracks: PlayedTracks) -> None:
        """See `VodRoom`."""
        record = records.publication_record(vod, self._ids, tracks, self._node_id, self._clock.unix_ms())
        await self._rooms.put(self._publication_key, records.with_mutes(record, self._muted))
        self._last_publication = record

    async def leave(self, vod: Vod, reason: common_pb2.LeaveReason.ValueType) -> None:
        """See `VodRoom`."""
        await self._rooms.delete(self._publication_key, final=self._last_publication)
        final = records.participant_record(vod, self._ids, self._node_id, 0)
        if self._last_participant is not None:
            final.CopyFrom(self._last_participant)
        final.leave_reason = reason
        await self._rooms.delete(self._participant_key, final=final)
        await self._release_identity()
        want = subjects.codec_want_key(self._room_key, self._ids.video)
        if await self._rooms.get(want) is not None:
            await self._rooms.delete(want)
        await self._sessions.delete(subjects.session_key(self._ids.session))

    async def keep(self, vod: Vod) -> None:
        """See `VodRoom`."""
        while True:
            await asyncio.sleep(self._session_interval_s)
            with contextlib.suppress(UnavailableError):
                await self._write_session(vod)

    async def watch(
        self,
        on_removed: Callable[[], None],
        on_publication: Callable[[state_pb2.PublicationRecord], None],
        on_codecs_wanted: Callable[[Sequence[str]], None],
    ) -> None:
        """See `VodRoom`."""

        async def on_order(_subject: str, payload: bytes) -> None:
            order = state_pb2.SessionControl.FromString(payload)
            if order.HasField("end"):
                on_removed()

        await self._link.wait_ready()
        subscription = await self._link.subscribe(subjects.control_subject(self._ids.session), on_order)
        own: dict[str, RoomValue | None] = {}
        try:
            async with self._rooms.watch(subjects.room_filter(self._room_key)) as watch:
                async for item in watch:
                    if isinstance(item, Change):
                        if item.key in (self._participant_key, self._identity_key):
                            own[item.key] = item.value
                        self._apply(item, on_removed, on_publication, on_codecs_wanted)
                    elif isinstance(item, SnapshotDone) and not item.is_resync and self._was_removed(own):
                        on_removed()
        finally:
            await subscription.aclose()

    def _apply(
        self,
        change: Change[RoomValue],
        on_removed: Callable[[], None],
        on_publication: Callable[[state_pb2.PublicationRecord], None],
        on_codecs_wanted: Callable[[Sequence[str]], None],
    ) -> None:
        value = change.value
        room_gone = change.key == subjects.room_record_key(self._room_key) and value is None
        if room_gone or (change.key == self._participant_key and value is None):
            if not change.is_inferred:
                on_removed()
        elif change.key == self._publication_key and isinstance(value, state_pb2.PublicationRecord):
            self._muted = records.muted_tracks(value)
            on_publication(value)
        elif change.key == subjects.codec_want_key(self._room_key, self._ids.video) and isinstance(
            value, state_pb2.CodecList
        ):
            on_codecs_wanted(list(value.codecs))

    def _was_removed(self, own: Mapping[str, RoomValue | None]) -> bool:
        """True if that was done after the join and before anybody watched."""
        holder = own.get(self._identity_key)
        is_replaced = isinstance(holder, state_pb2.IdentityRecord) and holder.participant_id != self._ids.participant
        return is_replaced or own.get(self._participant_key) is None

    @property
    def _participant_key(self) -> str:
        return subjects.participant_key(self._room_key, self._ids.participant)

    @property
    def _publication_key(self) -> str:
        return subjects.publication_key(self._room_key, self._ids.publication)

    async def _write_session(self, vod: Vod) -> None:
        record = records.session_record(vod, self._ids, self._room_key, self._node_id)
        await self._sessions.put(subjects.session_key(self._ids.session), record)

    async def _make_room(self, vod: Vod) -> None:
        record = state_pb2.RoomRecord(app_id=vod.app_id, name=vod.room, created_at_ms=self._clock.unix_ms())
        with contextlib.suppress(KeyExistsError):
            await self._rooms.create(subjects.room_record_key(self._room_key), record)

    async def _take_identity(self) -> None:
        """Newest wins, as for every participant: who had it is told to go."""
        claim = state_pb2.IdentityRecord(participant_id=self._ids.participant)
        for _ in range(_ATTEMPTS):
            with contextlib.suppress(KeyExistsError):
                await self._rooms.create(self._identity_key, claim)
                return
            entry = await self._rooms.get(self._identity_key)
            if entry is None or not isinstance(entry.value, state_pb2.IdentityRecord):
                continue
            if entry.value.participant_id == self._ids.participant:
                return
            with contextlib.suppress(RevisionMismatchError):
                await self._rooms.update(self._identity_key, claim, entry.revision)
                await self._end_holder(entry.value.participant_id)
                return
        raise UnavailableError("this identity joins and leaves too quickly; try again", retry_after_ms=200)

    async def _end_holder(self, participant_id: str) -> None:
        entry = await self._rooms.get(subjects.participant_key(self._room_key, participant_id))
        if entry is None or not isinstance(entry.value, state_pb2.ParticipantRecord):
            return
        order = state_pb2.SessionControl(end=state_pb2.EndSession(reason=common_pb2.LEAVE_REASON_DUPLICATE_IDENTITY))
        await self._link.publish(subjects.control_subject(entry.value.session_id), order.SerializeToString())

    async def _release_identity(self) -> None:
        entry = await self._rooms.get(self._identity_key)
        if entry is None or not isinstance(entry.value, state_pb2.IdentityRecord):
            return
        if entry.value.participant_id == self._ids.participant:
            with contextlib.suppress(RevisionMismatchError):
                await self._rooms.delete(self._identity_key, revision=entry.revision)
