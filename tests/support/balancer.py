"""A TCP load balancer, as clusters have one before signaling: the first server that takes a connection gets it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit


@contextlib.asynccontextmanager
async def balancer(urls: Sequence[str], listener: socket.socket | None = None) -> AsyncIterator[str]:
    """Serves inside the block; gives its base URL.

    Args:
        urls: of the servers, in the order in which they are tried.
        listener: where it serves; None: at a free port.
    """
    ports = [urlsplit(url).port for url in urls]
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # A cancelled handler would be reported as an error by the server.
        with contextlib.suppress(asyncio.CancelledError):
            await _pass_on(reader, writer, ports)
        writer.close()

    if listener is None:
        listener = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.start_server(serve, sock=listener)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ports: Sequence[int | None]) -> None:
    for port in ports:
        with contextlib.suppress(OSError):
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
            ways = [
                asyncio.create_task(_pipe(reader, server_writer)),
                asyncio.create_task(_pipe(server_reader, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                server_writer.close()
            return


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            target.write(data)
            await target.drain()
