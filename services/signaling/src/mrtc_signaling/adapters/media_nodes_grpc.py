"""rtcmcu nodes over gRPC: placement by the master, calls with deadlines, one shared event stream per node."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from grpc_health.v1 import health_pb2, health_pb2_grpc
from mrtc.common.v1 import common_pb2
from mrtc.media.v1 import media_service_pb2, media_service_pb2_grpc
from mrtc.node.v1 import master_service_pb2, master_service_pb2_grpc
from mrtc_common import subjects
from mrtc_common.clock import Clock
from mrtc_common.errors import MrtcError, UnavailableError
from mrtc_common.grpc import Channels, call, stream
from mrtc_common.log import get_logger
from mrtc_common.nats import NatsLink, NatsSubscription
from mrtc_common.node import NodeDirectory
from mrtc_common.ports import Knock, knock
from mrtc_common.tasks import end_tasks

from mrtc_signaling.core.caps import Caps
from mrtc_signaling.ports import MediaNode, MediaNodeLost, TransportEvent

_log = get_logger(__name__)

Listener = Callable[[TransportEvent], None]

# Joins of one room within this time go where the master put the last one: a class of thirty is one question.
_PLACEMENT_TTL_S = 1.0
_MAX_PLACEMENTS_KEPT = 10_000
# A node whose event stream cannot be had for so long is taken for dead, before its heartbeat expires ...
_NODE_LOST_AFTER_S = 2.0
# ... and so is one that answers nothing for so long: its process is frozen, or its machine is gone without a word.
_NODE_MUTE_AFTER_S = 4.0
_PULSE_INTERVAL_S = 1.0
_STREAM_RETRY_S = 0.2
_REFUSED_WAIT_S = 0.05
# The present state comes at once; after this time there is no more of it.
_PRESENT_STATE_S = 1.0
# A stream that lasted so long was up.
_STREAM_STOOD_S = 1.0
_PLACE_TIMEOUT_S = 2.0
# For longer than a channel takes to find a master that is back.
_PLACE_RETRIES = 5
# Transports of which something is asked at a time: an answer stays far below the largest message of gRPC.
_BATCH = 256
_CHECKPOINT_TIMEOUT_S = 1.0


class GrpcMediaNode:
    """See `ports.MediaNode`."""

    def __init__(self, stub: media_service_pb2_grpc.MediaServiceStub) -> None:
        self._stub = stub

    async def create_transport(
        self, request: media_service_pb2.CreateTransportRequest
    ) -> media_service_pb2.CreateTransportResponse:
        """See the port."""
        # No retries by the channel: the caller goes to another node, which is quicker.
        response = await call(self._stub.CreateTransport, request, retries=0)
        return cast(media_service_pb2.CreateTransportResponse, response)

    async def negotiate_transport(
        self, request: media_service_pb2.NegotiateTransportRequest
    ) -> media_service_pb2.NegotiateTransportResponse:
        """See the port."""
        return cast(media_service_pb2.NegotiateTransportResponse, await call(self._stub.NegotiateTransport, request))

    async def export_transport(self, transport_id: str, *, is_final: bool) -> bytes:
        """See the port."""
        request = media_service_pb2.ExportTransportRequest(transport_id=transport_id, is_final=is_final)
        response = await call(self._stub.ExportTransport, request)
        return cast(media_service_pb2.ExportTransportResponse, response).state

    async def checkpoints(self, transport_ids: Sequence[str]) -> dict[str, bytes]:
        """See the port."""
        found: dict[str, bytes] = {}
        for start in range(0, len(transport_ids), _BATCH):
            request = media_service_pb2.CheckpointTransportsRequest(transport_ids=transport_ids[start : start + _BATCH])
            # No retries: a late one is of no use.
            response = await call(self._stub.CheckpointTransports, request, timeout_s=_CHECKPOINT_TIMEOUT_S, retries=0)
            found |= {one.transport_id: one.state for one in response.checkpoints}
        return found

    async def complete_transport(self, transport_id: str, state: bytes) -> None:
        """See the port."""
        request = media_service_pb2.CompleteTransportRequest(transport_id=transport_id, state=state)
        await call(self._stub.CompleteTransport, request)

    async def close_transport(self, transport_id: str) -> None:
        """See the port."""
        request = media_service_pb2.CloseTransportRequest(transport_id=transport_id)
        await call(self._stub.CloseTransport, request, timeout_s=1.5, retries=1)

    async def publish_tracks(self, transport_id: str, tracks: Sequence[common_pb2.Track]) -> list[common_pb2.Track]:
        """See the port."""
        request = media_service_pb2.PublishTracksRequest(transport_id=transport_id, tracks=tracks)
        return list((await call(self._stub.PublishTracks, request)).tracks)

    async def unpublish_tracks(self, transport_id: str, track_ids: Sequence[str]) -> None:
        """See the port."""
        request = media_service_pb2.UnpublishTracksRequest(transport_id=transport_id, track_ids=track_ids)
        await call(self._stub.UnpublishTracks, request)

    async def set_caps(self, transport_id: str, caps: Caps) -> None:
        """See the port."""
        request = media_service_pb2.SetCapsRequest(
            transport_id=transport_id,
            max_egress_bps=caps.egress_bps,
            max_ingress_bps=caps.ingress_bps,
            max_track_bps=caps.track_bps,
        )
        await call(self._stub.SetCaps, request)

    async def set_track_cap(self, transport_id: str, track_id: str, max_bitrate_bps: int) -> None:
        """See the port."""
        request = media_service_pb2.SetTrackCapRequest(
            transport_id=transport_id, track_id=track_id, max_bitrate_bps=max_bitrate_bps
        )
        await call(self._stub.SetTrackCap, request)

    async def mute_track(self, transport_id: str, track_id: str, is_muted: bool) -> None:
        """See the port."""
        request = media_service_pb2.MuteTrackRequest(transport_id=transport_id, track_id=track_id, is_muted=is_muted)
        await call(self._stub.MuteTrack, request)

    async def set_subscriptions(
        self, transport_id: str, subscriptions: Sequence[media_service_pb2.Subscription], audio_top_n: int = 0
    ) -> media_service_pb2.SetSubscriptionsResponse:
        """See the port."""
        request = media_service_pb2.SetSubscriptionsRequest(
            transport_id=transport_id, subscriptions=subscriptions, audio_top_n=audio_top_n
        )
        return cast(media_service_pb2.SetSubscriptionsResponse, await call(self._stub.SetSubscriptions, request))

    async def stats(self, transport_ids: Sequence[str]) -> list[dict[str, Any]]:
        """See the port."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(transport_ids), _BATCH):
            batch = transport_ids[start : start + _BATCH]
            request = media_service_pb2.GetStatsRequest(transport_ids=batch)
            found += json.loads((await call(self._stub.GetStats, request)).json).get("transports", [])
        return found

    async def set_data_peers(self, transport_id: str, node_ids: Sequence[str]) -> None:
        """See the port."""
        request = media_service_pb2.SetDataPeersRequest(transport_id=transport_id, node_ids=node_ids)
        await call(self._stub.SetDataPeers, request)


