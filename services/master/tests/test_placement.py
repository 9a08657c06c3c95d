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


def test_who_is_to_relieve_a_node_goes_only_where_there_is_plenty_of_room() -> None:
    small = NodeLoad(load=0.5, max_transports=2, transports=1)
    for full in ([_node("b", 0.8)], [_node("b", load=small)], [_node("b", 0.1, state=NODE_STATE_DRAINING)]):
        with pytest.raises(NoCapacityError):
            _place([_node("a", 0.96), *full], excluded=frozenset({"a"}), is_relief=True)
    assert _place([_node("a", 0.96), _node("b", 0.79)], excluded=frozenset({"a"}), is_relief=True) == "b"


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


# Zones. Nodes are written `name: load @ region/zone`.


def _fleet(text: str) -> list[Node]:
    nodes = []
    for line in text.split(","):
        name, rest = line.split(":")
        load, place = rest.split("@")
        region, _, zone = place.strip().partition("/")
        nodes.append(_node(name.strip(), float(load), region=region, zone=zone))
    return nodes


@pytest.mark.parametrize(
    ("fleet", "room_nodes", "region", "expected"),
    [
        pytest.param("a1: 0.3 @ eu/a, a2: 0.2 @ eu/a, b1: 0.0 @ eu/b", "a1", "eu", "a1", id="its node has room"),
        pytest.param("a1: 0.9 @ eu/a, a2: 0.5 @ eu/a, b1: 0.0 @ eu/b", "a1", "eu", "a2", id="its zone has room"),
        pytest.param("a1: 0.9 @ eu/a, a2: 0.8 @ eu/a, b1: 0.4 @ eu/b", "a1", "eu", "b1", id="its zone is full"),
        pytest.param("a1: 0.97 @ eu/a, a2: 0.5 @ eu/a, b1: 0.0 @ eu/b", "a1", "eu", "a2", id="its node takes nobody"),
        pytest.param("a1: 0.9 @ eu/a, b1: 0.9 @ eu/b, u1: 0.0 @ us/a", "a1", "eu", "u1", id="its region is full"),
        pytest.param("a1: 0.9 @ eu/a, b1: 0.85 @ eu/b", "a1", "eu", "b1", id="all are above the watermark"),
        pytest.param("a1: 0.1 @ eu/a, u1: 0.6 @ us/a, u2: 0.1 @ us/b", "a1", "us", "u2", id="a zone of another region"),
        pytest.param(
            "a1: 0.1 @ eu/a, u1: 0.9 @ us/b, u2: 0.6 @ us/b, u3: 0.0 @ us/c", "a1 u1", "us", "u2", id="per region"
        ),
        pytest.param("a1: 0.9 @ eu/a, b1: 0.9 @ eu/b, b2: 0.5 @ eu/b, c1: 0.0 @ eu/c", "a1 b1", "eu", "b2", id="two"),
        pytest.param("a1: 0.9 @ /a, a2: 0.7 @ /a, b1: 0.0 @ /b", "a1", "", "a2", id="zones without regions"),
        pytest.param("x: 0.9 @ eu/, y: 0.5 @ eu/, z: 0.0 @ eu/", "x", "eu", "z", id="nodes without zones"),
        pytest.param("x: 0.9 @ eu/, y: 0.5 @ eu/, b1: 0.0 @ eu/b", "x", "eu", "b1", id="no zone is no common zone"),
        pytest.param("a1: 0.5 @ eu/a, b1: 0.0 @ eu/b", "gone", "eu", "b1", id="its node is not known"),
        pytest.param("a1: 0.9 @ eu/a, a2: 0.5 @ eu/a, u1: 0.0 @ us/a", "a1", "", "a2", id="a client without region"),
    ],
)
def test_a_room_stays_in_its_zone_and_region_while_they_have_room(
    fleet: str, room_nodes: str, region: str, expected: str
) -> None:
    assert _place(_fleet(fleet), region=region, room_nodes=tuple(room_nodes.split())) == expected


def test_a_draining_node_still_tells_the_zone_of_its_room() -> None:
    nodes = [_node("a1", zone="a", state=NODE_STATE_DRAINING), _node("a2", 0.7, zone="a"), _node("b1", 0.0, zone="b")]
    assert _place(nodes, room_nodes=("a1",), excluded=frozenset({"a1"})) == "a2"


def test_joins_at_the_same_moment_spill_into_one_zone() -> None:
    placer, nodes = _placer(), _fleet("a1: 0.799 @ eu/a, a2: 0.4 @ eu/a, b1: 0.0 @ eu/b")
    placer._rooms["a.b"] = ("a1", 0.0)
    assert {_place(nodes, placer) for _ in range(10)} == {"a1", "a2"}


def _die(placer: Placer, node: Node, now: float = 0.0) -> None:
    placer.forget_node(node, now)


def test_a_zone_that_lost_a_node_gets_no_new_room_for_a_while() -> None:
    placer = _placer()
    a1, a2, b1 = _fleet("a1: 0.1 @ eu/a, a2: 0.1 @ eu/a, b1: 0.6 @ eu/b")
    _die(placer, a1)
    assert _place([a2, b1], placer, now=1.0) == "b1"
    assert _place([a2, b1], placer, now=31.0, room_key="c.d") == "a2"


def test_a_room_goes_on_at_its_other_node_in_a_zone_that_lost_one() -> None:
    placer = _placer()
    a1, a2, b1 = _fleet("a1: 0.1 @ eu/a, a2: 0.1 @ eu/a, b1: 0.0 @ eu/b")
    _die(placer, a1)
    assert _place([a2, b1], placer, room_nodes=("a1", "a2"), excluded=frozenset({"a1"})) == "a2"


def test_a_zone_that_lost_a_node_is_used_when_there_is_no_other() -> None:
    placer = _placer()
    a1, a2, b1 = _fleet("a1: 0.1 @ eu/a, a2: 0.1 @ eu/a, b1: 0.9 @ eu/b")
    _die(placer, a1)
    assert _place([a2, b1], placer) == "a2"


def test_a_node_that_drained_or_names_no_zone_shakes_nothing() -> None:
    placer = _placer()
    drained, lost = _node("a1", zone="a", state=NODE_STATE_DRAINING), _node("x1")
    nodes = [_node("a2", 0.1, zone="a"), _node("x2", 0.6)]
    _die(placer, drained)
    _die(placer, lost)
    assert _place(nodes, placer) == "a2"


@pytest.mark.parametrize("seed", range(5))
def test_no_room_crosses_zones_while_its_own_has_room(seed: int) -> None:
    """Three zones of two nodes that fill up to their watermarks: rooms spill to the other node of their zone."""
    rng, placer = random.Random(seed), _placer(seed)
    counts = {f"{zone}{n}": 0 for zone in "abc" for n in (1, 2)}
    rooms: dict[str, list[str]] = {}
    beat = 0
    for number in range(12):
        room = f"r.{number}"
        for _ in range(rng.randint(2, 12)):
            beat += 1
            nodes = [
                _node(name, count / 40, region="eu", zone=name[0], heartbeat_at_ms=beat)
                for name, count in counts.items()
            ]
            chosen = _place(nodes, placer, float(beat), room_key=room, room_nodes=tuple(rooms.get(room, ())))
            counts[chosen] += 1
            rooms.setdefault(room, []).append(chosen)
    crossing = [room for room, nodes in rooms.items() if len({node[0] for node in nodes}) > 1]
    assert crossing == []
