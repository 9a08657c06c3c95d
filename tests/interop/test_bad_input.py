"""Bad input at every door: a clear error, nothing leaks, nothing stops."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx
import jwt
import pytest
import websockets
from mrtc.common.v1 import common_pb2
from mrtc.media.v1 import media_service_pb2, media_service_pb2_grpc
from mrtc.node.v1 import master_service_pb2, master_service_pb2_grpc
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_sdk.pattern import PatternTrack
from mrtc_sdk.signal import websocket_url
from websockets.asyncio.client import ClientConnection, connect

from tests.support.media import Watcher, joined, remote_track
from tests.support.suite import RunningSuite

pytestmark = pytest.mark.integration


def new_room() -> str:
    """A name nobody used."""
    return f"room-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def socket_to(suite: RunningSuite, subprotocol: str = "mrtc.v1.proto") -> AsyncIterator[ClientConnection]:
    """A raw connection to the client endpoint."""
    protocols = [websockets.Subprotocol(subprotocol)]
    async with connect(websocket_url(suite.url), subprotocols=protocols, proxy=None, max_size=None) as opened:
        yield opened


async def first_error(opened: ClientConnection) -> pb.Error | None:
    """The error that the server sends before it closes, if any; the connection must end or stay, never hang."""
    async with asyncio.timeout(15):
        try:
            data = await opened.recv()
        except websockets.ConnectionClosed:
            return None
    frame = pb.ServerFrame.FromString(data) if isinstance(data, bytes) else pb.ServerFrame()
    if isinstance(data, str):
        body = json.loads(data)
        code = body.get("error", {}).get("code", "ERROR_CODE_UNSPECIFIED")
        return pb.Error(code=common_pb2.ErrorCode.Value(code), message=body["error"].get("message", ""))
    return frame.error if frame.WhichOneof("body") == "error" else None


def no_traceback(text: str) -> None:
    """Nothing of our insides is shown."""
    for word in ("Traceback", 'File "', "site-packages", "mrtc_signaling"):
        assert word not in text


JOIN_ERRORS = {
    "an empty token": ("", common_pb2.ERROR_CODE_UNAUTHENTICATED),
    "a token that is none": ("nonsense", common_pb2.ERROR_CODE_UNAUTHENTICATED),
    "an unsigned token": (
        jwt.encode({"sub": "eve", "iss": "demo", "exp": int(time.time()) + 60}, key="", algorithm="none"),
        common_pb2.ERROR_CODE_UNAUTHENTICATED,
    ),
    "a token signed with another key": (
        jwt.encode({"sub": "eve", "iss": "demo", "exp": int(time.time()) + 60}, key="k" * 32, algorithm="HS256"),
        common_pb2.ERROR_CODE_UNAUTHENTICATED,
    ),
}


@pytest.mark.parametrize("case", list(JOIN_ERRORS))
async def test_a_wrong_token_is_refused(suite: RunningSuite, case: str) -> None:
    """Tokens that do not verify are refused with one stable code and no hint of why."""
    token, code = JOIN_ERRORS[case]
    async with socket_to(suite) as opened:
        frame = pb.ClientFrame(request_id=1, join=pb.JoinRequest(token=token, room=new_room()))
        await opened.send(frame.SerializeToString())
        error = await first_error(opened)
    assert error is not None
    assert error.code == code
    no_traceback(error.message)


async def test_a_token_of_another_room_is_refused(suite: RunningSuite) -> None:
    """A token permits its own room only."""
    async with socket_to(suite) as opened:
        request = pb.JoinRequest(token=suite.token(new_room(), "eve"), room=new_room())
        await opened.send(pb.ClientFrame(request_id=1, join=request).SerializeToString())
        error = await first_error(opened)
    assert error is not None
    assert error.code == common_pb2.ERROR_CODE_PERMISSION_DENIED


BAD_FIRST_FRAMES: dict[str, tuple[str, bytes | str]] = {
    "garbage bytes": ("mrtc.v1.proto", b"\xff\xfe\xfd garbage"),
    "text on the binary protocol": ("mrtc.v1.proto", "hello"),
    "no JSON": ("mrtc.v1.json", "{ this is not"),
    "JSON of another kind": ("mrtc.v1.json", "[1, 2, 3]"),
    "an unknown field type": ("mrtc.v1.json", '{"join": 5}'),
    "deep JSON": ("mrtc.v1.json", "[" * 100_000),
    "a request before join": (
        "mrtc.v1.proto",
        pb.ClientFrame(request_id=1, unpublish=pb.UnpublishRequest(publication_id="x")).SerializeToString(),
    ),
    "an empty frame": ("mrtc.v1.proto", b""),
    "a resume of nothing": (
        "mrtc.v1.proto",
        pb.ClientFrame(request_id=1, resume=pb.ResumeRequest(resume_token="nothing")).SerializeToString(),
    ),
}


@pytest.mark.parametrize("case", list(BAD_FIRST_FRAMES))
async def test_a_malformed_frame_is_answered_or_the_connection_closed(suite: RunningSuite, case: str) -> None:
    """The server says what is wrong and goes on serving others."""
    subprotocol, data = BAD_FIRST_FRAMES[case]
    async with socket_to(suite, subprotocol) as opened:
        await opened.send(data)
        error = await first_error(opened)
    if error is not None:
        assert error.code in (
            common_pb2.ERROR_CODE_BAD_REQUEST,
            common_pb2.ERROR_CODE_FAILED_PRECONDITION,
            common_pb2.ERROR_CODE_SESSION_NOT_FOUND,
            common_pb2.ERROR_CODE_UNAUTHENTICATED,
        )
        no_traceback(error.message)
    assert httpx.get(f"{suite.url}/healthz", timeout=5).status_code == 200


async def test_an_oversized_frame_closes_the_connection_only(suite: RunningSuite) -> None:
    """A frame beyond the limit ends its connection with 1009; others go on."""
    async with socket_to(suite) as opened:
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await opened.send(os.urandom(8_000_000))
            async with asyncio.timeout(15):
                await opened.recv()
    assert closed.value.rcvd is None or closed.value.rcvd.code == 1009
    assert httpx.get(f"{suite.url}/healthz", timeout=5).status_code == 200


async def test_an_oversized_message_is_refused(suite: RunningSuite) -> None:
    """A text message over 64 KiB is refused and the session lives on."""
    from mrtc_sdk import RequestFailed

    room = new_room()
    async with joined(suite.url, suite.token(room, "alice"), room) as alice:
        with pytest.raises(RequestFailed) as refused:
            await alice.send_message(b"x" * 70_000)
        assert refused.value.code == common_pb2.ERROR_CODE_TOO_LARGE
        assert await alice.send_message(b"small") > 0


async def test_random_bytes_after_join_do_no_harm(suite: RunningSuite) -> None:
    """Mutated frames on a joined connection are answered or close it; the room goes on."""
    rng = random.Random(7)
    room = new_room()
    valid = pb.ClientFrame(request_id=2, mute=pb.MuteRequest(track_id="x", is_muted=True)).SerializeToString()
    for _ in range(5):
        async with socket_to(suite) as opened:
            join = pb.JoinRequest(token=suite.token(room, f"eve{rng.randrange(10**9)}"), room=room)
            await opened.send(pb.ClientFrame(request_id=1, join=join).SerializeToString())
            await opened.recv()
            for _ in range(30):
                mutated = bytearray(valid)
                mutated[rng.randrange(len(mutated))] = rng.randrange(256)
                try:
                    await opened.send(bytes(mutated))
                except websockets.ConnectionClosed:
                    break
    async with joined(suite.url, suite.token(room, "alice"), room) as alice:
        assert await alice.send_message(b"still here") > 0


@pytest.mark.parametrize("path", ["/v1/apps/demo/rooms", "/v1/apps/other/rooms", "/v1/apps/demo/rooms/x/participants"])
def test_the_api_wants_credentials(suite: RunningSuite, path: str) -> None:
    """No REST call is open, and no app sees another's rooms."""
    for headers in ({}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic eDp5"}):
        response = httpx.get(suite.url + path, headers=headers, timeout=5)
        assert response.status_code == 401, response.text
        assert response.headers["content-type"].startswith("application/problem+json")
        no_traceback(response.text)
    token = suite.token(new_room(), "eve")
    response = httpx.get(suite.url + "/v1/apps/other/rooms", headers={"authorization": f"Bearer {token}"}, timeout=5)
    assert response.status_code in (401, 403), response.text


async def test_grpc_without_the_secret_is_refused(suite: RunningSuite) -> None:
    """No service takes a call without the cluster's secret, and a wrong argument gets a status, no traceback."""
    address = f"127.0.0.1:{suite.suite.master_port}"
    async with grpc.aio.insecure_channel(address) as channel:
        stub = master_service_pb2_grpc.MasterServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListNodes(master_service_pb2.ListNodesRequest())
        assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
        metadata = (("authorization", f"Bearer {suite.suite.cluster_secret}"),)
        nodes = await stub.ListNodes(master_service_pb2.ListNodesRequest(), metadata=metadata)
    mcu = next(n for n in nodes.nodes if n.kind == master_service_pb2.NODE_KIND_MCU)
    async with grpc.aio.insecure_channel(mcu.grpc_address) as channel:
        media = media_service_pb2_grpc.MediaServiceStub(channel)
        for request, code in (
            (media_service_pb2.CreateTransportRequest(), grpc.StatusCode.INVALID_ARGUMENT),
            (
                media_service_pb2.CreateTransportRequest(
                    transport_id="t1", room_key="a.b", participant_id="p1", offer="no sdp"
                ),
                grpc.StatusCode.INVALID_ARGUMENT,
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as wrong:
                await media.CreateTransport(request, metadata=metadata)
            assert wrong.value.code() == code, wrong.value.details()
            no_traceback(wrong.value.details() or "")


async def test_garbage_datagrams_cost_no_call_a_frame(suite: RunningSuite) -> None:
    """Random and near-valid datagrams at every media port while a call runs: the picture goes on."""
    room, rng = new_room(), random.Random(11)
    ports = media_ports(suite)
    assert ports
    async with (
        joined(suite.url, suite.token(room, "alice"), room) as alice,
        joined(suite.url, suite.token(room, "bob"), room) as bob,
    ):
        await alice.publish(PatternTrack(3))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(3)
        began = time.monotonic()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for index in range(20_000):
                first = bytes([rng.choice([0, 1, 22, 64, 128, 144, 200, 193, 255])])
                sender.sendto(first + rng.randbytes(rng.randrange(0, 1300)), ("127.0.0.1", ports[index % len(ports)]))
                if index % 200 == 0:
                    await asyncio.sleep(0)
        await watcher.sees(3, frames=10)
        assert watcher.longest_gap_s(began) < 1.0
        await watcher.aclose()


def media_ports(suite: RunningSuite) -> list[int]:
    """UDP ports that the rtcmcu processes listen on."""
    import psutil

    ports: list[int] = []
    for name in ("rtcmcu-1", "rtcmcu-2"):
        connections = psutil.Process(suite.process(name).pid).net_connections("udp")
        ports += [connection.laddr.port for connection in connections]
    return ports