@dataclass(slots=True)
class _Watched:
    """A node with transports of ours."""

    listeners: dict[str, Listener] = field(default_factory=dict)
    task: asyncio.Task[None] | None = None


class GrpcMediaNodes:
    """See `ports.MediaNodes`."""

    def __init__(self, link: NatsLink, channels: Channels, master_address: str, clock: Clock, region: str = "") -> None:
        self._link = link
        self._channels = channels
        self._clock = clock
        self._region = region
        self._directory = NodeDirectory(link)
        self._directory.on_gone(lambda node: self._lost(node.id, "it left the registry"))
        self._master = master_service_pb2_grpc.MasterServiceStub(channels.get(master_address))
        self._placements: dict[str, tuple[str, float]] = {}
        self._watched: dict[str, _Watched] = {}
        self._node_of: dict[str, str] = {}
        self._refreshes: set[asyncio.Task[None]] = set()
        self._died: NatsSubscription | None = None
        self._died_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to follow the registry; returns at once."""
        await self._directory.start()
        self._died_task = asyncio.create_task(self._follow_deaths(), name="node-deaths")

    async def aclose(self) -> None:
        """Ends all streams."""
        tasks = [w.task for w in self._watched.values() if w.task is not None] + list(self._refreshes)
        if self._died_task is not None:
            tasks.append(self._died_task)
        await end_tasks(*tasks)
        self._watched.clear()
        self._node_of.clear()
        if self._died is not None:
            await self._died.aclose()
        await self._directory.aclose()

    async def ping_master(self) -> None:
        """Raises UnavailableError if the master does not answer."""
        request = master_service_pb2.ListNodesRequest(kind=master_service_pb2.NODE_KIND_MCU)
        await call(self._master.ListNodes, request, timeout_s=1.5, retries=0)

    async def place(
        self, room_key: str, room_node_ids: Sequence[str], excluded_node_ids: Sequence[str], *, is_relief: bool = False
    ) -> str:
        """See the port."""
        now = self._clock.monotonic()
        cached = self._placements.get(room_key)
        if not is_relief and cached is not None and cached[1] > now and cached[0] not in excluded_node_ids:
            return cached[0]
        request = master_service_pb2.PlaceParticipantRequest(
            room_key=room_key,
            region=self._region,
            excluded_node_ids=excluded_node_ids,
            room_node_ids=room_node_ids,
            is_relief=is_relief,
        )
        response = await call(
            self._master.PlaceParticipant, request, timeout_s=_PLACE_TIMEOUT_S, retries=_PLACE_RETRIES
        )
        node_id: str = response.node.id
        if len(self._placements) >= _MAX_PLACEMENTS_KEPT:
            self._placements = {k: v for k, v in self._placements.items() if v[1] > now}
        self._placements[room_key] = (node_id, now + _PLACEMENT_TTL_S)
        return node_id

    async def node(self, node_id: str) -> MediaNode:
        """See the port."""
        return GrpcMediaNode(await self._stub(node_id))

    def listen(self, node_id: str, transport_id: str, listener: Listener) -> None:
        """See the port."""
        self.unlisten(transport_id)
        watched = self._watched.setdefault(node_id, _Watched())
        watched.listeners[transport_id] = listener
        self._node_of[transport_id] = node_id
        if watched.task is None:
            watched.task = asyncio.create_task(self._care(node_id), name=f"node {node_id}")

    def refresh(self, node_id: str, transport_id: str) -> None:
        """See the port. A stream of its own, since the shared one told its present state when it was opened."""

        async def read_present_state() -> None:
            with contextlib.suppress(MrtcError, TimeoutError):
                stub = await self._stub(node_id)
                request = media_service_pb2.WatchTransportsRequest(transport_ids=[transport_id])
                async with asyncio.timeout(_PRESENT_STATE_S):
                    async for event in stream(stub.WatchTransports, request):
                        self._hand_out(node_id, event)

        task = asyncio.create_task(read_present_state())
        self._refreshes.add(task)
        task.add_done_callback(self._refreshes.discard)

    def unlisten(self, transport_id: str) -> None:
        """See the port."""
        node_id = self._node_of.pop(transport_id, None)
        watched = self._watched.get(node_id or "")
        if watched is not None:
            watched.listeners.pop(transport_id, None)
            if not watched.listeners and watched.task is not None and node_id is not None:
                watched.task.cancel()
                del self._watched[node_id]

    async def _stub(self, node_id: str) -> media_service_pb2_grpc.MediaServiceStub:
        node = await self._directory.find(node_id)
        if node is None:
            raise UnavailableError("the media node is not in the registry")
        return media_service_pb2_grpc.MediaServiceStub(self._channels.get(node.grpc_address))

    async def _care(self, node_id: str) -> None:
        """Hands out a node's events until it is lost."""
        tasks = {asyncio.create_task(self._follow(node_id)), asyncio.create_task(self._feel_pulse(node_id))}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*tasks)

    async def _feel_pulse(self, node_id: str) -> None:
        """Ends when the node has answered nothing for a time; its event stream may look sound meanwhile."""
        node = await self._directory.find(node_id)
        if node is None:
            return
        health = health_pb2_grpc.HealthStub(self._channels.get(node.grpc_address))
        answered_at = self._clock.monotonic()
        while self._clock.monotonic() - answered_at < _NODE_MUTE_AFTER_S:
            asked_at = self._clock.monotonic()
            try:
                await call(health.Check, health_pb2.HealthCheckRequest(), timeout_s=_PULSE_INTERVAL_S, retries=0)
                answered_at = self._clock.monotonic()
            except MrtcError as error:
                _log.debug("a node did not answer", node_id=node_id, error=error.message)
            await asyncio.sleep(max(0.0, asked_at + _PULSE_INTERVAL_S - self._clock.monotonic()))
        self._lost(node_id, "it answers nothing")

    async def _follow(self, node_id: str) -> None:
        """Hands out a node's events; when its stream breaks and cannot be had again the node is lost."""
        failing_since: float | None = None
        while True:
            began_at = self._clock.monotonic()
            try:
                stub = await self._stub(node_id)
                async for event in stream(stub.WatchTransports, media_service_pb2.WatchTransportsRequest()):
                    self._hand_out(node_id, event)
            except MrtcError as error:
                _log.debug("a node's event stream broke", node_id=node_id, error=error.message)
            if await self._is_refused(node_id):
                self._lost(node_id, "its process is gone", is_dead=True)
                return
            now = self._clock.monotonic()
            if failing_since is None or now - began_at > _STREAM_STOOD_S:
                failing_since = now
            if now - failing_since >= _NODE_LOST_AFTER_S and self._link.is_ready:
                self._lost(node_id, "it does not answer")
                return
            await asyncio.sleep(_STREAM_RETRY_S)

    async def _is_refused(self, node_id: str) -> bool:
        """True if nothing listens at the node's address any more: its machine answers, and its engine went with it.

        Asked twice, since a port may be refused for a moment while a proxy in between changes its mind.
        """
        node = await self._directory.find(node_id)
        if node is None:
            return False
        for _ in range(2):
            await asyncio.sleep(_REFUSED_WAIT_S)
            if await knock(node.grpc_address) is not Knock.REFUSED:
                return False
        return True

    def _hand_out(self, node_id: str, event: media_service_pb2.WatchTransportsResponse) -> None:
        watched = self._watched.get(node_id)
        listener = watched.listeners.get(event.transport_id) if watched is not None else None
        if listener is not None:
            listener(event)

    def _lost(self, node_id: str, why: str, *, is_dead: bool = False) -> None:
        watched = self._watched.pop(node_id, None)
        self._placements = {k: v for k, v in self._placements.items() if v[0] != node_id}
        if watched is None:
            return
        _log.warning("a media node is lost", node_id=node_id, reason=why, transports=len(watched.listeners))
        if watched.task is not None and watched.task is not asyncio.current_task():
            watched.task.cancel()
        for transport_id, listener in list(watched.listeners.items()):
            self._node_of.pop(transport_id, None)
            listener(MediaNodeLost(is_dead))

    async def _follow_deaths(self) -> None:
        async def on_event(subject: str, _payload: bytes) -> None:
            self._lost(subject.rsplit(".", 1)[-1], "the master says so")

        while self._died is None:
            with contextlib.suppress(UnavailableError):
                await self._link.wait_ready()
                self._died = await self._link.subscribe(subjects.NODE_EVENTS_WILDCARD, on_event)
