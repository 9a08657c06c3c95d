"""The impairment proxy (`engine/crates/netem`, binary `impair`): UDP legs that lose, delay and throttle."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import TracebackType

from tests.support.suite import ROOT

PROXY = ROOT / "engine" / "target" / "release" / "impair"


@dataclass(frozen=True)
class Conditions:
    """What one direction does to packets; the default is a perfect wire.

    Attributes:
        loss: probability that a packet is lost, each by itself.
        burst: losses in bursts on top of that: chance per packet to turn bad, to turn good, loss while bad.
        delay_ms: what every packet takes.
        jitter_ms: up to this much more, order kept.
        reorder: probability that a packet is held back, so that others overtake it.
        rate_bps: capacity; a queue stands before it.
        queue_bytes: its length; 0: a quarter second of the rate.
    """

    loss: float = 0.0
    burst: tuple[float, float, float] | None = None
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    reorder: float = 0.0
    rate_bps: int | None = None
    queue_bytes: int = 0

    def words(self) -> str:
        """As the proxy reads it."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        named["burst"] = self.burst and ",".join(map(str, self.burst))
        return " ".join(f"{key}={value}" for key, value in named.items() if value)


class Impair:
    """A running proxy. Legs have names; each is between one client and any servers.

    The client must be told the proxy's addresses instead of the servers': `address_for` gives them.
    """

    def __init__(self) -> None:
        assert PROXY.exists(), "the impairment proxy is not built: run `make setup`"
        self._process = subprocess.Popen([PROXY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._legs: dict[tuple[str, str], str] = {}
        self._conditions: dict[tuple[str, str], Conditions] = {}

    def __enter__(self) -> Impair:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=5)

    def address_for(self, name: str, server: str, seed: int = 1) -> str:
        """Where the client of this name reaches a server (`address:port`): a leg, opened when first asked for."""
        leg = (name, server)
        if leg not in self._legs:
            self._legs[leg] = self._ask(f"leg {name}@{server} {server} {seed}")
            for direction in ("up", "down"):
                self._apply(leg, direction)
        return self._legs[leg]

    def set(self, name: str, *, up: Conditions | None = None, down: Conditions | None = None) -> None:
        """Changes the conditions of a client's legs, present and later ones; None: stays as it is."""
        for direction, conditions in (("up", up), ("down", down)):
            if conditions is not None:
                self._conditions[name, direction] = conditions
                for leg in self._legs:
                    if leg[0] == name:
                        self._apply(leg, direction)

    def passed(self, name: str) -> int:
        """Packets that a client's legs delivered, both ways together."""
        stats = [self._ask(f"stats {name}@{server}").split() for owner, server in self._legs if owner == name]
        return sum(int(word.removeprefix("delivered=")) for words in stats for word in words if "delivered" in word)

    def _apply(self, leg: tuple[str, str], direction: str) -> None:
        conditions = self._conditions.get((leg[0], direction), Conditions())
        self._ask(f"set {leg[0]}@{leg[1]} {direction} {conditions.words()}")

    def _ask(self, command: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        verdict, _, answer = self._process.stdout.readline().strip().partition(" ")
        assert verdict == "ok", f"{command}: {verdict} {answer}"
        return answer


@contextmanager
def impair_proxy() -> Iterator[Impair]:
    """Runs the proxy for the block; `make setup` builds it."""
    with Impair() as running:
        yield running
