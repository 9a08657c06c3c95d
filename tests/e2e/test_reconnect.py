"""The call outlives its WebSockets."""

from __future__ import annotations

import time

from tests.e2e.caller import Caller
from tests.e2e.proxy import cuttable_proxy
from tests.support.suite import RunningSuite

MAX_STILL_MS = 1000


def test_both_websockets_are_cut_and_restored(alice: Caller, bob: Caller, room: str, suite: RunningSuite) -> None:
    """Nobody leaves, media goes on all the time, and every message comes exactly once and in order."""
    with cuttable_proxy(suite.url) as proxy:
        alice.join(room, "alice", url=proxy.url)
        bob.join(room, "bob", url=proxy.url)
        alice.publish(11, 440)
        bob.publish(22, 880)
        alice.sees("bob", 22)
        bob.sees("alice", 11)
        for caller, other in ((alice, bob), (bob, alice)):
            other.send("before")
            caller.call("watch", other.identity)

        proxy.cut()
        for caller in (alice, bob):
            caller.event("connectionStateChanged", "reconnecting")
            # Asked for while nobody can hear it: repeated by the SDK, done once.
            caller.page.evaluate(
                "window.during = [1, 2, 3].map(i => window.call.room.sendMessage(`during ${i}`)); undefined"
            )
        time.sleep(2)  # the outage itself
        proxy.restore()

        for caller in (alice, bob):
            caller.is_connected()
            caller.page.evaluate("Promise.all(window.during)")
            caller.send("after")
        expected = ["before", "during 1", "during 2", "during 3", "after"]
        for caller in (alice, bob):
            caller.has_messages(5)
            assert [message["text"] for message in caller.messages()] == expected
            assert caller.call("longestStill") < MAX_STILL_MS
            names = [event[0] for event in caller.events()]
            assert "participantLeft" not in names
            assert "trackUnsubscribed" not in names
            assert "mediaLost" not in names
        alice.hears("bob", 880)
        bob.hears("alice", 440)


def test_a_session_moves_to_another_instance(alice: Caller, bob: Caller, room: str, suite: RunningSuite) -> None:
    """With two addresses the SDK goes on at the second; what it does there works."""
    with cuttable_proxy(suite.url) as first:
        bob.join(room, "bob", url=suite.url)
        error = alice.call("join", [first.url, suite.signaling_url(2)], suite.token(room, "alice"), {})
        assert error is None
        alice.identity = "alice"
        alice.publish(11)
        bob.sees("alice", 11)
        first.cut()
        alice.event("connectionStateChanged", "reconnecting")
        alice.is_connected()
        alice.send("from the other instance")
        bob.has_messages(1)
        alice.publish(44, source="screen_share")
        bob.sees("alice", 44, "screen_share")
        assert "participantLeft" not in [event[0] for event in bob.events()]
