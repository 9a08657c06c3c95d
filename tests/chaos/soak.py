"""Joins, leaves, moves and deaths for hours: `python -m tests.chaos.soak`. Ends with one JSON line and a verdict.

What the suite holds is counted twice in the same state, when everybody has left and what expires has expired: after a
warm-up, in which everything may die at first, and at the end. Before the first count and between the two only second
instances die: the first ones are the same processes at both counts, have seen the deaths of all others, and their pools
of threads and of connections to the database were as full as they get.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_embedded.process import StartError
from mrtc_signaling.testing import Client

from tests.chaos.census import Census, census_of, growth, least
from tests.chaos.people import Person
from tests.support.api import RoomApi
from tests.support.balancer import balancer
from tests.support.store import Store, store_of
from tests.support.suite import RunningSuite, running_suite

ROOMS = ("soak-0", "soak-1", "soak-2")
_ENV = {
    "MRTC_SESSION_GRACE_S": "10",
    "MRTC_SIGNALING_EMPTY_ROOM_TIMEOUT_S": "5",
    "MRTC_RTCMCU_ORPHAN_GRACE_S": "10",
}
_SAMPLE_S = 60.0
_REST_TIMEOUT_S = 240.0
# Rooms and sessions are gone then; the heartbeats, leases and markers of those that died expire after them.
_SETTLE_S = 15.0
_LOOKS = 6
_LOOK_INTERVAL_S = 5.0
# Longer than any of it takes: a client that hangs must not hold up the rest.
_WORK_TIMEOUT_S = 120.0


def _arguments() -> argparse.Namespace:
    seconds = float(os.environ.get("SOAK_S", "7200"))
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=seconds, help="how long, rests not counted (SOAK_S, 7200)")
    parser.add_argument("--people", type=int, default=5, help="participants with media at a time (default 5)")
    parser.add_argument("--seed", type=int, default=1, help="decides who does what when (default 1)")
    return parser.parse_args()


class Soak:
    """A suite under changing load.

    Attributes:
        done: how often what was done, failures by their kind.
    """

    def __init__(self, suite: RunningSuite, url: str, store: Store, options: argparse.Namespace) -> None:
        self._suite, self._url, self._store = suite, url, store
        self._people = options.people
        self._chance = random.Random(options.seed)
        self._numbers = iter(range(1, 1_000_000_000))
        self._stop = asyncio.Event()
        self._present: dict[str, set[str]] = {room: set() for room in ROOMS}
        self.done: Counter[str] = Counter()

    async def load(self, seconds: float, *, is_warm_up: bool) -> None:
        """Everything at once for a time; returns when everybody has left and all processes run."""
        self._stop.clear()
        second = ["rtcmcu-2", "rtcmcu-3", "signaling-2", "rtcrecorder-2"]
        mortal = [*self._suite.suite.processes] if is_warm_up else second
        works = [
            *(self._repeat(self._visit, 0.5) for _ in range(self._people)),
            *(self._repeat(self._look_in, 0.3) for _ in range(2)),
            self._repeat(self._record, 20.0),
            self._repeat(self._move, 6.0),
            self._repeat(lambda: self._die(mortal), 25.0),
        ]
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
            watching = group.create_task(self._watch())
            await asyncio.sleep(seconds)
            self._stop.set()
            watching.cancel()

    async def rest(self) -> Census:
        """Waits until nothing is left of the rooms, not even markers, and counts: the least of several looks."""
        deadline = time.monotonic() + _REST_TIMEOUT_S
        while (left := await self._left()) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(1)
        if left:
            say(f"still there after {_REST_TIMEOUT_S:.0f} s: {left}")
        await asyncio.sleep(_SETTLE_S)
        looks = []
        for _ in range(_LOOKS):
            looks.append(await census_of(self._suite, self._store))
            await asyncio.sleep(_LOOK_INTERVAL_S)
        return least(looks)

    async def _left(self) -> dict[str, int]:
        try:
            census = await census_of(self._suite, self._store)
        except Exception as error:  # NATS or master is not quite back
            return {type(error).__name__: 1}
        counts = {name: census.stored[name] for name in ("KV_mrtc_rooms", "KV_mrtc_sessions", "MRTC_JOBS")}
        counts |= {"transports": census.transports}
        return {name: count for name, count in counts.items() if count}

    # What is done

    async def _visit(self) -> None:
        """Somebody joins with media, talks, and leaves or vanishes."""
        room, number = self._chance.choice(ROOMS), next(self._numbers)
        identity = f"p{number}"
        token = await asyncio.to_thread(self._suite.token, room, identity)
        async with asyncio.timeout(20):
            person = await Person.join(self._url, token, room, identity, number % 256)
        self._present[room].add(identity)
        try:
            person.talk()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(2, 20)):
                    await self._stop.wait()
        finally:
            self._present[room].discard(identity)
            try:
                async with asyncio.timeout(20):
                    await (person.vanish() if self._chance.random() < 0.2 else person.aclose())
            finally:
                await person.room.aclose()

    async def _look_in(self) -> None:
        """Somebody joins without media and goes soon."""
        room, identity = self._chance.choice(ROOMS), f"l{next(self._numbers)}"
        token = await asyncio.to_thread(self._suite.token, room, identity)
        client = Client(self._suite.signaling_url(self._chance.randint(1, self._suite.options.signalings)))
        try:
            async with asyncio.timeout(10):
                await client.join(token)
                await client.request(send_message=pb.SendMessageRequest(payload=b"1"))
                if self._chance.random() < 0.7:
                    await client.request(leave=pb.LeaveRequest())
        finally:
            await client.aclose()

    async def _record(self) -> None:
        """A room is recorded for some seconds."""
        room = self._chance.choice(ROOMS)
        if not self._present[room]:
            return
        api = await asyncio.to_thread(RoomApi, self._suite, room)
        recording = await asyncio.to_thread(api.start_recording, self._chance.choice(("single", "mixed")))
        await asyncio.sleep(self._chance.uniform(3, 12))
        while True:
            try:
                await asyncio.to_thread(api.call, "POST", f"recordings/{recording}/stop")
            except (httpx.TransportError, AssertionError):  # an instance has just died
                await asyncio.sleep(1)
            else:
                return

    async def _move(self) -> None:
        """Somebody is moved to another node."""
        room = self._chance.choice(ROOMS)
        if not self._present[room]:
            return
        identity = self._chance.choice(sorted(self._present[room]))
        api = await asyncio.to_thread(RoomApi, self._suite, room)
        await asyncio.to_thread(api.call, "POST", f"participants/{identity}/move", json={"node": ""})

    async def _die(self, mortal: list[str]) -> None:
        """A process is killed, drained or frozen, and is back afterwards."""
        name, how = self._chance.choice(mortal), self._chance.choice(("kill", "stop", "freeze"))
        if how == "freeze" and name != "nats":
            pid = self._suite.process(name).pid
            os.kill(pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(self._chance.uniform(1, 14))
            finally:
                os.kill(pid, signal.SIGCONT)
        else:
            with contextlib.suppress(TimeoutError):  # a drain may take its time
                await asyncio.to_thread(self._suite.stop if how == "stop" else self._suite.kill, name)
            await asyncio.sleep(self._chance.uniform(0, 5))
            await self._bring_back(name)
        self.done[f"{how} {name.split('-')[0]}"] += 1

    async def _bring_back(self, name: str) -> None:
        """Until it is ready: nothing else does it."""
        while True:
            try:
                await asyncio.to_thread(self._suite.kill, name)
                await asyncio.to_thread(self._suite.restart, name)
            except (StartError, TimeoutError) as error:
                say(f"{name} does not start, again: {type(error).__name__}")
            else:
                return

    # How it is done

    async def _repeat(self, work: Callable[[], Awaitable[None]], pause_s: float) -> None:
        what = getattr(work, "__name__", "die").strip("_").replace("<lambda>", "die")
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(_WORK_TIMEOUT_S):
                    await work()
                self.done[what] += 1
            except Exception as error:  # whoever joins where something dies may be refused
                self.done[f"{what} failed: {type(error).__name__}"] += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s * self._chance.uniform(0.5, 1.5)):
                    await self._stop.wait()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_SAMPLE_S)
            with contextlib.suppress(Exception):  # something is dead just now
                census = await census_of(self._suite, self._store)
                memory = {name: one.rss_kb // 1024 for name, one in census.processes.items()}
                say(
                    f"MiB {memory}, transports {census.transports}, keys {sum(census.keys.values())}; {dict(self.done)}"
                )


async def run(suite: RunningSuite, options: argparse.Namespace) -> int:
    """0 if nothing grew."""
    urls = [suite.signaling_url(number + 1) for number in range(suite.options.signalings)]
    async with balancer(urls) as url, store_of(suite) as store:
        soak = Soak(suite, url, store, options)
        say("warm-up, in which everything may die")
        await soak.load(options.seconds / 4, is_warm_up=True)
        say("from now on second instances die; the pools of the first ones fill before the first count")
        await soak.load(options.seconds / 8, is_warm_up=False)
        first = await soak.rest()
        say("first count done")
        await soak.load(options.seconds * 5 / 8, is_warm_up=False)
        last = await soak.rest()
    grown = growth(first, last)
    for line in grown:
        say(f"grown: {line}")
    result = {
        "seconds": options.seconds,
        "done": dict(sorted(soak.done.items())),
        "first": first.as_dict(),
        "last": last.as_dict(),
        "grown": grown,
        "verdict": "grown" if grown else "ok",
    }
    print(json.dumps(result))
    return 1 if grown else 0


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """0 if nothing grew."""
    options = _arguments()
    with (
        tempfile.TemporaryDirectory(prefix="mrtc-soak-") as data,
        running_suite(
            Path(data), mcus=3, signalings=2, recorders=2, mcu_workers=1, drain_timeout_s=8.0, env=_ENV
        ) as suite,
    ):
        return asyncio.run(run(suite, options))


if __name__ == "__main__":
    raise SystemExit(main())
