"""Turns what happened in a room into pushes for one participant, and the room into a snapshot."""

from __future__ import annotations

from collections.abc import Iterable

from mrtc.event.v1 import state_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import MrtcError

from .room_view import (
    CodecWanted,
    Event,
    Joined,
    Left,
    Published,
    RecordingUpdated,
    RoomClosed,
    RoomView,
    Unpublished,
    Updated,
    is_shown,
)
from .roster import Roster, told_reason
from .speakers import Speakers

Frame = client_pb2.ServerFrame


def push_for(event: Event, view: RoomView, own_id: str) -> Frame | None:
    """The push that tells participant `own_id` of an event; None if it is not to be told.

    Own joining and leaving are not pushed: the join reply and `Closing` tell them.
    """
    match event:
        case Joined(record):
            if record.participant.id == own_id or not is_shown(record):
                return None
            return Frame(participant_joined=client_pb2.ParticipantJoined(participant=record.participant))
        case Updated(record):
            if record.participant.id != own_id and not is_shown(record):
                return None
            return Frame(participant_updated=client_pb2.ParticipantUpdated(participant=record.participant))
        case Left(record, reason):
            if record.participant.id == own_id or not is_shown(record):
                return None
            left = client_pb2.ParticipantLeft(participant_id=record.participant.id, reason=told_reason(reason))
            return Frame(participant_left=left)
        case Published(record, is_visible_change, _):
            if not is_visible_change:
                return None
            return Frame(publication_updated=client_pb2.PublicationUpdated(publication=record.publication))
        case Unpublished(record):
            return Frame(
                publication_removed=client_pb2.PublicationRemoved(
                    publication_id=record.publication.id, participant_id=record.publication.participant_id
                )
            )
        case RecordingUpdated(recording_id, is_active):
            return Frame(recording_changed=client_pb2.RecordingChanged(recording_id=recording_id, is_active=is_active))
        case RoomClosed() | CodecWanted():
            return None


def snapshot(
    view: RoomView,
    *,
    room: str,
    own: state_pb2.ParticipantRecord,
    own_publications: Iterable[state_pb2.PublicationRecord],
    slots: Iterable[client_pb2.SlotMapping],
    last_message_seq: int,
    roster: Roster | None = None,
) -> client_pb2.RoomSnapshot:
    """The room as one participant sees it. Own records are taken as given: the view may not have them yet.

    Args:
        roster: lists no more listeners than it does; None: everybody.
    """
    own_id = own.participant.id
    others = [
        record.participant
        for name, record in view.participants.items()
        if is_shown(record) and name != own_id and (roster is None or roster.is_listed(name))
    ]
    published = [r.publication for r in view.publications.values() if r.publication.participant_id != own_id] + [
        r.publication for r in own_publications
    ]
    return client_pb2.RoomSnapshot(
        room=room,
        participants=[*others, own.participant],
        publications=published,
        slots=slots,
        last_message_seq=last_message_seq,
        recordings=[client_pb2.RecordingChanged(recording_id=i, is_active=True) for i in sorted(view.recordings)],
        unlisted_count=roster.unlisted_count(own_id) if roster is not None else 0,
    )


def speakers_push(speakers: Speakers) -> Frame:
    """Who speaks."""
    return Frame(
        speakers_changed=client_pb2.SpeakersChanged(
            speakers=[client_pb2.Speaker(participant_id=who, level=level) for who, level in speakers]
        )
    )


def is_addressed(message: state_pb2.RoomMessage, participant_id: str, identity: str) -> bool:
    """True if a text message is for this participant. Nobody gets what it sent itself, unless it names itself."""
    if message.to:
        return identity in message.to
    return message.participant_id != participant_id


def message_push(seq: int, message: state_pb2.RoomMessage) -> Frame:
    """A text message."""
    return Frame(
        message_received=client_pb2.MessageReceived(
            message_seq=seq,
            participant_id=message.participant_id,
            identity=message.identity,
            topic=message.topic,
            payload=message.payload,
            sent_at_ms=message.sent_at_ms,
            is_private=bool(message.to),
        )
    )


def error_body(error: MrtcError) -> client_pb2.Error:
    """An error as clients get it."""
    body = client_pb2.Error(code=error.code, message=error.message)
    if error.retry_after_ms is not None:
        body.retry_after_ms = error.retry_after_ms
    return body
