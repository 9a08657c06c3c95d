"""A storm of listeners into one room: `python -m tests.bench.listeners`. What do they cost signaling?

So many light participants without media join by WebSocket through two signaling instances, as quickly as they are let
in, stay until everybody knows of everybody, and leave. Prints one JSON line: CPU time of both instances, and what the
clients were sent. `--singly`: clients that take no batches, as all did before there were any.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
from mrtc.signaling.v1 import client_pb2
from mrtc_common.testing import wait_until
from mrtc_embedded.suite import Suite, SuiteOptions, running
from mrtc_sdk.signal import SignalClient

_ROOM = "listeners"
_INSTANCES = 2
_AT_ONCE = 32
_TIMEOUT_S = 300


class _Listener:
    """A participant that counts what it is sent, and keeps the list of people as an SDK does."""

    def __init__(self, url: str, *, takes_batches: bool) -> None:
        self._signal = SignalClient(url, self._on_push, self._on_resumed, lambda _: None)
        self._takes_batches = takes_batches
        self._people: set[str] = set()
        self._unlisted = 0
        self.pushes = self.bytes = 0

    @property
    def count(self) -> int:
        """How many it knows to be in the room."""
        return len(self._people) + self._unlisted

    async def join(self, token: str) -> None:
        """Joins."""
        request = client_pb2.JoinRequest(token=token, takes_participants_changed=self._takes_batches)
        await self._signal.join(request, self._joined)

    async def leave(self) -> None:
        """Leaves."""
        await self._signal.request(client_pb2.ClientFrame(leave=client_pb2.LeaveRequest()))
        await self._signal.aclose()

    def _joined(self, reply: client_pb2.JoinResponse) -> None:
        self._people = {one.id for one in reply.snapshot.participants}
        self._unlisted = reply.snapshot.unlisted_count
        self.bytes += reply.ByteSize()

    async def _on_push(self, frame: client_pb2.ServerFrame) -> None:
        self.pushes += 1
        self.bytes += frame.ByteSize()
        if frame.HasField("participant_joined"):
            self._people.add(frame.participant_joined.participant.id)
        elif frame.HasField("participant_left"):
            self._people.discard(frame.participant_left.participant_id)
        elif frame.HasField("participants_changed"):
            self._people |= {one.id for one in frame.participants_changed.participants}
            self._people -= {one.participant_id for one in frame.participants_changed.left}
            self._unlisted = frame.participants_changed.unlisted_count

    async def _on_resumed(self, reply: client_pb2.ResumeResponse) -> None:
        self._people = {one.id for one in reply.snapshot.participants}
        self._unlisted = reply.snapshot.unlisted_count


async def run(people: int, *, takes_batches: bool) -> dict[str, Any]:
    """One run."""
    with tempfile.TemporaryDirectory(prefix="mrtc-listeners-") as data:
        options = SuiteOptions(Path(data), signalings=_INSTANCES, services=("master", "signaling"))
        async with running(options) as suite, asyncio.timeout(_TIMEOUT_S):
            listeners = [
                _Listener(suite.signaling_url(number % _INSTANCES + 1), takes_batches=takes_batches)
                for number in range(people)
            ]
            tokens = await _tokens(suite, people)
            before, began = _cpu_s(suite), time.monotonic()
            await _side_by_side([one.join(token) for one, token in zip(listeners, tokens, strict=True)])
            await wait_until(lambda: all(one.count == people for one in listeners), timeout_s=_TIMEOUT_S)
            took, joined = time.monotonic() - began, _cpu_s(suite)
            figures = {
                "people": people,
                "takes_batches": takes_batches,
                "joined_s": round(took, 2),
                "join_cpu_s": round(joined - before, 2),
                "pushes": sum(one.pushes for one in listeners),
                "pushes_of_one_max": max(one.pushes for one in listeners),
                "kib": round(sum(one.bytes for one in listeners) / 1024),
            }
            await _side_by_side([one.leave() for one in listeners])
            return figures | {
                "leave_cpu_s": round(_cpu_s(suite) - joined, 2),
                "pushes_with_leaves": sum(one.pushes for one in listeners),
                "load_average": round(psutil.getloadavg()[0], 1),
            }


async def _tokens(suite: Suite, people: int) -> list[str]:
    async with httpx.AsyncClient() as http:
        url = f"{suite.url}/demo/token"
        got = [await http.get(url, params={"room": _ROOM, "identity": f"u{number}"}) for number in range(people)]
    return [str(reply.json()["token"]) for reply in got]


async def _side_by_side(steps: list[Any]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def take(step: Any) -> None:
        async with gate:
            await step

    await asyncio.gather(*(take(step) for step in steps))


def _cpu_s(suite: Suite) -> float:
    times = [psutil.Process(suite.processes[f"signaling-{number + 1}"].pid).cpu_times() for number in range(_INSTANCES)]
    return sum(one.user + one.system for one in times)


def main() -> int:
    """Prints the line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.listeners", description=__doc__)
    parser.add_argument("--people", type=int, default=300, help="how many join (default 300)")
    parser.add_argument("--singly", action="store_true", help="clients that take no batches")
    args = parser.parse_args()
    print(json.dumps(asyncio.run(run(args.people, takes_batches=not args.singly))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
