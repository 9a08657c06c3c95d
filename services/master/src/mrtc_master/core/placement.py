"""Chooses the node for a participant: the room's own nodes first, then the least loaded, spread by two choices."""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mrtc.node.v1.master_service_pb2 import NODE_KIND_MCU, NODE_STATE_READY, Node
from mrtc_common.errors import NoCapacityError

_CLOSE = 0.1  # loads that differ by less are the same: heartbeats are up to two seconds old
_RETRY_AFTER_MS = 2000
_MAX_REMEMBERED_ROOMS = 20_000


@dataclass(frozen=True, slots=True)
class PlacementPolicy:
    """Below `watermark` a node is filled; at `limit` it gets nobody."""

    watermark: float = 0.8
    limit: float = 0.97
    room_memory_s: float = 10.0
    """How long a placement is remembered for its room: joins at the same moment do not know of each other yet."""


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """One participant to place."""

    room_key: str
    region: str = ""
    excluded: frozenset[str] = frozenset()
    room_nodes: tuple[str, ...] = ()


class Placer:
    """Places participants; counts what it placed until the node's next heartbeat shows it.

    Args:
        rng: chooses among nodes that are as good; a seed makes a run repeatable.
    """

    def __init__(self, policy: PlacementPolicy, rng: random.Random | None = None) -> None:
        self._policy = policy
        self._rng = rng or random.Random()  # noqa: S311
        self._placed: dict[str, tuple[int, int]] = {}
        self._rooms: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def place(self, request: PlacementRequest, nodes: Iterable[Node], now: float) -> Node:
        """The chosen node. Raises NoCapacityError.

        Args:
            now: monotonic seconds.
        """
        candidates = [node for node in nodes if self._is_candidate(node, request)]
        if not candidates:
            raise NoCapacityError("no media node can take a participant now", retry_after_ms=_RETRY_AFTER_MS)
        chosen = self._of_room(request, candidates, now) or self._of_all(request, candidates)
        self._remember(request.room_key, chosen, now)
        return chosen

    def load_of(self, node: Node) -> float:
        """The load at the heartbeat plus what was placed since."""
        heartbeat_at, count = self._placed.get(node.id, (0, 0))
        extra = count if heartbeat_at == node.heartbeat_at_ms else 0
        return node.load.load + extra / max(50, node.load.max_transports or 500)

    def forget_node(self, node_id: str) -> None:
        """Drops what is remembered of a node that is gone."""
        self._placed.pop(node_id, None)

    def _is_candidate(self, node: Node, request: PlacementRequest) -> bool:
        return (
            node.kind == NODE_KIND_MCU
            and node.state == NODE_STATE_READY
            and node.id not in request.excluded
            and self.load_of(node) < self._policy.limit
            and (node.load.max_transports == 0 or node.load.transports < node.load.max_transports)
        )

    def _of_room(self, request: PlacementRequest, candidates: Sequence[Node], now: float) -> Node | None:
        known = set(request.room_nodes)
        remembered = self._rooms.get(request.room_key)
        if remembered is not None and now - remembered[1] < self._policy.room_memory_s:
            known.add(remembered[0])
        of_room = [n for n in candidates if n.id in known and self.load_of(n) < self._policy.watermark]
        if request.region:
            # A participant far from the room's node is better served near itself, over a relay.
            of_room = [node for node in of_room if node.region == request.region] or (
                of_room if not any(node.region == request.region for node in candidates) else []
            )
        return min(of_room, key=lambda node: (self.load_of(node), node.id)) if of_room else None

    def _of_all(self, request: PlacementRequest, candidates: Sequence[Node]) -> Node:
        near = [node for node in candidates if node.region == request.region] if request.region else []
        for pool in (near, candidates):
            below = [node for node in pool if self.load_of(node) < self._policy.watermark]
            if below:
                return self._two_choices(below)
        return min(near or candidates, key=self.load_of)

    def _two_choices(self, pool: Sequence[Node]) -> Node:
        least = min(self.load_of(node) for node in pool)
        close = sorted((n for n in pool if self.load_of(n) <= least + _CLOSE), key=lambda node: node.id)
        picked = self._rng.sample(close, min(2, len(close)))
        return min(picked, key=self.load_of)

    def _remember(self, room_key: str, node: Node, now: float) -> None:
        heartbeat_at, count = self._placed.get(node.id, (0, 0))
        same = heartbeat_at == node.heartbeat_at_ms
        self._placed[node.id] = (node.heartbeat_at_ms, count + 1 if same else 1)
        self._rooms[room_key] = (node.id, now)
        self._rooms.move_to_end(room_key)
        while len(self._rooms) > _MAX_REMEMBERED_ROOMS:
            self._rooms.popitem(last=False)
