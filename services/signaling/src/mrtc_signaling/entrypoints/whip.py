"""WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep) over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from mrtc.event.v1 import state_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import BadOfferError, TooLargeError

from mrtc_signaling.app.access import Authenticator
from mrtc_signaling.app.context import Context
from mrtc_signaling.app.http_resources import FRAGMENT_TYPE, HttpResources
from mrtc_signaling.app.http_sessions import HttpSessions
from mrtc_signaling.core import limits
from mrtc_signaling.errors import problem

from .bearer import bearer_token

Handler = Callable[..., Awaitable[Any]]

_SDP = "application/sdp"
_MAX_FRAGMENT_BYTES = 64 * 1024


class WhipDoor:
    """The routes of both; they differ in the direction of media only."""

    def __init__(
        self, sessions: HttpSessions, resources: HttpResources, authenticator: Authenticator, ctx: Context
    ) -> None:
        self._sessions = sessions
        self._resources = resources
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
            router.add_api_route(resource, self._resource(door, "PATCH"), methods=["PATCH"], name=f"{door}_patch")
            router.add_api_route(resource, self._resource(door, "DELETE"), methods=["DELETE"], name=f"{door}_end")
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
        if _content_type(request) != _SDP:
            return problem(415, "bad_request", f"the body must be {_SDP}", headers={"Accept-Post": _SDP})
        token, is_in_query = bearer_token(request, in_query=True)
        access = await self._authenticator.verify(token)
        access.room(room)
        try:
            offer = (await _body(request, limits.MAX_OFFER_BYTES)).decode("utf-8")
        except UnicodeDecodeError:
            raise BadOfferError("the body is not UTF-8 text") from None
        if not offer.startswith("v=0"):
            return problem(400, "bad_offer", "the body is not SDP: it must begin with `v=0`")
        if door == "whip":
            made = await self._sessions.publish(access, room, identity, offer, needs_token=not is_in_query)
        else:
            identity = identity or request.query_params.get("participant", "")
            made = await self._sessions.play(access, room, identity, offer, needs_token=not is_in_query)
        headers = {
            "Location": f"/{door}/{quote(room, safe='')}/{made.session.id}",
            "ETag": made.state.etag,
            "Accept-Patch": FRAGMENT_TYPE,
        }
        servers = self._ctx.options.ice_servers.of(made.session.id, self._ctx.clock.unix_ms())
        if servers:
            headers["Link"] = ", ".join(_link(url, server) for server in servers for url in server.urls)
        return Response(made.answer, status_code=201, media_type=_SDP, headers=headers)

    # PATCH, DELETE

    def _resource(self, door: str, method: str) -> Handler:
        async def handle(request: Request, room: str, session_id: str) -> Response:
            token, _ = bearer_token(request, in_query=True)
            asked = state_pb2.HttpResourceRequest(
                door=door,
                session_id=session_id,
                method=method,
                token=token,
                content_type=_content_type(request),
                if_match=request.headers.get("if-match", ""),
                body=await _body(request, _MAX_FRAGMENT_BYTES) if method == "PATCH" else b"",
            )
            return _rendered(await self._resources.handle(asked))

        return handle

    async def _options(self) -> Response:
        return Response(
            status_code=204,
            headers={"Accept-Post": _SDP, "Accept-Patch": FRAGMENT_TYPE, "Allow": "OPTIONS, POST, PATCH, DELETE"},
        )


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def _rendered(answer: state_pb2.HttpResourceResponse) -> Response:
    if answer.code:
        wait = answer.retry_after_ms if answer.HasField("retry_after_ms") else None
        return problem(answer.status, answer.code, answer.message, retry_after_ms=wait)
    headers = {"ETag": answer.etag} if answer.etag else {}
    if not answer.fragment:
        return Response(status_code=answer.status, headers=headers)
    return Response(answer.fragment, status_code=answer.status, media_type=FRAGMENT_TYPE, headers=headers)


def _accepts_sdp(request: Request) -> bool:
    accept = request.headers.get("accept", "*/*").lower()
    ranges = [part.split(";")[0].strip() for part in accept.split(",")]
    return any(part in (_SDP, "application/*", "*/*", "") for part in ranges)


async def _body(request: Request, max_bytes: int) -> bytes:
    """The body, read no further than allowed."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise TooLargeError(f"the body may have {max_bytes} bytes")
    received = bytearray()
    async for chunk in request.stream():
        received += chunk
        if len(received) > max_bytes:
            raise TooLargeError(f"the body may have {max_bytes} bytes")
    return bytes(received)


def _link(url: str, server: client_pb2.IceServer) -> str:
    """One `Link` value (RFC 9725 section 4.6)."""
    parts = [f'<{url}>; rel="ice-server"']
    if server.username:
        parts.append(f'username="{server.username}"')
        parts.append(f'credential="{server.credential}"')
        parts.append('credential-type="password"')
    return "; ".join(parts)
