"""The nodes as callers see them: those alive, and for a while those that died."""

from __future__ import annotations

from collections import OrderedDict

from mrtc.node.v1.master_service_pb2 import NODE_STATE_DEAD, NODE_STATE_DRAINING, NODE_STATE_READY, Node, NodeKind
from mrtc_common import subjects, tables
from mrtc_common.clock import Clock
from mrtc_common.errors import NotFoundError, UnavailableError
from mrtc_common.nats import NatsLink
from mrtc_common.node import NodeDirectory

from .core.scaling import FleetScaling, KindLoad

_DEAD_SHOWN_S = 300.0
_SILENT_S = 5.0
_MAX_DEAD_SHOWN = 100


class Registry:
    """Lists nodes and orders drains."""

    def __init__(self, link: NatsLink, directory: NodeDirectory, clock: Clock, scaling: FleetScaling) -> None:
        self._directory = directory
        self._scaling = scaling
        self._drains = tables.drains(link)
        self._clock = clock
        self._dead: OrderedDict[str, tuple[Node, float]] = OrderedDict()
        directory.on_gone(self._node_gone)

    def alive(self) -> list[Node]:
        """Nodes with a heartbeat. Raises UnavailableError before the registry was read."""
        if not self._directory.is_synced:
            raise UnavailableError("the registry has not been read yet")
        return list(self._directory.nodes.values())

    def placeable(self) -> list[Node]:
        """Nodes to give participants to: not those silent for two heartbeats, unless all are (NATS is away).

        Raises UnavailableError before the registry was read.
        """
        return list(self._directory.heard_within(_SILENT_S).values()) or self.alive()

    def loads(self) -> dict[NodeKind.ValueType, KindLoad]:
        """How full the nodes of each kind are. Raises UnavailableError before the registry was read."""
        return self._scaling.update(self.alive(), self._clock.monotonic())

    def all(self, kind: NodeKind.ValueType | None = None) -> list[Node]:
        """Nodes alive and lately dead, by id. Raises UnavailableError."""
        alive = self.alive()
        known = {node.id for node in alive}
        now = self._clock.monotonic()
        dead = [node for node, at in self._dead.values() if now - at < _DEAD_SHOWN_S and node.id not in known]
        nodes = [node for node in (*alive, *dead) if not kind or node.kind == kind]
        return sorted(nodes, key=lambda node: node.id)

    async def set_draining(self, node_id: str, is_draining: bool) -> Node:
        """Orders a drain or takes it back. Raises NotFoundError, UnavailableError."""
        node = self._directory.nodes.get(node_id)
        if node is None:
            raise NotFoundError("no such node")
        key = subjects.drain_key(node_id)
        if is_draining:
            await self._drains.put(key, Node(id=node_id))
        else:
            await self._drains.delete(key)
        shown = Node()
        shown.CopyFrom(node)
        shown.state = NODE_STATE_DRAINING if is_draining else NODE_STATE_READY
        return shown

    def _node_gone(self, node: Node) -> None:
        dead = Node()
        dead.CopyFrom(node)
        dead.state = NODE_STATE_DEAD
        self._dead[node.id] = (dead, self._clock.monotonic())
        while len(self._dead) > _MAX_DEAD_SHOWN:
            self._dead.popitem(last=False)
