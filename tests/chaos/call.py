"""A call on a real suite, and what can be done to it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mrtc_common import subjects

from tests.chaos.browsers import BrowserCrowd
from tests.chaos.figures import Losses
from tests.chaos.people import Person
from tests.chaos.remote import Crowd, Invitation, Report
from tests.support.api import RoomApi
from tests.support.balancer import balancer
from tests.support.store import store_of
from tests.support.suite import RunningSuite
from tests.support.versions import Version, present

_SETTLE_S = 5.0
_POLL_S = 0.1


@dataclass
class Call:
    """People in one room, all of whom see and hear each other."""

    suite: RunningSuite
    url: str
    room: str
    api: RoomApi
    people: list[Crowd | BrowserCrowd]
    _reports: list[Report] = field(default_factory=list)

    @property
    def identities(self) -> list[str]:
        """Of everybody."""
        return [identity for crowd in self.people for identity in crowd.identities]

    async def nodes(self) -> dict[str, str]:
        """The media node of everybody, by identity."""
        listed = (await asyncio.to_thread(self.api.call, "GET", "participants"))["participants"]
        return {one["identity"]: one["node_id"] for one in listed}

    async def is_whole(self, timeout_s: float = 20.0) -> None:
        """Waits until everybody receives everything."""
        since = time.monotonic()
        wanted = 2 * (len(self.identities) - 1)
        while not all(len(one.tracks) == wanted and one.is_whole(since) for one in await self._ask_all()):
            assert time.monotonic() - since < timeout_s, f"everybody was to receive {wanted} tracks: {self.state()}"
            await asyncio.sleep(_POLL_S)

    def state(self) -> dict[str, Any]:
        """Who lacked what when they were asked last, for failures."""
        now = time.monotonic()
        return {
            identity: {t: last and round(now - last, 2) for t, last in sorted(one.tracks.items())}
            for identity, one in zip(self.identities, self._reports, strict=True)
        }

    async def mark(self) -> None:
        """Gaps are counted from now on."""
        await asyncio.gather(*(crowd.mark() for crowd in self.people))

    async def gaps_ms(self) -> list[float]:
        """Everybody's longest gap since the mark."""
        return [round(1000 * one.gap_s, 1) for one in await self._ask_all()]

    def message_gaps_ms(self) -> list[float]:
        """Everybody's longest time without a message of somebody since the mark, up to when they were asked last."""
        return [round(1000 * one.message_gap_s, 1) for one in self._reports]

    async def sent(self) -> int:
        """How many messages the server has taken."""
        return sum(len(one.sent) for one in await self._ask_all())

    async def reports(self) -> dict[str, Report]:
        """What everybody has to say, by identity."""
        return dict(zip(self.identities, await self._ask_all(), strict=True))

    async def _ask_all(self) -> list[Report]:
        said = await asyncio.gather(*(crowd.reports() for crowd in self.people))
        self._reports = [one for reports in said for one in reports]
        return self._reports

    # What can be done to it; each returns what it cost everybody, in milliseconds.

    async def move(self, identity: str) -> list[float]:
        """One moves to another media node by order of an admin."""
        before = (await self.nodes())[identity]
        await self.mark()
        await asyncio.to_thread(self.api.call, "POST", f"participants/{identity}/move", json={"node": ""})
        await self._wait_moved({identity: before})
        return await self.gaps_ms()

    async def drain(self) -> list[float]:
        """The node with most people gets SIGTERM, ends by itself, and comes back."""
        nodes = await self.nodes()
        node = _most(list(nodes.values()))
        name = await asyncio.to_thread(self.suite.process_of_node, node)
        await self.mark()
        assert await asyncio.to_thread(self.suite.stop, name), f"{name} did not end by itself"
        await self.is_whole()
        gaps = await self.gaps_ms()
        await asyncio.to_thread(self.suite.restart, name)
        return gaps

    async def kill_media_node(self) -> list[float]:
        """kill -9 of the node with most people; a new one comes up afterwards."""
        name = await asyncio.to_thread(self.suite.process_of_node, _most(list((await self.nodes()).values())))
        await self.mark()
        await asyncio.to_thread(self.suite.kill, name)
        await self.is_whole(30)
        gaps = await self.gaps_ms()
        await asyncio.to_thread(self.suite.restart, name)
        return gaps

    async def kill(self, name: str, away_s: float = 1.0, *, with_children: bool = False) -> list[float]:
        """kill -9 of a process that is no media node, which is away for a time."""
        await self.mark()
        await asyncio.to_thread(self.suite.kill_with_children if with_children else self.suite.kill, name)
        await asyncio.sleep(away_s)
        gaps = await self.gaps_ms()
        await asyncio.to_thread(self.suite.restart, name)
        await self.is_whole()
        return [max(pair) for pair in zip(gaps, await self.gaps_ms(), strict=True)]

    async def restart(self, name: str) -> list[float]:
        """SIGTERM of a process, which ends by itself; a new one comes up afterwards."""
        await self.mark()
        assert await asyncio.to_thread(self.suite.stop, name), f"{name} did not end by itself"
        await asyncio.to_thread(self.suite.restart, name)
        await self.is_whole()
        return await self.gaps_ms()

    async def freeze_media_node(self, seconds: float) -> list[float]:
        """SIGSTOP of the node with most people; it wakes up after a time, when nobody needs it any more."""
        name = await asyncio.to_thread(self.suite.process_of_node, _most(list((await self.nodes()).values())))
        pid = self.suite.process(name).pid
        await self.mark()
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)
        await self.is_whole(40)
        return await self.gaps_ms()

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
        await asyncio.gather(*(crowd.be_quiet() for crowd in self.people))
        deadline = time.monotonic() + 10
        while True:
            lost, doubled = count_messages(await self.reports())
            if not lost or time.monotonic() > deadline:
                return lost, doubled
            await asyncio.sleep(_POLL_S)

    async def leftovers(self) -> dict[str, int]:
        """What is left after everybody has gone: participants, transports on media nodes, and jobs."""
        await asyncio.gather(*(crowd.aclose() for crowd in self.people))

        async def count() -> dict[str, int]:
            try:
                people = len(await self.nodes())
            except AssertionError:  # the room is gone
                people = 0
            nodes = await asyncio.to_thread(self.suite.nodes)
            transports = sum(node.get("load", {}).get("transports", 0) for node in nodes if "DEAD" not in node["state"])
            async with store_of(self.suite) as store:
                jobs = await store.stored(subjects.STREAM_JOBS)
            return {"participants": people, "transports": transports, "jobs": jobs}

        left = await count()
        for _ in range(30):
            if not any(left.values()):
                break
            await asyncio.sleep(0.5)
            left = await count()
        return left

    async def settle(self, losses: Losses) -> None:
        """Counts all that, when the call is over."""
        lost, doubled = await self.messages()
        losses.messages += await self.sent()
        losses.messages_lost += lost
        losses.messages_doubled += doubled
        left = await self.leftovers()
        if any(left.values()):
            print(f"left over: {left}", file=sys.stderr)
        losses.orphan_jobs += left.pop("jobs")
        losses.ghosts += sum(left.values())

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


