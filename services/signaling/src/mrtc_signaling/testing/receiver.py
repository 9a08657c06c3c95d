"""An app's server that takes webhooks, for tests."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import FastAPI, Request, Response
from mrtc_common.http import HttpServer
from mrtc_common.ports import free_port


class WebhookReceiver:
    """Listens on loopback.

    Attributes:
        status: what it answers.
        is_open: while it is not set, requests are read and not answered.
        asked: requests that came.
        got: headers and body of what it has taken (answered with 200), in order; `raw` among the headers is the body's
            text.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.status = 200
        self.is_open = asyncio.Event()
        self.is_open.set()
        self.asked = 0
        self.got: list[tuple[dict[str, str], dict[str, Any]]] = []
        self._server: HttpServer | None = None

    @property
    def url(self) -> str:
        """Where it takes them."""
        return f"http://127.0.0.1:{self.port}/hook"

    async def start(self) -> None:
        """Begins to listen."""
        app = FastAPI()

        @app.post("/hook")
        async def hook(request: Request) -> Response:
            return await self._take(request)

        self._server = HttpServer(app)
        await self._server.start("127.0.0.1", self.port)

    async def aclose(self) -> None:
        """Listens no more; `start` may be called again."""
        server, self._server = self._server, None
        if server is not None:
            await server.aclose()

    def types(self) -> list[str]:
        """Types of what it has taken."""
        return [body["type"] for _, body in self.got]

    async def _take(self, request: Request) -> Response:
        self.asked += 1
        raw = await request.body()
        await self.is_open.wait()
        if self.status == 200:
            self.got.append(({**request.headers, "raw": raw.decode()}, json.loads(raw)))
        headers = {"location": f"http://127.0.0.1:{self.port}/elsewhere"} if self.status == 307 else {}
        return Response(status_code=self.status, headers=headers)
