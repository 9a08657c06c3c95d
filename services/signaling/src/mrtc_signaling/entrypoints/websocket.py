"""`/v1/connect`: the client protocol over a WebSocket."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from fastapi import APIRouter, WebSocket
from mrtc.common.v1 import common_pb2
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import (
    BadRequestError,
    FailedPreconditionError,
    InternalError,
    LimitExceededError,
    MrtcError,
    TooLargeError,
)
from mrtc_common.ids import new_id
from mrtc_common.log import bound, get_logger
from mrtc_common.tasks import end_tasks
from starlette.websockets import WebSocketDisconnect

from mrtc_signaling.app.access import Authenticator
from mrtc_signaling.app.connection import Connection
from mrtc_signaling.app.context import Context
from mrtc_signaling.app.join import Joined, Joiner, JoinPlan
from mrtc_signaling.app.requests import Requests
from mrtc_signaling.app.resume import Resumer
from mrtc_signaling.app.session import Session
from mrtc_signaling.app.sessions import Sessions
from mrtc_signaling.core import limits
from mrtc_signaling.core.pushes import error_body
from mrtc_signaling.core.rate_limit import TokenBucket
from mrtc_signaling.errors import problem

from .frames import Codec, choose

_log = get_logger(__name__)

# Requests of one connection that wait for their turn; beyond it the socket is not read (TCP holds the client back).
_MAX_WAITING_REQUESTS = 64
_CLOSE_TIMEOUT_S = 2.0
# Application close codes (RFC 6455 section 7.4.2) are 4000 + ErrorCode.
_CLOSE_CODE_BASE = 4000
_HEARTBEATS_MISSED = 2.5


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection, and all together, may do."""

    max_connections: int = 20_000
    max_requests_per_s: float = 50.0
    max_request_burst: int = 200
    first_frame_timeout_s: float = 10.0


class WebSocketDoor:
    """Serves connections.

    Args:
        ctx: shared by all.
    """

    def __init__(
        self,
        ctx: Context,
        sessions: Sessions,
        authenticator: Authenticator,
        joiner: Joiner,
        resumer: Resumer,
        requests: Requests,
        connection_limits: ConnectionLimits,
    ) -> None:
        self.ctx, self.sessions, self.authenticator = ctx, sessions, authenticator
        self.joiner, self.resumer, self.requests = joiner, resumer, requests
        self.limits = connection_limits
        self._open = 0

    def router(self) -> APIRouter:
        """The route."""
        router = APIRouter()
        router.add_api_websocket_route("/v1/connect", self.serve)
        return router

    async def serve(self, websocket: WebSocket) -> None:
        """One connection from its opening to its end."""
        chosen = choose(websocket.scope.get("subprotocols", []))
        if chosen is None:
            await websocket.send_denial_response(
                problem(400, "unsupported_version", "offer the subprotocol mrtc.v1.proto or mrtc.v1.json")
            )
            return
        if self._open >= self.limits.max_connections or self.sessions.is_shutting_down:
            await websocket.send_denial_response(
                problem(503, "no_capacity", "this server takes no further connections", retry_after_ms=1000)
            )
            return
        subprotocol, codec = chosen
        self._open += 1
        self.ctx.metrics.connections.inc()
        try:
            await websocket.accept(subprotocol=subprotocol)
            with bound(connection=new_id("co")):
                await _Serving(self, websocket, codec).run()
        except WebSocketDisconnect:
            pass
        finally:
            self._open -= 1
            self.ctx.metrics.connections.dec()


