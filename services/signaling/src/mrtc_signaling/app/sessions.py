"""The sessions that this instance serves: kept alive in the store, ended, handed over at shutdown."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from typing import Any

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc_common.errors import LimitExceededError, MrtcError, UnavailableError
from mrtc_common.log import bound, get_logger
from mrtc_common.tasks import end_tasks

from mrtc_signaling.ports import FencedError, Subscription

from .connection import Connection
from .context import Context
from .removal import remove_participant
from .session import Session
from .transport_leg import close_transport

_log = get_logger(__name__)

_TICK_S = 0.5
# Three tries fit into one TTL.
_REFRESHES_PER_TTL = 3.0
_SAVE_DELAY_S = 0.3
_END_LOCK_TIMEOUT_S = 4.0


class Sessions:
    """All sessions of this instance, by id."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._by_id: dict[str, Session] = {}
        self._controls: dict[str, Subscription] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsaved: set[str] = set()
        self._ticker: asyncio.Task[None] | None = None
        self.is_shutting_down = False

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._by_id.values()))

    def start(self) -> None:
        """Begins to keep the sessions alive."""
        self._ticker = asyncio.create_task(self._run(), name="session-ticker")

    def get(self, session_id: str) -> Session | None:
        """A session served here."""
        return self._by_id.get(session_id)

    def check_room_for_one(self) -> None:
        """Raises LimitExceededError if this instance is full."""
        if len(self._by_id) >= self._ctx.options.max_sessions:
            raise LimitExceededError("this server has no room for further sessions", retry_after_ms=1000)

    async def add(self, session: Session) -> None:
        """Takes a session in. Raises UnavailableError."""
        self._controls[session.id] = await self._ctx.bus.on_control(session.id, session.on_control)
        self._by_id[session.id] = session
        self._count(session, 1)

    # See session.SessionOwner

    def end_soon(self, session: Session, reason: common_pb2.LeaveReason.ValueType) -> None:
        """Ends a session in the background."""
        if not session.is_ended:
            self._spawn(self.end(session, reason))

    def save_soon(self, session: Session) -> None:
        """Writes the session's record in the background; calls within a moment become one write."""
        if session.id in self._unsaved:
            return
        self._unsaved.add(session.id)

        async def save() -> None:
            await asyncio.sleep(_SAVE_DELAY_S)
            self._unsaved.discard(session.id)
            await self.save(session)

        self._spawn(save())

    async def assure(self, session: Session) -> None:
        """By a write, which fails where another instance has written; then the session is let go of."""
        async with session.save_lock:
            try:
                await self._update(session)
            except FencedError:
                await self._settle_conflict(session)
                raise UnavailableError("the session's record was not as it was left") from None

    # Life cycle

    async def end(self, session: Session, reason: common_pb2.LeaveReason.ValueType) -> None:
        """Ends a session: the client is told, the room is told, records and transport go. Never raises."""
        if session.is_ended:
            return
        with bound(session=session.id, participant=session.participant_id, room=session.room_key):
            _log.info("session ended", reason=_reason_name(reason))
            self._let_go(session)
            self._ctx.metrics.sessions_ended.labels(_reason_name(reason)).inc()
            connection, session.connection = session.connection, None
            if connection is not None:
                if reason == common_pb2.LEAVE_REASON_CLIENT_REQUEST:
                    connection.close()
                else:
                    connection.close(reason)
            session.participant.node_id, session.participant.transport_id = (
                session.leg.node_id,
                session.leg.transport_id,
            )
            session.leg.detach()
            for node_id, transport_id in session.mover.take_left():
                self._spawn(close_transport(self._ctx, node_id, transport_id))
            # A request under way may still write; what it wrote must not outlive the participant.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_END_LOCK_TIMEOUT_S), session.request_lock:
                    pass
            publications = list(session.publisher.publications.values())
            await self._remove(session, publications, reason)

    async def disconnected(self, session: Session, connection: Connection) -> None:
        """A connection was lost: the session waits for its client to resume."""
        if not session.detach(connection) or session.is_ended:
            return
        with bound(session=session.id, participant=session.participant_id, room=session.room_key):
            _log.info("connection lost", grace_s=self._ctx.options.grace_s)
            session.grace_ends_at = self._ctx.clock.monotonic() + self._ctx.options.grace_s
            session.participant.participant.is_connected = False
            await self._write(session)

    async def connected(self, session: Session) -> None:
        """A client resumed: others see it connected again."""
        if not session.participant.participant.is_connected:
            session.participant.participant.is_connected = True
            await self._write(session)

    async def save(self, session: Session) -> None:
        """Writes the session's record, which also keeps it alive. Never raises."""
        async with session.save_lock:
            if session.is_ended:
                return
            try:
                await self._update(session)
            except FencedError:
                await self._settle_conflict(session)
            except MrtcError as error:
                _log.warning("session not refreshed, trying on", session=session.id, error=error.message)

    def forget(self, session: Session) -> None:
        """Lets go of a session that another instance serves now. Nobody is told: it goes on there."""
        if session.is_ended:
            return
        _log.info("session taken over elsewhere", session=session.id)
        self._let_go(session)
        session.leg.detach()
        if session.connection is not None:
            session.connection.close()
            session.connection = None

    async def shut_down(self) -> None:
        """Tells all clients to resume elsewhere and leaves their sessions alive for the grace time."""
        self.is_shutting_down = True
        sessions = list(self._by_id.values())
        for session in sessions:
            if session.connection is not None:
                session.connection.close(common_pb2.LEAVE_REASON_SERVER_SHUTDOWN, can_resume=True, code=1012)
        await asyncio.gather(*(self.save(session) for session in sessions))
        for session in sessions:
            self._let_go(session)
            session.leg.detach()
        await end_tasks(self._ticker)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Inside

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            try:
                self._tick()
            except Exception:
                _log.exception("the session ticker failed")

    def _tick(self) -> None:
        now = self._ctx.clock.monotonic()
        options = self._ctx.options
        for session in list(self._by_id.values()):
            if session.grace_ends_at is not None and now >= session.grace_ends_at:
                self.end_soon(session, common_pb2.LEAVE_REASON_CONNECTION_LOST)
            elif session.media_lost_at is not None and now - session.media_lost_at >= options.media_loss_timeout_s:
                self.end_soon(session, common_pb2.LEAVE_REASON_MEDIA_FAILURE)
            elif now - session.refreshed_at >= options.grace_s / _REFRESHES_PER_TTL:
                session.refreshed_at = now
                self._spawn(self.save(session))
        self._ctx.metrics.rooms.set(len(self._ctx.hubs))

    async def _write(self, session: Session) -> None:
        if session.is_ended:
            return
        with contextlib.suppress(MrtcError):
            await self._ctx.rooms.put_participant(session.room_key, session.participant)
        await self.save(session)

    async def _update(self, session: Session) -> None:
        session.sync_record()
        session.revision = await self._ctx.sessions.update(session.record, session.revision)
        session.refreshed_at = self._ctx.clock.monotonic()

    async def _settle_conflict(self, session: Session) -> None:
        """The record is not as this instance left it: taken over, expired during an outage, or an unheard reply."""
        try:
            found = await self._ctx.sessions.get(session.id)
            if found is None:
                session.revision = await self._ctx.sessions.create(session.record)
                _log.warning("session record had expired and was written again", session=session.id)
            elif found[0].owner_id == self._ctx.instance_id:
                session.revision = found[1]
            else:
                self.forget(session)
        except FencedError:
            self.forget(session)
        except MrtcError as error:
            _log.warning("session not refreshed, trying on", session=session.id, error=error.message)

    async def _remove(
        self,
        session: Session,
        publications: list[state_pb2.PublicationRecord],
        reason: common_pb2.LeaveReason.ValueType,
    ) -> None:
        for delay in (0.2, 1.0, 3.0, None):
            try:
                await remove_participant(
                    self._ctx,
                    session.room_key,
                    session.participant,
                    publications,
                    reason,
                )
                return
            except MrtcError as error:
                if delay is None:
                    # The record expires and the master reaps the rest.
                    _log.warning("a session's records could not be removed", error=error.message)
                    return
                await asyncio.sleep(delay)

    def _let_go(self, session: Session) -> None:
        session.stop()
        if self._by_id.pop(session.id, None) is not None:
            self._count(session, -1)
        if control := self._controls.pop(session.id, None):
            self._spawn(control.aclose())
        self._ctx.hubs.release(session.hub)

    def _count(self, session: Session, change: int) -> None:
        self._ctx.metrics.sessions.labels("http" if session.is_headless else "websocket").inc(change)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _reason_name(reason: common_pb2.LeaveReason.ValueType) -> str:
    return common_pb2.LeaveReason.Name(reason).removeprefix("LEAVE_REASON_").lower()
