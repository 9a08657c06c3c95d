"""A call on a real suite, and what can be done to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.people import Person
from tests.support.api import RoomApi
from tests.support.balancer import balancer
from tests.support.media import wait_until
from tests.support.suite import RunningSuite

_SETTLE_S = 5.0


@dataclass
class Call:
    """People in one room, all of whom see and hear each other."""

    suite: RunningSuite
    url: str
    room: str
    api: RoomApi
    people: list[Person]

    async def nodes(self) -> dict[str, str]:
        """The media node of everybody, by identity."""
        listed = (await asyncio.to_thread(self.api.call, "GET", "participants"))["participants"]
        return {one["identity"]: one["node_id"] for one in listed}

    async def is_whole(self, timeout_s: float = 20.0) -> None:
        """Waits until everybody receives everything."""
        since = time.monotonic()
        wanted = 2 * (len(self.people) - 1)

        def whole() -> bool:
            return all(len(p.tracks()) == wanted and p.is_whole(since) for p in self.people)

        await wait_until(whole, timeout_s, lambda: f"everybody to receive {wanted} tracks: {self.state()}")

    def state(self) -> dict[str, Any]:
        """Who lacks what, for failures."""
        now = time.monotonic()
        return {
            p.identity: {t: round(now - p.seen[t].last, 2) if t in p.seen else None for t in sorted(p.tracks())}
            for p in self.people
        }

    def mark(self) -> None:
        """Gaps are counted from now on."""
        for person in self.people:
            person.mark()

    def gaps_ms(self) -> list[float]:
        """Everybody's longest gap since the mark."""
        return [round(1000 * person.longest_gap_s(), 1) for person in self.people]

    # What can be done to it; each returns what it cost everybody, in milliseconds.

    async def move(self, person: Person) -> list[float]:
        """One moves to another media node by order of an admin."""
        before = (await self.nodes())[person.identity]
        self.mark()
        await asyncio.to_thread(self.api.call, "POST", f"participants/{person.identity}/move", json={"node": ""})
        await self._wait_moved({person.identity: before})
        return self.gaps_ms()

    async def drain(self) -> list[float]:
        """The node with most people gets SIGTERM, ends by itself, and comes back."""
        nodes = await self.nodes()
        node = _most(list(nodes.values()))
        name = await asyncio.to_thread(self.suite.process_of_node, node)
        self.mark()
        assert await asyncio.to_thread(self.suite.stop, name), f"{name} did not end by itself"
        await self.is_whole()
        gaps = self.gaps_ms()
        await asyncio.to_thread(self.suite.restart, name)
        return gaps

    async def kill_media_node(self) -> list[float]:
        """kill -9 of the node with most people; a new one comes up afterwards."""
        name = await asyncio.to_thread(self.suite.process_of_node, _most(list((await self.nodes()).values())))
        self.mark()
        await asyncio.to_thread(self.suite.kill, name)
        await self.is_whole(30)
        gaps = self.gaps_ms()
        await asyncio.to_thread(self.suite.restart, name)
        return gaps

    async def kill(self, name: str, away_s: float = 1.0) -> list[float]:
        """kill -9 of a process of the control plane, which is away for a time."""
        self.mark()
        await asyncio.to_thread(self.suite.kill, name)
        await asyncio.sleep(away_s)
        gaps = self.gaps_ms()
        await asyncio.to_thread(self.suite.restart, name)
        await self.is_whole()
        return [max(pair) for pair in zip(gaps, self.gaps_ms(), strict=True)]

    async def restart(self, name: str) -> list[float]:
        """SIGTERM of a process, which ends by itself; a new one comes up afterwards."""
        self.mark()
        assert await asyncio.to_thread(self.suite.stop, name), f"{name} did not end by itself"
        await asyncio.to_thread(self.suite.restart, name)
        await self.is_whole()
        return self.gaps_ms()

    async def freeze_media_node(self, seconds: float) -> list[float]:
        """SIGSTOP of the node with most people; it wakes up after a time, when nobody needs it any more."""
        name = await asyncio.to_thread(self.suite.process_of_node, _most(list((await self.nodes()).values())))
        pid = self.suite.process(name).pid
        self.mark()
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
        await self.is_whole(40)
        return self.gaps_ms()

    async def time_to_join(self, timeout_s: float = 20.0) -> float:
        """Milliseconds until somebody new is in the room; tried again and again."""
        began = time.monotonic()
        async with asyncio.timeout(timeout_s):
            while True:
                with contextlib.suppress(Exception):
                    token = await asyncio.to_thread(self.suite.token, self.room, "late")
                    async with asyncio.timeout(2):
                        late = await Person.join(self.url, token, self.room, "late", 99)
                    took = 1000 * (time.monotonic() - began)
                    await late.aclose()
                    return took
                await asyncio.sleep(0.2)

    # What must be true in the end

    async def messages(self) -> tuple[int, int]:
        """How many messages that the server had taken were lost, and how many came twice."""
        for person in self.people:
            person.stop_talking()

        def count() -> tuple[int, int]:
            lost = doubled = 0
            for person in self.people:
                for other in self.people:
                    if other is not person:
                        got = person.received.get(other.identity, {})
                        lost += sum(1 for number in other.sent if number not in got)
                        doubled += sum(times - 1 for times in got.values())
            return lost, doubled

        with contextlib.suppress(AssertionError):
            await wait_until(lambda: count()[0] == 0, 10)
        return count()

    async def leftovers(self) -> dict[str, int]:
        """What is left of the room after everybody has gone: participants, and transports on media nodes."""
        for person in self.people:
            await person.aclose()

        async def count() -> dict[str, int]:
            try:
                people = len(await self.nodes())
            except AssertionError:  # the room is gone
                people = 0
            nodes = await asyncio.to_thread(self.suite.nodes)
            transports = sum(node.get("load", {}).get("transports", 0) for node in nodes if "DEAD" not in node["state"])
            return {"participants": people, "transports": transports}

        left = await count()
        for _ in range(30):
            if not any(left.values()):
                break
            await asyncio.sleep(0.5)
            left = await count()
        return left

    async def _wait_moved(self, before: dict[str, str]) -> None:
        deadline = time.monotonic() + 20
        while True:
            now = await self.nodes()
            if all(now.get(identity) not in (node, None) for identity, node in before.items()):
                break
            assert time.monotonic() < deadline, f"not moved: {before}, {now}"
            await asyncio.sleep(0.1)
        # The former transport ends some seconds later; nothing may hang on it.
        await asyncio.sleep(_SETTLE_S)
        await self.is_whole()


def _most(nodes: Sequence[str]) -> str:
    return max(sorted(set(nodes)), key=list(nodes).count)


@contextlib.asynccontextmanager
async def call_of(suite: RunningSuite, room: str, count: int) -> AsyncIterator[Call]:
    """A call of so many people that stands."""
    urls = [suite.signaling_url(number + 1) for number in range(suite.options.signalings)]
    async with balancer(urls) as url:
        api = await asyncio.to_thread(RoomApi, suite, room)
        people: list[Person] = []
        try:
            for number in range(count):
                identity = f"p{number}"
                token = await asyncio.to_thread(suite.token, room, identity)
                people.append(await Person.join(url, token, room, identity, number))
            call = Call(suite, url, room, api, people)
            await call.is_whole()
            for person in people:
                person.talk()
            yield call
        finally:
            for person in people:
                await person.aclose()
