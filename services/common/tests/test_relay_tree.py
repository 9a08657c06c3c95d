"""Who takes a track from whom: any order of joins, leaves, deaths and drains ends in one tree."""

from __future__ import annotations

from collections import Counter
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from mrtc.node.v1.master_service_pb2 import NODE_STATE_DRAINING, NODE_STATE_READY, Node
from mrtc_common.node import NodeDirectory
from mrtc_common.relay_tree import RelayTree, RelayTrees

NAMES = [f"n{number}" for number in range(12)]


class Room(RuleBasedStateMachine):
    """The nodes of one track, which ask its origin as `RelayManager` does: at first, and when their parent is no more.

    `held`: nodes that have the track and from whom. A node without viewers keeps it while others take it from there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.max_edges = 2
        self.tree = RelayTree(self.max_edges)
        self.held: dict[str, str | None] = {}
        self.watching: set[str] = set()

    def ask(self, node: str, *leaving: str) -> None:
        self.held[node] = self.tree.place(node, set(NAMES), leaving)

    def children(self, node: str) -> list[str]:
        return [child for child, parent in self.held.items() if parent == node]

    def let_go(self) -> None:
        """Whoever has neither viewers nor others that take the track from there leaves, one after the other."""
        while idle := [node for node in self.held if node not in self.watching and not self.children(node)]:
            for node in idle:
                del self.held[node]
                self.tree.remove(node)

    @rule(edges=st.integers(1, 3))
    @precondition(lambda self: not self.held)
    def begin(self, edges: int) -> None:
        self.max_edges = edges
        self.tree = RelayTree(edges)

    @rule(node=st.sampled_from(NAMES))
    def view(self, node: str) -> None:
        self.watching.add(node)
        if node not in self.held:
            self.ask(node)

    @rule(node=st.sampled_from(NAMES))
    def ask_again(self, node: str) -> None:
        """As after a lost reply: it changes nothing."""
        if node in self.held:
            before = self.held[node]
            self.ask(node)
            assert self.held[node] == before

    @rule(node=st.sampled_from(NAMES))
    def leave(self, node: str) -> None:
        before = dict(self.held)
        self.watching.discard(node)
        self.let_go()
        assert all(before[one] == parent for one, parent in self.held.items())

    @rule(data=st.data(), is_known=st.booleans())
    def die(self, data: st.DataObject, is_known: bool) -> None:
        """Its children notice; the origin knows already, or learns it of them and later."""
        if not self.held:
            return
        node = data.draw(st.sampled_from(sorted(self.held)))
        orphans, before = data.draw(st.permutations(self.children(node))), dict(self.held)
        del self.held[node]
        self.watching.discard(node)
        if is_known:
            self.tree.remove(node)
        for orphan in orphans:
            self.ask(orphan, node)
        self.tree.remove(node)
        self.let_go()
        assert all(before[one] == parent for one, parent in self.held.items() if one not in orphans)

    @rule(data=st.data())
    def drain(self, data: st.DataObject) -> None:
        """Its viewers go elsewhere, and who took the track from it asks anew."""
        if not self.held:
            return
        node = data.draw(st.sampled_from(sorted(self.held)))
        before = dict(self.held)
        children = data.draw(st.permutations(self.children(node)))
        for child in children:
            self.ask(child, node)
        self.watching.discard(node)
        self.let_go()
        assert node not in self.held
        assert all(before[one] == parent for one, parent in self.held.items() if one not in children)

    @invariant()
    def all_are_connected(self) -> None:
        """From each node the way leads to the origin, over nodes that have the track."""
        assert dict(self.tree.parents) == self.held
        for node in self.held:
            seen, at = set(), node
            while (parent := self.held[at]) is not None:
                assert parent not in seen
                seen.add(parent)
                at = parent

    @invariant()
    def nobody_sends_to_more_than_it_should(self) -> None:
        assert all(count <= self.max_edges for count in Counter(self.held.values()).values())


TestRoom = Room.TestCase
TestRoom.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def grown(max_edges: int, count: int) -> RelayTree:
    tree = RelayTree(max_edges)
    for node in NAMES[:count]:
        tree.place(node, NAMES)
    return tree


@pytest.mark.parametrize(("max_edges", "depth"), [(1, 12), (2, 3), (3, 2), (12, 1), (0, 1)])
def test_a_tree_is_as_flat_as_it_can_be(max_edges: int, depth: int) -> None:
    tree = grown(max_edges, 12)
    assert max(tree._hops().values()) == depth
    assert not max_edges or max(Counter(tree.parents.values()).values()) == max_edges


def test_only_children_of_a_dead_node_change() -> None:
    """Two levels below two: who was below the dead one goes to the origin or to who has room."""
    tree = grown(2, 6)
    before = dict(tree.parents)
    orphans = [node for node, parent in before.items() if parent == "n0"]
    tree.remove("n0")
    assert [tree.place(node, NAMES, {"n0"}) for node in orphans] == [None, orphans[0]]
    assert {node: parent for node, parent in tree.parents.items() if node not in orphans} == {
        node: parent for node, parent in before.items() if node not in (*orphans, "n0")
    }


def test_who_is_below_a_node_that_leaves_takes_its_place() -> None:
    """In a chain nobody else has room, and the origin is spared."""
    tree = grown(1, 4)
    assert tree.place("n2", NAMES, {"n1"}) == "n0"
    tree.remove("n1")
    assert dict(tree.parents) == {"n0": None, "n2": "n0", "n3": "n2"}


def test_a_node_is_never_below_itself() -> None:
    """The head of a chain loses the origin's other way: all others are below it."""
    tree = grown(1, 4)
    assert list(tree.parents.values()) == [None, "n0", "n1", "n2"]
    assert tree.place("n1", NAMES, {"n0"}) is None
    assert tree.parents["n2"] == "n1"


