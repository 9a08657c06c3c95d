"""Repair packets (FlexFEC) towards a real browser that loses packets on their way."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.caller import Caller, wait_until
from tests.support.impair import Conditions, Impair

# Peer connections know no retransmissions.
WITHOUT_RTX = """() => {
  const { setRemoteDescription } = RTCPeerConnection.prototype;
  const forget = (sdp) => {
    const types = [...sdp.matchAll(/^a=rtpmap:(\\d+) rtx/gm)].map(([, type]) => type);
    const isOfRtx = (line) => line.startsWith('a=ssrc-group:FID')
      || types.includes(/^a=[a-z]+:(\\d+) /.exec(line)?.[1]);
    const strip = (line) => !line.startsWith('m=') ? line
      : line.split(' ').filter((word, i) => i < 3 || !types.includes(word)).join(' ');
    return sdp.split('\\r\\n').filter((line) => !isOfRtx(line)).map(strip).join('\\r\\n');
  };
  RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
    return setRemoteDescription.call(this, { type, sdp: forget(sdp) });
  };
}"""

INBOUND = """async () => {
  const found = [];
  for (const connection of window.connections) {
    for (const stat of (await connection.getStats()).values()) {
      if (stat.type === 'inbound-rtp' && stat.kind === 'video') found.push(stat);
    }
  }
  return found;
}"""


def received(caller: Caller, figure: str) -> int:
    """Sum of a figure of all pictures that are received."""
    stats: list[dict[str, Any]] = caller.page.evaluate(INBOUND)
    return sum(int(stat.get(figure, 0)) for stat in stats)


@pytest.mark.parametrize("without_rtx", [False, True], ids=["beside-retransmissions", "alone"])
def test_a_browser_repairs_by_flexfec(
    alice: Caller, bob: Caller, impair: Impair, room: str, *, without_rtx: bool
) -> None:
    """Chromium takes repair packets when it loses some, and none before. Alone they keep the picture moving too."""
    bob.go_through(impair, "bob")
    if without_rtx:
        bob.page.evaluate(WITHOUT_RTX)
    alice.join(room, "alice")
    alice.publish(31, fps=30)
    bob.join(room, "bob")
    bob.sees("alice", 31)
    assert received(bob, "fecPacketsReceived") == 0
    impair.set("bob", up=Conditions(delay_ms=40), down=Conditions(loss=0.05, delay_ms=40))
    wait_until(
        lambda: received(bob, "fecPacketsReceived") > 20,
        lambda: f"repair packets come: {bob.page.evaluate(INBOUND)}",
        30,
    )
    before = {name: received(bob, name) for name in ("framesDecoded", "packetsLost", "pliCount")}
    # Of fewer, chance decides how many losses come too near to each other for one repair.
    wait_until(lambda: received(bob, "packetsLost") > before["packetsLost"] + 20, "some packets are lost", 60)
    # A busy machine may lose as many within a second, when few pictures have come yet.
    wait_until(lambda: received(bob, "framesDecoded") > before["framesDecoded"] + 60, "the picture moves", 30)
    bob.sees("alice", 31)
    lost, requests = (received(bob, name) - before[name] for name in ("packetsLost", "pliCount"))
    print(f"{lost} lost, {requests} key frames asked for")
    assert requests * 2 < lost, f"{lost} lost, {requests} key frames asked for"
