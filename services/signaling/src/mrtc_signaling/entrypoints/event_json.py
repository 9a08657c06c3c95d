"""An app event as receivers of webhooks get it: the same shapes as in the REST API."""

from __future__ import annotations

import json
from typing import Any

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2

from mrtc_signaling.core.app_events import AppEvent
from mrtc_signaling.core.webhooks import RenderedEvent

from . import rest_models as m


def render_event(event: AppEvent) -> RenderedEvent:
    """See `docs/webhooks.md` for the form."""
    body = {
        "id": event.id,
        "type": event.type,
        "app": event.app_id,
        "room": event.room,
        "at_ms": event.at_ms,
        "data": _data(event),
    }
    text = json.dumps(body, separators=(",", ":"))
    return RenderedEvent(event.id, event.type, event.app_id, event.room, event.at_ms, text)


def _data(event: AppEvent) -> dict[str, Any]:
    match event.record:
        case state_pb2.RoomRecord() as room:
            return {"room": m.Room.of(room).model_dump()}
        case state_pb2.ParticipantRecord() as record:
            shown = m.Participant.of(record, []).model_dump(exclude={"publications", "node_id"})
            if event.type != "participant.left":
                return {"participant": shown}
            reason = common_pb2.LeaveReason.Name(record.leave_reason).removeprefix("LEAVE_REASON_").lower()
            return {"participant": shown, "reason": reason}
        case state_pb2.PublicationRecord() as record:
            publication = record.publication
            shown = m.Publication.of(publication).model_dump()
            return {"participant_id": publication.participant_id, "publication": shown}
        case recording_pb2.Recording() as recording:
            return {"recording": m.Recording.of(recording).model_dump()}
        case vod_pb2.Vod() as vod:
            return {"vod": m.Vod.of(vod).model_dump()}
        case _:
            return {}
