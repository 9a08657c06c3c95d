"""Who takes a track from whom, beyond the nodes that its origin sends it to: a tree, which the origin keeps.

The origin alone decides, since every node asks it first. So no two decisions contradict each other, no loop can come
about, and only those have to change who took the track from a node that died or leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping

from mrtc.node.v1.master_service_pb2 import NODE_STATE_DRAINING, NODE_STATE_READY, Node

from .node import NodeDirectory

_FRESH_S = 5.0
"""A node whose heartbeat is older is given nothing new: two were missed."""


class RelayTree:
    """The tree of one track: which of the nodes that have it takes it from which.

    Args:
        max_edges: to so many a node sends it; 0: the origin to all.
    """

    def __init__(self, max_edges: int) -> None:
        self._max_edges = max_edges
        # None is the origin. A parent that has left without a word may still be named: its children ask soon.
        self._parents: dict[str, str | None] = {}

    def __len__(self) -> int:
        return len(self._parents)

    @property
    def parents(self) -> Mapping[str, str | None]:
        """From whom each node takes it; None: from the origin."""
        return self._parents

    def place(
        self,
        node_id: str,
        able: Collection[str] = (),
        leaving: Collection[str] = (),
        distance: Callable[[str], int] = lambda _: 0,
    ) -> str | None:
        """The node from which this one is to take the track; None: from the origin.

        It stays where it is, if that is no node that leaves. Else it goes to the origin, if that has room; else to the
        nearest node that has, of those the one with the fewest hops. If none can, the origin sends to one too many.

        Args:
            able: nodes that pass tracks on.
            leaving: nodes that nobody shall take it from.
            distance: of another node.
        """
        if node_id in self._parents:
            parent = self._parents[node_id]
            if parent is None or (parent in self._parents and parent not in leaving):
                return parent
        # The place of a node that leaves is free: who took the track from it may follow it there.
        edges = Counter(parent for one, parent in self._parents.items() if one not in leaving)
        chosen: str | None = None
        if self._max_edges and edges[None] >= self._max_edges:
            hops = self._hops({node_id, *leaving})
            free = [one for one in hops if one in able and edges[one] < self._max_edges]
            chosen = min(free, key=lambda one: (distance(one), hops[one], edges[one], one), default=None)
        self._parents[node_id] = chosen
        return chosen

    def add(self, node_id: str) -> None:
        """A node takes it from the origin, whatever the limit: it knows of no other way."""
        self._parents[node_id] = None

    def remove(self, node_id: str) -> None:
        """A node does not have it any more."""
        self._parents.pop(node_id, None)

    def _hops(self, without: Collection[str] = ()) -> dict[str, int]:
        """From the origin to each node, but to these, those behind them, and those whose parent has left."""
        found: dict[str, int] = {}
        children: dict[str | None, list[str]] = {}
        for node_id, parent in self._parents.items():
            children.setdefault(parent, []).append(node_id)
        layer, hops = children.get(None, []), 1
        while layer:
            layer = [node_id for node_id in layer if node_id not in without]
            found.update(dict.fromkeys(layer, hops))
            layer, hops = [child for node_id in layer for child in children.get(node_id, [])], hops + 1
        return found


class RelayTrees:
    """The trees of all tracks that begin at this node.

    Args:
        max_edges: to so many nodes each node sends a track; 0: the origin to all.
    """

    def __init__(self, directory: NodeDirectory, max_edges: int) -> None:
        self._directory, self._max_edges = directory, max_edges
        self._trees: dict[str, RelayTree] = {}

    def place(self, track_id: str, node_id: str, avoid: Iterable[str], *, takes_redirects: bool) -> str | None:
        """The node from which this one is to take a track; None: from here."""
        tree = self._trees.get(track_id)
        if tree is None:
            tree = self._trees[track_id] = RelayTree(self._max_edges)
        if not takes_redirects:
            tree.add(node_id)
            return None
        known = self._directory.nodes
        leaving = {one.id for one in known.values() if one.state == NODE_STATE_DRAINING} | set(avoid)
        fresh = self._directory.heard_within(_FRESH_S).values()
        able = {one.id for one in fresh if one.passes_tracks_on and one.state == NODE_STATE_READY}
        own = known.get(node_id)
        return tree.place(node_id, able, leaving, lambda other: _distance(own, known[other]))

    def leave(self, node_id: str, track_ids: Iterable[str]) -> None:
        """A node does not have these any more."""
        for track_id in track_ids:
            if (tree := self._trees.get(track_id)) is not None:
                tree.remove(node_id)
                if not tree:
                    del self._trees[track_id]

    def forget_node(self, node_id: str) -> None:
        """A node has gone."""
        self.leave(node_id, list(self._trees))

    def forget_track(self, track_id: str) -> None:
        """A track has ended."""
        self._trees.pop(track_id, None)

    def parents_of(self, track_id: str) -> dict[str, str | None]:
        """From whom each node takes a track; None: from here."""
        tree = self._trees.get(track_id)
        return dict(tree.parents) if tree is not None else {}


def _distance(one: Node | None, other: Node) -> int:
    """0: in one zone of a region, 1: in one region, 2: farther."""
    if one is None or one.region != other.region:
        return 2
    return int(one.zone != other.zone)
