"""How full the nodes of a kind are together, and how many there should be: for autoscalers, which must not flap."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from mrtc.node.v1.master_service_pb2 import NODE_STATE_DRAINING, NODE_STATE_READY, Node, NodeKind


@dataclass(frozen=True, slots=True)
class KindLoad:
    """The nodes of one kind.

    Attributes:
        load: 0 to 1: what they all carry, shared by those that take new work; 1 if there is work and none takes it.
        highest: the load of the fullest one, 0 to 1.
        ready, draining: nodes.
        wanted: nodes that there should be. Follows a rise at once and a fall only when it has lasted.
    """

    load: float = 0.0
    highest: float = 0.0
    ready: int = 0
    draining: int = 0
    wanted: int = 0


class Scaling:
    """Follows one kind of node.

    Args:
        target: the load that nodes should have on average.
        hold_s: how long fewer nodes must have been enough before fewer are wanted.
    """

    def __init__(self, target: float, hold_s: float) -> None:
        self._target = target
        self._hold_s = hold_s
        # Moments and wanted counts, each lower than the one before: the first is the highest within the time.
        self._peaks: deque[tuple[float, int]] = deque()

    def update(self, nodes: Iterable[Node], now: float) -> KindLoad:
        """The figures now; nodes in another state than ready or draining do not count. `now`: monotonic seconds."""
        known = [node for node in nodes if node.state in (NODE_STATE_READY, NODE_STATE_DRAINING)]
        ready = sum(node.state == NODE_STATE_READY for node in known)
        work = sum(node.load.load for node in known)
        # A draining node's work comes to the others; it is counted where it will be.
        wanted = max(1 if known else 0, math.ceil(work / self._target - 1e-9))
        self._note(now, wanted)
        return KindLoad(
            load=min(1.0, work / ready) if ready else float(work > 0),
            highest=max((node.load.load for node in known), default=0.0),
            ready=ready,
            draining=len(known) - ready,
            wanted=self._peaks[0][1],
        )

    def _note(self, now: float, wanted: int) -> None:
        while self._peaks and self._peaks[-1][1] <= wanted:
            self._peaks.pop()
        self._peaks.append((now, wanted))
        while self._peaks[0][0] < now - self._hold_s:
            self._peaks.popleft()


class FleetScaling:
    """All kinds of nodes."""

    def __init__(self, target: float, hold_s: float) -> None:
        self._target, self._hold_s = target, hold_s
        self._kinds: dict[NodeKind.ValueType, Scaling] = {}

    def update(self, nodes: Iterable[Node], now: float) -> dict[NodeKind.ValueType, KindLoad]:
        """The figures of every kind that was ever seen."""
        by_kind: dict[NodeKind.ValueType, list[Node]] = {kind: [] for kind in self._kinds}
        for node in nodes:
            by_kind.setdefault(node.kind, []).append(node)
        return {
            kind: self._kinds.setdefault(kind, Scaling(self._target, self._hold_s)).update(found, now)
            for kind, found in by_kind.items()
        }
