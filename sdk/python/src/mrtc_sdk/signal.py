"""The client protocol over a WebSocket: requests with replies, pushes in order, heartbeat, reconnect and resume."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit, urlunsplit

import websockets
from mrtc.common.v1 import common_pb2
from mrtc.signaling.v1 import client_pb2 as pb
from websockets.asyncio.client import ClientConnection, connect

from mrtc_sdk.errors import ConnectionLost, RequestFailed

log = logging.getLogger(__name__)

SUBPROTOCOL = websockets.Subprotocol("mrtc.v1.proto")
# Waits before each attempt to reconnect, seconds; the last one repeats until the grace time is over.
RECONNECT_DELAYS_S = (0.0, 0.3, 1.2, 2.7, 4.8, 7.0)
# Attempts that fit into the grace time at least.
ATTEMPTS_PER_GRACE = 3
# Bounds what a server can make this client hold.
MAX_FRAME_BYTES = 4 * 1024 * 1024
REQUEST_TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 5.0

PushHandler = Callable[[pb.ServerFrame], Awaitable[None]]


def websocket_url(url: str) -> str:
    """The client endpoint of a suite given by its `http(s)://` or `ws(s)://` base URL."""
    parts = urlsplit(url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/")
    if not path.endswith("/v1/connect"):
        path += "/v1/connect"
    return urlunsplit((scheme, parts.netloc, path, "", ""))


_Waiting = tuple[pb.ClientFrame, asyncio.Future[pb.ServerFrame], Callable[[pb.ServerFrame], None]]


class SignalClient:
    """One session. Survives lost connections as long as the server's grace time runs, and as long as media flows.

    Args:
        url: base URL of the suite.
        on_push: gets every push, one after another, each exactly once.
        on_resumed: gets the snapshot after a reconnect, before any further push.
        on_closed: called once when the session is over for good, with the reason.
        has_media: says whether media flows. While it does, attempts to reconnect go on: where no server is at all, the
            grace time does not run either.
    """

    def __init__(
        self,
        url: str,
        on_push: PushHandler,
        on_resumed: Callable[[pb.ResumeResponse], Awaitable[None]],
        on_closed: Callable[[str], None],
        has_media: Callable[[], bool] = lambda: False,
    ) -> None:
        self._url = websocket_url(url)
        self._on_push = on_push
        self._on_resumed = on_resumed
        self._on_closed = on_closed
        self._has_media = has_media
        self._socket: ClientConnection | None = None
        self._next_request = 1
        self._waiting: dict[int, _Waiting] = {}
        self._resume_token = ""
        self._grace_s = 0.0
        self._heartbeat_s = 10.0
        self._last_push_seq = 0
        self._last_sent_at = 0.0
        self.last_message_seq = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_over = False

    async def join(
        self, request: pb.JoinRequest, on_reply: Callable[[pb.JoinResponse], None] = lambda reply: None
    ) -> pb.JoinResponse:
        """Opens the connection and the session.

        Args:
            on_reply: called with the reply before any push is handled: pushes build on its snapshot.

        Raises:
            RequestFailed: refused.
            OSError: the server cannot be reached.
        """

        def joined(frame: pb.ServerFrame) -> None:
            self._begin(frame.join)
            on_reply(frame.join)

        self._socket = await self._open()
        self._spawn(self._run(self._socket))
        try:
            return (await self.request(pb.ClientFrame(join=request), joined)).join
        except BaseException:
            await self.aclose()
            raise

    def _begin(self, reply: pb.JoinResponse) -> None:
        self._resume_token = reply.resume_token
        self._grace_s = reply.resume_grace_ms / 1000
        self._heartbeat_s = max(reply.heartbeat_interval_ms / 1000, 0.5)
        self.last_message_seq = reply.snapshot.last_message_seq
        self._spawn(self._heartbeat())

    async def request(
        self, frame: pb.ClientFrame, on_reply: Callable[[pb.ServerFrame], None] = lambda reply: None
    ) -> pb.ServerFrame:
        """Sends a request and waits for its reply, over reconnects.

        Args:
            on_reply: called with a reply that is no error, before any push that came after it is handled.

        Raises:
            RequestFailed: refused.
            ConnectionLost: the session is over.
            TimeoutError: no reply came.
        """
        if self._is_over:
            raise ConnectionLost("the session is over")
        frame.request_id = self._next_request
        self._next_request += 1
        future: asyncio.Future[pb.ServerFrame] = asyncio.get_running_loop().create_future()
        self._waiting[frame.request_id] = (frame, future, on_reply)
        try:
            with contextlib.suppress(websockets.ConnectionClosed):
                await self._send(frame)
            reply = await asyncio.wait_for(future, REQUEST_TIMEOUT_S)
        finally:
            self._waiting.pop(frame.request_id, None)
        if reply.WhichOneof("body") == "error":
            error = reply.error
            retry = error.retry_after_ms if error.HasField("retry_after_ms") else None
            raise RequestFailed(error.code, error.message, retry)
        return reply

    async def drop_connection(self) -> None:
        """Cuts the WebSocket without a word, as a network fault would; the session is resumed. For tests."""
        if self._socket is not None:
            self._socket.transport.abort()

    async def aclose(self) -> None:
        """Ends everything without a leave."""
        self._is_over = True
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            await self._socket.close()

    async def _open(self) -> ClientConnection:
        return await connect(
            self._url,
            subprotocols=[SUBPROTOCOL],
            max_size=MAX_FRAME_BYTES,
            open_timeout=CONNECT_TIMEOUT_S,
            close_timeout=1.0,
            proxy=None,
        )

    async def _send(self, frame: pb.ClientFrame) -> None:
        if self._socket is None:
            return
        frame.ack = self._last_push_seq
        self._last_sent_at = time.monotonic()
        await self._socket.send(frame.SerializeToString())

    async def _run(self, socket: ClientConnection) -> None:
        """Reads until the session is over, reconnecting in between."""
        reason = "the connection was lost"
        while not self._is_over:
            reason, can_resume = await self._read(socket)
            self._socket = None
            if self._is_over or not can_resume or not self._resume_token:
                break
            resumed = await self._reconnect()
            if resumed is None:
                reason = "the session could not be resumed"
                break
            socket = resumed
        self._finish(reason)

    async def _read(self, socket: ClientConnection) -> tuple[str, bool]:
        """Handles frames until the connection ends; returns why, and whether a resume makes sense."""
        try:
            async for data in socket:
                frame = pb.ServerFrame.FromString(data if isinstance(data, bytes) else data.encode())
                if frame.WhichOneof("body") == "closing":
                    return common_pb2.LeaveReason.Name(frame.closing.reason), frame.closing.can_resume
                await self._take(frame)
        except websockets.ConnectionClosed as closed:
            return f"the connection was lost ({closed})", True
        return "the server closed the connection", True

    async def _take(self, frame: pb.ServerFrame) -> None:
        if frame.request_id:
            waiting = self._waiting.get(frame.request_id)
            if waiting is not None and not waiting[1].done():
                if frame.WhichOneof("body") != "error":
                    waiting[2](frame)
                waiting[1].set_result(frame)
            return
        self._last_push_seq = frame.push_seq
        if frame.WhichOneof("body") == "message_received":
            if frame.message_received.message_seq <= self.last_message_seq:
                return  # came twice; the application is given it once
            self.last_message_seq = frame.message_received.message_seq
        await self._on_push(frame)

    async def _reconnect(self) -> ClientConnection | None:
        """Resumes on a new connection and repeats the requests in flight."""
        deadline = time.monotonic() + self._grace_s
        attempt = 0
        while not self._is_over:
            if self._has_media():
                deadline = time.monotonic() + self._grace_s
            elif time.monotonic() >= deadline:
                break
            delay = RECONNECT_DELAYS_S[min(attempt, len(RECONNECT_DELAYS_S) - 1)]
            # The server may have been back for a whole wait, of which its grace time has to be longer.
            await asyncio.sleep(min(delay, self._grace_s / ATTEMPTS_PER_GRACE))
            attempt += 1
            try:
                socket = await self._open()
            except (OSError, TimeoutError, websockets.InvalidHandshake) as error:
                log.info("reconnect attempt %d failed: %s", attempt, error)
                continue
            outcome = await self._resume(socket)
            if outcome is not None:
                return socket if outcome else None
        return None

    async def _resume(self, socket: ClientConnection) -> bool | None:
        """True: resumed; False: the session is gone; None: try again."""
        self._last_push_seq = 0
        frame = pb.ClientFrame(
            request_id=self._next_request,
            resume=pb.ResumeRequest(resume_token=self._resume_token, last_message_seq=self.last_message_seq),
        )
        self._next_request += 1
        try:
            await socket.send(frame.SerializeToString())
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reply = pb.ServerFrame.FromString(await socket.recv(decode=False))
        except (TimeoutError, websockets.ConnectionClosed):
            return None
        if reply.WhichOneof("body") == "error":
            log.info("resume refused: %s", reply.error.message)
            await socket.close()
            return None if reply.error.HasField("retry_after_ms") else False
        self._socket = socket
        await self._on_resumed(reply.resume)
        for request, *_ in list(self._waiting.values()):
            with contextlib.suppress(websockets.ConnectionClosed):
                await self._send(request)
        return True

    async def _heartbeat(self) -> None:
        while not self._is_over:
            await asyncio.sleep(self._heartbeat_s / 2)
            if self._socket is not None and time.monotonic() - self._last_sent_at >= self._heartbeat_s / 2:
                with contextlib.suppress(websockets.ConnectionClosed):
                    await self._send(pb.ClientFrame(ping=pb.Ping(client_time_ms=int(time.time() * 1000))))

    def _finish(self, reason: str) -> None:
        was_over, self._is_over = self._is_over, True
        for _, future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionLost(reason))
        if not was_over:
            self._on_closed(reason)

    def _spawn(self, coroutine: Awaitable[None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
