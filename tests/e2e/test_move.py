"""Browsers move to another media node while the call goes on: by order of an admin, and because their node ends."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e.caller import Caller, wait_until
from tests.support.api import RoomApi
from tests.support.suite import RunningSuite, running_suite

pytestmark = pytest.mark.chaos

MAX_STILL_MS = 500


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite of its own, whose processes may end."""
    with running_suite(tmp_path_factory.mktemp("move"), mcu_workers=1, drain_timeout_s=30.0) as running:
        yield running


def nodes_of(api: RoomApi) -> dict[str, str]:
    """The media node of everybody in the room, by identity."""
    return {one["identity"]: one["node_id"] for one in api.call("GET", "participants")["participants"]}


def call_of_two(alice: Caller, bob: Caller, room: str) -> None:
    """Both see and hear each other."""
    alice.join(room, "alice")
    bob.join(room, "bob")
    alice.publish(11, 440)
    bob.publish(22, 880)
    bob.sees("alice", 11)
    alice.sees("bob", 22)
    bob.hears("alice", 440)


def nothing_was_seen_of_it(alice: Caller, bob: Caller, what: str) -> None:
    """Neither picture stood still, and nobody was told anything."""
    still = {caller.identity: round(caller.call("longestStill")) for caller in (alice, bob)}
    print(json.dumps({what: {"longest_still_ms": still}}))
    assert max(still.values()) < MAX_STILL_MS
    for caller in (alice, bob):
        names = {event[0] for event in caller.events()}
        assert not names & {"participantLeft", "trackUnsubscribed", "mediaLost"}, names


def test_a_participant_is_moved_during_a_call(
    alice: Caller, bob: Caller, room: str, api: RoomApi, suite: RunningSuite
) -> None:
    """One of two moves, then the other: first they are on two nodes, then together again."""
    call_of_two(alice, bob, room)
    before = nodes_of(api)
    assert before["alice"] == before["bob"]
    track = bob.call("track", "alice", "camera")["id"]
    for caller, other in ((alice, bob), (bob, alice)):
        caller.call("watch", other.identity)
    for mover in ("alice", "bob"):
        api.call("POST", f"participants/{mover}/move", json={"node": ""})
        wait_until(lambda who=mover: nodes_of(api)[who] != before[who], f"{mover} is elsewhere")
        bob.sees("alice", 11)
        alice.sees("bob", 22)
        bob.hears("alice", 440)
        alice.hears("bob", 880)
    wait_until(lambda: len(set(nodes_of(api).values())) == 1, "both are on the other node")
    # The former transports end some seconds later; nothing may hang on them.
    wait_until(lambda: sum(node.get("load", {}).get("transports", 0) for node in suite.nodes()) == 2, "two transports")
    bob.sees("alice", 11)
    alice.sees("bob", 22)
    assert bob.call("track", "alice", "camera")["id"] == track
    nothing_was_seen_of_it(alice, bob, "move")


def test_a_media_node_that_ends_has_its_clients_moved(
    alice: Caller, bob: Caller, room: str, api: RoomApi, suite: RunningSuite
) -> None:
    """SIGTERM: the process ends by itself, long before its deadline, and the call is on the other node."""
    call_of_two(alice, bob, room)
    node = nodes_of(api)["alice"]
    for caller, other in ((alice, bob), (bob, alice)):
        caller.call("watch", other.identity)
    name = suite.process_of_node(node)
    assert suite.stop(name), f"{name} ended by itself"
    assert node not in nodes_of(api).values()
    bob.sees("alice", 11)
    alice.sees("bob", 22)
    bob.hears("alice", 440)
    nothing_was_seen_of_it(alice, bob, "drain")
    suite.restart(name)
