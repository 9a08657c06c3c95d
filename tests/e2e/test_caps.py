"""Caps on what a real Chromium sends and receives: it keeps to them by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from mrtc_common.auth import TokenCaps

from tests.e2e.caller import Caller, wait_until
from tests.support.api import RoomApi, token_with_caps
from tests.support.suite import RunningSuite

# Encoders miss their target, and rates count headers.
SLACK = 1.2


def sent(api: RoomApi, identity: str) -> int:
    """Bytes that a participant's client sent so far."""
    return int(api.transport_of(identity)["rx_bytes"])


def received(api: RoomApi, identity: str) -> int:
    """Bytes that it was sent."""
    return int(api.transport_of(identity)["tx_bytes"])


def rate(count: Callable[[RoomApi, str], int], api: RoomApi, identity: str, seconds: float = 2.0) -> float:
    """Bit/s over some time from now."""
    before, began_at = count(api, identity), time.monotonic()
    time.sleep(seconds)
    return (count(api, identity) - before) * 8 / (time.monotonic() - began_at)


def test_a_sender_follows_its_cap_while_the_call_goes_on(alice: Caller, bob: Caller, room: str, api: RoomApi) -> None:
    """Told by REMB: it sends less within the time after which the node would enforce it, and more when it is gone."""
    alice.join(room, "alice")
    bob.join(room, "bob")
    alice.publish(31, texture=True)
    bob.sees("alice", 31)
    wait_until(lambda: rate(sent, api, "alice", 1.0) > 500_000, "alice to send much", 30)
    api.call("POST", "participants/alice/caps", json={"max_ingress_bps": 250_000})
    wait_until(lambda: rate(sent, api, "alice", 1.0) < 250_000 * SLACK, "alice to follow", 5)
    assert rate(sent, api, "alice", 3.0) < 250_000 * SLACK
    bob.sees("alice", 31)
    api.call("POST", "participants/alice/caps", json={"max_ingress_bps": 0})
    wait_until(lambda: rate(sent, api, "alice", 1.0) > 500_000, "alice to send more again", 20)


def test_caps_of_a_token_hold_from_the_start(alice: Caller, bob: Caller, room: str, suite: RunningSuite) -> None:
    """The sender by what the answer says of its line of video, the receiver by what the node gives it."""
    api = RoomApi(suite, room)
    capped = TokenCaps(max_track_bps=400_000)
    assert alice.try_join(token_with_caps(suite, room, "alice", capped)) is None
    bob.identity = "bob"
    assert bob.try_join(token_with_caps(suite, room, "bob", TokenCaps(max_egress_bps=200_000))) is None
    alice.publish(32, texture=True)
    bob.sees("alice", 32)
    for _ in range(3):
        assert rate(sent, api, "alice") < 400_000 * SLACK
        assert rate(received, api, "bob") < 200_000 * SLACK
    assert rate(sent, api, "alice") > 100_000


def test_a_track_follows_its_own_cap_beside_one_that_has_none(
    alice: Caller, bob: Caller, room: str, api: RoomApi
) -> None:
    """REMB could only name the sum of both; the SDK sets the one encoder by the changed publication."""
    alice.join(room, "alice")
    bob.join(room, "bob")
    alice.publish(33, texture=True, simulcast=False)
    alice.publish(34, source="screen_share")
    bob.sees("alice", 33)
    bob.sees("alice", 34, "screen_share")
    people = api.call("GET", "participants")["participants"]
    tracks = [track for one in people for publication in one["publications"] for track in publication["tracks"]]
    camera = next(track["id"] for track in tracks if track["source"] == "camera")

    def sent_of_camera(api: RoomApi, identity: str) -> int:
        return sum(s["bytes"] for s in api.transport_of(identity)["streams"] if s["track"] == camera)

    wait_until(lambda: rate(sent_of_camera, api, "alice", 1.0) > 500_000, "alice to send much", 30)
    api.call("POST", f"tracks/{camera}/cap", json={"max_bitrate_bps": 250_000})
    wait_until(lambda: rate(sent_of_camera, api, "alice", 1.0) < 250_000 * SLACK, "the track to follow", 5)
    bob.sees("alice", 33)
    bob.sees("alice", 34, "screen_share")
