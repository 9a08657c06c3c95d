"""Events for the app's own servers, told from the stored writes of the state: these are the outbox.

An event follows from one write and nothing else. A write tells all that must have happened before it too (who leaves
had joined), so that nothing is missing when an earlier write was replaced before anybody read it; and an event's id
follows from what it tells of, so that what is told again is known.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import Message
from mrtc.event.v1 import state_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common import subjects
from mrtc_common.subjects import RoomEntryKind

EVENT_TYPES = (
    "room.started",
    "room.finished",
    "participant.joined",
    "participant.left",
    "publication.started",
    "publication.ended",
    "recording.started",
    "recording.ended",
    "recording.failed",
    "vod.started",
    "vod.ended",
    "vod.failed",
)


@dataclass(frozen=True, slots=True)
class StoredWrite:
    """A write of a key, as the bucket's stream keeps it.

    Attributes:
        payload: the value; of a deletion the last words of whoever deleted it, if any.
        at_ms: Unix time in milliseconds.
    """

    bucket: str
    key: str
    payload: bytes
    is_deletion: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class AppEvent:
    """Something that happened in an app's room; `record` is the state that it is about. `at_ms`: Unix milliseconds."""

    id: str
    type: str
    app_id: str
    room: str
    at_ms: int
    record: Message


def events_of(write: StoredWrite) -> list[AppEvent]:
    """What a write tells, in order; some of it may have been told by an earlier write.

    Raises BadRequestError or DecodeError for a write of another version of the suite that cannot be read.
    """
    match write.bucket:
        case subjects.BUCKET_ROOMS:
            return list(_of_room_entry(write))
        case subjects.BUCKET_RECORDINGS if not write.is_deletion:
            return list(_of_recording(recording_pb2.Recording.FromString(write.payload)))
        case subjects.BUCKET_VODS if not write.is_deletion:
            return list(_of_vod(vod_pb2.Vod.FromString(write.payload)))
        case _:
            return []


def _of_room_entry(write: StoredWrite) -> Iterator[AppEvent]:
    entry = subjects.parse_room_entry(write.key)
    if write.is_deletion and not write.payload:
        return
    record: Message
    match entry.kind:
        case RoomEntryKind.ROOM:
            record = room = state_pb2.RoomRecord.FromString(write.payload)
            began, ended, began_at_ms = "room.started", "room.finished", room.created_at_ms
            # A name may be used again: the time makes it another room.
            object_id = f"{entry.room_key}\0{room.created_at_ms}"
        case RoomEntryKind.PARTICIPANT:
            record = person = state_pb2.ParticipantRecord.FromString(write.payload)
            began, ended, began_at_ms = "participant.joined", "participant.left", person.participant.joined_at_ms
            object_id = entry.id
        case RoomEntryKind.PUBLICATION:
            record = offer = state_pb2.PublicationRecord.FromString(write.payload)
            began, ended, began_at_ms = "publication.started", "publication.ended", offer.published_at_ms
            object_id = entry.id
        case _:
            return
    app_id, room_name = subjects.parse_room_key(entry.room_key)
    yield _event(began, app_id, room_name, object_id, began_at_ms, record)
    if write.is_deletion:
        yield _event(ended, app_id, room_name, object_id, write.at_ms, record)


def _of_recording(record: recording_pb2.Recording) -> Iterator[AppEvent]:
    if record.started_at_ms:
        yield _of_job("recording.started", record, record.started_at_ms)
    if record.state == recording_pb2.RECORDING_STATE_COMPLETE:
        yield _of_job("recording.ended", record, record.ended_at_ms)
    elif record.state == recording_pb2.RECORDING_STATE_FAILED:
        yield _of_job("recording.failed", record, record.ended_at_ms)


def _of_vod(record: vod_pb2.Vod) -> Iterator[AppEvent]:
    if record.started_at_ms:
        yield _of_job("vod.started", record, record.started_at_ms)
    if record.state == vod_pb2.VOD_STATE_ENDED:
        yield _of_job("vod.ended", record, record.ended_at_ms)
    elif record.state == vod_pb2.VOD_STATE_FAILED:
        yield _of_job("vod.failed", record, record.ended_at_ms)


def _of_job(kind: str, record: recording_pb2.Recording | vod_pb2.Vod, at_ms: int) -> AppEvent:
    return _event(kind, record.app_id, record.room, record.id, at_ms, record)


def _event(kind: str, app_id: str, room: str, object_id: str, at_ms: int, record: Message) -> AppEvent:
    digest = hashlib.sha256(f"{kind}\0{app_id}\0{object_id}".encode("utf-8", "surrogatepass")).digest()
    event_id = "ev_" + base64.b32hexencode(digest[:15]).decode().lower()
    return AppEvent(event_id, kind, app_id, room, at_ms, record)
