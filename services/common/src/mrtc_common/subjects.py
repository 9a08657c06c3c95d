"""The only place that builds NATS subjects and KV keys, and takes them apart.

Names that apps choose (app id, room, identity) are written as lower-case base32hex without padding, so that any text
is one safe token. Ids that we choose (`ids.new_id`) are safe as they are.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from enum import StrEnum

from .errors import BadRequestError
from .ids import is_id

BUCKET_NODES = "mrtc_nodes"
BUCKET_ROOMS = "mrtc_rooms"
BUCKET_SESSIONS = "mrtc_sessions"
BUCKET_RECORDINGS = "mrtc_recordings"
BUCKET_VODS = "mrtc_vods"
BUCKET_LEASES = "mrtc_leases"
BUCKET_DRAINS = "mrtc_drains"

STREAM_MESSAGES = "MRTC_MESSAGES"
STREAM_JOBS = "MRTC_JOBS"
STREAM_EVENTS = "MRTC_EVENTS"
MESSAGES_WILDCARD = "mrtc.msg.>"
JOBS_WILDCARD = "mrtc.jobs.>"
NODE_EVENTS_WILDCARD = "mrtc.event.node.>"

JOB_RECORD = "mrtc.jobs.record"
JOB_VOD = "mrtc.jobs.vod"

MAX_NAME_BYTES = 128
"""Longest app id, room name or identity, in bytes of UTF-8."""

_VOD_SESSION = "vod-"
_TOKEN_RE = re.compile(r"[0-9a-v]+")


def encode_name(name: str) -> str:
    """A name as one token of `[0-9a-v]`. Raises BadRequestError if it is empty or too long."""
    raw = name.encode("utf-8", "surrogatepass")
    if not 1 <= len(raw) <= MAX_NAME_BYTES:
        raise BadRequestError(f"a name must have 1 to {MAX_NAME_BYTES} bytes, this one has {len(raw)}")
    return base64.b32hexencode(raw).decode("ascii").rstrip("=").lower()


def decode_name(token: str) -> str:
    """The name of a token. Raises BadRequestError."""
    if not _TOKEN_RE.fullmatch(token):
        raise BadRequestError("not a name token")
    padded = token.upper() + "=" * (-len(token) % 8)
    try:
        return base64.b32hexdecode(padded).decode("utf-8", "surrogatepass")
    except ValueError:
        raise BadRequestError("not a name token") from None


def _checked_id(value: str) -> str:
    if not is_id(value):
        raise BadRequestError("not an id")
    return value


# Rooms


def room_key(app_id: str, room: str) -> str:
    """`<app>.<room>`: names a room of an app in keys, subjects, gRPC and the engine."""
    return f"{encode_name(app_id)}.{encode_name(room)}"


def parse_room_key(key: str) -> tuple[str, str]:
    """(app id, room name) of a room key. Raises BadRequestError."""
    parts = key.split(".")
    if len(parts) != 2:
        raise BadRequestError("not a room key")
    return decode_name(parts[0]), decode_name(parts[1])


class RoomEntryKind(StrEnum):
    """What a key of bucket `mrtc_rooms` holds."""

    ROOM = "room"
    PARTICIPANT = "p"
    IDENTITY = "i"
    PUBLICATION = "pub"
    CODEC_WANT = "want"


@dataclass(frozen=True, slots=True)
class RoomEntryKey:
    """A key of bucket `mrtc_rooms`, taken apart. `id`: empty for the room's own record, the identity for identities."""

    room_key: str
    kind: RoomEntryKind
    id: str = ""


def room_record_key(room: str) -> str:
    """Key of `RoomRecord`; `room` is a room key, here and below."""
    return f"{room}.{RoomEntryKind.ROOM}"


def participant_key(room: str, participant_id: str) -> str:
    """Key of `ParticipantRecord`."""
    return f"{room}.{RoomEntryKind.PARTICIPANT}.{_checked_id(participant_id)}"


def identity_key(room: str, identity: str) -> str:
    """Key of `IdentityRecord`."""
    return f"{room}.{RoomEntryKind.IDENTITY}.{encode_name(identity)}"


def publication_key(room: str, publication_id: str) -> str:
    """Key of `PublicationRecord`."""
    return f"{room}.{RoomEntryKind.PUBLICATION}.{_checked_id(publication_id)}"


