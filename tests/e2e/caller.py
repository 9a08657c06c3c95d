"""A participant in a real Chromium, as tests use it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from playwright.sync_api import Browser, Page

from tests.support.impair import Conditions, Impair
from tests.support.suite import RunningSuite

POLL_S = 0.05
CLEAN = Conditions()

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: Callable[[], str] | str, timeout_s: float = 15.0) -> T:
    """Polls until the condition gives something true, and returns it. Raises AssertionError with what is missing."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what() if callable(what) else what}")
        time.sleep(POLL_S)


class Caller:
    """One page with one participant."""

    def __init__(self, browser: Browser, pages_url: str, suite: RunningSuite) -> None:
        self._suite = suite
        self._pages_url = pages_url
        self.context = browser.new_context()
        self.page: Page = self.context.new_page()
        self.log: list[str] = []
        self.page.on("console", lambda message: self.log.append(message.text))
        self.page.on("pageerror", lambda error: self.log.append(f"page error: {error}"))
        self.page.goto(f"{pages_url}/call.html")
        self.page.wait_for_function("window.call !== undefined")
        self.identity = ""

    def call(self, function: str, *args: Any) -> Any:
        """Calls a function of the page's `call`."""
        return self.page.evaluate(f"args => window.call.{function}(...args)", list(args))

    def go_through(self, impair: Impair, leg: str, path: Conditions = CLEAN) -> None:
        """Leads media through a leg of the proxy, both ways on such a path; to be called before `join`."""
        impair.set(leg, up=path, down=path)
        self.page.expose_function("reroute", lambda server: impair.address_for(leg, server))
        self.page.add_script_tag(url=f"{self._pages_url}/reroute.js", type="module")
        self.page.wait_for_function("window.isRerouted")

    def try_join(self, token: str, url: str | None = None, **options: Any) -> dict[str, str] | None:
        """Joins with a token; the error as data, or None."""
        error: dict[str, str] | None = self.call("join", url or self._suite.url, token, options)
        return error

    def join(self, room: str, identity: str, *, url: str | None = None, **options: Any) -> None:
        """Joins a room of the demo app."""
        self.identity = identity
        error = self.try_join(self._suite.token(room, identity), url, **options)
        assert error is None, f"{identity} could not join: {error}\n{self.report()}"

    def leave(self) -> None:
        """Leaves the room."""
        self.page.evaluate("window.call.room.disconnect()")

    def publish(self, number: int, frequency_hz: int = 0, **options: Any) -> str:
        """Publishes a pattern and a tone; the publication's id."""
        publication_id: str = self.call("publish", number, frequency_hz, options)
        return publication_id

    def see(self, identity: str, source: str = "camera") -> dict[str, Any]:
        """What is seen of somebody now; empty without a picture."""
        return self.call("see", identity, source) or {}

    def sees(self, identity: str, number: int, source: str = "camera", timeout_s: float = 20.0) -> None:
        """Waits until somebody's picture is the sender's and moves: several counters are read."""
        counters: set[int] = set()

        def look() -> bool:
            seen = self.see(identity, source)
            if seen.get("number") == number:
                counters.add(seen["counter"])
            return len(counters) >= 4

        wait_until(
            look,
            lambda: (
                f"{self.identity} sees picture {number} of {identity} move; read {sorted(counters)}, "
                f"now {self.see(identity, source)}\n{self.report()}"
            ),
            timeout_s,
        )

    def hears(self, identity: str, frequency_hz: int, timeout_s: float = 20.0) -> None:
        """Waits until somebody's tone is heard; 0: until nothing is heard. Five readings in a row must agree."""
        agreed = 0

        def look() -> bool:
            nonlocal agreed
            heard = self.call("hear", identity)
            agreed = agreed + 1 if heard is not None and abs(heard - frequency_hz) < 15 else 0
            return agreed >= 5

        wait_until(
            look,
            lambda: (
                f"{self.identity} hears {frequency_hz} Hz of {identity}; "
                f"hears {self.call('hear', identity)}\n{self.report()}"
            ),
            timeout_s,
        )

    def event(self, *wanted: str, timeout_s: float = 10.0) -> None:
        """Waits until an event that begins with these values was told."""
        wait_until(
            lambda: any(event[: len(wanted)] == list(wanted) for event in self.events()),
            lambda: f"{self.identity} is told {wanted}; was told {self.events()}\n{self.report()}",
            timeout_s,
        )

    def events(self) -> list[list[Any]]:
        """All events so far."""
        events: list[list[Any]] = self.page.evaluate("window.call.events")
        return events

    def messages(self) -> list[dict[str, Any]]:
        """All text messages so far."""
        messages: list[dict[str, Any]] = self.page.evaluate("window.call.messages")
        return messages

    def send(self, text: str, **options: Any) -> int:
        """Sends a text message; its place in the room's order."""
        seq: int = self.page.evaluate(
            "([text, options]) => window.call.room.sendMessage(text, options)", [text, options]
        )
        return seq

    def has_messages(self, count: int) -> None:
        """Waits for so many text messages."""
        wait_until(
            lambda: len(self.messages()) >= count,
            lambda: f"{self.identity} has {count} messages; {self.messages()}\n{self.report()}",
        )

    def is_connected(self) -> None:
        """Waits until the room is connected (again)."""
        wait_until(
            lambda: self.page.evaluate("window.call.room.state") == "connected",
            lambda: f"{self.identity} is connected; {self.events()}\n{self.report()}",
        )

    def receives(self, codec: str, identity: str) -> None:
        """Waits until somebody's picture comes in a codec."""
        wait_until(
            lambda: self.call("receivedCodec", identity) == codec,
            lambda: f"{self.identity} receives {codec}; {self.call('receivedCodec', identity)}",
        )

    def report(self) -> str:
        """The end of the page's log, for failures."""
        return "\n".join(self.log[-15:])

    def close(self) -> None:
        """Closes the page."""
        self.context.close()
