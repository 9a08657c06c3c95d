"""The ASGI app: all doors, CORS, problem documents, the demo page."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from mrtc_common.auth import AccessToken, TokenGrants, mint_token
from mrtc_common.errors import InternalError, MrtcError, TooLargeError, UnavailableError
from mrtc_common.health import Health, health_router
from mrtc_common.ids import new_id
from mrtc_common.log import get_logger
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount

from mrtc_signaling import __version__
from mrtc_signaling.app.access import Authenticator
from mrtc_signaling.app.http_resources import HttpResources
from mrtc_signaling.app.http_sessions import HttpSessions
from mrtc_signaling.app.rooms import Rooms
from mrtc_signaling.app.webhooks import Webhooks
from mrtc_signaling.config import SignalingSettings
from mrtc_signaling.errors import problem, problem_of
from mrtc_signaling.metrics import SignalingMetrics
from mrtc_signaling.ports import AppKeys

from .rest import make_rest_router
from .rest_webhooks import make_webhook_router
from .websocket import WebSocketDoor
from .whip import WhipDoor

_log = get_logger(__name__)

DEMO_APP = "demo"
_DEMO_TTL_S = 12 * 3600
_API_PREFIXES = ("/v1/", "/whip/", "/whep/", "/demo/")
_MAX_JSON_BODY_BYTES = 256 * 1024


def make_http_app(
    *,
    settings: SignalingSettings,
    health: Health,
    metrics: SignalingMetrics,
    authenticator: Authenticator,
    websocket: WebSocketDoor,
    rooms: Rooms,
    http_sessions: HttpSessions,
    http_resources: HttpResources,
    apps: AppKeys,
    webhooks: Webhooks,
) -> FastAPI:
    """Puts the doors together."""
    app = FastAPI(
        title="MRTC signaling",
        version=__version__,
        summary="Rooms, participants, recordings and played files; WHIP and WHEP.",
        docs_url="/docs",
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    _handle_errors(app)
    _count(app, metrics)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=settings.cors_origins,
        allow_methods=["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
        allow_headers=["Authorization", "Content-Type", "If-Match", "Range"],
        expose_headers=["Location", "ETag", "Link", "Accept-Patch", "Accept-Post", "Retry-After", "Content-Range"],
        max_age=3600,
    )
    app.include_router(health_router(health, metrics.metrics))
    app.include_router(websocket.router())
    app.include_router(make_rest_router(rooms, authenticator, settings.max_upload_bytes))
    app.include_router(make_webhook_router(webhooks, authenticator))
    app.include_router(WhipDoor(http_sessions, http_resources, authenticator, websocket.ctx).router())
    if settings.demo:
        app.include_router(_demo_router(apps))
    if settings.static_dir is not None and settings.static_dir.is_dir():
        page = StaticFiles(directory=settings.static_dir, html=True)
        app.router.routes.append(_PageMount("/", page, name="page"))
    return app


class _PageMount(Mount):
    """The page, everywhere but below the API: there a wrong method must stay 405 and not become a missing file."""

    def matches(self, scope: Any) -> tuple[Match, Any]:
        if scope["type"] != "http" or scope["path"].startswith(_API_PREFIXES):
            return Match.NONE, {}
        return super().matches(scope)


def _handle_errors(app: FastAPI) -> None:
    @app.exception_handler(MrtcError)
    async def on_mrtc_error(_request: Request, error: MrtcError) -> Response:
        return problem_of(error)

    @app.exception_handler(RequestValidationError)
    async def on_bad_body(_request: Request, error: RequestValidationError) -> Response:
        # What was sent is not repeated: it may be a secret at the wrong place.
        places = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5]]
        return problem(400, "bad_request", "; ".join(places))

    @app.exception_handler(HTTPException)
    async def on_http_error(_request: Request, error: HTTPException) -> Response:
        code = {404: "not_found", 405: "bad_request"}.get(error.status_code, "bad_request")
        return problem(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(Exception)
    async def on_fault(_request: Request, error: Exception) -> Response:
        request = new_id("rq")
        _log.error("a request failed", request=request, exc_info=error)
        return problem_of(InternalError(f"internal error; the log has it under {request}"))


class _Counting:
    """Counts requests by route and status; plain ASGI, since streams must pass through untouched."""

    def __init__(self, app: Any, metrics: SignalingMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def counting_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "other")
                self._metrics.http_requests.labels(route, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counting_send)


class _BodyLimit:
    """Refuses bodies that are larger than any of this API; uploads and SDP are limited where they are read."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not _is_json_route(scope["path"]):
            await self._app(scope, receive, send)
            return
        error = TooLargeError(f"a body may have {_MAX_JSON_BODY_BYTES} bytes")
        declared = dict(scope["headers"]).get(b"content-length", b"")
        if declared.isdigit() and int(declared) > _MAX_JSON_BODY_BYTES:
            await problem_of(error)(scope, receive, send)
            return
        received = 0

        async def limited_receive() -> Any:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > _MAX_JSON_BODY_BYTES:
                raise error
            return message

        await self._app(scope, limited_receive, send)


def _is_json_route(path: str) -> bool:
    return path.startswith("/v1/") and "/media/" not in path


def _count(app: FastAPI, metrics: SignalingMetrics) -> None:
    app.add_middleware(_BodyLimit)
    app.add_middleware(_Counting, metrics=metrics)


def _demo_router(apps: AppKeys) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/demo/token")
    async def demo_token(room: str, identity: str, name: str = "", hidden: bool = False) -> dict[str, object]:
        """A token of the demo app for anybody who asks; only where the setting `demo` is on."""
        key = await apps.any_key(DEMO_APP)
        if key is None:
            raise UnavailableError("the demo app is not there yet")
        key_id, secret = key
        token = AccessToken(
            app_id=DEMO_APP,
            key_id=key_id,
            identity=identity,
            room=room,
            name=name,
            grants=TokenGrants(admin=True),
            hidden=hidden,
        )
        text = mint_token(token, secret, ttl_s=_DEMO_TTL_S)
        return {"token": text, "app": DEMO_APP, "room": room, "expires_at": int(time.time()) + _DEMO_TTL_S}

    return router
