"""A client goes on with its session after it lost the connection, on this instance or another."""

from __future__ import annotations

from collections.abc import Callable

from mrtc.event.v1 import state_pb2
from mrtc_common.errors import MrtcError, SessionNotFoundError, TransportNotFoundError, UnavailableError
from mrtc_common.ids import is_id
from mrtc_common.log import bound, get_logger

from mrtc_signaling.core import ids
from mrtc_signaling.ports import FencedError

from .connection import Connection
from .context import Context
from .session import Session
from .sessions import Sessions
from .takeover import take_over

_log = get_logger(__name__)


class Resumer:
    """Takes clients back."""

    def __init__(self, ctx: Context, sessions: Sessions) -> None:
        self._ctx = ctx
        self._sessions = sessions

    async def resume(self, resume_token: str, connection: Connection, answer: Callable[[Session], None]) -> Session:
        """Goes on with a session; `answer` replies in the moment in which the snapshot is true.

        Raises SessionNotFoundError for a token that is wrong or whose session is over: no difference is told.
        """
        if self._sessions.is_shutting_down:
            raise UnavailableError("this server is going away", retry_after_ms=100)
        session_id = ids.session_of_resume_token(resume_token)
        if not is_id(session_id):
            raise SessionNotFoundError
        session = self._sessions.get(session_id)
        if session is None:
            session = await self._take_over(session_id, resume_token)
        elif not ids.is_resume_token(resume_token, session.record.resume_token_hash):
            raise SessionNotFoundError
        with bound(session=session.id, participant=session.participant_id, room=session.room_key):
            former = session.connection
            session.attach(None)
            if former is not None:
                former.close(code=4000, text="the session was resumed by another connection")
            await self._refresh_slots(session)
            if session.is_ended:
                raise SessionNotFoundError
            answer(session)
            session.attach(connection)
            _log.info("session resumed", has_transport=session.leg.is_open)
            session.tell_again()
            await self._sessions.connected(session)
            return session

    async def _refresh_slots(self, session: Session) -> None:
        """A session taken over does not know its slots; the node does."""
        if not session.leg.is_open or session.subscriber.slots.current:
            return
        try:
            await session.subscriber.apply()
        except TransportNotFoundError:
            session.leg.lose(with_node=False)
        except MrtcError as error:
            _log.warning("slots not known at resume", error=error.message)
            session.subscriber.mark_dirty(force=True)

    async def _take_over(self, session_id: str, resume_token: str) -> Session:
        found = await self._ctx.sessions.get(session_id)
        if found is None or not ids.is_resume_token(resume_token, found[0].resume_token_hash):
            raise SessionNotFoundError
        record, revision = found

        async def claim(record: state_pb2.SessionRecord) -> int:
            return await self._fence(record, revision)

        return await take_over(self._ctx, self._sessions, record, claim)

    async def _fence(self, record: state_pb2.SessionRecord, revision: int) -> int:
        """Makes this instance the owner; the former one finds its revision outdated and lets go."""
        for _ in range(3):
            try:
                return await self._ctx.sessions.update(record, revision)
            except FencedError:
                # The former owner refreshed in this very moment.
                found = await self._ctx.sessions.get(record.session_id)
                if found is None:
                    raise SessionNotFoundError from None
                revision = found[1]
        raise UnavailableError("the session is being changed elsewhere", retry_after_ms=100)
