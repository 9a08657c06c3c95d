"""Real Chromium instances, the pages that run in them, and the suite that serves them."""

from __future__ import annotations

import functools
import http.server
import shutil
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.e2e.caller import Caller
from tests.support.api import RoomApi
from tests.support.suite import ROOT, RunningSuite

PAGES = Path(__file__).parent / "pages"
SDK = ROOT / "sdk" / "web" / "dist"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--auto-accept-this-tab-capture",
    "--autoplay-policy=no-user-gesture-required",
    # Without it no candidate of 127.0.0.1 is used.
    "--allow-loopback-in-peer-connection",
    # Two instances share this machine: neither may be slowed down for being in the background.
    "--disable-background-timer-throttling",
    "--disable-renderer-backgrounding",
    "--disable-backgrounding-occluded-windows",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks everything here as a browser test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

    def translate_path(self, path: str) -> str:
        """The SDK's bundle and the test pages look like one folder."""
        name = Path(path.split("?")[0]).name
        return str((SDK if name.startswith("mrtc") else PAGES) / name)

    def log_message(self, *_args: object) -> None:
        """Quiet."""


class _AnyServer(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6  # IPv4 too


@contextmanager
def serving_pages(*, is_public: bool = False) -> Iterator[int]:
    """Serves the test pages inside the block, on loopback or at all addresses of this machine; the port."""
    if not (SDK / "mrtc.mjs").is_file():
        pytest.fail("sdk/web is not built: run `make web`")
    handler = functools.partial(_Handler)
    server = _AnyServer(("::", 0), handler) if is_public else http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, name="pages", daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture(scope="session")
def pages_url() -> Iterator[str]:
    """Base URL of the test pages."""
    with serving_pages() as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def playwright() -> Iterator[Playwright]:
    """The driver."""
    with sync_playwright() as running:
        yield running


@pytest.fixture(scope="session")
def browsers(playwright: Playwright) -> Iterator[list[Browser]]:
    """Two Chromium instances that share nothing."""
    if CHROMIUM is None:
        pytest.fail("chromium is not installed (apt install chromium)")
    running = [playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS) for _ in range(2)]
    yield running
    for browser in running:
        browser.close()


@pytest.fixture
def new_caller(browsers: list[Browser], pages_url: str, suite: RunningSuite) -> Iterator[Callable[[], Caller]]:
    """Makes callers; they take turns between the two browsers."""
    callers: list[Caller] = []

    def make() -> Caller:
        caller = Caller(browsers[len(callers) % 2], pages_url, suite)
        callers.append(caller)
        return caller

    yield make
    for caller in callers:
        caller.close()


@pytest.fixture
def alice(new_caller: Callable[[], Caller]) -> Caller:
    """A caller in the first browser."""
    return new_caller()


@pytest.fixture
def bob(alice: Caller, new_caller: Callable[[], Caller]) -> Caller:
    """A caller in the second browser."""
    return new_caller()


@pytest.fixture
def room() -> str:
    """A room of one test alone."""
    return f"room-{uuid.uuid4().hex[:10]}"


@pytest.fixture
def api(suite: RunningSuite, room: str) -> RoomApi:
    """The REST API of that room."""
    return RoomApi(suite, room)