def test_the_nearest_comes_first_then_the_one_with_the_fewest_hops() -> None:
    tree = grown(2, 5)
    assert tree.place("x", NAMES, distance=lambda node: int(node != "n4")) == "n4"
    assert tree.place("y", NAMES) == "n1"


def test_who_cannot_pass_on_is_no_parent() -> None:
    """The origin sends to one more rather than to leave somebody out."""
    tree = RelayTree(1)
    assert [tree.place(node, able=["n1"]) for node in ("n0", "n1", "n2")] == [None, None, "n1"]


class Directory:
    """Nodes as they say they are."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.id: node for node in nodes}

    def heard_within(self, seconds: float) -> dict[str, Node]:
        return self.nodes


def node(name: str, region: str = "", zone: str = "", state: Any = NODE_STATE_READY, *, is_old: bool = False) -> Node:
    return Node(id=name, region=region, zone=zone, state=state, passes_tracks_on=not is_old)


def trees(max_edges: int, *nodes: Node) -> RelayTrees:
    return RelayTrees(cast(NodeDirectory, Directory(*nodes)), max_edges)


def test_a_track_stays_in_its_region_and_zone_if_it_can() -> None:
    near, zone, region = node("a", "east", "1"), node("b", "east", "2"), node("c", "west")
    asking = trees(3, near, zone, region, node("x", "east", "1"), node("y", "east", "2"), node("z", "west"))
    for name in ("a", "b", "c"):
        assert asking.place("t", name, (), takes_redirects=True) is None
    assert [asking.place("t", name, (), takes_redirects=True) for name in ("x", "y", "z")] == ["a", "b", "c"]


def test_older_and_draining_nodes_pass_nothing_on() -> None:
    """A node that knows nothing of trees takes it from the origin, whatever the limit; nobody takes it from there."""
    asking = trees(1, node("old", is_old=True), node("new"), node("leaving", state=NODE_STATE_DRAINING), node("last"))
    assert asking.place("t", "old", (), takes_redirects=False) is None
    assert asking.place("t", "leaving", (), takes_redirects=True) is None
    assert asking.place("t", "new", (), takes_redirects=True) is None
    assert asking.place("t", "last", (), takes_redirects=True) == "new"
    assert asking.parents_of("t") == {"old": None, "leaving": None, "new": None, "last": "new"}


def test_nothing_is_kept_of_a_track_that_nobody_takes() -> None:
    asking = trees(1, node("a"), node("b"))
    for track in ("t", "u"):
        asking.place(track, "a", (), takes_redirects=True)
    asking.place("t", "b", (), takes_redirects=True)
    asking.leave("b", ["t", "none"])
    asking.forget_node("a")
    assert vars(asking)["_trees"] == {}
    asking.place("t", "a", (), takes_redirects=True)
    asking.forget_track("t")
    assert vars(asking)["_trees"] == {}
