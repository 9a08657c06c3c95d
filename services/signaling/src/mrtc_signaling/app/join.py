"""A participant comes into a room: one round trip for the client, independent steps side by side here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common import subjects
from mrtc_common.errors import LimitExceededError, MrtcError, PermissionDeniedError, UnavailableError
from mrtc_common.ids import new_id
from mrtc_common.log import bound, get_logger
from mrtc_common.tasks import end_tasks

from mrtc_signaling.core import ids, limits, sdp
from mrtc_signaling.core.subscriptions import wanted_subscriptions

from .access import Access
from .connection import Connection
from .context import Context
from .removal import remove_participant
from .room_hub import RoomHub
from .session import Session
from .sessions import Sessions
from .subscriber import Wanted

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class JoinPlan:
    """What shall join.

    Args:
        publications: made from the hub once the room is known; WHIP derives them from the offer.
        is_headless: WHIP or WHEP: no connection.
        http: of WHIP and WHEP; in the session's record from its first version on.
        wanted: decides what is received; None: the usual.
    """

    access: Access
    room: str
    identity: str
    offer: str = ""
    publications: Sequence[client_pb2.NewPublication] = ()
    kind: common_pb2.ParticipantKind.ValueType = common_pb2.PARTICIPANT_KIND_STANDARD
    name: str = ""
    metadata: str = ""
    manual_subscribe: bool = False
    takes_participants_changed: bool = False
    is_headless: bool = False
    client_info: str = ""
    wanted: Wanted = wanted_subscriptions
    http: state_pb2.HttpSessionState | None = None


@dataclass(frozen=True, slots=True)
class Joined:
    """The session and what its client needs to know."""

    session: Session
    answer: str
    resume_token: str
    publications: list[common_pb2.Publication]


class Joiner:
    """Lets participants in."""

    def __init__(self, ctx: Context, sessions: Sessions) -> None:
        self._ctx = ctx
        self._sessions = sessions

    async def join(self, plan: JoinPlan, attach: Callable[[Joined], Connection | None]) -> Joined:
        """Joins; `attach` answers the client and gives its connection, in the moment in which the snapshot is true.

        Raises MrtcError; then nothing of it remains.
        """
        self._check(plan)
        room_key = subjects.room_key(plan.access.app.id, plan.room)
        hub = await self._ctx.hubs.acquire(room_key)
        session: Session | None = None
        try:
            await self._check_room(hub, plan)
            session, token = self._new_session(hub, plan)
            with bound(session=session.id, participant=session.participant_id, room=room_key):
                answer = await self._enter(session, plan)
                joined = Joined(
                    session, answer, token, [r.publication for r in session.publisher.publications.values()]
                )
                session.attach(attach(joined))
                session.subscriber.mark_dirty()
                _log.info("participant joined", kind=plan.kind, client=plan.client_info[:64])
                return joined
        except BaseException:
            if session is None:
                self._ctx.hubs.release(hub)
            else:
                self._sessions.end_soon(session, common_pb2.LEAVE_REASON_MEDIA_FAILURE)
            raise

    def _check(self, plan: JoinPlan) -> None:
        self._sessions.check_room_for_one()
        if self._sessions.is_shutting_down:
            raise UnavailableError("this server is going away", retry_after_ms=100)
        if plan.publications and not plan.access.token.grants.publish:
            raise PermissionDeniedError("the token does not permit to publish")
        if plan.publications and plan.access.token.hidden:
            raise PermissionDeniedError("a hidden participant cannot publish")
        limits.check_publications(plan.publications)

    async def _check_room(self, hub: RoomHub, plan: JoinPlan) -> None:
        # Others may have come a moment ago, by other instances.
        await hub.catch_up()
        app = plan.access.app
        record = hub.view.room or state_pb2.RoomRecord()
        limit = record.max_participants or app.limits.max_participants_per_room
        if limit and len(hub.view.participants) >= limit and hub.view.by_identity(plan.identity) is None:
            raise LimitExceededError(f"the room is full: it may have {limit} participants")

    def _new_session(self, hub: RoomHub, plan: JoinPlan) -> tuple[Session, str]:
        token = plan.access.token
        session_id, participant_id = new_id("se"), new_id("pa")
        resume_token = ids.new_resume_token(session_id)
        record = state_pb2.SessionRecord(
            session_id=session_id,
            room_key=hub.room_key,
            participant_id=participant_id,
            resume_token_hash=ids.hash_resume_token(resume_token),
            owner_id=self._ctx.instance_id,
            is_connected=True,
            manual_subscribe=plan.manual_subscribe,
            takes_participants_changed=plan.takes_participants_changed,
            expires_at_ms=token.expires_at * 1000,
            grants=state_pb2.Grants(
                can_publish=token.grants.publish,
                can_subscribe=token.grants.subscribe,
                can_send_messages=token.grants.message,
                is_admin=token.grants.admin,
                can_publish_data=token.grants.can_publish_data and not token.hidden,
            ),
            identity=plan.identity,
            joined_message_seq=hub.last_message_seq,
            caps=state_pb2.MediaCaps(**asdict(token.caps)),
            http=plan.http,
        )
        participant = state_pb2.ParticipantRecord(
            participant=common_pb2.Participant(
                id=participant_id,
                identity=plan.identity,
                name=plan.name or token.name,
                metadata=plan.metadata or token.metadata,
                kind=plan.kind,
                joined_at_ms=self._ctx.clock.unix_ms(),
                is_connected=True,
            ),
            session_id=session_id,
            is_hidden=token.hidden,
        )
        session = Session(
            self._ctx,
            self._sessions,
            hub,
            record,
            0,
            participant,
            plan.access.app.limits,
            is_headless=plan.is_headless,
            wanted=plan.wanted,
        )
        return session, resume_token

    async def _enter(self, session: Session, plan: JoinPlan) -> str:
        """Room, identity and transport side by side; then the participant is shown to the room."""
        results = await _together(
            self._open_media(session, plan),
            self._ensure_room(session, plan),
            self._take_identity(session),
            self._sessions.add(session),
        )
        answer: str = results[0]
        if answer:
            session.media_is_back()
        if session.is_headless:
            session.record.http.etag = sdp.ice_etag(answer)
        records = list(session.publisher.publications.values())
        await _together(
            self._write(session),
            self._ctx.rooms.put_participant(session.room_key, session.participant),
            session.publisher.write(records),
            self._first_subscriptions(session),
        )
        return answer

    async def _ensure_room(self, session: Session, plan: JoinPlan) -> None:
        if session.hub.view.room is None:
            app = plan.access.app
            await create_room(self._ctx, app.id, plan.room, app.limits.max_rooms)

    async def _open_media(self, session: Session, plan: JoinPlan) -> str:
        if not plan.offer:
            return ""
        limits.check_offer(plan.offer)
        answer = await session.leg.open(plan.offer, session.hub.view.media_nodes(), session.caps)
        await session.publisher.publish(plan.publications)
        return answer

    async def _take_identity(self, session: Session) -> None:
        """The newest wins: whoever had the identity is taken out."""
        former_id = await self._ctx.rooms.claim_identity(session.room_key, session.identity, session.participant_id)
        if not former_id or former_id == session.participant_id:
            return
        view = session.hub.view
        # The former one's record may not have reached this instance yet.
        await session.hub.wait_until(lambda v: former_id in v.participants, timeout_s=0.2)
        former = view.participants.get(former_id)
        if former is not None:
            publications = view.publications_of(former_id)
            reason = common_pb2.LEAVE_REASON_DUPLICATE_IDENTITY
            await remove_participant(self._ctx, session.room_key, former, publications, reason)

    async def _write(self, session: Session) -> None:
        session.sync_record()
        session.record.is_connected = True
        session.revision = await self._ctx.sessions.create(session.record)

    async def _first_subscriptions(self, session: Session) -> None:
        """Maps the room's tracks to slots; a slow relay must not hold up the answer."""
        if session.leg.is_open:
            with contextlib.suppress(TimeoutError, MrtcError):
                async with asyncio.timeout(self._ctx.options.first_slots_timeout_s):
                    await session.subscriber.apply()


async def create_room(
    ctx: Context,
    app_id: str,
    room: str,
    max_rooms: int,
    *,
    record: state_pb2.RoomRecord | None = None,
) -> state_pb2.RoomRecord:
    """Creates a room, or gives the one that exists. Raises LimitExceededError."""
    key = subjects.room_key(app_id, room)
    if max_rooms and await ctx.rooms.count_rooms(app_id) >= max_rooms:
        existing = await ctx.rooms.list_rooms(app_id)
        if len(existing) >= max_rooms and all(r.name != room for r in existing):
            raise LimitExceededError(f"the app may have {max_rooms} rooms")
    fresh = record or state_pb2.RoomRecord()
    fresh.app_id, fresh.name, fresh.created_at_ms = app_id, room, ctx.clock.unix_ms()
    fresh.empty_timeout_ms = fresh.empty_timeout_ms or round(ctx.options.empty_room_timeout_s * 1000)
    return await ctx.rooms.create_room(key, fresh)


async def _together(*steps: Coroutine[Any, Any, Any]) -> list[Any]:
    """Awaits steps side by side; when one fails the others are cancelled and have ended before it is raised."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        await end_tasks(*tasks)
        raise
