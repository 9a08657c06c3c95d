"""gRPC between services: servers and channels with the cluster secret, deadlines, retries, errors by their codes."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import grpc
import structlog
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as grpc_health_aio

from .auth import same_secret
from .errors import InternalError, MrtcError, UnauthenticatedError, UnavailableError, error_by_name
from .health import Health
from .ids import new_id
from .log import bound, get_logger
from .tasks import end_tasks

if TYPE_CHECKING:
    from .settings import Settings

_log = get_logger(__name__)
R = TypeVar("R")

ERROR_CODE_TRAILER = "mrtc-error-code"
RETRY_AFTER_TRAILER = "mrtc-retry-after-ms"
REQUEST_ID_METADATA = "mrtc-request-id"
_HEALTH_SERVICE = "/grpc.health.v1.Health/"

_DEFAULT_TIMEOUT_S = 3.0
_RETRIES = 3
_FIRST_BACKOFF_S = 0.05
_MAX_MESSAGE_BYTES = 8 * 1024 * 1024
_CHANNEL_OPTIONS = [
    # A peer that comes back is found at once, not after gRPC's default of up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
    # A peer that vanished without a word (power cut) is noticed after 15 s, also on a quiet watch.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
]
_SERVER_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
]


@dataclass(frozen=True, slots=True)
class GrpcSecurity:
    """The secret that every call carries, and TLS if the paths are set."""

    cluster_secret: str = field(repr=False)
    cert_file: Path | None = None
    key_file: Path | None = None
    ca_file: Path | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> GrpcSecurity:
        """What a service's settings say."""
        return cls(
            settings.cluster_secret.get_secret_value(),
            settings.tls_cert_file,
            settings.tls_key_file,
            settings.tls_ca_file,
        )

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """None: no TLS."""
        if self.cert_file is None or self.key_file is None:
            return None
        pair = (self.key_file.read_bytes(), self.cert_file.read_bytes())
        authority = self.ca_file.read_bytes() if self.ca_file else None
        return grpc.ssl_server_credentials([pair], authority, require_client_auth=authority is not None)

    def channel_credentials(self) -> grpc.ChannelCredentials | None:
        """None: no TLS."""
        if self.ca_file is None and self.cert_file is None:
            return None
        return grpc.ssl_channel_credentials(
            self.ca_file.read_bytes() if self.ca_file else None,
            self.key_file.read_bytes() if self.key_file else None,
            self.cert_file.read_bytes() if self.cert_file else None,
        )


# Server


class GrpcServer:
    """A gRPC server with authentication, error mapping and the health service, which follows `health`.

    ::

        server = GrpcServer(security, health)
        master_service_pb2_grpc.add_MasterServiceServicer_to_server(servicer, server.server)
        await server.start("0.0.0.0", 7000)
    """

    def __init__(self, security: GrpcSecurity, health: Health) -> None:
        self._security = security
        self._health = health
        self.server = grpc.aio.server(
            interceptors=[_ServerInterceptor(security.cluster_secret)], options=_SERVER_OPTIONS
        )
        self._health_servicer = grpc_health_aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health_servicer, self.server)
        self._health_task: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, ip: str, port: int) -> int:
        """Listens; returns the port, which is chosen if `port` is 0. Raises OSError if the port is taken."""
        address = f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
        credentials = self._security.server_credentials()
        try:
            if credentials is None:
                self.port = self.server.add_insecure_port(address)
            else:
                self.port = self.server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {address}: {error}") from None
        await self.server.start()
        self._health_task = asyncio.create_task(self._follow_health(), name="grpc-health")
        return self.port

    async def aclose(self, grace_s: float = 1.0) -> None:
        """Refuses new calls, lets running ones end for `grace_s`."""
        if self._health_task is not None:
            await end_tasks(self._health_task)
        with contextlib.suppress(Exception):
            await self._health_servicer.enter_graceful_shutdown()
        await self.server.stop(grace_s)

    async def _follow_health(self) -> None:
        from grpc_health.v1 import health_pb2

        status = health_pb2.HealthCheckResponse
        while True:
            await self._health_servicer.set("", status.SERVING if self._health.is_ready else status.NOT_SERVING)
            await self._health.wait_change()


