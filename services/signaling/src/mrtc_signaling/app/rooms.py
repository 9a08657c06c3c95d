"""What the server API does: rooms, participants, messages, recordings, vods and media files."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common import subjects
from mrtc_common.errors import (
    AlreadyExistsError,
    BadMediaError,
    BadRequestError,
    FailedPreconditionError,
    MediaEncryptedError,
    MrtcError,
    NotFoundError,
    ParticipantNotFoundError,
    PublicationNotFoundError,
    RoomNotFoundError,
    TooLargeError,
)
from mrtc_common.ids import new_id
from mrtc_common.log import get_logger
from mrtc_common.storage import FileInfo, Storage, safe_part

from mrtc_signaling.core import limits
from mrtc_signaling.core.media_sniff import SNIFF_BYTES, sniff_media_type
from mrtc_signaling.core.room_view import RoomView
from mrtc_signaling.core.subscriptions import media_names
from mrtc_signaling.ports import MediaNode

from .access import Access
from .context import Context
from .join import create_room
from .removal import remove_participant
from .room_hub import RoomHub

_log = get_logger(__name__)

J = TypeVar("J", recording_pb2.Recording, vod_pb2.Vod)

MEDIA_FOLDER = "media"


class Rooms:
    """The server API's use cases; who may call them is checked by the entry point."""

    def __init__(self, ctx: Context, storage: Storage) -> None:
        self._ctx = ctx
        self._storage = storage

    # Rooms

    async def create(
        self,
        access: Access,
        room: str,
        *,
        metadata: str,
        max_participants: int,
        empty_timeout_ms: int,
        audio_top_n: int = 0,
    ) -> state_pb2.RoomRecord:
        """Creates a room. Raises AlreadyExistsError if there is one with other properties."""
        limits.check_bytes("metadata", metadata, limits.MAX_METADATA_BYTES)
        wanted = state_pb2.RoomRecord(
            metadata=metadata,
            max_participants=max_participants,
            empty_timeout_ms=empty_timeout_ms,
            is_explicit=True,
            audio_top_n=audio_top_n,
        )
        app = access.app
        record = await create_room(self._ctx, app.id, room, app.limits.max_rooms, record=wanted)
        known = (record.metadata, record.max_participants, record.audio_top_n)
        if known != (metadata, max_participants, audio_top_n):
            raise AlreadyExistsError("the room exists already with other properties")
        return record

    async def list_rooms(self, app_id: str) -> list[state_pb2.RoomRecord]:
        """The rooms of an app, by name."""
        return sorted(await self._ctx.rooms.list_rooms(app_id), key=lambda record: record.name)

    async def view(self, app_id: str, room: str) -> RoomView:
        """The room as it is. Raises RoomNotFoundError."""
        async with self._hub(subjects.room_key(app_id, room)) as hub:
            if hub.view.room is None:
                raise RoomNotFoundError(f"there is no room {room!r}")
            return hub.view

    @contextlib.asynccontextmanager
    async def _hub(self, room_key: str) -> AsyncIterator[RoomHub]:
        """The room with all that an app can know of: whoever was told of a join finds the participant here at once."""
        async with self._ctx.hubs.lease(room_key) as hub:
            await hub.catch_up()
            yield hub

    async def delete(self, app_id: str, room: str) -> None:
        """Closes a room: everybody is taken out. Raises RoomNotFoundError."""
        key = subjects.room_key(app_id, room)
        async with self._hub(key) as hub:
            if hub.view.room is None and not hub.view.participants:
                raise RoomNotFoundError(f"there is no room {room!r}")
            record = hub.view.room
            # Before the room, so that its end is the last that the app is told; and whoever came meanwhile after it.
            await self._remove_all(key, hub.view)
            if record is not None:
                await self._ctx.rooms.delete_room(key, record)
            await hub.catch_up()
            await self._remove_all(key, hub.view)
        _log.info("room closed by API", room=key)

    async def _remove_all(self, room_key: str, view: RoomView) -> None:
        reason = common_pb2.LEAVE_REASON_ROOM_CLOSED
        for batch in _batches(list(view.participants.values()), 50):
            await asyncio.gather(
                *(
                    remove_participant(self._ctx, room_key, record, view.publications_of(record.participant.id), reason)
                    for record in batch
                )
            )

    async def remove(self, app_id: str, room: str, participant: str) -> None:
        """Takes a participant out, by id or identity, in whatever state it is. Raises ParticipantNotFoundError."""
        async with self._hub(subjects.room_key(app_id, room)) as hub:
            view = hub.view
        if view.room is None and not view.participants:
            raise RoomNotFoundError(f"there is no room {room!r}")
        record = view.participants.get(participant) or view.by_identity(participant)
        if record is None:
            raise ParticipantNotFoundError
        publications = view.publications_of(record.participant.id)
        if record.participant.kind == common_pb2.PARTICIPANT_KIND_VOD:
            await self._stop_vod_of(app_id, record)
        reason = common_pb2.LEAVE_REASON_REMOVED
        await remove_participant(self._ctx, subjects.room_key(app_id, room), record, publications, reason)

    async def move(self, app_id: str, room: str, participant: str, node_id: str) -> None:
        """Asks a participant's client to move to another media node: a certain one, or any but the present.

        Raises ParticipantNotFoundError, FailedPreconditionError if it has no media or is there already, and
        UnavailableError if there is no such node.
        """
        view = await self.view(app_id, room)
        record = view.participants.get(participant) or view.by_identity(participant)
        if record is None:
            raise ParticipantNotFoundError
        if not record.transport_id or record.participant.kind != common_pb2.PARTICIPANT_KIND_STANDARD:
            raise FailedPreconditionError("only media of clients with a signaling connection can be moved")
        if node_id == record.node_id:
            raise FailedPreconditionError("its media is on this node already")
        if node_id:
            await self._ctx.nodes.node(node_id)
        order = state_pb2.SessionControl(move_media=state_pb2.MoveMedia(node_id=node_id))
        await self._ctx.bus.control(record.session_id, order)

    async def mute(self, app_id: str, room: str, track_id: str, is_muted: bool) -> common_pb2.Publication:
        """Mutes or unmutes somebody's track. Raises PublicationNotFoundError.

        The node stops (or goes on) forwarding at once; the client sees the changed publication.
        """
        return await self._change_track(
            app_id,
            room,
            track_id,
            lambda node, transport_id, media_id: node.mute_track(transport_id, media_id, is_muted),
            is_muted=is_muted,
        )

    async def set_track_cap(self, app_id: str, room: str, track_id: str, max_bps: int) -> common_pb2.Publication:
        """Changes what somebody's track may send at most; 0: no cap of its own. Raises PublicationNotFoundError.

        It holds at once; the client is told by its transport, and sees the changed publication.
        """
        return await self._change_track(
            app_id,
            room,
            track_id,
            lambda node, transport_id, media_id: node.set_track_cap(transport_id, media_id, max_bps),
            max_bitrate_bps=max_bps,
        )

    async def _change_track(
        self,
        app_id: str,
        room: str,
        track_id: str,
        tell: Callable[[MediaNode, str, str], Awaitable[None]],
        **fields: int,
    ) -> common_pb2.Publication:
        """Tells the node of a track (transport, name of the media), and then everybody by the track's fields."""
        changed, affected, owner = await self._track_to_change(app_id, room, track_id)
        node = await self._ctx.nodes.node(owner.node_id)
        for media_id in media_names((track.id for track in affected), changed.generation):
            await tell(node, owner.transport_id, media_id)
        for track in affected:
            for name, value in fields.items():
                setattr(track, name, value)
        await self._ctx.rooms.put_publication(subjects.room_key(app_id, room), changed)
        return changed.publication

    async def _track_to_change(
        self, app_id: str, room: str, track_id: str
    ) -> tuple[state_pb2.PublicationRecord, list[common_pb2.Track], state_pb2.ParticipantRecord]:
        """A copy of the track's publication, its track and alternatives in that, and whose it is."""
        view = await self.view(app_id, room)
        found = view.find_track(track_id)
        owner = view.participants.get(found[0].publication.participant_id) if found else None
        if found is None or owner is None:
            raise PublicationNotFoundError
        if owner.participant.kind == common_pb2.PARTICIPANT_KIND_VOD:
            raise FailedPreconditionError("the tracks of a played file cannot be changed; stop the vod")
        changed = state_pb2.PublicationRecord()
        changed.CopyFrom(found[0])
        return changed, [t for t in changed.publication.tracks if track_id in (t.id, t.alternative_of)], owner

    async def set_caps(self, app_id: str, room: str, participant: str, caps: state_pb2.MediaCaps) -> None:
        """Changes a participant's own caps: those that are set in `caps`. They hold at once and over reconnects.

        Raises ParticipantNotFoundError, FailedPreconditionError if it is no client.
        """
        view = await self.view(app_id, room)
        record = view.participants.get(participant) or view.by_identity(participant)
        if record is None:
            raise ParticipantNotFoundError
        if record.participant.kind == common_pb2.PARTICIPANT_KIND_VOD:
            raise FailedPreconditionError("a played file has no caps")
        await self._ctx.bus.control(record.session_id, state_pb2.SessionControl(set_caps=caps))

    async def stats(self, app_id: str, room: str) -> list[tuple[state_pb2.ParticipantRecord, dict[str, Any] | None]]:
        """Everybody's figures (docs/stats.md), one call to each node; None without media, or if the node is silent.

        Raises RoomNotFoundError.
        """
        view = await self.view(app_id, room)
        by_node: dict[str, list[str]] = {}
        for record in view.participants.values():
            if record.transport_id:
                by_node.setdefault(record.node_id, []).append(record.transport_id)
        answers = await asyncio.gather(*(self._stats_of(node_id, ids) for node_id, ids in by_node.items()))
        found = {transport["id"]: transport for answer in answers for transport in answer}
        return [(record, found.get(record.transport_id)) for record in view.participants.values()]

    async def _stats_of(self, node_id: str, transport_ids: Sequence[str]) -> list[dict[str, Any]]:
        try:
            return await (await self._ctx.nodes.node(node_id)).stats(transport_ids)
        except MrtcError as error:
            _log.info("a node gave no figures", node=node_id, error=error.message)
            return []

    async def send_message(self, app_id: str, room: str, payload: bytes, topic: str, to: list[str]) -> int:
        """Sends a text message in the name of the app. Raises TooLargeError, RoomNotFoundError."""
        limits.check_bytes("payload", payload, limits.MAX_MESSAGE_BYTES)
        limits.check_bytes("topic", topic, limits.MAX_TOPIC_BYTES)
        if len(to) > limits.MAX_ADDRESSEES:
            raise BadRequestError(f"a message has at most {limits.MAX_ADDRESSEES} addressees")
        await self.view(app_id, room)
        message = state_pb2.RoomMessage(payload=payload, topic=topic, to=to, sent_at_ms=self._ctx.clock.unix_ms())
        return await self._ctx.messages.publish(subjects.room_key(app_id, room), message, new_id("ms"))

    # Recordings

    async def start_recording(self, recording: recording_pb2.Recording) -> recording_pb2.Recording:
        """Queues a recording; the room need not exist yet.

        Raises LimitExceededError, UnavailableError, and MediaEncryptedError if something in the room is end-to-end
        encrypted: a recording that leaves out what is said would only look like one.
        """
        recording.id = new_id("rec")
        recording.state = recording_pb2.RECORDING_STATE_QUEUED
        async with self._hub(subjects.room_key(recording.app_id, recording.room)) as hub:
            if hub.view.has_encrypted_media:
                raise MediaEncryptedError("the room is end-to-end encrypted and cannot be recorded")
        await self._ctx.jobs.start_recording(recording)
        return recording

    async def recordings(self, app_id: str, room: str) -> list[recording_pb2.Recording]:
        """Recordings of a room, or of the whole app if `room` is empty; newest last."""
        return sorted(await self._ctx.jobs.list_recordings(app_id, room), key=lambda r: (r.started_at_ms, r.id))

    async def recording(self, app_id: str, room: str, recording_id: str) -> recording_pb2.Recording:
        """One recording. Raises NotFoundError."""
        return _find(await self._ctx.jobs.list_recordings(app_id, room), recording_id, "recording")

    async def stop_recording(self, app_id: str, room: str, recording_id: str) -> recording_pb2.Recording:
        """Asks for its end. Raises NotFoundError."""
        await self.recording(app_id, room, recording_id)
        return await self._ctx.jobs.stop_recording(app_id, recording_id)

    async def recording_file(
        self, app_id: str, room: str, recording_id: str, name: str
    ) -> tuple[recording_pb2.RecordingFile, FileInfo]:
        """A file of a recording, as far as it has grown. Raises NotFoundError."""
        recording = await self.recording(app_id, room, recording_id)
        for file in recording.files:
            if file_name(file) == name:
                return file, await self._storage.stat(file.key)
        raise NotFoundError("the recording has no such file")

    def read(self, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        """Bytes of a stored file."""
        return self._storage.read(key, start, end)

    # Media and vods

    async def upload(
        self, app_id: str, name: str, chunks: AsyncIterator[bytes], *, max_bytes: int, can_replace: bool
    ) -> tuple[str, FileInfo, str]:
        """Stores a media file; returns its name, what is stored, and its media type, found by content.

        Raises BadMediaError if it is no media file, TooLargeError. Who may not replace files of others gets a name of
        its own.
        """
        name = safe_part(name) if can_replace else f"{secrets.token_hex(4)}-{safe_part(name)}"
        checked = _Sniffed(chunks, max_bytes)
        info = await self._storage.write(media_key(app_id, name), checked.stream())
        return name, info, checked.media_type

    async def list_media(self, app_id: str) -> Sequence[FileInfo]:
        """Media files of an app."""
        return await self._storage.list(f"{safe_part(app_id)}/{MEDIA_FOLDER}")

    async def delete_media(self, app_id: str, name: str) -> None:
        """Deletes a media file. Raises NotFoundError."""
        key = media_key(app_id, name)
        await self._storage.stat(key)
        await self._storage.delete(key)

    async def start_vod(self, vod: vod_pb2.Vod) -> vod_pb2.Vod:
        """Queues a vod. Raises NotFoundError if the media file is missing."""
        await self._storage.stat(media_key(vod.app_id, vod.media_key))
        vod.id = new_id("vod")
        vod.state = vod_pb2.VOD_STATE_QUEUED
        vod.identity = vod.identity or vod.id
        subjects.room_key(vod.app_id, vod.room)
        subjects.encode_name(vod.identity)
        await self._ctx.jobs.start_vod(vod)
        return vod

    async def vods(self, app_id: str, room: str) -> list[vod_pb2.Vod]:
        """Vods of a room."""
        return sorted(await self._ctx.jobs.list_vods(app_id, room), key=lambda v: v.id)

    async def vod(self, app_id: str, room: str, vod_id: str) -> vod_pb2.Vod:
        """One vod. Raises NotFoundError."""
        return _find(await self._ctx.jobs.list_vods(app_id, room), vod_id, "vod")

    async def stop_vod(self, app_id: str, room: str, vod_id: str) -> vod_pb2.Vod:
        """Asks for its end. Raises NotFoundError."""
        await self.vod(app_id, room, vod_id)
        return await self._ctx.jobs.stop_vod(app_id, vod_id)

    async def _stop_vod_of(self, app_id: str, record: state_pb2.ParticipantRecord) -> None:
        """Or its player would come back: the job is not done."""
        with contextlib.suppress(NotFoundError):
            await self._ctx.jobs.stop_vod(app_id, record.session_id.removeprefix("vod-"))


def media_key(app_id: str, name: str) -> str:
    """Storage key of a media file of an app."""
    return f"{safe_part(app_id)}/{MEDIA_FOLDER}/{name}"


def file_name(file: recording_pb2.RecordingFile) -> str:
    """The last part of a file's key."""
    return file.key.rsplit("/", 1)[-1]


def _find(jobs: list[J], job_id: str, noun: str) -> J:
    for job in jobs:
        if job.id == job_id:
            return job
    raise NotFoundError(f"no such {noun}")


def _batches(records: list[state_pb2.ParticipantRecord], size: int) -> list[list[state_pb2.ParticipantRecord]]:
    return [records[i : i + size] for i in range(0, len(records), size)]


class _Sniffed:
    """Passes an upload through; stops it when it is no media or too large."""

    def __init__(self, chunks: AsyncIterator[bytes], max_bytes: int) -> None:
        self._chunks = chunks
        self._max_bytes = max_bytes
        self.media_type = ""

    async def stream(self) -> AsyncIterator[bytes]:
        head = b""
        total = 0
        async for chunk in self._chunks:
            total += len(chunk)
            if total > self._max_bytes:
                raise TooLargeError(f"a media file may have {self._max_bytes} bytes")
            if self.media_type:
                yield chunk
                continue
            head += chunk
            if len(head) >= SNIFF_BYTES:
                self.media_type = self._sniff(head)
                yield head
        if not self.media_type:
            self.media_type = self._sniff(head)
            yield head

    def _sniff(self, head: bytes) -> str:
        media_type = sniff_media_type(head)
        if media_type is None:
            raise BadMediaError("the file is no MP4, MOV, WebM, Matroska, MPEG-TS, FLV, Ogg, MP3, AAC, WAV or FLAC")
        return media_type