def codec_want_key(room: str, track_id: str) -> str:
    """Key of `CodecList`: further codecs in which a track is wanted."""
    return f"{room}.{RoomEntryKind.CODEC_WANT}.{_checked_id(track_id)}"


def room_filter(room: str) -> str:
    """Watch filter of everything of one room."""
    return f"{room}.>"


def app_filter(app_id: str) -> str:
    """Watch filter of everything of one app."""
    return f"{encode_name(app_id)}.>"


def app_rooms_filter(app_id: str) -> str:
    """Watch filter of the room records of one app."""
    return f"{encode_name(app_id)}.*.{RoomEntryKind.ROOM}"


def parse_room_entry(key: str) -> RoomEntryKey:
    """Takes a key of bucket `mrtc_rooms` apart. Raises BadRequestError."""
    parts = key.split(".")
    if len(parts) == 3 and parts[2] == RoomEntryKind.ROOM:
        return RoomEntryKey(f"{parts[0]}.{parts[1]}", RoomEntryKind.ROOM)
    if len(parts) != 4 or parts[2] not in set(RoomEntryKind) - {RoomEntryKind.ROOM}:
        raise BadRequestError("not a key of a room")
    kind = RoomEntryKind(parts[2])
    identifier = decode_name(parts[3]) if kind is RoomEntryKind.IDENTITY else parts[3]
    return RoomEntryKey(f"{parts[0]}.{parts[1]}", kind, identifier)


# Sessions


def session_key(session_id: str) -> str:
    """Key of `SessionRecord` in bucket `mrtc_sessions`."""
    return _checked_id(session_id)


def vod_session_id(vod_id: str) -> str:
    """Session id of the virtual participant of a vod."""
    return f"{_VOD_SESSION}{_checked_id(vod_id)}"


def is_vod_session(session_id: str) -> bool:
    """True if it is the session of a virtual participant."""
    return session_id.startswith(_VOD_SESSION)


def control_subject(session_id: str) -> str:
    """Where `SessionControl` orders for a session go."""
    return f"mrtc.ctl.{_checked_id(session_id)}"


def http_subject(instance_id: str) -> str:
    """Where a signaling instance is asked for its WHIP and WHEP sessions."""
    return f"mrtc.http.{_checked_id(instance_id)}"


# Messages, speakers, node events


def message_subject(room: str) -> str:
    """Where text messages of a room go (stream `MRTC_MESSAGES`)."""
    return f"mrtc.msg.{room}"


def speakers_subject(room: str) -> str:
    """Where nodes publish `NodeSpeakers` of a room."""
    return f"mrtc.speakers.{room}"


def node_event_subject(node_id: str) -> str:
    """Where `NodeDied` is published."""
    return f"mrtc.event.node.{_checked_id(node_id)}"


# Nodes, leases, jobs


def holder_subject(node_id: str) -> str:
    """Where a worker is asked whether it does the job of a key."""
    return f"mrtc.holder.{_checked_id(node_id)}"


def node_key(node_id: str) -> str:
    """Key of `Node` in bucket `mrtc_nodes`."""
    return _checked_id(node_id)


def drain_key(node_id: str) -> str:
    """Key in bucket `mrtc_drains` that exists while a node shall drain."""
    return _checked_id(node_id)


def lease_key(name: str) -> str:
    """Key of a lease in bucket `mrtc_leases`."""
    return _checked_id(name)


def presence_key(service: str, instance_id: str) -> str:
    """Key in bucket `mrtc_leases` that an instance of a service writes while it serves."""
    return f"{_checked_id(service)}.{_checked_id(instance_id)}"


def presence_filter(service: str) -> str:
    """Watch filter of the keys of all instances of a service."""
    return f"{_checked_id(service)}.*"


def recording_key(room: str, recording_id: str) -> str:
    """Key of `Recording` in bucket `mrtc_recordings`."""
    return f"{room}.{_checked_id(recording_id)}"


def vod_key(room: str, vod_id: str) -> str:
    """Key of `Vod` in bucket `mrtc_vods`."""
    return f"{room}.{_checked_id(vod_id)}"


def parse_job_key(key: str) -> tuple[str, str]:
    """(room key, recording or vod id) of a key of `mrtc_recordings` or `mrtc_vods`. Raises BadRequestError."""
    parts = key.split(".")
    if len(parts) != 3:
        raise BadRequestError("not a job key")
    return f"{parts[0]}.{parts[1]}", parts[2]
