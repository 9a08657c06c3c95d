"""A client of the protocol that keeps everything it was told, for tests to look at."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Self

import websockets
from google.protobuf import json_format
from mrtc.signaling.v1 import client_pb2 as pb
from websockets.asyncio.client import ClientConnection, connect

_TIMEOUT_S = 30.0  # a machine may be busy
_BEAT_INTERVAL_S = 5.0


class ClientClosedError(Exception):
    """The server closed the connection."""


class RefusedError(Exception):
    """A join was refused, and not for a moment only."""


class Client:
    """One connection.

    Args:
        url: `http://…` base of the service.
        json: use the JSON subprotocol.
        is_mute: it never says that it is there.
    """

    def __init__(self, url: str, *, json: bool = False, is_mute: bool = False) -> None:
        self._url = url.replace("http", "ws", 1) + "/v1/connect"
        self._json = json
        self._is_mute = is_mute
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._replies: dict[int, asyncio.Future[pb.ServerFrame]] = {}
        self._arrived = asyncio.Condition()
        self.next_id = 1
        self.pushes: list[pb.ServerFrame] = []
        self.joined = pb.JoinResponse()
        self.close_code: int | None = None

    async def open(self) -> Self:
        """Connects."""
        subprotocol = websockets.Subprotocol("mrtc.v1.json" if self._json else "mrtc.v1.proto")
        self._socket = await connect(self._url, subprotocols=[subprotocol], max_size=None, proxy=None)
        self._reader = asyncio.create_task(self._read())
        return self

    async def join(self, token: str, **fields: Any) -> pb.JoinResponse:
        """Connects if needed, and joins; tries again as long as it is told to. Raises RefusedError."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            if self._socket is None:
                await self.open()
            reply = await self.request(join=pb.JoinRequest(token=token, **fields))
            if not reply.HasField("error"):
                self.joined.CopyFrom(reply.join)
                return reply.join
            if not reply.error.retry_after_ms or time.monotonic() > deadline:
                raise RefusedError(reply.error)
            await self.aclose()
            self._socket = None
            await asyncio.sleep(reply.error.retry_after_ms / 1000)

    async def resume(self, resume_token: str, last_message_seq: int = 0) -> pb.ServerFrame:
        """Connects if needed, and resumes."""
        if self._socket is None:
            await self.open()
        request = pb.ResumeRequest(resume_token=resume_token, last_message_seq=last_message_seq)
        return await self.request(resume=request)

    async def request(self, *, request_id: int = 0, **body: Any) -> pb.ServerFrame:
        """Sends a request and waits for its reply (an error too)."""
        if not request_id:
            request_id = self.next_id
            self.next_id += 1
        future = asyncio.get_running_loop().create_future()
        self._replies[request_id] = future
        await self.send(pb.ClientFrame(request_id=request_id, **body))
        return await asyncio.wait_for(future, _TIMEOUT_S)

    async def send(self, frame: pb.ClientFrame) -> None:
        """Sends a frame."""
        await self.send_raw(json_format.MessageToJson(frame) if self._json else frame.SerializeToString())

    async def send_raw(self, message: str | bytes) -> None:
        """Sends anything."""
        assert self._socket is not None
        await self._socket.send(message)

    async def wait_push(self, kind: str, after: int = 0, **wanted: Any) -> pb.ServerFrame:
        """The first push of a kind at or behind an index of `pushes`, waited for; `wanted` are fields of its body."""

        def find() -> pb.ServerFrame | None:
            for frame in self.pushes[after:]:
                if frame.WhichOneof("body") == kind:
                    body = getattr(frame, kind)
                    if all(getattr(body, name) == value for name, value in wanted.items()):
                        return frame
            return None

        async with asyncio.timeout(_TIMEOUT_S), self._arrived:
            await self._arrived.wait_for(lambda: find() is not None)
        found = find()
        assert found is not None
        return found

    def kinds(self) -> list[str]:
        """Kinds of all pushes so far."""
        return [frame.WhichOneof("body") or "" for frame in self.pushes]

    async def drop(self) -> None:
        """Cuts the connection without a word."""
        assert self._socket is not None
        self._socket.transport.abort()
        await self._ended()

    async def wait_closed(self) -> int | None:
        """Waits until the server closes; the close code."""
        await asyncio.wait_for(self._ended(), _TIMEOUT_S)
        return self.close_code

    async def aclose(self) -> None:
        """Closes."""
        if self._socket is not None:
            await self._socket.close()
            await self._ended()

    async def _ended(self) -> None:
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _beat(self) -> None:
        while not self._is_mute:
            await asyncio.sleep(_BEAT_INTERVAL_S)
            await self.send(pb.ClientFrame(ack_only=pb.Ack()))

    async def _read(self) -> None:
        assert self._socket is not None
        beats = asyncio.create_task(self._beat())
        try:
            async for message in self._socket:
                await self._take(message)
        except websockets.ConnectionClosed:
            pass
        beats.cancel()
        self.close_code = self._socket.close_code
        for future in self._replies.values():
            if not future.done():
                future.set_exception(ClientClosedError(f"closed with {self.close_code}"))

    async def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            frame = pb.ServerFrame.FromString(message)
        else:
            frame = json_format.Parse(message, pb.ServerFrame())
        future = self._replies.get(frame.request_id) if frame.request_id else None
        async with self._arrived:
            if future is not None and not future.done():
                future.set_result(frame)
            else:
                self.pushes.append(frame)
            self._arrived.notify_all()
