"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import BadOfferError, PermissionDeniedError, SessionNotFoundError, TooLargeError

from mrtc_signaling.app.access import Access, Authenticator
from mrtc_signaling.app.context import Context
from mrtc_signaling.app.http_sessions import HttpSession, HttpSessions, PreconditionFailedError
from mrtc_signaling.core import limits
from mrtc_signaling.errors import problem

from .bearer import bearer_token

Handler = Callable[..., Awaitable[Any]]

_SDP = "application/sdp"
_FRAGMENT = "application/trickle-ice-sdpfrag"
_MAX_FRAGMENT_BYTES = 64 * 1024


class WhipDoor:
    """The routes of both; they differ in the direction of media only."""

    def __init__(self, sessions: HttpSessions, authenticator: Authenticator, ctx: Context) -> None:
        self._sessions = sessions
        self._authenticator = authenticator
        self._ctx = ctx

    def router(self) -> APIRouter:
        """`/whip/…` and `/whep/…`."""
        router = APIRouter(tags=["whip"])
        for door in ("whip", "whep"):
            for path in (f"/{door}/{{room}}", f"/{door}/{{room}}/{{identity}}"):
                router.add_api_route(
                    path, self._endpoint(door), methods=["POST"], name=f"{door}_start", status_code=201
                )
                router.add_api_route(path, self._options, methods=["OPTIONS"], include_in_schema=False)
            # The methods tell it from an endpoint with an identity.
            resource = f"/{door}/{{room}}/{{session_id}}"
            router.add_api_route(resource, self._resource(door, self._patch), methods=["PATCH"], name=f"{door}_patch")
            router.add_api_route(resource, self._resource(door, self._delete), methods=["DELETE"], name=f"{door}_end")
        return router

    # POST

    def _endpoint(self, door: str) -> Handler:
        async def start(request: Request, room: str, identity: str = "") -> Response:
            try:
                return await self._start(door, request, room, identity)
            except BadOfferError as error:
                # RFC 9725 section 4.4: an offer that cannot be served is 406.
                return problem(406, error.code_name(), error.message)

        return start

    async def _start(self, door: str, request: Request, room: str, identity: str) -> Response:
        if not _accepts_sdp(request):
            return problem(406, "bad_request", f"the answer is {_SDP}, which `Accept` does not allow")
        if (refusal := _check_type(request, _SDP)) is not None:
            return refusal
        token, is_in_query = bearer_token(request, in_query=True)
        access = await self._authenticator.verify(token)
        access.room(room)
        offer = await _body(request, limits.MAX_OFFER_BYTES)
        if not offer.startswith("v=0"):
            return problem(400, "bad_offer", "the body is not SDP: it must begin with `v=0`")
        if door == "whip":
            made = await self._sessions.publish(access, room, identity, offer)
        else:
            identity = identity or request.query_params.get("participant", "")
            made = await self._sessions.play(access, room, identity, offer)
        made.needs_token = not is_in_query
        headers = {
            "Location": f"/{door}/{quote(room, safe='')}/{made.session.id}",
            "ETag": made.etag,
            "Accept-Patch": _FRAGMENT,
        }
        servers = self._ctx.options.ice_servers.of(made.session.id, self._ctx.clock.unix_ms())
        if servers:
            headers["Link"] = ", ".join(_link(url, server) for server in servers for url in server.urls)
        return Response(made.answer, status_code=201, media_type=_SDP, headers=headers)

    # PATCH, DELETE

    def _resource(self, door: str, handler: Callable[[Request, HttpSession], Awaitable[Response]]) -> Handler:
        async def handle(request: Request, room: str, session_id: str) -> Response:
            found = self._sessions.get(door, session_id)
            await self._check_access(request, found)
            return await handler(request, found)

        return handle

    async def _check_access(self, request: Request, found: HttpSession) -> None:
        token, _ = bearer_token(request, in_query=True)
        if not token and not found.needs_token:
            return
        access: Access = await self._authenticator.verify(token)
        session = found.session
        if access.app.id != session.hub.app_id:
            raise SessionNotFoundError  # of another app: for this caller it does not exist
        access.room(session.hub.room)
        is_owner = session.identity.split("~")[0] == (access.token.identity[:100] or "viewer")
        if not (is_owner or session.identity == access.token.identity or access.token.api or access.token.grants.admin):
            raise PermissionDeniedError("the session is of another identity")

    async def _patch(self, request: Request, found: HttpSession) -> Response:
        if (refusal := _check_type(request, _FRAGMENT)) is not None:
            return refusal
        if_match = request.headers.get("if-match", "")
        if not if_match:
            return problem(428, "failed_precondition", "a PATCH needs `If-Match`: the ETag, or `*` for an ICE restart")
        body = await _body(request, _MAX_FRAGMENT_BYTES)
        try:
            fragment = await self._sessions.patch(found, body, if_match)
        except PreconditionFailedError:
            return problem(412, "failed_precondition", "`If-Match` does not name the present ICE session")
        except BadOfferError as error:
            return problem(400, error.code_name(), error.message)
        if fragment is None:
            return Response(status_code=204, headers={"ETag": found.etag})
        return Response(fragment, status_code=200, media_type=_FRAGMENT, headers={"ETag": found.etag})

    async def _delete(self, _request: Request, found: HttpSession) -> Response:
        await self._sessions.end(found)
        return Response(status_code=200)

    async def _options(self) -> Response:
        return Response(
            status_code=204,
            headers={"Accept-Post": _SDP, "Accept-Patch": _FRAGMENT, "Allow": "OPTIONS, POST, PATCH, DELETE"},
        )


def _check_type(request: Request, wanted: str) -> Response | None:
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if given == wanted:
        return None
    return problem(415, "bad_request", f"the body must be {wanted}", headers={"Accept-Post": _SDP})


def _accepts_sdp(request: Request) -> bool:
    accept = request.headers.get("accept", "*/*").lower()
    ranges = [part.split(";")[0].strip() for part in accept.split(",")]
    return any(part in (_SDP, "application/*", "*/*", "") for part in ranges)


async def _body(request: Request, max_bytes: int) -> str:
    """The body as text, read no further than allowed."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise TooLargeError(f"the body may have {max_bytes} bytes")
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > max_bytes:
            raise TooLargeError(f"the body may have {max_bytes} bytes")
    try:
        return received.decode("utf-8")
    except UnicodeDecodeError:
        raise BadOfferError("the body is not UTF-8 text") from None


def _link(url: str, server: client_pb2.IceServer) -> str:
    """One `Link` value (RFC 9725 section 4.6)."""
    parts = [f'<{url}>; rel="ice-server"']
    if server.username:
        parts.append(f'username="{server.username}"')
        parts.append(f'credential="{server.credential}"')
        parts.append('credential-type="password"')
    return "; ".join(parts)
