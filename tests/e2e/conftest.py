"""Real Chromium instances, the pages that run in them, and the suite that serves them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

from tests.e2e.browser import CHROMIUM, FLAGS, serving_pages
from tests.e2e.caller import Caller
from tests.support.api import RoomApi
from tests.support.impair import Impair, impair_proxy
from tests.support.suite import RunningSuite


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks everything here as a browser test."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


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


@pytest.fixture(scope="module")
def impair() -> Iterator[Impair]:
    """A proxy that callers can be led through."""
    with impair_proxy() as running:
        yield running


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
