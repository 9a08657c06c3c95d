"""Two Chromium instances in one call: what each sees and hears is decoded."""

from __future__ import annotations

from tests.e2e.caller import Caller, wait_until

ALICE, BOB = 11, 22  # numbers in the pictures
ALICE_HZ, BOB_HZ = 440, 880


def start_call(alice: Caller, bob: Caller, room: str) -> None:
    """Both are in the room and publish picture and tone."""
    alice.join(room, "alice")
    alice.publish(ALICE, ALICE_HZ)
    bob.join(room, "bob")
    bob.publish(BOB, BOB_HZ)


def test_both_see_and_hear_each_other(alice: Caller, bob: Caller, room: str) -> None:
    """Each gets the other's own picture and tone, moving."""
    start_call(alice, bob, room)
    bob.sees("alice", ALICE)
    alice.sees("bob", BOB)
    bob.hears("alice", ALICE_HZ)
    alice.hears("bob", BOB_HZ)
    assert alice.call("identities") == ["bob"]
    assert bob.call("identities") == ["alice"]


def test_who_speaks_is_told(alice: Caller, bob: Caller, room: str) -> None:
    """A loud participant becomes an active speaker for the others."""
    start_call(alice, bob, room)
    wait_until(
        lambda: any(name == "speakers" and "alice" in who for name, who, *_ in bob.events()),
        lambda: f"alice among the speakers; {bob.events()}",
    )


def test_a_small_picture_gets_a_small_layer(alice: Caller, bob: Caller, room: str) -> None:
    """The receiver's element shrinks and grows; the simulcast layer follows, the picture stays the sender's."""
    alice.join(room, "alice")
    bob.join(room, "bob")
    alice.publish(ALICE, width=1280, height=720)
    bob.call("resize", "alice", 1280, 720) if bob.see("alice") else None
    bob.sees("alice", ALICE)
    bob.call("resize", "alice", 1280, 720)
    width_becomes(bob, lambda width: width >= 640, timeout_s=40)
    bob.call("resize", "alice", 160, 90)
    width_becomes(bob, lambda width: width == 320)
    bob.sees("alice", ALICE)
    bob.call("resize", "alice", 1280, 720)
    width_becomes(bob, lambda width: width >= 640, timeout_s=40)
    bob.sees("alice", ALICE)


def width_becomes(caller: Caller, is_right: object, timeout_s: float = 15.0) -> None:
    """Waits until alice's decoded picture has a width."""
    assert callable(is_right)
    wait_until(
        lambda: is_right(caller.see("alice").get("width", 0)),
        lambda: f"another width; it is {caller.see('alice')}\n{caller.report()}",
        timeout_s,
    )


def test_a_screen_is_shared_beside_the_camera(alice: Caller, bob: Caller, room: str) -> None:
    """A second picture of the same participant comes and goes; the first is not touched."""
    start_call(alice, bob, room)
    bob.sees("alice", ALICE)
    publication = alice.publish(99, source="screen_share")
    bob.sees("alice", 99, "screen_share")
    bob.sees("alice", ALICE)
    alice.call("unpublish", publication)
    bob.event("trackUnsubscribed", "alice", "screen_share")
    assert bob.call("track", "alice", "screen_share") is None
    bob.sees("alice", ALICE)


def test_a_real_tab_is_captured(alice: Caller, bob: Caller, room: str) -> None:
    """`setScreenShareEnabled` publishes what the browser captures, and ends it."""
    alice.join(room, "alice")
    bob.join(room, "bob")
    alice.page.evaluate("window.call.room.localParticipant.setScreenShareEnabled(true)")
    bob.event("trackSubscribed", "alice", "screen_share")
    wait_until(lambda: bob.see("alice", "screen_share").get("width", 0) > 0, "a picture of the screen")
    alice.page.evaluate("window.call.room.localParticipant.setScreenShareEnabled(false)")
    bob.event("trackUnsubscribed", "alice", "screen_share")


def test_mute_silences_and_freezes(alice: Caller, bob: Caller, room: str) -> None:
    """Muted sound is silence, a muted picture stands still; both are told; unmuting brings them back."""
    start_call(alice, bob, room)
    bob.sees("alice", ALICE)
    bob.hears("alice", ALICE_HZ)

    alice.call("mute", "microphone", True)
    bob.event("trackMuted", "alice", "microphone")
    bob.hears("alice", 0)
    bob.sees("alice", ALICE)
    alice.call("mute", "microphone", False)
    bob.event("trackUnmuted", "alice", "microphone")
    bob.hears("alice", ALICE_HZ)

    alice.call("mute", "camera", True)
    bob.event("trackMuted", "alice", "camera")
    stands_still(bob, "alice")
    bob.hears("alice", ALICE_HZ)
    alice.call("mute", "camera", False)
    bob.event("trackUnmuted", "alice", "camera")
    bob.sees("alice", ALICE)


def stands_still(caller: Caller, identity: str) -> None:
    """Waits until a picture's counter is the same in twenty readings in a row (more than a second)."""
    last, same = None, 0

    def look() -> bool:
        nonlocal last, same
        counter = caller.see(identity).get("counter")
        same = same + 1 if counter == last else 0
        last = counter
        return same >= 20

    wait_until(look, f"{identity}'s picture stands still")


def test_messages_reach_everybody_else_once_and_in_order(alice: Caller, bob: Caller, room: str) -> None:
    """Public ones go to all but the sender, private ones to the addressee alone."""
    alice.join(room, "alice")
    bob.join(room, "bob")
    sent = [alice.send(f"message {i}") for i in range(20)]
    assert sent == sorted(set(sent))
    private = alice.send("only you", to=["bob"])
    alice.send("nobody here", to=["carol"])
    last = alice.send("last")
    bob.has_messages(22)
    messages = bob.messages()
    assert [message["seq"] for message in messages] == [*sent, private, last]
    assert [message["text"] for message in messages][-2:] == ["only you", "last"]
    assert [message["isPrivate"] for message in messages][-2:] == [True, False]
    assert alice.messages() == []


def test_leaving_and_joining_again(alice: Caller, bob: Caller, room: str) -> None:
    """The others see the leave with its reason, and everything works again afterwards."""
    start_call(alice, bob, room)
    bob.sees("alice", ALICE)
    alice.leave()
    bob.event("participantLeft", "alice", "client_request")
    assert bob.call("identities") == []
    alice.join(room, "alice")
    alice.publish(33, 660)
    bob.sees("alice", 33)
    bob.hears("alice", 660)
    alice.sees("bob", BOB)


def test_the_newest_join_with_an_identity_wins(alice: Caller, bob: Caller, room: str) -> None:
    """The former holder is told why it is out."""
    alice.join(room, "same")
    bob.join(room, "same")
    alice.event("disconnected", "duplicate_identity")
    assert bob.page.evaluate("window.call.room.state") == "connected"


def test_the_json_protocol_does_the_same(alice: Caller, bob: Caller, room: str) -> None:
    """Frames that people can read carry a whole call."""
    alice.join(room, "alice", protocol="json")
    alice.publish(ALICE, ALICE_HZ)
    bob.join(room, "bob", protocol="json")
    bob.sees("alice", ALICE)
    bob.send("as text")
    alice.has_messages(1)
