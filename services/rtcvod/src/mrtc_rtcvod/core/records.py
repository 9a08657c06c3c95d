"""The records of a vod and of the virtual participant that plays it."""

from __future__ import annotations

from dataclasses import dataclass

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common import subjects

Vod = vod_pb2.Vod

TERMINAL_STATES = frozenset({vod_pb2.VOD_STATE_ENDED, vod_pb2.VOD_STATE_FAILED})
VIDEO_CODECS = ("vp8", "h264")
"""Codecs in which a picture can be had, as it is or transcoded."""


@dataclass(frozen=True, slots=True)
class VodIds:
    """Ids of what a vod puts into its room.

    They follow from the vod's own id, so that a player that takes over from a dead one goes on as the same
    participant with the same publication, and nobody sees a leave.
    """

    participant: str
    session: str
    publication: str
    video: str
    audio: str
    alternative: str

    @classmethod
    def of(cls, vod_id: str) -> VodIds:
        """The ids of a vod."""
        return cls(
            participant=f"pa_{vod_id}",
            session=subjects.vod_session_id(vod_id),
            publication=f"pub_{vod_id}",
            video=f"tr_{vod_id}_v",
            audio=f"tr_{vod_id}_a",
            alternative=f"tr_{vod_id}_v2",
        )


@dataclass(frozen=True, slots=True)
class PlayedTracks:
    """What the file gives. Codecs are empty if there is no such track."""

    video_codec: str = ""
    width: int = 0
    height: int = 0
    audio_codec: str = ""
    alternative_codec: str = ""

    @property
    def further_codec(self) -> str:
        """The codec in which the picture can be had besides; empty if there is no picture."""
        return next((codec for codec in VIDEO_CODECS if codec != self.video_codec), "") if self.video_codec else ""


def claimed(vod: Vod) -> Vod:
    """The record once a player has the job."""
    return _copy(vod)


def playing(vod: Vod, participant_id: str, duration_us: int, now_ms: int) -> Vod:
    """The record once the participant is in the room."""
    result = _copy(vod)
    result.state = vod_pb2.VOD_STATE_PLAYING
    result.started_at_ms = result.started_at_ms or now_ms
    result.participant_id = participant_id
    result.duration_ms = max(0, duration_us) // 1000
    return result


def at_position(vod: Vod, position_us: int) -> Vod:
    """The record with what was played so far."""
    result = _copy(vod)
    result.position_ms = max(0, position_us) // 1000
    return result


def ended(vod: Vod, now_ms: int, error: str = "") -> Vod:
    """The record after the end: ended, or failed with a reason."""
    result = _copy(vod)
    result.error = error
    result.ended_at_ms = now_ms
    result.state = vod_pb2.VOD_STATE_FAILED if error else vod_pb2.VOD_STATE_ENDED
    return result


def participant_record(vod: Vod, ids: VodIds, node_id: str, now_ms: int) -> state_pb2.ParticipantRecord:
    """The virtual participant."""
    participant = common_pb2.Participant(
        id=ids.participant,
        identity=vod.identity,
        name=vod.name,
        kind=common_pb2.PARTICIPANT_KIND_VOD,
        joined_at_ms=now_ms,
        is_connected=True,
    )
    return state_pb2.ParticipantRecord(participant=participant, session_id=ids.session, node_id=node_id)


def session_record(vod: Vod, ids: VodIds, room_key: str, node_id: str) -> state_pb2.SessionRecord:
    """Its session: refreshed by the player, so that the participant is reaped when the player dies for good."""
    return state_pb2.SessionRecord(
        session_id=ids.session,
        room_key=room_key,
        participant_id=ids.participant,
        owner_id=node_id,
        is_connected=True,
        node_id=node_id,
        identity=vod.identity,
    )


def publication_record(
    vod: Vod, ids: VodIds, tracks: PlayedTracks, node_id: str, now_ms: int
) -> state_pb2.PublicationRecord:
    """What it publishes."""
    publication = common_pb2.Publication(id=ids.publication, participant_id=ids.participant, tag=vod.tag)
    record = state_pb2.PublicationRecord(
        publication=publication, node_id=node_id, published_at_ms=vod.started_at_ms or now_ms
    )
    if tracks.audio_codec:
        _add_track(record, ids.audio, common_pb2.TRACK_KIND_AUDIO, tracks.audio_codec)
    if tracks.video_codec:
        _add_track(record, ids.video, common_pb2.TRACK_KIND_VIDEO, tracks.video_codec, tracks)
        record.offered_codecs[ids.video].codecs.extend([tracks.video_codec, tracks.further_codec])
    if tracks.alternative_codec:
        track = _add_track(record, ids.alternative, common_pb2.TRACK_KIND_VIDEO, tracks.alternative_codec, tracks)
        track.alternative_of = ids.video
    return record


def muted_tracks(record: state_pb2.PublicationRecord) -> set[str]:
    """Tracks that somebody muted."""
    return {track.id for track in record.publication.tracks if track.is_muted}


def with_mutes(record: state_pb2.PublicationRecord, muted: set[str]) -> state_pb2.PublicationRecord:
    """The record with these tracks muted."""
    for track in record.publication.tracks:
        track.is_muted = track.id in muted
    return record


def _add_track(
    record: state_pb2.PublicationRecord,
    track_id: str,
    kind: common_pb2.TrackKind.ValueType,
    codec: str,
    size: PlayedTracks | None = None,
) -> common_pb2.Track:
    track = record.publication.tracks.add(id=track_id, kind=kind, source=common_pb2.TRACK_SOURCE_FILE, codec=codec)
    if size is not None and size.width:
        track.layers.add(width=size.width, height=size.height)
    return track


def _copy(vod: Vod) -> Vod:
    result = Vod()
    result.CopyFrom(vod)
    return result
