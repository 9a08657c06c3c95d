"""Runs the playing process of one vod."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from mrtc_rtcvod.errors import BadMediaError, PlayerError
from mrtc_rtcvod.play import wire
from mrtc_rtcvod.play.wire import MessageKind, Opened, PlayedFrame, PlayOptions

# A file on a slow share, probed by a busy machine.
_OPEN_TIMEOUT_S = 20.0


class PlayerProcess:
    """`FilePlayer` in a process of its own: a file that kills its decoder ends one vod, not all."""

    def __init__(self, options: PlayOptions) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    async def open(self) -> Opened:
        """See `FilePlayer`."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "mrtc_rtcvod.play", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        self._send(self._options.encode())
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                kind, body = await self._read()
        except TimeoutError:
            raise BadMediaError("the file takes too long to open") from None
        if kind is not MessageKind.OPENED:
            raise PlayerError("the player began with an unexpected message")
        return Opened.decode(body)

    async def frames(self) -> AsyncIterator[PlayedFrame]:
        """See `FilePlayer`."""
        while True:
            kind, body = await self._read()
            if kind is MessageKind.ENDED:
                return
            if kind is MessageKind.FRAME:
                yield PlayedFrame.decode(body)

    def request_keyframe(self, track: int) -> None:
        """See `FilePlayer`."""
        self._send(wire.keyframe_command(track))

    def add_alternative(self, codec: str) -> None:
        """See `FilePlayer`."""
        self._send(wire.alternative_command(codec))

    async def aclose(self) -> None:
        """See `FilePlayer`."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    async def _read(self) -> tuple[MessageKind, bytes]:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            header = await self._process.stdout.readexactly(wire.HEADER.size)
            length, kind = wire.parse_header(header)
            body = await self._process.stdout.readexactly(length)
        except (asyncio.IncompleteReadError, ValueError):
            raise PlayerError("the player died; the file may be crafted or need too much memory") from None
        if kind is MessageKind.FAILED:
            raise BadMediaError(body.decode("utf-8", "replace")[:500])
        return kind, body

    def _send(self, line: bytes) -> None:
        if self._process is None or self._process.stdin is None or self._process.stdin.is_closing():
            return
        with contextlib.suppress(OSError, RuntimeError):
            self._process.stdin.write(line)
