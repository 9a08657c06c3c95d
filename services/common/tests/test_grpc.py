"""Calls between services: authentication, errors, retries, health."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from mrtc.node.v1 import master_service_pb2 as pb
from mrtc.node.v1 import master_service_pb2_grpc
from mrtc_common.errors import InternalError, NoCapacityError, RoomNotFoundError, UnauthenticatedError, UnavailableError
from mrtc_common.grpc import ERROR_CODE_TRAILER, Channels, GrpcSecurity, GrpcServer, call, stream
from mrtc_common.health import Health
from mrtc_common.ports import free_port
from mrtc_common.testing import wait_until

pytestmark = pytest.mark.integration

SECURITY = GrpcSecurity("a secret of the tests")


class _Servicer(master_service_pb2_grpc.MasterServiceServicer):
    def __init__(self) -> None:
        self.raises: Exception | None = None
        self.calls = 0

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        self.calls += 1
        if self.raises is not None:
            raise self.raises
        return pb.ListNodesResponse()


async def _start(servicer: _Servicer, health: Health, port: int = 0) -> GrpcServer:
    server = GrpcServer(SECURITY, health)
    master_service_pb2_grpc.add_MasterServiceServicer_to_server(servicer, server.server)
    await server.start("127.0.0.1", port)
    return server


@pytest.fixture
def servicer() -> _Servicer:
    return _Servicer()


@pytest_asyncio.fixture
async def server(servicer: _Servicer) -> AsyncIterator[GrpcServer]:
    server = await _start(servicer, Health())
    yield server
    await server.aclose(0)


@pytest_asyncio.fixture
async def channels() -> AsyncIterator[Channels]:
    async with Channels(SECURITY) as channels:
        yield channels


def _stub(channels: Channels, port: int) -> Any:
    return master_service_pb2_grpc.MasterServiceStub(channels.get(f"127.0.0.1:{port}"))


async def test_a_call_with_the_secret_is_served(server: GrpcServer, channels: Channels) -> None:
    assert await call(_stub(channels, server.port).ListNodes, pb.ListNodesRequest()) == pb.ListNodesResponse()


@pytest.mark.parametrize("secret", ["", "wrong", "a secret of the tests "])
async def test_a_call_without_the_secret_is_refused(server: GrpcServer, servicer: _Servicer, secret: str) -> None:
    async with Channels(GrpcSecurity(secret)) as other:
        with pytest.raises(UnauthenticatedError):
            await call(_stub(other, server.port).ListNodes, pb.ListNodesRequest())
    assert servicer.calls == 0


async def test_an_error_arrives_as_it_was_raised(server: GrpcServer, servicer: _Servicer, channels: Channels) -> None:
    servicer.raises = NoCapacityError("full", retry_after_ms=250)
    with pytest.raises(NoCapacityError) as caught:
        await call(_stub(channels, server.port).ListNodes, pb.ListNodesRequest())
    assert (caught.value.message, caught.value.retry_after_ms) == ("full", 250)
    assert servicer.calls == 1


async def test_an_answered_unavailable_is_not_repeated(
    server: GrpcServer, servicer: _Servicer, channels: Channels
) -> None:
    servicer.raises = UnavailableError("the bus is away")
    with pytest.raises(UnavailableError, match="the bus is away"):
        await call(_stub(channels, server.port).ListNodes, pb.ListNodesRequest())
    assert servicer.calls == 1


async def test_a_fault_of_ours_tells_the_caller_nothing_of_it(
    server: GrpcServer, servicer: _Servicer, channels: Channels, caplog: pytest.LogCaptureFixture
) -> None:
    servicer.raises = RuntimeError("password=hunter2")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _stub(channels, server.port).ListNodes(pb.ListNodesRequest())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "hunter2" not in (caught.value.details() or "")
    assert "rq_" in (caught.value.details() or "")
    with pytest.raises(InternalError):
        await call(_stub(channels, server.port).ListNodes, pb.ListNodesRequest())


async def test_the_code_is_in_the_trailer(server: GrpcServer, servicer: _Servicer, channels: Channels) -> None:
    servicer.raises = RoomNotFoundError()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _stub(channels, server.port).ListNodes(pb.ListNodesRequest())
    assert (ERROR_CODE_TRAILER, "room_not_found") in list(caught.value.trailing_metadata())


async def test_a_server_that_is_away_is_unavailable_within_the_deadline(channels: Channels) -> None:
    began_at = asyncio.get_running_loop().time()
    with pytest.raises(UnavailableError):
        await call(_stub(channels, free_port()).ListNodes, pb.ListNodesRequest(), timeout_s=1)
    assert asyncio.get_running_loop().time() - began_at < 2


async def test_a_server_that_comes_back_is_found_by_the_retries(servicer: _Servicer, channels: Channels) -> None:
    first = await _start(servicer, Health())
    stub, port = _stub(channels, first.port), first.port
    await call(stub.ListNodes, pb.ListNodesRequest())
    await first.aclose(0)
    again = await _start(servicer, Health(), port)
    await call(stub.ListNodes, pb.ListNodesRequest(), timeout_s=5, retries=10)
    await again.aclose(0)


async def test_health_needs_no_secret_and_follows_the_checks() -> None:
    health = Health()
    health.set("nats", False, "away")
    server = await _start(_Servicer(), health)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        async def status() -> int:
            return (await stub.Check(health_pb2.HealthCheckRequest())).status

        async def is_serving() -> bool:
            return await status() == health_pb2.HealthCheckResponse.SERVING

        async def is_not_serving() -> bool:
            return await status() == health_pb2.HealthCheckResponse.NOT_SERVING

        await wait_until(is_not_serving)
        health.set("nats", True)
        await wait_until(is_serving)
    await server.aclose(0)


async def test_a_stream_ends_with_the_error_of_the_other_side(server: GrpcServer, channels: Channels) -> None:
    method = channels.get(f"127.0.0.1:{server.port}").unary_stream(
        "/mrtc.nope/Nope",
        request_serializer=pb.ListNodesRequest.SerializeToString,
        response_deserializer=pb.ListNodesResponse.FromString,
    )
    with pytest.raises(InternalError, match="UNIMPLEMENTED"):
        async for _ in stream(method, pb.ListNodesRequest()):
            raise AssertionError
