"""Participants in real Chromium, beside those of `remote.py`."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from playwright.sync_api import sync_playwright

from tests.chaos.remote import Invitation, Report
from tests.e2e.browser import CHROMIUM, FLAGS, serving_pages
from tests.e2e.caller import Caller
from tests.support.suite import RunningSuite

T = TypeVar("T")


class BrowserCrowd:
    """Some participants, each in a Chromium of its own; as `remote.Crowd`. All of playwright is used in one thread."""

    def __init__(self, suite: RunningSuite, invited: Sequence[Invitation]) -> None:
        self._suite, self._invited = suite, invited
        self._thread = ThreadPoolExecutor(1, "browsers")
        self._stack = contextlib.ExitStack()
        self._callers: list[Caller] = []
        self._is_closed = False
        self.identities = [one.identity for one in invited]

    @classmethod
    async def join(cls, suite: RunningSuite, invited: Sequence[Invitation]) -> BrowserCrowd:
        """Starts the browsers; returns when all are in their rooms."""
        crowd = cls(suite, invited)
        try:
            await crowd._do(crowd._join)
        except BaseException:
            await crowd.aclose()
            raise
        return crowd

    async def mark(self) -> None:
        """Gaps are counted from now on."""
        await self._call("mark")

    async def talk(self) -> None:
        """Everybody begins to send a numbered message now and then."""
        await self._call("talk")

    async def be_quiet(self) -> None:
        """Nobody says more."""
        await self._call("beQuiet")

    async def reports(self) -> list[Report]:
        """What each has to say, in the order of `identities`."""
        return [_report(told, time.monotonic()) for told in await self._call("tell")]

    async def aclose(self) -> None:
        """All leave, and the browsers end."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(Exception):
            await self._do(self._leave)
        await self._do(self._stack.close)
        self._thread.shutdown(wait=False)

    def _join(self) -> None:
        assert CHROMIUM is not None, "chromium is not installed (apt install chromium)"
        port = self._stack.enter_context(serving_pages())
        playwright = self._stack.enter_context(sync_playwright())
        for one in self._invited:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
            self._stack.callback(browser.close)
            caller = Caller(browser, f"http://127.0.0.1:{port}", self._suite)
            self._callers.append(caller)
            caller.page.add_script_tag(url="/chaos.js", type="module")
            caller.page.wait_for_function("window.call.publishAll !== undefined")
            caller.join(one.room, one.identity, url=one.url)
            caller.call("publishAll", one.number, 400 + 20 * one.number)

    def _leave(self) -> None:
        for caller in self._callers:
            caller.leave()

    async def _call(self, function: str) -> list[Any]:
        return await self._do(lambda: [caller.call(function) for caller in self._callers])

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, functools.partial(work))


def _report(told: dict[str, Any], now: float) -> Report:
    tracks = {one["id"]: None if one["agoMs"] is None else now - one["agoMs"] / 1000 for one in told["tracks"]}
    gaps: dict[str, float] = {}
    for one in told["tracks"]:
        gaps[one["identity"]] = max(gaps.get(one["identity"], 0.0), one["gapMs"] / 1000)
    received: dict[str, Counter[int]] = {}
    for identity, number in told["received"]:
        received.setdefault(identity, Counter())[number] += 1
    by_sender = {who: dict(got) for who, got in received.items()}
    return Report(tracks, gaps, "", told["sent"], by_sender, told["messageGapMs"] / 1000)
