"""Health, metrics, and the nodes for people."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from google.protobuf.json_format import MessageToDict
from mrtc_common.auth import same_secret
from mrtc_common.errors import MrtcError, UnauthenticatedError
from mrtc_common.health import Health, health_router
from mrtc_common.metrics import Metrics

from mrtc_master.figures import kind_word
from mrtc_master.registry import Registry


def build_app(registry: Registry, health: Health, metrics: Metrics, cluster_secret: str) -> FastAPI:
    """The HTTP app; `/nodes` and `/load` need `Authorization: Bearer <cluster secret>`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(health_router(health, metrics))

    @app.exception_handler(MrtcError)
    async def on_error(_request: Request, error: MrtcError) -> Response:
        problem = {"title": error.message, "status": error.http_status, "code": error.code_name()}
        return JSONResponse(problem, status_code=error.http_status, media_type="application/problem+json")

    def check(request: Request) -> None:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not same_secret(secret, cluster_secret):
            raise UnauthenticatedError

    @app.get("/load")
    async def load(request: Request) -> Response:
        check(request)
        return JSONResponse({kind_word(kind): asdict(found) for kind, found in registry.loads().items()})

    @app.get("/nodes")
    async def nodes(request: Request) -> Response:
        check(request)
        listed = [
            MessageToDict(node, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
            for node in registry.all()
        ]
        return JSONResponse({"nodes": listed})

    return app