def count_messages(reports: dict[str, Report]) -> tuple[int, int]:
    """Messages lost and doubled, by what everybody sent and received."""
    lost = doubled = 0
    for identity, report in reports.items():
        for other, said in reports.items():
            if other != identity:
                got = report.received.get(other, {})
                lost += sum(1 for number in said.sent if number not in got)
                doubled += sum(times - 1 for times in got.values())
    return lost, doubled


def _most(nodes: Sequence[str]) -> str:
    return max(sorted(set(nodes)), key=list(nodes).count)


@contextlib.asynccontextmanager
async def call_of(
    suite: RunningSuite, room: str, count: int, browsers: int = 0, versions: Sequence[Version] = ()
) -> AsyncIterator[Call]:
    """A call of so many people that stands; `browsers` more of them are in Chromium. Versions take turns."""
    versions = versions or [present()]
    urls = [suite.signaling_url(number + 1) for number in range(suite.options.signalings)]
    async with balancer(urls) as url:
        api = await asyncio.to_thread(RoomApi, suite, room)
        people: list[Crowd | BrowserCrowd] = []
        try:
            for number in range(count):
                token = await asyncio.to_thread(suite.token, room, f"p{number}")
                invited = Invitation(url, token, room, f"p{number}", number)
                people.append(await Crowd.join([invited], versions[number % len(versions)]))
            if browsers:
                numbers = range(count, count + browsers)
                tokens = [await asyncio.to_thread(suite.token, room, f"b{number}") for number in numbers]
                guests = zip(tokens, numbers, strict=True)
                people.append(
                    await BrowserCrowd.join(
                        suite, [Invitation(url, token, room, f"b{number}", number) for token, number in guests]
                    )
                )
            call = Call(suite, url, room, api, people)
            await call.is_whole()
            await asyncio.gather(*(crowd.talk() for crowd in people))
            yield call
        finally:
            await asyncio.gather(*(crowd.aclose() for crowd in people))
