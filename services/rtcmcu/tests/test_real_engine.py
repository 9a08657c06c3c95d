"""Real nodes: an aiortc publisher on one, an aiortc subscriber on another, media over the relay between them."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaStreamTrack
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from mrtc.common.v1.common_pb2 import TRACK_KIND_AUDIO, TRACK_KIND_VIDEO, Track
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc.media.v1 import media_service_pb2_grpc
from mrtc_common import subjects
from mrtc_common.errors import BadOfferError
from mrtc_common.grpc import Channels, GrpcSecurity, call, stream
from mrtc_common.testing import NatsServer, wait_until
from mrtc_rtcmcu.bootstrap import Mcu
from mrtc_rtcmcu.config import McuSettings

pytest.importorskip("mrtc_engine", reason="the engine wheel is not built")

# aiortc's own dependencies warn; their matter.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

SECRET = "a secret of the tests"
ROOM = subjects.room_key("app", "room")


def _own_ip() -> str:
    """The machine's address: aiortc takes no loopback candidates. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback, which aiortc does not use")
        return str(probe.getsockname()[0])


class Client:
    """An aiortc peer connection with its transport on a node."""

    def __init__(self, node: Mcu, stub: Any, transport_id: str) -> None:
        self.node, self.stub, self.transport_id = node, stub, transport_id
        self.pc = RTCPeerConnection()
        self.received: dict[str, MediaStreamTrack] = {}
        self.pc.on("track", lambda track: self.received.__setitem__(track.kind, track))
        self.lines: list[pb.TransportLine] = []

    async def connect(self) -> None:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        response = await call(
            self.stub.CreateTransport,
            pb.CreateTransportRequest(
                transport_id=self.transport_id,
                room_key=ROOM,
                participant_id=f"p-{self.transport_id}",
                offer=self.pc.localDescription.sdp,
            ),
        )
        self.lines = list(response.lines)
        await self.pc.setRemoteDescription(RTCSessionDescription(response.answer, "answer"))
        await wait_until(lambda: self.pc.connectionState == "connected", what="aiortc connected")

    async def publish(self) -> None:
        tracks = []
        for line in self.lines:
            name = "audio" if line.kind == TRACK_KIND_AUDIO else "video"
            tracks.append(Track(id=f"{self.transport_id}-{name}", kind=line.kind, mid=line.mid))
        request = pb.PublishTracksRequest(transport_id=self.transport_id, tracks=tracks)
        await call(self.stub.PublishTracks, request)

    async def subscribe(self, *track_ids: str, origin: Mcu) -> pb.SetSubscriptionsResponse:
        wanted = [
            pb.Subscription(
                track_id=track_id,
                kind=TRACK_KIND_AUDIO if track_id.endswith("audio") else TRACK_KIND_VIDEO,
                origin_node_id=origin.node_id,
            )
            for track_id in track_ids
        ]
        request = pb.SetSubscriptionsRequest(transport_id=self.transport_id, subscriptions=wanted)
        return await call(self.stub.SetSubscriptions, request)


class World:
    """Nodes and clients, ended together."""

    def __init__(self, nats_url: str, stack: contextlib.AsyncExitStack, channels: Channels) -> None:
        self._nats_url, self._stack, self._channels = nats_url, stack, channels
        self._ip = _own_ip()

    async def node(self) -> Mcu:
        settings = McuSettings.from_values(
            {
                "cluster_secret": SECRET,
                "bind_ip": "127.0.0.1",
                "grpc_port": 0,
                "http_port": 0,
                "udp_port": 0,
                "tcp_port": 0,
                "workers": 1,
                "advertised_ips": self._ip,
                "nats_urls": self._nats_url,
                "drain_timeout_s": 0,
            }
        )
        mcu = await self._stack.enter_async_context(Mcu(settings))
        await wait_until(lambda: mcu.health.is_ready and mcu.node_id in mcu.directory.nodes)
        return mcu

    def stub(self, node: Mcu) -> Any:
        return media_service_pb2_grpc.MediaServiceStub(self._channels.get(f"127.0.0.1:{node.grpc_port}"))

    async def client(self, node: Mcu, transport_id: str) -> Client:
        client = Client(node, self.stub(node), transport_id)
        self._stack.push_async_callback(client.pc.close)
        return client

    async def publisher(self, node: Mcu, transport_id: str) -> Client:
        client = await self.client(node, transport_id)
        client.pc.addTrack(AudioStreamTrack())
        client.pc.addTrack(VideoStreamTrack())
        await client.connect()
        await client.publish()
        return client

    async def subscriber(self, node: Mcu, transport_id: str) -> Client:
        client = await self.client(node, transport_id)
        client.pc.addTransceiver("audio", direction="recvonly")
        client.pc.addTransceiver("video", direction="recvonly")
        await client.connect()
        return client


