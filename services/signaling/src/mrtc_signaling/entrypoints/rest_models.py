"""Bodies of the REST API as OpenAPI shows them."""

from __future__ import annotations

import base64
from typing import Any, Literal
from urllib.parse import quote

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common.auth import MAX_CAP_BPS
from pydantic import BaseModel, ConfigDict, Field

from mrtc_signaling.app.rooms import file_name


class Body(BaseModel):
    """A request body; unknown fields are an error, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid")


class Problem(BaseModel):
    """A failure (RFC 9457); `code` is stable, see docs/errors.md."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    retry_after_ms: int | None = None


class CreateRoom(Body):
    """A room to be."""

    name: str = Field(min_length=1, max_length=128)
    metadata: str = Field("", max_length=4096, description="Opaque data of the app.")
    max_participants: int = Field(0, ge=0, le=1_000_000, description="0: the app's limit.")
    empty_timeout_s: int = Field(0, ge=0, le=86_400, description="An empty room is closed after this; 0: the default.")
    audio_top_n: int = Field(
        0, ge=0, le=256, description="Everybody hears at most so many others at a time, those who speak; 0: the app's."
    )


class Room(BaseModel):
    """A room."""

    name: str
    created_at_ms: int
    metadata: str
    max_participants: int
    empty_timeout_s: float
    audio_top_n: int

    @classmethod
    def of(cls, record: state_pb2.RoomRecord) -> Room:
        """From its record."""
        return cls(
            name=record.name,
            created_at_ms=record.created_at_ms,
            metadata=record.metadata,
            max_participants=record.max_participants,
            empty_timeout_s=record.empty_timeout_ms / 1000,
            audio_top_n=record.audio_top_n,
        )


class RoomList(BaseModel):
    """Rooms."""

    rooms: list[Room]


class Track(BaseModel):
    """A track."""

    id: str
    kind: str
    source: str
    codec: str
    is_muted: bool
    is_encrypted: bool
    alternative_of: str
    rids: list[str]
    max_bitrate_bps: int

    @classmethod
    def of(cls, track: common_pb2.Track) -> Track:
        """From the proto."""
        return cls(
            id=track.id,
            kind=_word(common_pb2.TrackKind.Name(track.kind), "TRACK_KIND_"),
            source=_word(common_pb2.TrackSource.Name(track.source), "TRACK_SOURCE_"),
            codec=track.codec,
            is_muted=track.is_muted,
            is_encrypted=track.is_encrypted,
            alternative_of=track.alternative_of,
            rids=[layer.rid for layer in track.layers],
            max_bitrate_bps=track.max_bitrate_bps,
        )


class Publication(BaseModel):
    """A publication."""

    id: str
    tag: str
    tracks: list[Track]

    @classmethod
    def of(cls, publication: common_pb2.Publication) -> Publication:
        """From the proto."""
        return cls(id=publication.id, tag=publication.tag, tracks=[Track.of(t) for t in publication.tracks])


class Participant(BaseModel):
    """A participant with what it publishes."""

    id: str
    identity: str
    name: str
    metadata: str
    kind: str
    joined_at_ms: int
    is_connected: bool
    is_hidden: bool
    node_id: str
    publications: list[Publication]

    @classmethod
    def of(cls, record: state_pb2.ParticipantRecord, publications: list[state_pb2.PublicationRecord]) -> Participant:
        """From its records."""
        seen = record.participant
        return cls(
            id=seen.id,
            identity=seen.identity,
            name=seen.name,
            metadata=seen.metadata,
            kind=_word(common_pb2.ParticipantKind.Name(seen.kind), "PARTICIPANT_KIND_"),
            joined_at_ms=seen.joined_at_ms,
            is_connected=seen.is_connected,
            is_hidden=record.is_hidden,
            node_id=record.node_id,
            publications=[Publication.of(p.publication) for p in publications],
        )


class ParticipantStats(BaseModel):
    """Figures of a participant's media."""

    id: str
    identity: str
    node_id: str
    # `Transport` of docs/stats.md; null without media, or if its node does not answer.
    transport: dict[str, Any] | None

    @classmethod
    def of(cls, record: state_pb2.ParticipantRecord, transport: dict[str, Any] | None) -> ParticipantStats:
        """From the record and what its node told."""
        about = record.participant
        return cls(id=about.id, identity=about.identity, node_id=record.node_id, transport=transport)


class RoomStats(BaseModel):
    """Figures of a room."""

    participants: list[ParticipantStats]


class ParticipantList(BaseModel):
    """Participants."""

    participants: list[Participant]


class RoomDetails(Room):
    """A room with who is in it."""

    participants: list[Participant]
    active_recordings: list[str]


class Mute(Body):
    """The wanted state of a track."""

    is_muted: bool


class Caps(Body):
    """What a participant may receive and send at most, in bit/s; 0: no cap of its own; left out: as it was."""

    max_egress_bps: int | None = Field(None, ge=0, le=MAX_CAP_BPS, description="What it is sent in all.")
    max_ingress_bps: int | None = Field(None, ge=0, le=MAX_CAP_BPS, description="What it sends in all.")
    max_track_bps: int | None = Field(None, ge=0, le=MAX_CAP_BPS, description="What each of its tracks sends.")

    def to_proto(self) -> state_pb2.MediaCaps:
        """As an order."""
        return state_pb2.MediaCaps(**self.model_dump(exclude_none=True))


