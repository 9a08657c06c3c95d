"""MasterService."""

from __future__ import annotations

from typing import Any

from mrtc.node.v1 import master_service_pb2 as pb
from mrtc.node.v1 import master_service_pb2_grpc
from mrtc_common.clock import Clock
from mrtc_common.errors import BadRequestError, MrtcError
from mrtc_common.subjects import parse_room_key

from mrtc_master.core.placement import PlacementRequest, Placer
from mrtc_master.figures import MasterFigures
from mrtc_master.registry import Registry

_MAX_NODE_IDS = 1000


class MasterServicer(master_service_pb2_grpc.MasterServiceServicer):
    """Decodes, calls, encodes."""

    def __init__(self, registry: Registry, placer: Placer, figures: MasterFigures, clock: Clock) -> None:
        self._registry = registry
        self._placer = placer
        self._figures = figures
        self._clock = clock

    async def PlaceParticipant(self, request: pb.PlaceParticipantRequest, context: Any) -> pb.PlaceParticipantResponse:
        """Chooses a node."""
        try:
            node = self._place(request)
        except MrtcError as error:
            self._figures.placements.labels(error.code_name()).inc()
            raise
        self._figures.placements.labels("ok").inc()
        return pb.PlaceParticipantResponse(node=node)

    async def ListNodes(self, request: pb.ListNodesRequest, context: Any) -> pb.ListNodesResponse:
        """All nodes."""
        return pb.ListNodesResponse(nodes=self._registry.all(request.kind))

    async def SetNodeDraining(self, request: pb.SetNodeDrainingRequest, context: Any) -> pb.SetNodeDrainingResponse:
        """Orders a drain."""
        node = await self._registry.set_draining(request.node_id, request.is_draining)
        return pb.SetNodeDrainingResponse(node=node)

    def _place(self, request: pb.PlaceParticipantRequest) -> pb.Node:
        parse_room_key(request.room_key)
        if len(request.excluded_node_ids) > _MAX_NODE_IDS or len(request.room_node_ids) > _MAX_NODE_IDS:
            raise BadRequestError(f"at most {_MAX_NODE_IDS} node ids")
        wanted = PlacementRequest(
            room_key=request.room_key,
            region=request.region,
            excluded=frozenset(request.excluded_node_ids),
            room_nodes=tuple(request.room_node_ids),
            is_relief=request.is_relief,
        )
        return self._placer.place(wanted, self._registry.placeable(), self._clock.monotonic())
