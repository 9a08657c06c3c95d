"""PATCH and DELETE of WHIP and WHEP sessions, whichever instance they come to."""

from __future__ import annotations

import asyncio

from mrtc.event.v1 import state_pb2
from mrtc_common.errors import (
    BadOfferError,
    InternalError,
    MrtcError,
    PermissionDeniedError,
    SessionNotFoundError,
    UnavailableError,
)
from mrtc_common.ids import is_id
from mrtc_common.log import get_logger
from mrtc_common.tasks import end_tasks

from mrtc_signaling.ports import FencedError, Subscription

from .access import Access, Authenticator
from .context import Context
from .http_sessions import HttpSession, HttpSessions, PreconditionFailedError

_log = get_logger(__name__)

FRAGMENT_TYPE = "application/trickle-ice-sdpfrag"
_RETRY_S = 1.0
_TAKEOVER_MS = 500

Asked = state_pb2.HttpResourceRequest
Answer = state_pb2.HttpResourceResponse


class HttpResources:
    """Answers for the sessions of this instance, and asks the others for theirs."""

    def __init__(self, ctx: Context, sessions: HttpSessions, authenticator: Authenticator) -> None:
        self._ctx, self._sessions, self._authenticator = ctx, sessions, authenticator
        self._subscription: Subscription | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to answer other instances, as soon as there is a connection to them."""
        self._task = asyncio.create_task(self._listen(), name="http-resources")

    async def aclose(self) -> None:
        """Answers nobody any more."""
        await end_tasks(self._task)
        if self._subscription is not None:
            await self._subscription.aclose()

    async def handle(self, asked: Asked) -> Answer:
        """Does what a client asks of its session, here or where it is served. Raises MrtcError."""
        if self._sessions.has(asked.session_id):
            return await self._do(asked)
        found = await self._ctx.sessions.get(asked.session_id) if is_id(asked.session_id) else None
        if found is None or found[0].owner_id == self._ctx.instance_id:
            raise SessionNotFoundError("no such session, or it is over")
        answer = await self._ctx.bus.http(found[0].owner_id, asked)
        if answer is not None:
            return answer
        if not found[0].HasField("http"):
            raise SessionNotFoundError("no such session, or it is over")
        # Its instance is gone: the session goes on here.
        try:
            await self._sessions.adopt(*found)
        except FencedError:
            raise UnavailableError("the session is taken over just now", retry_after_ms=_TAKEOVER_MS) from None
        return await self._do(asked)

    async def _listen(self) -> None:
        while self._subscription is None:
            try:
                self._subscription = await self._ctx.bus.on_http(self._ctx.instance_id, self._answer)
            except UnavailableError:
                await asyncio.sleep(_RETRY_S)

    async def _answer(self, asked: Asked) -> Answer:
        try:
            return await self._do(asked)
        except MrtcError as error:
            refusal = _refusal(error.http_status, error.code_name(), error.message)
            if error.retry_after_ms is not None:
                refusal.retry_after_ms = error.retry_after_ms
            return refusal
        except Exception:
            _log.exception("a request of another instance failed")
            return _refusal(500, InternalError.code_name(), "internal error; the log has it")

    async def _do(self, asked: Asked) -> Answer:
        found = self._sessions.get(asked.door, asked.session_id)
        await self._check_access(asked.token, found)
        if asked.method == "DELETE":
            await self._sessions.end(found)
            return Answer(status=200)
        if asked.content_type != FRAGMENT_TYPE:
            return _refusal(415, "bad_request", f"the body must be {FRAGMENT_TYPE}")
        if not asked.if_match:
            text = "a PATCH needs `If-Match`: the ETag, or `*` for an ICE restart"
            return _refusal(428, "failed_precondition", text)
        try:
            fragment = await self._sessions.patch(found, asked.body.decode("utf-8"), asked.if_match)
        except PreconditionFailedError:
            return _refusal(412, "failed_precondition", "`If-Match` does not name the present ICE session")
        except UnicodeDecodeError:
            return _refusal(400, BadOfferError.code_name(), "the body is not UTF-8 text")
        except BadOfferError as error:
            return _refusal(400, error.code_name(), error.message)
        return Answer(status=204 if fragment is None else 200, etag=found.state.etag, fragment=fragment or "")

    async def _check_access(self, token: str, found: HttpSession) -> None:
        if not token and not found.state.needs_token:
            return
        access: Access = await self._authenticator.verify(token)
        session = found.session
        if access.app.id != session.hub.app_id:
            raise SessionNotFoundError  # of another app: for this caller it does not exist
        access.room(session.hub.room)
        is_owner = session.identity.split("~")[0] == (access.token.identity[:100] or "viewer")
        if not (is_owner or session.identity == access.token.identity or access.token.api or access.token.grants.admin):
            raise PermissionDeniedError("the session is of another identity")


def _refusal(status: int, code: str, message: str) -> Answer:
    return Answer(status=status, code=code, message=message)
