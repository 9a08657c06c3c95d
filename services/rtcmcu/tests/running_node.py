"""A whole node with a real nats-server and real gRPC, around an engine without packets."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from mrtc.common.v1.common_pb2 import TRACK_KIND_VIDEO, Track
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc.media.v1 import media_service_pb2_grpc, relay_service_pb2_grpc
from mrtc_common import subjects
from mrtc_common.grpc import Channels, GrpcSecurity, call
from mrtc_common.testing import wait_until
from mrtc_rtcmcu.adapters.engine_mrtc import EngineKit
from mrtc_rtcmcu.bootstrap import Mcu
from mrtc_rtcmcu.config import McuSettings

from services.rtcmcu.tests.fake_engine import FakeEngine, FakeWorld

SECRET = "a secret of the tests"
ROOM = subjects.room_key("app", "room")


class Node:
    """A running node and a client of it."""

    def __init__(self, mcu: Mcu, engine: FakeEngine, channels: Channels) -> None:
        self.mcu, self.engine = mcu, engine
        channel = channels.get(f"127.0.0.1:{mcu.grpc_port}")
        self.stub = media_service_pb2_grpc.MediaServiceStub(channel)
        self.relay_stub = relay_service_pb2_grpc.RelayServiceStub(channel)
        self.id = mcu.node_id

    async def create(self, transport_id: str, offer: str = "offer", **fields: Any) -> pb.CreateTransportResponse:
        values = {"transport_id": transport_id, "room_key": ROOM, "participant_id": f"p-{transport_id}", "offer": offer}
        return await call(self.stub.CreateTransport, pb.CreateTransportRequest(**(values | fields)))

    async def publish(self, transport_id: str, *track_ids: str) -> list[Track]:
        tracks = [Track(id=track_id, mid=track_id, kind=TRACK_KIND_VIDEO) for track_id in track_ids]
        request = pb.PublishTracksRequest(transport_id=transport_id, tracks=tracks)
        return list((await call(self.stub.PublishTracks, request)).tracks)

    async def unpublish(self, transport_id: str, *track_ids: str) -> None:
        request = pb.UnpublishTracksRequest(transport_id=transport_id, track_ids=track_ids)
        await call(self.stub.UnpublishTracks, request)

    async def subscribe(
        self, transport_id: str, *track_ids: str, origin: "Node | None" = None
    ) -> pb.SetSubscriptionsResponse:
        wanted = [
            pb.Subscription(track_id=t, kind=TRACK_KIND_VIDEO, origin_node_id=(origin or self).id) for t in track_ids
        ]
        request = pb.SetSubscriptionsRequest(transport_id=transport_id, subscriptions=wanted)
        return await call(self.stub.SetSubscriptions, request)

    async def close(self, transport_id: str) -> None:
        await call(self.stub.CloseTransport, pb.CloseTransportRequest(transport_id=transport_id))


StartNode = Callable[..., Awaitable[Node]]


@contextlib.asynccontextmanager
async def starting_nodes(nats_url: str) -> AsyncIterator[StartNode]:
    """Starts nodes, which end with the block."""
    world = FakeWorld()
    async with contextlib.AsyncExitStack() as stack:
        channels = await stack.enter_async_context(Channels(GrpcSecurity(SECRET)))

        async def start(*, wait: bool = True, slots: int = 2, **values: Any) -> Node:
            defaults = {
                "cluster_secret": SECRET,
                "bind_ip": "127.0.0.1",
                "grpc_port": 0,
                "http_port": 0,
                "nats_urls": nats_url,
                "drain_timeout_s": 0.2,
            }
            engine = FakeEngine(world, f"e{len(world.exports)}", slots=slots)
            kit = EngineKit(lambda _settings: engine, dict)
            mcu = await stack.enter_async_context(Mcu(McuSettings.from_values(defaults | values), engine_kit=kit))
            if wait:
                await wait_until(lambda: mcu.health.is_ready and mcu.node_id in mcu.directory.nodes)
            return Node(mcu, engine, channels)

        yield start


def slots_of(response: pb.SetSubscriptionsResponse) -> list[str]:
    """The tracks in its slots."""
    return [slot.track_id for slot in response.slots]
