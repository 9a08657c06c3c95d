"""A session goes on at this instance: made anew of what is stored of it, and fenced against its former owner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mrtc.event.v1 import state_pb2
from mrtc_common import subjects
from mrtc_common.errors import SessionNotFoundError
from mrtc_common.log import get_logger

from mrtc_signaling.core.subscriptions import wanted_subscriptions
from mrtc_signaling.ports import AppLimits

from .context import Context
from .session import Session
from .sessions import Sessions
from .subscriber import Wanted

_log = get_logger(__name__)

Claim = Callable[[state_pb2.SessionRecord], Awaitable[int]]


async def take_over(
    ctx: Context,
    sessions: Sessions,
    record: state_pb2.SessionRecord,
    claim: Claim,
    *,
    is_headless: bool = False,
    wanted: Wanted = wanted_subscriptions,
) -> Session:
    """Makes this instance the owner of a session.

    Args:
        claim: writes the record, which names this instance now, by compare-and-set; returns the revision.

    Raises SessionNotFoundError if its participant is gone, and what `claim` raises; then nothing has changed here.
    """
    former_owner = record.owner_id
    hub = await ctx.hubs.acquire(record.room_key)
    try:
        participant = hub.view.participants.get(record.participant_id)
        if participant is None:
            raise SessionNotFoundError
        app_id, _ = subjects.parse_room_key(record.room_key)
        app = await ctx.apps.app(app_id)
        record.owner_id = ctx.instance_id
        record.is_connected = True
        revision = await claim(record)
        # The view's record is shared and never changed; the session owns a copy.
        own = state_pb2.ParticipantRecord()
        own.CopyFrom(participant)
        limits = app.limits if app else AppLimits()
        session = Session(ctx, sessions, hub, record, revision, own, limits, is_headless=is_headless, wanted=wanted)
        for publication in hub.view.publications_of(record.participant_id):
            session.publisher.publications[publication.publication.id] = publication
        if record.transport_id:
            session.leg.attach(record.node_id, record.transport_id, record.lines)
            if any(p.node_id != record.node_id for p in session.publisher.publications.values()):
                # Its former instance ended in the middle of a move, which nobody can finish now.
                session.leg.lose(with_node=False)
        session.replies.last_request_id = record.last_request_id
        await sessions.add(session)
    except BaseException:
        ctx.hubs.release(hub)
        raise
    _log.info("session taken over", session=record.session_id, former_owner=former_owner)
    return session
