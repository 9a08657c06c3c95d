"""Chooses the node for a participant: the room's own nodes first, then its zone, then the least loaded of all.

Nodes that are as good share what comes by two choices. A room leaves its zone (failure domain) only when that is full
or has just lost a node, and its participants' region only when nothing there has room.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from mrtc.node.v1.master_service_pb2 import NODE_KIND_MCU, NODE_STATE_DRAINING, NODE_STATE_READY, Node
from mrtc_common.errors import NoCapacityError

_CLOSE = 0.1  # loads that differ by less are the same: heartbeats are up to two seconds old
_RETRY_AFTER_MS = 2000
_MAX_REMEMBERED_ROOMS = 20_000

Zone = tuple[str, str]
"""Region and zone: two regions may name a zone alike."""

_NO_ZONE: Zone = ("", "")


def _share_of_one(node: Node) -> float:
    """What one more participant adds to the load at least."""
    return 1 / node.load.max_transports if node.load.max_transports else 0.0


def zone_of(node: Node) -> Zone | None:
    """The failure domain of a node; None if it does not say."""
    return (node.region, node.zone) if node.zone else None


@dataclass(frozen=True, slots=True)
class PlacementPolicy:
    """Below `watermark` a node is filled; at `limit` it gets nobody."""

    watermark: float = 0.8
    limit: float = 0.97
    room_memory_s: float = 10.0
    """How long a placement is remembered for its room: joins at the same moment do not know of each other yet."""
    shaken_zone_s: float = 30.0
    """How long a zone that lost a node gets no room that is not there already: where one dies others often follow."""


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """One participant to place."""

    room_key: str
    region: str = ""
    excluded: frozenset[str] = frozenset()
    room_nodes: tuple[str, ...] = ()
    is_relief: bool = False
    """He has a place, on a node that is too full; a node that would be so with him is no better."""


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
        self._shaken: dict[Zone, float] = {}

    def place(self, request: PlacementRequest, nodes: Iterable[Node], now: float) -> Node:
        """The chosen node. Raises NoCapacityError.

        Args:
            nodes: all that are alive; those that can take nobody tell where the room is.
            now: monotonic seconds.
        """
        alive = list(nodes)
        candidates = [node for node in alive if self._is_candidate(node, request)]
        if not candidates:
            raise NoCapacityError("no media node can take a participant now", retry_after_ms=_RETRY_AFTER_MS)
        room_nodes = self._nodes_of_room(request, now)
        chosen = self._of_room(request, candidates, room_nodes)
        if chosen is None:
            zones = {zone for node in alive if node.id in room_nodes and (zone := zone_of(node))}
            chosen = self._of_all(request, candidates, zones, now)
        self._remember(request.room_key, chosen, now)
        return chosen

    def load_of(self, node: Node) -> float:
        """The load at the heartbeat plus what was placed since."""
        heartbeat_at, count = self._placed.get(node.id, (0, 0))
        extra = count if heartbeat_at == node.heartbeat_at_ms else 0
        return node.load.load + extra / max(50, node.load.max_transports or 500)

    def forget_node(self, node: Node, now: float) -> None:
        """Drops what is remembered of a node that is gone; its zone is shaken unless it drained before."""
        self._placed.pop(node.id, None)
        zone = zone_of(node)
        if zone is not None and node.state != NODE_STATE_DRAINING:
            self._shaken = {zone: until for zone, until in self._shaken.items() if until > now}
            self._shaken[zone] = now + self._policy.shaken_zone_s

    def _is_candidate(self, node: Node, request: PlacementRequest) -> bool:
        return (
            node.kind == NODE_KIND_MCU
            and node.state == NODE_STATE_READY
            and node.id not in request.excluded
            and self.load_of(node) < self._policy.limit
            and (node.load.max_transports == 0 or node.load.transports < node.load.max_transports)
            and (not request.is_relief or self.load_of(node) + _share_of_one(node) < self._policy.watermark)
        )

    def _nodes_of_room(self, request: PlacementRequest, now: float) -> set[str]:
        known = set(request.room_nodes)
        remembered = self._rooms.get(request.room_key)
        if remembered is not None and now - remembered[1] < self._policy.room_memory_s:
            known.add(remembered[0])
        return known

    def _of_room(self, request: PlacementRequest, candidates: Sequence[Node], known: set[str]) -> Node | None:
        of_room = [n for n in candidates if n.id in known and self.load_of(n) < self._policy.watermark]
        if request.region:
            # A participant far from the room's node is better served near itself, over a relay.
            of_room = [node for node in of_room if node.region == request.region] or (
                of_room if not any(node.region == request.region for node in candidates) else []
            )
        return min(of_room, key=lambda node: (self.load_of(node), node.id)) if of_room else None

    def _of_all(self, request: PlacementRequest, candidates: Sequence[Node], room_zones: Set[Zone], now: float) -> Node:
        near = [node for node in candidates if node.region == request.region] if request.region else []
        for pool in (near, candidates):
            below = [node for node in pool if self.load_of(node) < self._policy.watermark]
            # What is best is wanted first: the room's own zones, then any other, then those where a node has just died.
            firm = [node for node in below if self._shaken.get(zone_of(node) or _NO_ZONE, now) <= now]
            for wanted in ([node for node in firm if zone_of(node) in room_zones], firm, below):
                if wanted:
                    return self._two_choices(wanted)
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
