"""A fleet in virtual time: joins, leaves, heartbeats, placed by the real placer and counted by the real scaling."""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mrtc.node.v1.master_service_pb2 import NODE_KIND_MCU, NODE_STATE_DRAINING, NODE_STATE_READY, Node, NodeLoad
from mrtc_common.errors import NoCapacityError
from mrtc_common.load import Smoothed
from mrtc_master.core.placement import PlacementPolicy, PlacementRequest, Placer
from mrtc_master.core.scaling import Scaling

HEARTBEAT_S = 2.0
CAPACITY = 100
POLICY = PlacementPolicy()


@dataclass
class Server:
    """A node as it is, beside what its last heartbeat said."""

    id: str
    beats_at: float
    rooms: list[str] = field(default_factory=list)
    is_draining: bool = False
    seen: Node = field(default_factory=Node)

    def beat(self, now: float) -> None:
        count = len(self.rooms)
        self.seen = Node(
            id=self.id,
            kind=NODE_KIND_MCU,
            state=NODE_STATE_DRAINING if self.is_draining else NODE_STATE_READY,
            heartbeat_at_ms=1 + round(now * 1000),
            load=NodeLoad(load=min(1.0, count / CAPACITY), transports=count, max_transports=CAPACITY),
        )
        self.beats_at = now + HEARTBEAT_S


class Fleet:
    """Nodes and a placer; time only goes on in `run_to`."""

    def __init__(self, count: int, seed: int) -> None:
        self.rng = random.Random(seed)
        self.placer = Placer(POLICY, random.Random(seed))
        self.servers: dict[str, Server] = {}
        self.now = 0.0
        for _ in range(count):
            self.add()

    def add(self) -> Server:
        server = Server(f"n{len(self.servers)}", 0.0)
        server.beat(self.now)
        server.beats_at = self.now + self.rng.uniform(0, HEARTBEAT_S)
        self.servers[server.id] = server
        return server

    def run_to(self, when: float) -> None:
        self.now = when
        for server in self.servers.values():
            if server.beats_at <= when:
                server.beat(when)

    def join(self, room: str) -> Server:
        holders = tuple(server.id for server in self.servers.values() if room in server.rooms)
        request = PlacementRequest(room, room_nodes=holders)
        chosen = self.placer.place(request, [server.seen for server in self.servers.values()], self.now)
        server = self.servers[chosen.id]
        server.rooms.append(room)
        return server

    def leave(self) -> None:
        full = [server for server in self.servers.values() if server.rooms]
        if full:
            server = self.rng.choice(full)
            server.rooms.pop(self.rng.randrange(len(server.rooms)))

    @property
    def nodes(self) -> list[Node]:
        return [server.seen for server in self.servers.values()]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 2**32), st.floats(0.0005, 0.2), st.integers(1, 40), st.floats(0.0, 0.9))
def test_placement_over_time(count: int, seed: int, step_s: float, rooms: int, leaving: float) -> None:
    """At any rate of joins: no node beyond its limit, nobody on a draining one, refused only when all are full."""
    fleet = Fleet(count, seed)
    now, drained = 0.0, fleet.servers["n0"] if count > 1 else None
    for number in range(600):
        now += step_s
        fleet.run_to(now)
        if drained is not None and number == 200:
            drained.is_draining = True
            drained.beat(now)
        if fleet.rng.random() < leaving:
            fleet.leave()
        try:
            server = fleet.join(f"r{fleet.rng.randrange(rooms)}")
        except NoCapacityError as error:
            assert error.retry_after_ms  # noqa: PT017 - whether it is raised is what the run shows
            full = (s for s in fleet.servers.values() if not s.is_draining)
            assert all(fleet.placer.load_of(s.seen) >= POLICY.limit for s in full)
            continue
        assert not (server.is_draining and number >= 200)
        assert len(server.rooms) <= CAPACITY


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(0, 2**32), st.floats(0.001, 0.1))
def test_a_room_that_fits_stays_together_and_spills_in_order(count: int, seed: int, step_s: float) -> None:
    """A large room fills a node to the watermark, then the next; a small one that comes first has one node."""
    fleet = Fleet(count, seed)
    spread: dict[str, set[str]] = defaultdict(set)
    for number in range(30):
        fleet.run_to(number * step_s)
        spread["small"].add(fleet.join("small").id)
    for number in range(30, 30 + 60 * (count - 1)):
        fleet.run_to(number * step_s)
        spread["large"].add(fleet.join("large").id)
        partly = [s for s in fleet.servers.values() if "large" in s.rooms and len(s.rooms) < 70]
        assert len(partly) <= 1, [(s.id, len(s.rooms)) for s in fleet.servers.values()]
    assert len(spread["small"]) == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.0, 0.3), st.floats(60.0, 4000.0))
def test_scaling_does_not_flap(seed: int, noise: float, period_s: float) -> None:
    """Under waves and noise, fewer nodes are never wanted within the hold time of when more were."""
    rng, scaling = random.Random(seed), Scaling(0.6, 300)
    wanted_at: list[tuple[float, int, int]] = []
    for second in range(0, 2 * 3600, 10):
        wave = 2.5 + 2.0 * ((second % period_s) / period_s)
        work = max(0.0, wave + rng.uniform(-noise, noise))
        nodes = [_node(work / 5) for _ in range(5)]
        wanted = scaling.update(nodes, float(second)).wanted
        needed = math.ceil(work / 0.6 - 1e-6)
        assert wanted >= needed
        wanted_at.append((second, wanted, needed))
    for (_, before, _), (at, after, _) in itertools.pairwise(wanted_at):
        if after < before:
            window = [needed for second, _, needed in wanted_at if at - 300 <= second <= at]
            assert after >= max(window), "fewer were enough all the time"


def _node(load: float, state: int = NODE_STATE_READY) -> Node:
    return Node(kind=NODE_KIND_MCU, state=state, load=NodeLoad(load=load))  # type: ignore[arg-type]


def test_the_figures_of_a_kind() -> None:
    scaling = Scaling(0.6, 300)
    assert scaling.update([], 0.0).wanted == 0
    found = scaling.update([_node(0.9), _node(0.3), _node(0.6, NODE_STATE_DRAINING)], 1.0)
    assert (found.load, found.highest) == (pytest.approx(0.9), 0.9)
    assert (found.ready, found.draining, found.wanted) == (2, 1, 3)
    assert scaling.update([_node(0.0)], 300.0).wanted == 3
    assert scaling.update([_node(0.0)], 302.0).wanted == 1


def test_work_that_nobody_takes_is_full() -> None:
    assert Scaling(0.6, 300).update([_node(0.5, NODE_STATE_DRAINING)], 0.0).load == 1.0


def test_a_smoothed_figure_rises_soon_and_falls_slowly() -> None:
    figure = Smoothed()
    figure.update(0.0, 0.0)
    assert figure.update(1.0, 6.0) > 0.9
    assert figure.update(0.0, 8.0) > 0.8
    assert figure.update(0.0, 60.0) < 0.05


def test_noise_does_not_move_a_smoothed_figure() -> None:
    figure, rng = Smoothed(), random.Random(3)
    shown = {figure.update(0.5 + rng.uniform(-0.01, 0.01), float(second)) for second in range(0, 600, 2)}
    assert len(shown) <= 2
