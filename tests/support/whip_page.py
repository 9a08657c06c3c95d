"""WHIP publishers and WHEP players in browsers, as pages without any SDK have them."""

from __future__ import annotations

import asyncio
import functools
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Playwright, async_playwright

from tests.e2e.browser import CHROMIUM, FLAGS
from tests.e2e.firefox import Firefox, running_firefox

_SCRIPT = Path(__file__).with_suffix(".js").read_text()


class WhipPage:
    """One session; `resource` is its URL."""

    def __init__(self, evaluate: Callable[..., Awaitable[Any]]) -> None:
        self._evaluate = evaluate
        self.resource = ""

    async def begin(self, url: str, token: str) -> str:
        """Posts an offer to `…/whip/…` or `…/whep/…`; the ETag."""
        etag: str = await self._evaluate("([url, token]) => whip.begin(url, token)", [url, token])
        self.resource = await self._evaluate("() => whip.resource()")
        return etag

    async def restart(self) -> str:
        """Restarts ICE by PATCH; the new ETag."""
        etag: str = await self._evaluate("() => whip.restart()")
        return etag

    async def end(self) -> int:
        """The status of the DELETE."""
        status: int = await self._evaluate("() => whip.end()")
        return status

    async def state(self) -> str:
        """Of the peer connection."""
        state: str = await self._evaluate("() => whip.state()")
        return state

    async def seen(self) -> list[float]:
        """Unix times of the pictures shown."""
        return [at / 1e3 for at in await self._evaluate("() => whip.seen")]

    async def sees(self, pictures: int, timeout_s: float = 20.0) -> None:
        """Waits for so many more pictures."""
        wanted, deadline = len(await self.seen()) + pictures, time.monotonic() + timeout_s
        while len(await self.seen()) < wanted:
            assert time.monotonic() < deadline, f"{len(await self.seen())} pictures, not {wanted}; {await self.state()}"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def whip_pages(origin: str, count: int, browser: str) -> AsyncIterator[list[WhipPage]]:
    """Pages of this origin in "chromium", each in one of its own, or in "firefox"."""
    async with AsyncExitStack() as stack:
        if browser == "firefox":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="firefox")))
            firefox = stack.enter_context(running_firefox(folder))
            yield [await asyncio.to_thread(_firefox_page, firefox, origin) for _ in range(count)]
        else:
            playwright = await stack.enter_async_context(async_playwright())
            yield [await _chromium_page(stack, playwright, origin) for _ in range(count)]


def _firefox_page(firefox: Firefox, origin: str) -> WhipPage:
    page = firefox.new_context().new_page()
    page.goto(f"{origin}/healthz")
    page.evaluate(f"() => {{ {_SCRIPT} }}")
    return WhipPage(functools.partial(asyncio.to_thread, page.evaluate))


async def _chromium_page(stack: AsyncExitStack, playwright: Playwright, origin: str) -> WhipPage:
    browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
    stack.push_async_callback(browser.close)
    page = await browser.new_page()
    await page.goto(f"{origin}/healthz")
    await page.evaluate(_SCRIPT)
    return WhipPage(page.evaluate)
