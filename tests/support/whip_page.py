"""WHIP publishers and WHEP players in Chromium, as pages without any SDK have them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

from tests.e2e.browser import CHROMIUM, FLAGS

_SCRIPT = Path(__file__).with_suffix(".js").read_text()


class WhipPage:
    """One session; `resource` is its URL."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self.resource = ""

    async def begin(self, url: str, token: str) -> str:
        """Posts an offer to `…/whip/…` or `…/whep/…`; the ETag."""
        etag: str = await self._page.evaluate("([url, token]) => whip.begin(url, token)", [url, token])
        self.resource = await self._page.evaluate("() => whip.resource()")
        return etag

    async def restart(self) -> str:
        """Restarts ICE by PATCH; the new ETag."""
        etag: str = await self._page.evaluate("() => whip.restart()")
        return etag

    async def end(self) -> int:
        """The status of the DELETE."""
        status: int = await self._page.evaluate("() => whip.end()")
        return status

    async def state(self) -> str:
        """Of the peer connection."""
        state: str = await self._page.evaluate("() => whip.state()")
        return state

    async def seen(self) -> list[float]:
        """Unix times of the pictures shown."""
        return [at / 1e3 for at in await self._page.evaluate("() => whip.seen")]

    async def sees(self, pictures: int, timeout_s: float = 20.0) -> None:
        """Waits for so many more pictures."""
        wanted, deadline = len(await self.seen()) + pictures, time.monotonic() + timeout_s
        while len(await self.seen()) < wanted:
            assert time.monotonic() < deadline, f"{len(await self.seen())} pictures, not {wanted}; {await self.state()}"
            await asyncio.sleep(0.1)


@asynccontextmanager
async def whip_pages(origin: str, count: int) -> AsyncIterator[list[WhipPage]]:
    """Pages of this origin, each in a Chromium of its own."""
    async with async_playwright() as playwright:
        browsers: list[Browser] = []
        try:
            for _ in range(count):
                browsers.append(await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS))
            yield [await _page(browser, origin) for browser in browsers]
        finally:
            for browser in browsers:
                await browser.close()


async def _page(browser: Browser, origin: str) -> WhipPage:
    page = await browser.new_page()
    await page.goto(f"{origin}/healthz")
    await page.evaluate(_SCRIPT)
    return WhipPage(page)