class TrackCap(Body):
    """What a track may send at most, all layers together."""

    max_bitrate_bps: int = Field(ge=0, le=MAX_CAP_BPS, description="In bit/s; 0: no cap of its own.")


class Move(Body):
    """Where a participant's media is to go."""

    node: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9_-]*$", description="A media node; empty: any other.")


class SendMessage(Body):
    """A text message in the name of the app; exactly one of `text` and `payload_base64`."""

    text: str | None = Field(None, max_length=65_536)
    payload_base64: str | None = Field(None, max_length=90_000)
    topic: str = Field("", max_length=64)
    to: list[str] = Field([], max_length=100, description="Identities; empty: everybody.")

    def payload(self) -> bytes:
        """The bytes to send. Raises ValueError."""
        if (self.text is None) == (self.payload_base64 is None):
            raise ValueError("exactly one of `text` and `payload_base64` must be given")
        if self.text is not None:
            return self.text.encode()
        return base64.b64decode(self.payload_base64 or "", validate=True)


class MessageSent(BaseModel):
    """The message is stored."""

    message_seq: int


class StartRecording(Body):
    """A recording to be."""

    mode: Literal["mixed", "single"] = Field("mixed", description="mixed: one MP4 of the room; single: a file each.")
    width: int = Field(0, ge=0, le=3840, multiple_of=2)
    height: int = Field(0, ge=0, le=2160, multiple_of=2)
    fps: int = Field(0, ge=0, le=60)
    identities: list[str] = Field([], max_length=100, description="Only these participants; empty: all.")
    tag_prefix: str = Field("", max_length=256, description="Only publications whose tag begins so.")


class RecordingFile(BaseModel):
    """A file of a recording; `url` serves it, also while it grows."""

    name: str
    content_type: str
    size_bytes: int
    duration_ms: int
    offset_ms: int
    participant_identity: str
    publication_id: str
    url: str


class Recording(BaseModel):
    """A recording."""

    id: str
    room: str
    mode: str
    state: str
    is_stop_requested: bool
    started_at_ms: int
    ended_at_ms: int
    error: str
    files: list[RecordingFile]

    @classmethod
    def of(cls, recording: recording_pb2.Recording) -> Recording:
        """From the proto."""
        base = f"/v1/apps/{quote(recording.app_id, safe='')}/rooms/{quote(recording.room, safe='')}"
        return cls(
            id=recording.id,
            room=recording.room,
            mode=_word(recording_pb2.RecordingMode.Name(recording.mode), "RECORDING_MODE_"),
            state=_word(recording_pb2.RecordingState.Name(recording.state), "RECORDING_STATE_"),
            is_stop_requested=recording.is_stop_requested,
            started_at_ms=recording.started_at_ms,
            ended_at_ms=recording.ended_at_ms,
            error=recording.error,
            files=[
                RecordingFile(
                    name=file_name(file),
                    content_type=file.content_type,
                    size_bytes=file.size_bytes,
                    duration_ms=file.duration_ms,
                    offset_ms=file.offset_ms,
                    participant_identity=file.participant_identity,
                    publication_id=file.publication_id,
                    url=f"{base}/recordings/{recording.id}/files/{quote(file_name(file), safe='')}",
                )
                for file in recording.files
            ],
        )


class RecordingList(BaseModel):
    """Recordings."""

    recordings: list[Recording]


class MediaFile(BaseModel):
    """A media file that can be played into rooms."""

    name: str
    size_bytes: int
    modified_at_ms: int
    content_type: str = ""


class MediaList(BaseModel):
    """Media files."""

    media: list[MediaFile]


class StartVod(Body):
    """A media file to be played into a room."""

    media: str = Field(min_length=1, max_length=200, description="Name of an uploaded media file.")
    identity: str = Field("", max_length=128, description="Of the virtual participant; empty: made up.")
    name: str = Field("", max_length=256)
    tag: str = Field("", max_length=256)
    is_loop: bool = Field(False, description="Start again at the end.")


class Vod(BaseModel):
    """A media file that is, or was, played into a room."""

    id: str
    room: str
    media: str
    identity: str
    name: str
    tag: str
    state: str
    is_loop: bool
    is_stop_requested: bool
    duration_ms: int
    position_ms: int
    participant_id: str
    error: str

    @classmethod
    def of(cls, vod: vod_pb2.Vod) -> Vod:
        """From the proto."""
        return cls(
            id=vod.id,
            room=vod.room,
            media=vod.media_key,
            identity=vod.identity,
            name=vod.name,
            tag=vod.tag,
            state=_word(vod_pb2.VodState.Name(vod.state), "VOD_STATE_"),
            is_loop=vod.is_loop,
            is_stop_requested=vod.is_stop_requested,
            duration_ms=vod.duration_ms,
            position_ms=vod.position_ms,
            participant_id=vod.participant_id,
            error=vod.error,
        )


class VodList(BaseModel):
    """Vods."""

    vods: list[Vod]


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
