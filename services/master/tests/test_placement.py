"""Placement as a pure function of nodes, request and seed."""

import random
from collections import Counter

import pytest
from mrtc.node.v1.master_service_pb2 import (
    NODE_KIND_MCU,
    NODE_KIND_VOD,
    NODE_STATE_DRAINING,
    NODE_STATE_READY,
    Node,
    NodeLoad,
)
from mrtc_common.errors import NoCapacityError
from mrtc_master.core.placement import PlacementPolicy, PlacementRequest, Placer


def _node(id: str, ratio: float = 0.1, **fields: object) -> Node:
    values: dict[str, object] = {
        "kind": NODE_KIND_MCU,
        "state": NODE_STATE_READY,
        "heartbeat_at_ms": 1,
        "load": NodeLoad(load=ratio, max_transports=1000),
    }
    return Node(id=id, **(values | fields))  # type: ignore[arg-type]


def _placer(seed: int = 1) -> Placer:
    return Placer(PlacementPolicy(), random.Random(seed))


def _place(nodes: list[Node], placer: Placer | None = None, now: float = 0.0, **request: object) -> str:
    values: dict[str, object] = {"room_key": "a.b"} | request
    return (placer or _placer()).place(PlacementRequest(**values), nodes, now).id  # type: ignore[arg-type]


def test_the_least_loaded_node_is_taken() -> None:
    assert _place([_node("a", 0.5), _node("b", 0.1), _node("c", 0.6)]) == "b"


def test_a_room_stays_on_its_node_below_the_watermark() -> None:
    assert _place([_node("a", 0.7), _node("b", 0.0)], room_nodes=("a",)) == "a"


def test_a_room_spills_over_when_its_node_is_at_the_watermark() -> None:
    assert _place([_node("a", 0.8), _node("b", 0.3)], room_nodes=("a",)) == "b"


def test_joins_at_the_same_moment_meet_on_one_node() -> None:
    placer, nodes = _placer(), [_node("a", 0.0), _node("b", 0.0)]
    assert len({_place(nodes, placer) for _ in range(10)}) == 1


def test_a_remembered_placement_is_forgotten() -> None:
    placer = _placer()
    first = _place([_node("a", 0.2), _node("b", 0.0)], placer, now=0.0)
    assert first == "b"
    assert _place([_node("a", 0.0), _node("b", 0.5)], placer, now=11.0) == "a"


@pytest.mark.parametrize(
    "fields",
    [
        {"state": NODE_STATE_DRAINING},
        {"kind": NODE_KIND_VOD},
        {"load": NodeLoad(load=0.97)},
        {"load": NodeLoad(load=0.1, transports=10, max_transports=10)},
    ],
)
def test_who_cannot_take_anybody_gets_nobody(fields: dict[str, object]) -> None:
    with pytest.raises(NoCapacityError) as caught:
        _place([_node("a", **fields)], room_nodes=("a",))
    assert caught.value.retry_after_ms


def test_excluded_nodes_are_not_taken() -> None:
    nodes = [_node("a"), _node("b", 0.9)]
    assert _place(nodes, excluded=frozenset({"a"}), room_nodes=("a",)) == "b"


def test_the_region_is_preferred_over_load_and_over_the_rooms_node() -> None:
    nodes = [_node("far", 0.0, region="eu"), _node("near", 0.5, region="us")]
    assert _place(nodes, region="us") == "near"
    assert _place(nodes, region="us", room_nodes=("far",)) == "near"


def test_a_region_without_nodes_is_served_from_elsewhere() -> None:
    nodes = [_node("a", 0.3, region="eu"), _node("b", 0.1, region="eu")]
    assert _place(nodes, region="asia", room_nodes=("a",)) == "a"


def test_above_the_watermark_the_least_loaded_is_filled_to_the_limit() -> None:
    assert _place([_node("a", 0.95), _node("b", 0.9)]) == "b"


def test_many_rooms_spread_over_nodes_that_are_as_good() -> None:
    placer, nodes = _placer(7), [_node(name, 0.1) for name in "abcd"]
    tally = Counter(_place(nodes, placer, room_key=f"a.{n}") for n in range(400))
    assert set(tally) == set("abcd")
    assert max(tally.values()) - min(tally.values()) < 20


def test_placements_count_until_the_next_heartbeat_shows_them() -> None:
    placer, node = _placer(), _node("a", 0.1)
    for n in range(100):
        _place([node], placer, room_key=f"a.{n}")
    assert placer.load_of(node) == pytest.approx(0.2)
    assert placer.load_of(_node("a", 0.15, heartbeat_at_ms=2)) == pytest.approx(0.15)
