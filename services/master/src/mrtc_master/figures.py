"""The metrics of master."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping

from mrtc.node.v1.master_service_pb2 import Node, NodeKind, NodeState
from mrtc_common.metrics import Metrics

from .core.scaling import KindLoad


def kind_word(kind: NodeKind.ValueType) -> str:
    """`mcu`, `recorder` or `vod`."""
    return NodeKind.Name(kind).removeprefix("NODE_KIND_").lower()


class MasterFigures:
    """Named as in docs/metrics.md."""

    def __init__(self, metrics: Metrics) -> None:
        self.nodes = metrics.gauge("nodes_count", "Nodes in the registry.", ["kind", "state"])
        self.node_load = metrics.gauge("node_load_ratio", "Highest load of the nodes of a kind.", ["kind"])
        self.load = metrics.gauge(
            "load_ratio", "What the nodes of a kind carry, shared by those that are ready.", ["kind"]
        )
        self.wanted = metrics.gauge("nodes_wanted_count", "Nodes that there should be.", ["kind"])
        self.placements = metrics.counter("placements_total", "Placements by result.", ["result"])
        self.nodes_lost = metrics.counter(
            "nodes_lost_total", "Nodes gone from the registry: `left` after a drain, or `died`.", ["how"]
        )
        self.reaped = metrics.counter("reaped_total", "Orphans and rooms removed.", ["kind"])
        self.lease_held = metrics.gauge("lease_held", "1 while this instance does the duties that must be single.")
        self._rooms = metrics.gauge("rooms_count", "Rooms.")
        self._participants = metrics.gauge("participants_count", "Participants.")
        self._sessions = metrics.gauge("sessions_count", "Sessions.")

    def show_nodes(self, nodes: Iterable[Node]) -> None:
        """Sets the gauges of nodes."""
        tally: Tally[tuple[str, str]] = Tally()
        for node in nodes:
            tally[kind_word(node.kind), NodeState.Name(node.state).removeprefix("NODE_STATE_").lower()] += 1
        self.nodes.clear()
        for labels, count in tally.items():
            self.nodes.labels(*labels).set(count)

    def show_load(self, loads: Mapping[NodeKind.ValueType, KindLoad]) -> None:
        """Sets the gauges of load."""
        for kind, found in loads.items():
            word = kind_word(kind)
            self.node_load.labels(word).set(found.highest)
            self.load.labels(word).set(found.load)
            self.wanted.labels(word).set(found.wanted)

    def show_rooms(self, rooms: int, participants: int, sessions: int) -> None:
        """Sets the gauges of rooms."""
        self._rooms.set(rooms)
        self._participants.set(participants)
        self._sessions.set(sessions)
