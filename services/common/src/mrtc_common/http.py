"""Runs an ASGI app in the service's own loop; signals stay the service's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

_TICK_S = 1.0


class _Server(uvicorn.Server):
    """Wakes up once a second, for the `Date` header, not ten times: a third of what an idle media node cost."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._end = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._end.wait(), _TICK_S)

    def end(self) -> None:
        """The server stops."""
        self.should_exit = True
        self._end.set()


class HttpServer:
    """A uvicorn server.

    Args:
        app: an ASGI app.
        options: further `uvicorn.Config` arguments, for example `ws_max_size`.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        defaults: dict[str, Any] = {
            "log_config": None,
            "access_log": False,
            "server_header": False,
            "timeout_graceful_shutdown": 2,
            "lifespan": "off",
        }
        self._server = _Server(uvicorn.Config(app, **(defaults | options)))
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, ip: str, port: int) -> int:
        """Listens; returns the port, which is chosen if `port` is 0. Raises OSError."""
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((ip, port))
        except OSError as error:
            listener.close()
            raise OSError(f"HTTP cannot listen on {ip}:{port}: {error.strerror}") from None
        self.port = int(listener.getsockname()[1])
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        while not self._server.started:
            if self._task.done():
                await self._task
                raise OSError("the HTTP server ended at its start")
            await asyncio.sleep(0.005)
        return self.port

    async def aclose(self) -> None:
        """Stops; running requests may end within two seconds."""
        task, self._task = self._task, None
        if task is not None:
            self._server.end()
            with contextlib.suppress(asyncio.CancelledError):
                await task
