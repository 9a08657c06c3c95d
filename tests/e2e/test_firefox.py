"""Firefox and Chromium in one call: each decodes what the other sends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest
from playwright.sync_api import Browser

from tests.e2e.caller import Caller, wait_until
from tests.e2e.firefox import Firefox, running_firefox
from tests.support.api import RoomApi
from tests.support.suite import RunningSuite

ALICE, FOX = 11, 22  # numbers in the pictures
ALICE_HZ, FOX_HZ = 440, 880


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """A running one."""
    profile: Path = tmp_path_factory.mktemp("firefox")
    with running_firefox(profile) as running:
        yield running


@pytest.fixture
def fox(firefox: Firefox, pages_url: str, suite: RunningSuite) -> Iterator[Caller]:
    """A caller in Firefox."""
    # It does as much of a browser's as a caller needs.
    caller = Caller(cast(Browser, firefox), pages_url, suite)
    yield caller
    caller.close()


def start_call(alice: Caller, fox: Caller, room: str) -> None:
    """Both are in the room and publish picture and tone."""
    alice.join(room, "alice")
    alice.publish(ALICE, ALICE_HZ)
    fox.join(room, "fox")
    fox.publish(FOX, FOX_HZ)


def test_both_see_and_hear_each_other(alice: Caller, fox: Caller, room: str) -> None:
    """Pictures, tones, a mute, messages both ways, and a leave."""
    start_call(alice, fox, room)
    fox.sees("alice", ALICE)
    alice.sees("fox", FOX)
    fox.hears("alice", ALICE_HZ)
    alice.hears("fox", FOX_HZ)
    fox.call("mute", "microphone", True)
    alice.event("trackMuted", "fox", "microphone")
    alice.hears("fox", 0)
    fox.send("from Firefox")
    alice.send("from Chromium")
    for caller in (alice, fox):
        caller.has_messages(1)
    fox.leave()
    alice.event("participantLeft", "fox")


def test_it_moves_to_another_node_while_the_call_goes_on(alice: Caller, fox: Caller, room: str, api: RoomApi) -> None:
    """By a second peer connection, as every client of the SDK."""
    start_call(alice, fox, room)
    alice.sees("fox", FOX)
    fox.sees("alice", ALICE)
    alice.call("watch", "fox")
    fox.call("watch", "alice")
    former = node_of(api, "fox")
    api.call("POST", "participants/fox/move", json={"node": ""})
    wait_until(lambda: node_of(api, "fox") != former, "fox is elsewhere")
    alice.sees("fox", FOX)
    fox.sees("alice", ALICE)
    alice.hears("fox", FOX_HZ)
    fox.hears("alice", ALICE_HZ)
    still = {caller.identity: round(caller.call("longestStill")) for caller in (alice, fox)}
    print(json.dumps({"firefox_moves": {"longest_still_ms": still}}))
    for caller in (alice, fox):
        assert not {event[0] for event in caller.events()} & {"participantLeft", "trackUnsubscribed", "mediaLost"}


def node_of(api: RoomApi, identity: str) -> str:
    """The media node of somebody."""
    people = api.call("GET", "participants")["participants"]
    return next(str(one["node_id"]) for one in people if one["identity"] == identity)
