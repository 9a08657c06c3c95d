"""Takes a participant out of a room: records, session, transport. Idempotent, and possible from any instance."""

from __future__ import annotations

import asyncio

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2

from .context import Context
from .transport_leg import close_transport


async def remove_participant(
    ctx: Context,
    room_key: str,
    record: state_pb2.ParticipantRecord,
    publications: list[state_pb2.PublicationRecord],
    reason: common_pb2.LeaveReason.ValueType,
) -> None:
    """Removes a participant that any instance may serve; that one sees it in the room's changes and lets go.

    Publications go first, so that nobody is left with tracks of somebody who is gone. Raises UnavailableError.
    """
    await asyncio.gather(*(ctx.rooms.delete_publication(room_key, publication) for publication in publications))
    await asyncio.gather(
        ctx.rooms.delete_participant(room_key, record, reason),
        ctx.sessions.delete(record.session_id),
        close_transport(ctx, record.node_id, record.transport_id),
    )
