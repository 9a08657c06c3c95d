"""Chromium whose media may go by TURN only."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Playwright

from tests.e2e.browser import CHROMIUM, FLAGS
from tests.e2e.caller import Caller
from tests.support.suite import RunningSuite, running_suite
from tests.support.turn import TurnServer, running_turn_server

# Collects the peer connections, which the SDK keeps to itself.
SPY = """() => {
  window.connections = [];
  const Original = RTCPeerConnection;
  window.RTCPeerConnection = class extends Original {
    constructor(...args) { super(...args); window.connections.push(this); }
  };
}"""
# The local candidate of the pair in use: [its type, the protocol to the TURN server].
PATH = """async () => {
  const stats = await window.connections.at(-1).getStats();
  for (const transport of stats.values()) {
    const pair = transport.type === 'transport' && stats.get(transport.selectedCandidatePairId);
    const local = pair && stats.get(pair.localCandidateId);
    if (local) return [local.candidateType, local.relayProtocol ?? ''];
  }
  return [];
}"""


@pytest.fixture(scope="module")
def turn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TurnServer]:
    """One for all tests here."""
    with running_turn_server(tmp_path_factory.mktemp("turn")) as server:
        yield server


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    """A Chromium that takes the TURN server's self-signed certificate."""
    running = playwright.chromium.launch(
        executable_path=CHROMIUM, headless=True, args=[*FLAGS, "--ignore-certificate-errors"]
    )
    yield running
    running.close()


@dataclass
class Calls:
    """Makes pairs of callers."""

    browser: Browser
    pages_url: str
    made: list[Caller]

    def both_see_each_other(self, suite: RunningSuite, room: str, options: dict[str, Any]) -> Caller:
        """One by the given way, one directly. The first."""
        relayed, direct = (Caller(self.browser, self.pages_url, suite) for _ in range(2))
        self.made += [relayed, direct]
        relayed.page.evaluate(SPY)
        relayed.join(room, "relayed", **options)
        direct.join(room, "direct")
        relayed.publish(11, 440)
        direct.publish(22)
        direct.sees("relayed", 11)
        direct.hears("relayed", 440)
        relayed.sees("direct", 22)
        return relayed


@pytest.fixture
def calls(browser: Browser, pages_url: str) -> Iterator[Calls]:
    """Closes what was made."""
    calls = Calls(browser, pages_url, [])
    yield calls
    for caller in calls.made:
        caller.close()


@pytest.mark.parametrize("transport", ["udp", "tcp", "tls"])
def test_a_call_by_turn_alone(transport: str, turn: TurnServer, calls: Calls, suite: RunningSuite, room: str) -> None:
    """The application names the server; the credentials are those that signaling would make."""
    server = turn.secret(transport).server("someone", int(time.time()))
    ice = {"urls": list(server.urls), "username": server.username, "credential": server.credential}
    before = turn.allocations()
    relayed = calls.both_see_each_other(suite, room, {"iceServers": [ice], "iceTransportPolicy": "relay"})
    assert relayed.page.evaluate(PATH) == ["relay", transport]
    assert turn.allocations() > before


def test_signaling_hands_out_turn(turn: TurnServer, calls: Calls, room: str, tmp_path: Path) -> None:
    """A client that may not go directly restarts ICE with the server that the answer to its join named."""
    services = ("master", "rtcmcu", "signaling")
    with running_suite(tmp_path, mcus=1, mcu_workers=1, env=turn.env("udp"), services=services) as suite:
        relayed = calls.both_see_each_other(suite, room, {"iceTransportPolicy": "relay"})
        assert relayed.page.evaluate(PATH) == ["relay", "udp"]
        logs = "".join(path.read_text(errors="replace") for path in (suite.data_dir / "log").glob("signaling*.log"))
        assert turn.secret("udp").secret not in logs
        assert "credential" not in logs.lower()
