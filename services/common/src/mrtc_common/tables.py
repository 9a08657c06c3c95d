"""The suite's KV tables with their value types."""

from __future__ import annotations

from mrtc.event.v1 import state_pb2
from mrtc.node.v1 import master_service_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2

from . import subjects
from .kv import KvTable
from .nats import NatsLink
from .subjects import RoomEntryKind

RoomValue = (
    state_pb2.RoomRecord
    | state_pb2.ParticipantRecord
    | state_pb2.IdentityRecord
    | state_pb2.PublicationRecord
    | state_pb2.CodecList
)

_ROOM_TYPES: dict[RoomEntryKind, type[RoomValue]] = {
    RoomEntryKind.ROOM: state_pb2.RoomRecord,
    RoomEntryKind.PARTICIPANT: state_pb2.ParticipantRecord,
    RoomEntryKind.IDENTITY: state_pb2.IdentityRecord,
    RoomEntryKind.PUBLICATION: state_pb2.PublicationRecord,
    RoomEntryKind.CODEC_WANT: state_pb2.CodecList,
}


def decode_room_value(key: str, payload: bytes) -> RoomValue:
    """The record of a key of bucket `mrtc_rooms`. Raises BadRequestError, DecodeError."""
    return _ROOM_TYPES[subjects.parse_room_entry(key).kind].FromString(payload)


def rooms(link: NatsLink) -> KvTable[RoomValue]:
    """Room state: records of several types, told apart by `subjects.parse_room_entry(key).kind` or isinstance."""
    return KvTable(link, subjects.BUCKET_ROOMS, decode_room_value)


def sessions(link: NatsLink) -> KvTable[state_pb2.SessionRecord]:
    """Sessions; expire after the grace time unless written again."""
    return KvTable(link, subjects.BUCKET_SESSIONS, state_pb2.SessionRecord)


def nodes(link: NatsLink) -> KvTable[master_service_pb2.Node]:
    """Heartbeats of media nodes; expire."""
    return KvTable(link, subjects.BUCKET_NODES, master_service_pb2.Node)


def recordings(link: NatsLink) -> KvTable[recording_pb2.Recording]:
    """Recordings."""
    return KvTable(link, subjects.BUCKET_RECORDINGS, recording_pb2.Recording)


def vods(link: NatsLink) -> KvTable[vod_pb2.Vod]:
    """Vods."""
    return KvTable(link, subjects.BUCKET_VODS, vod_pb2.Vod)


def leases(link: NatsLink) -> KvTable[master_service_pb2.Node]:
    """Leases, and who serves; the value's `id` is the holder. Expire."""
    return KvTable(link, subjects.BUCKET_LEASES, master_service_pb2.Node)


def drains(link: NatsLink) -> KvTable[master_service_pb2.Node]:
    """Nodes that shall drain; the value's `id` is the node."""
    return KvTable(link, subjects.BUCKET_DRAINS, master_service_pb2.Node)
