"""What cannot be done on the m-lines of the first offer."""

from __future__ import annotations

from tests.e2e.caller import Caller


def test_slots_grow_with_the_room(alice: Caller, bob: Caller, room: str) -> None:
    """A receiver that joined with one slot of each kind sees and hears three publications."""
    bob.join(room, "bob", audioSlots=1, videoSlots=1)
    alice.join(room, "alice")
    alice.publish(1, 440)
    bob.sees("alice", 1)
    alice.publish(2, source="screen_share")
    bob.sees("alice", 2, "screen_share")
    alice.publish(3, source="file")
    bob.sees("alice", 3, "file")
    bob.sees("alice", 1)
    bob.hears("alice", 440)


def test_a_second_camera_gets_an_m_line_of_its_own(alice: Caller, bob: Caller, room: str) -> None:
    """The offer is renewed, with an ICE restart in the same step; nothing that flows is disturbed."""
    alice.page.evaluate(
        """() => {
            const Original = RTCPeerConnection;
            window.RTCPeerConnection = class extends Original {
                constructor(...args) { super(...args); window.pc = this; }
            };
        }"""
    )
    alice.join(room, "alice")
    bob.join(room, "bob")
    bob.publish(22)
    first = alice.publish(1, 440)
    bob.sees("alice", 1)
    ufrag = "/a=ice-ufrag:(.*)/.exec(pc.currentLocalDescription.sdp)[1]"
    before = alice.page.evaluate(ufrag)
    alice.page.evaluate("pc.restartIce()")
    bob.call("watch", "alice")
    alice.publish(2)
    assert alice.page.evaluate(ufrag) != before
    assert bob.call("longestStill") < 1500
    bob.hears("alice", 440)
    alice.sees("bob", 22)
    alice.call("unpublish", first)
    bob.sees("alice", 2)
    assert alice.page.evaluate("pc.connectionState") == "connected"
