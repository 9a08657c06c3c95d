"""Liveness and readiness: named checks, and the HTTP answers of them beside the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse

from .metrics import Metrics


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that the service needs. `detail` says what is missing, for people."""

    is_ok: bool
    detail: str = ""


class Health:
    """What the service needs in order to take new work; ready when all of it is there.

    Live means that the process makes progress: answering at all shows that its loop turns; `set_live` adds what only
    the service knows (for example a dead engine thread).
    """

    def __init__(self) -> None:
        self._checks: dict[str, Check] = {}
        self._live = Check(True)
        self._changed = asyncio.Event()

    @property
    def is_ready(self) -> bool:
        """True if new work can be taken."""
        return self._live.is_ok and all(check.is_ok for check in self._checks.values())

    @property
    def is_live(self) -> bool:
        """False if the process should be restarted."""
        return self._live.is_ok

    @property
    def checks(self) -> dict[str, Check]:
        """All checks by name."""
        return dict(self._checks)

    @property
    def missing(self) -> dict[str, str]:
        """What is missing: name and detail."""
        return {name: check.detail for name, check in self._checks.items() if not check.is_ok}

    def set(self, name: str, ok: bool, detail: str = "") -> None:
        """Sets a check; a name not yet known is added."""
        self._update(name, Check(ok, "" if ok else detail))

    def follow(self, name: str, detail: str) -> Callable[[bool], None]:
        """A listener that keeps a check equal to a boolean, for example for `NatsLink.on_change`."""
        return lambda ok: self.set(name, ok, detail)

    def set_live(self, ok: bool, detail: str = "") -> None:
        """Says that the process is beyond help, or not."""
        self._live = Check(ok, "" if ok else detail)
        self._notify()

    async def wait_change(self) -> None:
        """Waits until something changes."""
        await self._changed.wait()

    def as_json(self) -> dict[str, object]:
        """What `/readyz` answers."""
        return {
            "is_ready": self.is_ready,
            "is_live": self.is_live,
            "missing": self.missing,
            "checks": {name: check.is_ok for name, check in self._checks.items()},
        }

    def _update(self, name: str, check: Check) -> None:
        if self._checks.get(name) != check:
            self._checks[name] = check
            self._notify()

    def _notify(self) -> None:
        # Whoever waits now is woken; whoever comes later waits on a fresh event.
        self._changed.set()
        self._changed = asyncio.Event()


def health_router(health: Health, metrics: Metrics) -> APIRouter:
    """`/healthz`, `/readyz` and `/metrics`, to include in a FastAPI app."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> Response:
        return JSONResponse(health.as_json(), status_code=200 if health.is_live else 503)

    @router.get("/readyz")
    async def readyz() -> Response:
        return JSONResponse(health.as_json(), status_code=200 if health.is_ready else 503)

    @router.get("/metrics")
    async def metrics_text() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return router


def health_app(health: Health, metrics: Metrics) -> FastAPI:
    """An app of nothing else."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(health_router(health, metrics))
    return app