class _Serving:
    """The reader, the worker and the writer of one connection."""

    def __init__(self, door: WebSocketDoor, websocket: WebSocket, codec: Codec) -> None:
        self._door, self._websocket, self._codec = door, websocket, codec
        self._connection = Connection()
        self._session: Session | None = None
        self._waiting: asyncio.Queue[client_pb2.ClientFrame] = asyncio.Queue(_MAX_WAITING_REQUESTS)
        self._bucket = TokenBucket(door.limits.max_requests_per_s, door.limits.max_request_burst)
        self._worker: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Until either side ends the connection."""
        writer = asyncio.create_task(self._write())
        reader = asyncio.create_task(self._read())
        try:
            await asyncio.wait({writer, reader}, return_when=asyncio.FIRST_COMPLETED)
            if not writer.done():
                self._connection.close()
            # A client that does not take its last frames must not keep the connection for ever.
            await asyncio.wait({writer}, timeout=_CLOSE_TIMEOUT_S)
        finally:
            await end_tasks(reader, writer, self._worker)
            if self._connection.close_code == 1013:
                self._door.ctx.metrics.slow_clients.inc()
            if self._session is not None:
                await self._door.sessions.disconnected(self._session, self._connection)

    async def _write(self) -> None:
        sent = self._door.ctx.metrics.pushes
        try:
            while (frame := await self._connection.next_frame()) is not None:
                if frame.push_seq:
                    sent.labels(frame.WhichOneof("body")).inc()
                message = self._codec.encode(frame)
                if isinstance(message, bytes):
                    await self._websocket.send_bytes(message)
                else:
                    await self._websocket.send_text(message)
            await self._websocket.close(self._connection.close_code, self._connection.close_reason[:120])
        except (WebSocketDisconnect, RuntimeError, OSError):
            pass  # the client has gone; the reader notices too

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(self._door.limits.first_frame_timeout_s):
                first = await self._receive()
            if await self._enter(first):
                self._worker = asyncio.create_task(self._work())
                await self._read_requests()
        except TimeoutError:
            self._refuse(0, FailedPreconditionError("the first frame must come within the time allowed for it"))
        except MrtcError as error:
            self._refuse(0, error)
        except WebSocketDisconnect:
            self._connection.close(code=1000)
        except Exception:
            _log.exception("a connection failed")
            self._refuse(0, InternalError())

    async def _receive(self) -> client_pb2.ClientFrame:
        message = await self._websocket.receive()
        if message["type"] != "websocket.receive":
            raise WebSocketDisconnect(message.get("code", 1005))
        data: str | bytes = message["bytes"] if message.get("bytes") is not None else message["text"]
        size = len(data)
        if size > limits.MAX_FRAME_BYTES:
            raise TooLargeError(f"a frame has {size} bytes, {limits.MAX_FRAME_BYTES} are allowed")
        return self._codec.decode(data)

    async def _read_requests(self) -> None:
        timeout_s = self._door.ctx.options.heartbeat_interval_s * _HEARTBEATS_MISSED
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    frame = await self._receive()
            except TimeoutError:
                _log.info("heartbeat missed")
                self._connection.close(code=_CLOSE_CODE_BASE, text="nothing was heard from the client for too long")
                return
            if frame.ack:
                self._connection.ack(frame.ack)
            kind = frame.WhichOneof("body")
            if kind == "ack_only":
                continue
            if kind == "ping":
                self._pong(frame)
                continue
            if not frame.request_id:
                raise BadRequestError("a request needs a request_id above 0")
            if not self._bucket.take(self._door.ctx.clock.monotonic()):
                error = LimitExceededError("too many requests", retry_after_ms=self._bucket.wait_ms())
                self._connection.reply(frame.request_id, client_pb2.ServerFrame(error=error_body(error)))
                continue
            await self._waiting.put(frame)

    async def _work(self) -> None:
        """Requests take effect one after the other, in their order."""
        session = self._session
        assert session is not None
        with bound(session=session.id, participant=session.participant_id, room=session.room_key):
            while True:
                frame = await self._waiting.get()
                reply = await self._door.requests.handle(session, frame)
                self._connection.reply(frame.request_id, reply)
                if frame.WhichOneof("body") == "leave":
                    self._door.sessions.end_soon(session, common_pb2.LEAVE_REASON_CLIENT_REQUEST)

    def _pong(self, frame: client_pb2.ClientFrame) -> None:
        pong = client_pb2.Pong(client_time_ms=frame.ping.client_time_ms, server_time_ms=self._door.ctx.clock.unix_ms())
        self._connection.reply(frame.request_id, client_pb2.ServerFrame(pong=pong))

    def _refuse(self, request_id: int, error: MrtcError) -> None:
        """Says why, then closes; a session that exists can be resumed."""
        self._connection.reply(request_id, client_pb2.ServerFrame(error=error_body(error)))
        self._connection.close(code=_CLOSE_CODE_BASE + int(error.code), text=error.message)

    # The first frame

    async def _enter(self, frame: client_pb2.ClientFrame) -> bool:
        """Joins or resumes; False if that was refused."""
        kind = frame.WhichOneof("body")
        began_at = time.perf_counter()
        code = "ok"
        try:
            if not frame.request_id:
                raise BadRequestError("a request needs a request_id above 0")
            if kind == "join":
                await self._join(frame)
            elif kind == "resume":
                await self._resume(frame)
            else:
                raise FailedPreconditionError("the first frame must be join or resume")
        except MrtcError as error:
            code = error.code_name()
            _log.info("refused", kind=kind, code=code, reason=error.message)
            self._refuse(frame.request_id, error)
        except Exception:
            request = new_id("rq")
            _log.exception("a join or resume failed", request=request)
            code = InternalError.code_name()
            self._refuse(frame.request_id, InternalError(f"internal error; the log has it under {request}"))
        metrics = self._door.ctx.metrics
        if kind == "join":
            metrics.joins.labels("websocket", code).inc()
            metrics.join_seconds.labels("websocket").observe(time.perf_counter() - began_at)
        elif kind == "resume":
            metrics.resumes.labels(code).inc()
        return code == "ok"

    async def _join(self, frame: client_pb2.ClientFrame) -> None:
        request = frame.join
        limits.check_join(request)
        access = await self._door.authenticator.verify(request.token)
        if not access.token.identity:
            raise BadRequestError("an API token names no participant; use a token with `sub`")
        plan = JoinPlan(
            access=access,
            room=access.room(request.room),
            identity=access.token.identity,
            offer=request.offer,
            publications=list(request.publications),
            manual_subscribe=request.manual_subscribe,
            takes_participants_changed=request.takes_participants_changed,
            name=request.name,
            metadata=request.metadata,
            client_info=request.client_info,
        )

        def attach(joined: Joined) -> Connection:
            self._session = joined.session
            self._connection.reply(frame.request_id, self._join_reply(joined))
            return self._connection

        joined = await self._door.joiner.join(plan, attach)
        joined.session.replies.last_request_id = frame.request_id
        await self._deliver_messages(joined.session, joined.session.record.joined_message_seq)

    def _join_reply(self, joined: Joined) -> client_pb2.ServerFrame:
        options = self._door.ctx.options
        session = joined.session
        return client_pb2.ServerFrame(
            join=client_pb2.JoinResponse(
                participant=session.participant.participant,
                session_id=session.id,
                resume_token=joined.resume_token,
                answer=joined.answer,
                snapshot=session.snapshot(),
                heartbeat_interval_ms=round(options.heartbeat_interval_s * 1000),
                resume_grace_ms=round(options.grace_s * 1000),
                ice_servers=self._ice_servers(session),
                publications=joined.publications,
            )
        )

    def _ice_servers(self, session: Session) -> list[client_pb2.IceServer]:
        ctx = self._door.ctx
        return ctx.options.ice_servers.of(session.participant.participant.id, ctx.clock.unix_ms())

    async def _resume(self, frame: client_pb2.ClientFrame) -> None:
        def answer(session: Session) -> None:
            self._session = session
            response = client_pb2.ResumeResponse(
                snapshot=session.snapshot(),
                has_transport=session.leg.is_open,
                ice_servers=self._ice_servers(session),
            )
            self._connection.reply(frame.request_id, client_pb2.ServerFrame(resume=response))

        session = await self._door.resumer.resume(frame.resume.resume_token, self._connection, answer)
        await self._deliver_messages(session, frame.resume.last_message_seq)

    async def _deliver_messages(self, session: Session, after_seq: int) -> None:
        try:
            await session.deliver_messages(after_seq, self._connection)
        except MrtcError as error:
            # The client comes back and asks for them again: better than a conversation with a hole.
            self._connection.close(code=_CLOSE_CODE_BASE + int(error.code), text=error.message)
