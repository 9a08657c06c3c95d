"""Sound of real browsers: redundancy is negotiated and used on both legs, and the loudest are heard."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.caller import Caller, wait_until
from tests.support.impair import Conditions, Impair
from tests.support.suite import RunningSuite

_STATS = """async type => {
  const report = await window.connections.at(-1).getStats();
  const one = [...report.values()].find(one => one.type === type && one.kind === 'audio');
  return one ?? {};
}"""


@pytest.fixture
def new_impaired(new_caller: Callable[[], Caller], impair: Impair) -> Callable[[str], Caller]:
    """Makes a caller whose packets pass the proxy, on legs of that name."""

    def make(name: str) -> Caller:
        caller = new_caller()
        caller.go_through(impair, name)
        return caller

    return make


def audio(caller: Caller, kind: str) -> dict[str, Any]:
    """The browser's figures of the sound that it sends (`outbound-rtp`) or receives (`inbound-rtp`)."""
    stats: dict[str, Any] = caller.page.evaluate(_STATS, kind)
    return stats


def send_codecs(caller: Caller) -> list[str]:
    """What the sound may be sent as, best first, as negotiated."""
    codecs: list[str] = caller.page.evaluate(
        """() => window.connections.at(-1).getSenders().find(({ track }) => track?.kind === 'audio')
          .getParameters().codecs.map(({ mimeType }) => mimeType)"""
    )
    return codecs


def engine_counter(suite: RunningSuite, name: str) -> float:
    """A counter of the media nodes' engines, all together."""
    total = 0.0
    for process, port in suite.suite.http_ports.items():
        if process.startswith("rtcmcu"):
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=5).text
            lines = [line for line in text.splitlines() if line.startswith(f"mrtc_rtcmcu_engine_{name}_total")]
            total += sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    return total


def test_redundancy_mends_sound_on_both_legs(
    new_impaired: Callable[[str], Caller], impair: Impair, room: str, suite: RunningSuite
) -> None:
    """Chromium sends redundant Opus, which is used; a listener gets redundancy only while it loses."""
    alice, bob = new_impaired("alice"), new_impaired("bob")
    # Other calls have been on these nodes.
    sent, restored = engine_counter(suite, "tx_red_packets"), engine_counter(suite, "rx_restored_packets")
    alice.join(room, "alice")
    alice.publish(31, 440)
    bob.join(room, "bob")
    bob.hears("alice", 440)
    assert send_codecs(alice)[:2] == ["audio/red", "audio/opus"]
    assert engine_counter(suite, "tx_red_packets") == sent

    impair.set("alice", up=Conditions(delay_ms=25, loss=0.2))
    impair.set("bob", down=Conditions(delay_ms=25, loss=0.2))
    wait_until(lambda: engine_counter(suite, "rx_restored_packets") > restored + 5, "alice's redundancy is used")
    wait_until(lambda: engine_counter(suite, "tx_red_packets") > sent + 50, "bob gets redundant Opus")
    bob.hears("alice", 440)


def test_encrypted_sound_carries_no_redundancy(new_impaired: Callable[[str], Caller], room: str) -> None:
    """The server could not take it out of encrypted frames, so the SDK does not offer it."""
    alice = new_impaired("eve")
    alice.join(room, "eve", e2ee={"passphrase": "a small green turtle"})
    alice.publish(32, 440)
    assert send_codecs(alice)[0] == "audio/opus"
    assert "audio/red" not in send_codecs(alice)


def api_token(suite: RunningSuite) -> str:
    """A token of the demo app's own servers, made as an operator would make one."""
    made = subprocess.run(
        [sys.executable, "-m", "mrtc_signaling", "token", "--app", "demo", "--api"],
        env={**os.environ, **suite.process("signaling-1").env},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return made.stdout.strip()


def test_one_hears_the_loudest_only(new_caller: Callable[[], Caller], room: str, suite: RunningSuite) -> None:
    """In a room of one place it goes to who speaks, and stays with him when another one speaks too."""
    headers = {"authorization": f"Bearer {api_token(suite)}"}
    made = httpx.post(
        f"{suite.url}/v1/apps/demo/rooms", json={"name": room, "audio_top_n": 1}, headers=headers, timeout=10
    )
    assert made.json()["audio_top_n"] == 1, made.text
    alice, bob, ear = new_caller(), new_caller(), new_caller()
    alice.join(room, "alice")
    alice.publish(33, 440)
    ear.join(room, "ear")
    ear.hears("alice", 440)
    bob.join(room, "bob")
    bob.publish(34, 600)
    ear.sees("bob", 34)
    assert ear.call("hear", "bob") is None
    ear.hears("alice", 440)
    alice.call("mute", "microphone", True)
    ear.hears("bob", 600)
    alice.call("mute", "microphone", False)
    bob.call("mute", "microphone", True)
    ear.hears("alice", 440)
    assert ear.call("hear", "bob") is None
