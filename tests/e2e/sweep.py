"""The long form of `test_impairments.py`: `make impairments` runs every condition and writes docs/impairments.md."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.e2e.browser import CHROMIUM, FLAGS, serving_pages
from tests.e2e.impaired_call import ImpairedCall, Seen, impaired_call
from tests.support.impair import Conditions, impair_proxy
from tests.support.suite import ROOT, running_suite

PAGE = ROOT / "docs" / "impairments.md"
TABLE_BEGIN, TABLE_END = "<!-- figures: make impairments -->", "<!-- end of figures -->"
CLEAN = Conditions()
HALF_RTT_MS = 50  # of a round trip of 100 ms
DELAYED = Conditions(delay_ms=HALF_RTT_MS)
SETTLE_S = 5.0  # the bar is about calls at a loss, not about the moment in which it begins
BURSTS = (0.02, 0.25, 1.0)  # 7 % in bursts of four packets


@dataclass(frozen=True)
class Scenario:
    """One row: what alice (the publisher) sends through, what bob (the receiver) gets through, and all feedback."""

    name: str
    publisher_up: Conditions
    receiver_down: Conditions
    feedback: Conditions


def _at_publisher(name: str, **values: Any) -> Scenario:
    return Scenario(name, Conditions(delay_ms=HALF_RTT_MS, **values), DELAYED, DELAYED)


def _at_receiver(name: str, **values: Any) -> Scenario:
    return Scenario(name, DELAYED, Conditions(delay_ms=HALF_RTT_MS, **values), DELAYED)


SCENARIOS = [
    Scenario("nothing", CLEAN, CLEAN, CLEAN),
    _at_receiver("100 ms RTT"),
    *(_at_receiver(f"{percent} % loss to the receiver", loss=percent / 100) for percent in (5, 20, 40)),
    *(_at_publisher(f"{percent} % loss from the publisher", loss=percent / 100) for percent in (5, 20, 40)),
    _at_receiver("jitter 30 ms", jitter_ms=30),
    _at_receiver("10 % reordered", reorder=0.1),
    _at_receiver("bursts to the receiver", burst=BURSTS),
    _at_publisher("bursts from the publisher", burst=BURSTS),
    _at_receiver("500 kbit/s to the receiver", rate_bps=500_000),
    _at_publisher("500 kbit/s from the publisher", rate_bps=500_000),
]


def measure(call: ImpairedCall, scenario: Scenario) -> Seen:
    """Sets the conditions when the call stands, and observes when it has settled, while alice speaks."""
    call.impair.set("alice", up=scenario.publisher_up, down=scenario.feedback)
    call.impair.set("bob", up=scenario.feedback, down=scenario.receiver_down)
    call.bob.page.wait_for_timeout(SETTLE_S * 1000)
    return call.watch(call.speech_s + 2, says=True)


def step(call: ImpairedCall) -> list[tuple[str, Seen]]:
    """2 Mbit/s, 500 kbit/s, 2 Mbit/s to the receiver."""
    rows = []
    for name, rate_bps, seconds in (("2 Mbit/s", 2_000_000, 8), ("then 500", 500_000, 15), ("then 2", 2_000_000, 20)):
        call.impair.set("bob", up=Conditions(delay_ms=25), down=Conditions(delay_ms=25, rate_bps=rate_bps))
        rows.append((f"step: {name}", call.watch(seconds)))
    return rows


@contextmanager
def calls() -> Iterator[Callable[[Conditions], AbstractContextManager[ImpairedCall]]]:
    """Gives a function that makes a call through a fresh proxy, on a path of given delay, that stands at full size."""
    if CHROMIUM is None:
        sys.exit("chromium is not installed (apt install chromium)")
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        suite = stack.enter_context(running_suite(data_dir, mcus=1, mcu_workers=1))
        url = f"http://127.0.0.1:{stack.enter_context(serving_pages())}"
        driver = stack.enter_context(sync_playwright())
        browsers = [driver.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS) for _ in range(2)]
        for browser in browsers:
            stack.callback(browser.close)

        @contextmanager
        def call(path: Conditions) -> Iterator[ImpairedCall]:
            with impair_proxy() as impair, impaired_call(browsers, url, suite, impair, path) as made:
                made.start(f"room-{uuid.uuid4().hex[:10]}")
                made.settle()
                yield made

        yield call


def table(rows: list[tuple[str, Seen]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| conditions | fps | frozen | longest gap | width over time | kbit/s | sound made up | PESQ | STOI | busy |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, seen in rows:
        widths = ", ".join(f"{width} from {at:g} s" for at, width in seen.widths)
        sound = f"{seen.sound.pesq:.2f} | {seen.sound.stoi:.2f}" if seen.sound else " | "
        lines.append(
            f"| {name} | {seen.fps} | {seen.freeze_share:.1%} | {seen.longest_freeze_ms:.0f} ms | {widths} "
            f"| {seen.kbps:.0f} | {seen.audio_loss:.1%} | {sound} | {seen.busy:.0%} |"
        )
    return "\n".join(lines) + "\n"


def write_page(rows: list[tuple[str, Seen]]) -> None:
    """Renews the table of the page; the words around it stay."""
    before, _, rest = PAGE.read_text().partition(TABLE_BEGIN)
    _, _, after = rest.partition(TABLE_END)
    PAGE.write_text(f"{before}{TABLE_BEGIN}\n{table(rows)}{TABLE_END}{after}")


def main() -> None:
    """Runs the scenarios whose names contain the given words (default: all, and writes the page)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="part of the names to run; the page is not written then")
    parser.add_argument("--raw", type=Path, help="write the browsers' reports to this file")
    parser.add_argument("--repeat", type=int, default=1, help="calls per scenario; the median by PESQ counts")
    arguments = parser.parse_args()
    rows: list[tuple[str, Seen]] = []

    def take(name: str, seen: Seen) -> None:
        rows.append((name, seen))
        print(json.dumps({"scenario": name, **seen.figures()}), flush=True)

    with calls() as call:
        for scenario in (s for s in SCENARIOS if arguments.only in s.name):
            tries = []
            for _ in range(arguments.repeat):
                with call(scenario.feedback) as made:
                    tries.append(measure(made, scenario))
            tries.sort(key=lambda seen: seen.sound.pesq if seen.sound else 0.0)
            take(scenario.name, tries[len(tries) // 2])
        if arguments.only in "step":
            with call(Conditions(delay_ms=25)) as made:
                for name, seen in step(made):
                    take(name, seen)
    if arguments.raw:
        arguments.raw.write_text(json.dumps({name: seen.reports for name, seen in rows}))
    if not arguments.only:
        write_page(rows)


if __name__ == "__main__":
    main()
