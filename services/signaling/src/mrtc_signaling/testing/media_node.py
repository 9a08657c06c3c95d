"""An rtcmcu without media and a master without load, over real gRPC and the real registry, for quick tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from mrtc.common.v1 import common_pb2
from mrtc.media.v1 import media_service_pb2 as pb
from mrtc.media.v1 import media_service_pb2_grpc
from mrtc.node.v1 import master_service_pb2 as node_pb
from mrtc.node.v1 import master_service_pb2_grpc
from mrtc_common.errors import (
    BadOfferError,
    NoCapacityError,
    PublicationNotFoundError,
    TransportNotFoundError,
    UnavailableError,
)
from mrtc_common.grpc import GrpcSecurity, GrpcServer
from mrtc_common.health import Health
from mrtc_common.nats import NatsLink
from mrtc_common.node import NodeAgent, new_node_id

from mrtc_signaling.core import sdp
from mrtc_signaling.core.caps import Caps

CHECKPOINT = b"checkpoint"
_KINDS = {"audio": common_pb2.TRACK_KIND_AUDIO, "video": common_pb2.TRACK_KIND_VIDEO}


def offer(lines: Sequence[str], *, codecs: Sequence[str] = ("vp8", "h264"), ufrag: str = "ufrg") -> str:
    """An offer whose m-lines are named like `audio send`, `video recv`; mids count from 0."""
    parts = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", f"a=x-codecs:{','.join(codecs)}"]
    for mid, line in enumerate(lines):
        kind, direction = line.split()
        parts += [
            f"m={kind} 9 UDP/TLS/RTP/SAVPF 96",
            "c=IN IP4 0.0.0.0",
            f"a=ice-ufrag:{ufrag}",
            "a=ice-pwd:0123456789abcdef0123456789",
            f"a=mid:{mid}",
            f"a={direction}only",
        ]
    return "\r\n".join(parts) + "\r\n"


@dataclass
class Transport:
    """What the node knows of one transport."""

    id: str
    participant_id: str
    lines: list[pb.TransportLine]
    generation: int = 0
    slots: dict[str, str] = field(default_factory=dict)
    subscriptions: list[pb.Subscription] = field(default_factory=list)
    audio_top_n: int = 0
    tracks: dict[str, common_pb2.Track] = field(default_factory=dict)
    muted: dict[str, bool] = field(default_factory=dict)
    caps: Caps = field(default_factory=Caps)
    is_sending: bool = True


class FakeNode(media_service_pb2_grpc.MediaServiceServicer):
    """One node; `directory` is shared by all nodes of a test, as relays would make tracks known."""

    def __init__(self, link: NatsLink, security: GrpcSecurity, directory: dict[str, common_pb2.Track]) -> None:
        self.id = new_node_id("mcu")
        self.transports: dict[str, Transport] = {}
        self.is_full = False
        # Takes transports and does not say so.
        self.is_silent = False
        self.states: list[bytes] = []
        self.set_subscriptions_calls = 0
        self._directory = directory
        self._security = security
        self._link = link
        self._server: GrpcServer | None = None
        self._agent: NodeAgent | None = None
        self._watchers: set[asyncio.Queue[pb.WatchTransportsResponse]] = set()

    async def start(self) -> Self:
        """Listens and registers."""
        self._server = GrpcServer(self._security, Health())
        media_service_pb2_grpc.add_MediaServiceServicer_to_server(self, self._server.server)
        port = await self._server.start("127.0.0.1", 0)
        self._agent = NodeAgent(
            self._link,
            node_id=self.id,
            kind=node_pb.NODE_KIND_MCU,
            grpc_address=f"127.0.0.1:{port}",
            load=node_pb.NodeLoad,
        )
        await self._agent.start()
        return self

    async def die(self) -> None:
        """Ends without a word: no farewell to the registry."""
        assert self._server is not None
        server, self._server = self._server, None
        await server.aclose(0)

    async def aclose(self) -> None:
        """Ends properly."""
        if self._agent is not None:
            await self._agent.aclose()
        if self._server is not None:
            await self._server.aclose(0)

    @property
    def is_watched(self) -> bool:
        """Somebody hears what `emit` tells."""
        return bool(self._watchers)

    def emit(self, transport_id: str, **event: Any) -> None:
        """Tells all watchers."""
        for queue in self._watchers:
            queue.put_nowait(pb.WatchTransportsResponse(transport_id=transport_id, **event))

    def transport_of(self, participant_id: str) -> Transport:
        """The transport of a participant."""
        return next(t for t in self.transports.values() if t.participant_id == participant_id)

    # RPCs

    async def CreateTransport(self, request: pb.CreateTransportRequest, context: Any) -> pb.CreateTransportResponse:  # noqa: D102
        if self.is_full:
            raise NoCapacityError
        transport = Transport(request.transport_id, request.participant_id, _lines(request.offer))
        transport.caps = Caps(request.max_egress_bps, request.max_ingress_bps, request.max_track_bps)
        transport.slots = {line.mid: "" for line in transport.lines if not line.is_inbound}
        transport.is_sending = request.state in (b"", CHECKPOINT)
        self.transports[transport.id] = transport
        self.states += [request.state] if request.state else []
        if self.is_silent:
            raise UnavailableError
        return pb.CreateTransportResponse(answer=_answer(transport), lines=transport.lines)

    async def NegotiateTransport(  # noqa: D102
        self, request: pb.NegotiateTransportRequest, context: Any
    ) -> pb.NegotiateTransportResponse:
        transport = self._find(request.transport_id)
        transport.lines = _lines(request.offer)
        transport.generation += 1
        for line in transport.lines:
            if not line.is_inbound:
                transport.slots.setdefault(line.mid, "")
        return pb.NegotiateTransportResponse(answer=_answer(transport), lines=transport.lines)

    async def ExportTransport(self, request: pb.ExportTransportRequest, context: Any) -> pb.ExportTransportResponse:  # noqa: D102
        transport = self._find(request.transport_id)
        transport.is_sending = transport.is_sending and not request.is_final
        return pb.ExportTransportResponse(state=b"final" if request.is_final else b"to meet")

    async def CheckpointTransports(  # noqa: D102
        self, request: pb.CheckpointTransportsRequest, context: Any
    ) -> pb.CheckpointTransportsResponse:
        known = [name for name in request.transport_ids if name in self.transports]
        return pb.CheckpointTransportsResponse(
            checkpoints=[pb.TransportCheckpoint(transport_id=name, state=CHECKPOINT) for name in known]
        )

    async def CompleteTransport(  # noqa: D102
        self, request: pb.CompleteTransportRequest, context: Any
    ) -> pb.CompleteTransportResponse:
        assert request.state == b"final"
        self._find(request.transport_id).is_sending = True
        return pb.CompleteTransportResponse()

    async def CloseTransport(self, request: pb.CloseTransportRequest, context: Any) -> pb.CloseTransportResponse:  # noqa: D102
        transport = self.transports.pop(request.transport_id, None)
        for track_id in transport.tracks if transport else ():
            self._directory.pop(track_id, None)
        return pb.CloseTransportResponse()

    async def PublishTracks(self, request: pb.PublishTracksRequest, context: Any) -> pb.PublishTracksResponse:  # noqa: D102
        transport = self._find(request.transport_id)
        for track in request.tracks:
            line = next(line for line in transport.lines if line.mid == track.mid)
            # The first of several alternatives takes the first codec, a later one the second.
            index = len([t for t in transport.tracks.values() if t.kind == track.kind]) if track.alternative_of else 0
            track.codec = line.codecs[min(index, len(line.codecs) - 1)]
            transport.tracks[track.id] = track
            self._directory[track.id] = track
        return pb.PublishTracksResponse(tracks=request.tracks)

    async def UnpublishTracks(self, request: pb.UnpublishTracksRequest, context: Any) -> pb.UnpublishTracksResponse:  # noqa: D102
        transport = self._find(request.transport_id)
        for track_id in request.track_ids:
            transport.tracks.pop(track_id, None)
            self._directory.pop(track_id, None)
        return pb.UnpublishTracksResponse()

    async def SetCaps(self, request: pb.SetCapsRequest, context: Any) -> pb.SetCapsResponse:  # noqa: D102
        caps = Caps(request.max_egress_bps, request.max_ingress_bps, request.max_track_bps)
        self._find(request.transport_id).caps = caps
        return pb.SetCapsResponse()

    async def SetTrackCap(self, request: pb.SetTrackCapRequest, context: Any) -> pb.SetTrackCapResponse:  # noqa: D102
        transport = self._find(request.transport_id)
        if request.track_id not in transport.tracks:
            raise PublicationNotFoundError
        transport.tracks[request.track_id].max_bitrate_bps = request.max_bitrate_bps
        return pb.SetTrackCapResponse()

    async def MuteTrack(self, request: pb.MuteTrackRequest, context: Any) -> pb.MuteTrackResponse:  # noqa: D102
        transport = self._find(request.transport_id)
        if request.track_id not in transport.tracks:
            raise PublicationNotFoundError
        transport.muted[request.track_id] = request.is_muted
        return pb.MuteTrackResponse()

    async def GetStats(self, request: pb.GetStatsRequest, context: Any) -> pb.GetStatsResponse:  # noqa: D102
        known = [{"id": name, "rx_packets": 1} for name in request.transport_ids if name in self.transports]
        return pb.GetStatsResponse(json=json.dumps({"transports": known}))

    async def SetSubscriptions(  # noqa: D102
        self, request: pb.SetSubscriptionsRequest, context: Any
    ) -> pb.SetSubscriptionsResponse:
        self.set_subscriptions_calls += 1
        transport = self._find(request.transport_id)
        transport.subscriptions = list(request.subscriptions)
        transport.audio_top_n = request.audio_top_n
        response = pb.SetSubscriptionsResponse()
        wanted = {s.track_id for s in request.subscriptions}
        for mid, track_id in transport.slots.items():
            if track_id not in wanted:
                transport.slots[mid] = ""
        for subscription in request.subscriptions:
            self._place(transport, subscription, response)
        kinds = {line.mid: line.kind for line in transport.lines}
        response.slots.extend(
            pb.Slot(mid=mid, kind=kinds[mid], track_id=track_id) for mid, track_id in transport.slots.items()
        )
        return response

    async def WatchTransports(  # noqa: D102
        self, request: pb.WatchTransportsRequest, context: Any
    ) -> AsyncIterator[pb.WatchTransportsResponse]:
        queue: asyncio.Queue[pb.WatchTransportsResponse] = asyncio.Queue()
        self._watchers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watchers.discard(queue)

    # Inside

    def _find(self, transport_id: str) -> Transport:
        if transport_id not in self.transports:
            raise TransportNotFoundError
        return self.transports[transport_id]

    def _place(self, transport: Transport, wanted: pb.Subscription, response: pb.SetSubscriptionsResponse) -> None:
        if wanted.track_id not in self._directory:
            response.missing_track_ids.append(wanted.track_id)
            return
        slots = [line for line in transport.lines if not line.is_inbound and line.kind == wanted.kind]
        candidates = [wanted.track_id, *wanted.alternative_track_ids]
        codecs = {self._directory[i].codec for i in candidates if i in self._directory}
        if slots and not any(codecs & set(line.codecs) for line in slots):
            response.no_common_codec_track_ids.append(wanted.track_id)
            return
        if wanted.track_id in transport.slots.values():
            return
        free = next((line.mid for line in slots if not transport.slots[line.mid]), None)
        if free is None:
            response.unplaced_track_ids.append(wanted.track_id)
        else:
            transport.slots[free] = wanted.track_id


class FakeMaster(master_service_pb2_grpc.MasterServiceServicer):
    """Places on the first node that is not excluded; `nodes` is the list."""

    def __init__(self, security: GrpcSecurity, nodes: list[FakeNode]) -> None:
        self.nodes = nodes
        self.placements = 0
        self.reliefs = 0
        self._server = GrpcServer(security, Health())
        master_service_pb2_grpc.add_MasterServiceServicer_to_server(self, self._server.server)
        self.address = ""

    async def start(self) -> Self:
        """Listens."""
        self.address = f"127.0.0.1:{await self._server.start('127.0.0.1', 0)}"
        return self

    async def aclose(self) -> None:
        """Ends."""
        await self._server.aclose(0)

    async def PlaceParticipant(  # noqa: D102
        self, request: node_pb.PlaceParticipantRequest, context: Any
    ) -> node_pb.PlaceParticipantResponse:
        self.placements += 1
        self.reliefs += request.is_relief
        for node in self.nodes:
            if node.id not in request.excluded_node_ids:
                return node_pb.PlaceParticipantResponse(node=node_pb.Node(id=node.id))
        raise NoCapacityError(retry_after_ms=500)

    async def ListNodes(self, request: node_pb.ListNodesRequest, context: Any) -> node_pb.ListNodesResponse:  # noqa: D102
        return node_pb.ListNodesResponse(nodes=[node_pb.Node(id=node.id) for node in self.nodes])


def _lines(text: str) -> list[pb.TransportLine]:
    if "a=x-bad" in text:
        raise BadOfferError("line 3: this is a bad offer")
    codecs = next((line[11:].split(",") for line in text.splitlines() if line.startswith("a=x-codecs:")), ["vp8"])
    return [
        pb.TransportLine(
            mid=line.mid,
            kind=_KINDS[line.kind],
            is_inbound=line.sends,
            codecs=["opus"] if line.kind == "audio" else codecs,
            rids=line.rids,
        )
        for line in sdp.media_lines(text)
    ]


def _answer(transport: Transport) -> str:
    parts = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", "a=ice-lite"]
    for line in transport.lines:
        parts += [
            f"m={'audio' if line.kind == common_pb2.TRACK_KIND_AUDIO else 'video'} 9 UDP/TLS/RTP/SAVPF 96",
            f"a=ice-ufrag:srv{transport.generation}",
            f"a=ice-pwd:{'p' * 24}",
            f"a=mid:{line.mid}",
            "a=candidate:1 1 udp 1 127.0.0.1 9 typ host",
        ]
    return "\r\n".join(parts) + "\r\n"