@pytest_asyncio.fixture
async def world(nats_server: NatsServer) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        channels = await stack.enter_async_context(Channels(GrpcSecurity(SECRET)))
        yield World(nats_server.url, stack, channels)


async def _receives(client: Client, kind: str, frames: int = 5) -> bool:
    async with asyncio.timeout(15):
        for _ in range(frames):
            await client.received[kind].recv()
    return True


@pytest.mark.parametrize("nodes", [1, 2])
async def test_a_subscriber_sees_and_hears_a_publisher(world: World, nodes: int) -> None:
    origin = await world.node()
    edge = origin if nodes == 1 else await world.node()
    await world.publisher(origin, "t1")
    viewer = await world.subscriber(edge, "v1")
    response = await viewer.subscribe("t1-audio", "t1-video", origin=origin)
    assert {slot.track_id for slot in response.slots} == {"t1-audio", "t1-video"}
    assert await _receives(viewer, "video")
    assert await _receives(viewer, "audio")


async def test_events_of_a_real_call_are_told(world: World) -> None:
    node = await world.node()
    kinds = []

    async def watch() -> None:
        async for item in stream(world.stub(node).WatchTransports, pb.WatchTransportsRequest(transport_ids=["t1"])):
            kinds.append(item.WhichOneof("event"))

    task = asyncio.create_task(watch())
    await wait_until(lambda: len(node.media.watchers))
    publisher = await world.publisher(node, "t1")
    await wait_until(lambda: kinds.count("track_started") == 2)
    await publisher.pc.close()
    await wait_until(lambda: kinds[-1] == "closed")
    await asyncio.wait_for(task, 5)
    assert "connected" in kinds
    assert len(node.media.transports) == 0


async def test_a_viewer_on_another_node_follows_a_restarted_publisher(world: World) -> None:
    origin, edge = await world.node(), await world.node()
    first = await world.publisher(origin, "t1")
    viewer = await world.subscriber(edge, "v1")
    await viewer.subscribe("t1-video", origin=origin)
    assert await _receives(viewer, "video")
    await call(first.stub.CloseTransport, pb.CloseTransportRequest(transport_id="t1"))
    again = await world.client(origin, "t2")
    again.pc.addTrack(VideoStreamTrack())
    await again.connect()
    tracks = [Track(id="t1-video", kind=TRACK_KIND_VIDEO, mid=again.lines[0].mid)]
    await call(again.stub.PublishTracks, pb.PublishTracksRequest(transport_id="t2", tracks=tracks))

    async def is_back() -> bool:
        response = await viewer.subscribe("t1-video", origin=origin)
        return "t1-video" in {slot.track_id for slot in response.slots}

    await wait_until(is_back, interval_s=0.2)
    assert await _receives(viewer, "video", 30)


async def test_a_garbage_offer_is_refused_with_the_reason(world: World) -> None:
    node = await world.node()
    request = pb.CreateTransportRequest(transport_id="t", room_key=ROOM, participant_id="p", offer="v=0\r\nrubbish")
    with pytest.raises(BadOfferError):
        await call(world.stub(node).CreateTransport, request)
    assert len(node.media.transports) == 0


async def test_figures_and_the_rooms_state_are_json(world: World) -> None:
    node = await world.node()
    await world.publisher(node, "t1")
    stub = world.stub(node)
    assert isinstance(json.loads((await call(stub.GetStats, pb.GetStatsRequest())).json), dict)
    dumped = await call(stub.DumpRoom, pb.DumpRoomRequest(room_key=ROOM))
    assert isinstance(json.loads(dumped.json), dict)
    assert b"mrtc_rtcmcu_engine_rx_rtp_packets_total" in node.metrics.render()
