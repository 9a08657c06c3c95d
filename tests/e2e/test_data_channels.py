"""Data channels between two Chromium, by the SDK and without it, and with an aiortc participant's server side."""

from __future__ import annotations

from typing import Any

from tests.e2e.caller import Caller, wait_until


def data(caller: Caller) -> list[dict[str, Any]]:
    """What came so far."""
    received: list[dict[str, Any]] = caller.page.evaluate("window.call.data")
    return received


def until_heard(sender: Caller, receiver: Caller) -> None:
    """Both ends' data channels are up."""

    def look() -> bool:
        sender.call("publishData", "ready?", {"topic": "ready", "reliable": False})
        return any(one["topic"] == "ready" and one["identity"] == sender.identity for one in data(receiver))

    wait_until(look, lambda: f"{receiver.identity} hears {sender.identity}\n{receiver.report()}")


def test_text_and_bytes_reach_the_other_browser(alice: Caller, bob: Caller, room: str) -> None:
    """Reliable messages up to the largest arrive in order with the sender's identity; a lossy topic is told as such."""
    alice.join(room, "alice")
    bob.join(room, "bob")
    until_heard(alice, bob)
    until_heard(bob, alice)
    for number in range(20):
        alice.call("publishData", f"{number}", {"topic": "count"})
    alice.call("publishBytes", 64_000, {"topic": "count", "to": ["bob"]})
    alice.call("publishData", "not for you", {"topic": "count", "to": ["somebody"]})
    alice.call("publishData", "end", {"topic": "count"})
    wait_until(lambda: any(one["text"] == "end" for one in data(bob)), lambda: f"the end; {data(bob)[-3:]}")
    counted = [one for one in data(bob) if one["topic"] == "count"]
    assert [one["text"] for one in counted] == [*(str(n) for n in range(20)), None, "end"]
    assert counted[20]["length"] == 64_000
    assert {one["identity"] for one in counted} == {"alice"}
    assert all(one["isReliable"] and one["known"] and not one["hasGap"] for one in counted)
    assert not next(one for one in data(bob) if one["topic"] == "ready")["isReliable"]
    assert not [one for one in data(alice) if one["identity"] == "alice"]


def test_wrong_arguments_are_refused_at_once(alice: Caller, room: str) -> None:
    """Too long, a bad topic, switched off: each has its code."""
    alice.join(room, "alice")
    assert alice.call("publishBytes", 64_001, {})["code"] == "TOO_LARGE"
    assert alice.call("publishBytes", 15_001, {"reliable": False})["code"] == "TOO_LARGE"
    assert alice.call("publishData", "x", {"topic": "no spaces"})["code"] == "BAD_ARGUMENT"


def test_a_page_without_the_sdks_channels_can_take_part(alice: Caller, bob: Caller, room: str) -> None:
    """An option leaves data channels out: nothing is negotiated, and media goes on as ever."""
    alice.join(room, "alice", dataChannels=False)
    bob.join(room, "bob")
    assert alice.call("publishData", "x", {})["code"] == "BAD_STATE"
    alice.publish(11)
    bob.sees("alice", 11)