class _ServerInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Checks the secret, binds the request id, and answers every failure with a status and a code."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any) -> Any:
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_HEALTH_SERVICE):
            return handler
        metadata = dict(handler_call_details.invocation_metadata or ())
        is_permitted = self._is_permitted(metadata.get("authorization"))
        call = _Call(
            handler_call_details.method, str(metadata.get(REQUEST_ID_METADATA) or new_id("rq"))[:64], is_permitted
        )
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                call.unary(handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                call.stream(handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        raise NotImplementedError("client streams are not used between services")

    def _is_permitted(self, header: Any) -> bool:
        text = header.decode("latin-1") if isinstance(header, bytes) else (header or "")
        scheme, _, secret = text.partition(" ")
        return scheme.lower() == "bearer" and bool(self._secret) and same_secret(secret, self._secret)


class _Call:
    def __init__(self, method: str, request_id: str, is_permitted: bool) -> None:
        self._method = method
        self._request_id = request_id
        self._is_permitted = is_permitted

    def unary(self, inner: Callable[[Any, Any], Awaitable[R]]) -> Callable[[Any, Any], Awaitable[R]]:
        async def handle(request: Any, context: Any) -> R:
            with bound(request=self._request_id):
                try:
                    self._check()
                    return await inner(request, context)
                except Exception as error:
                    await self._fail(context, error)

        return handle

    def stream(self, inner: Callable[[Any, Any], AsyncIterator[R]]) -> Callable[[Any, Any], AsyncIterator[R]]:
        async def handle(request: Any, context: Any) -> AsyncIterator[R]:
            with bound(request=self._request_id):
                try:
                    self._check()
                    async for item in inner(request, context):
                        yield item
                except Exception as error:
                    await self._fail(context, error)

        return handle

    def _check(self) -> None:
        if not self._is_permitted:
            raise UnauthenticatedError("the cluster secret is missing or wrong")

    async def _fail(self, context: Any, error: Exception) -> NoReturn:
        if isinstance(error, grpc.aio.AbortError):
            raise error
        if not isinstance(error, MrtcError):
            _log.exception("a call failed", method=self._method)
            error = InternalError(f"internal error; the log has it under request {self._request_id}")
        trailers = [(ERROR_CODE_TRAILER, error.code_name()), (REQUEST_ID_METADATA, self._request_id)]
        if error.retry_after_ms is not None:
            trailers.append((RETRY_AFTER_TRAILER, str(error.retry_after_ms)))
        await context.abort(error.grpc_status, error.message, tuple(trailers))
        raise AssertionError("abort always raises")


# Client


class Channels:
    """One channel per address, made at first use; closed together."""

    def __init__(self, security: GrpcSecurity) -> None:
        self._security = security
        self._channels: dict[str, grpc.aio.Channel] = {}

    def get(self, address: str) -> grpc.aio.Channel:
        """The channel to `host:port`; every call on it carries the cluster secret."""
        channel = self._channels.get(address)
        if channel is None:
            channel = self._channels[address] = self._open(address)
        return channel

    async def forget(self, address: str) -> None:
        """Closes the channel of a node that is gone."""
        channel = self._channels.pop(address, None)
        if channel is not None:
            await channel.close()

    async def aclose(self) -> None:
        """Closes all."""
        channels, self._channels = list(self._channels.values()), {}
        for channel in channels:
            await channel.close()

    async def __aenter__(self) -> Channels:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()

    def _open(self, address: str) -> grpc.aio.Channel:
        interceptors = [_UnaryAuth(self._security.cluster_secret), _StreamAuth(self._security.cluster_secret)]
        credentials = self._security.channel_credentials()
        if credentials is None:
            return grpc.aio.insecure_channel(address, options=_CHANNEL_OPTIONS, interceptors=interceptors)
        return grpc.aio.secure_channel(address, credentials, options=_CHANNEL_OPTIONS, interceptors=interceptors)


async def call(
    method: Callable[..., Any], request: Any, *, timeout_s: float = _DEFAULT_TIMEOUT_S, retries: int = _RETRIES
) -> Any:
    """Calls a unary stub method with a deadline. Raises the `MrtcError` that the other side raised.

    Args:
        method: of a stub, for example `MasterServiceStub(channels.get(address)).PlaceParticipant`.
        timeout_s: for all tries together.
        retries: further tries when the other side cannot be reached; 0 for calls that must not be repeated.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    for attempt in range(retries + 1):
        remaining = deadline - loop.time()
        try:
            return await method(request, timeout=max(0.001, remaining))
        except grpc.aio.AioRpcError as error:
            mapped = from_rpc_error(error)
            # A code trailer means that the other side answered: what it said holds. Without it nobody answered.
            unanswered = error.code() == grpc.StatusCode.UNAVAILABLE and _trailer(error, ERROR_CODE_TRAILER) is None
            backoff = _FIRST_BACKOFF_S * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311
            if not unanswered or attempt == retries or loop.time() + backoff >= deadline:
                raise mapped from None
        await asyncio.sleep(backoff)
    raise UnavailableError


async def stream(method: Callable[..., Any], request: Any) -> AsyncIterator[Any]:
    """Iterates a server stream. Raises the `MrtcError` that ends it; returns when the other side ends it properly."""
    rpc = method(request)
    try:
        async for item in rpc:
            yield item
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from None
    finally:
        rpc.cancel()


def from_rpc_error(error: grpc.aio.AioRpcError) -> MrtcError:
    """The error that a failed call stands for."""
    name = _trailer(error, ERROR_CODE_TRAILER)
    if name is not None:
        retry_after = _trailer(error, RETRY_AFTER_TRAILER)
        retry_after_ms = int(retry_after) if retry_after is not None and retry_after.isdecimal() else None
        return error_by_name(name, error.details() or "", retry_after_ms)
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return UnavailableError("a service of the suite does not answer")
    return InternalError(f"a call failed with {error.code().name}")


def _trailer(error: grpc.aio.AioRpcError, name: str) -> str | None:
    for key, value in error.trailing_metadata() or ():
        if key == name:
            return value.decode("latin-1") if isinstance(value, bytes) else str(value)
    return None


def _with_auth(details: Any, secret: str) -> Any:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("authorization", f"Bearer {secret}")
    request_id = structlog.contextvars.get_contextvars().get("request")
    if request_id:
        metadata.add(REQUEST_ID_METADATA, str(request_id))
    return details._replace(metadata=metadata)


class _UnaryAuth(grpc.aio.UnaryUnaryClientInterceptor):  # type: ignore[misc, unused-ignore]
    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_auth(client_call_details, self._secret), request)


class _StreamAuth(grpc.aio.UnaryStreamClientInterceptor):  # type: ignore[misc, unused-ignore]
    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_auth(client_call_details, self._secret), request)
