"""A call of two real browsers on bad networks; `make impairments` is the long form, docs/impairments.md its figures.

The limits leave room for a busy machine: two browsers encode, decode and play on the cores that everything else uses. A
machine that cannot carry the call even on perfect wires says nothing about bad ones: the test is skipped then.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.impaired_call import FPS, ImpairedCall, Seen, impaired_call
from tests.support.impair import Conditions, Impair
from tests.support.suite import RunningSuite

WIDE = Conditions(delay_ms=25, rate_bps=2_000_000)
NARROW = Conditions(delay_ms=25, rate_bps=500_000)


@pytest.fixture
def call(
    browsers: list[Browser], pages_url: str, suite: RunningSuite, impair: Impair, room: str
) -> Iterator[ImpairedCall]:
    """A call that stands, bob seeing alice in full size, on perfect wires."""
    with impaired_call(browsers, pages_url, suite, impair) as made:
        made.start(room)
        made.settle()
        clean = told("perfect wires", made.watch(3))
        if clean.fps < 0.8 * FPS or clean.freezes:
            pytest.skip(f"this machine is too busy: {clean.fps} of {FPS} frames per second without any impairment")
        yield made


def told(name: str, seen: Seen) -> Seen:
    """Prints the figures, for whoever looks at a failure or a trend."""
    print(json.dumps({"scenario": name, **seen.figures()}))
    return seen


def test_capacity_falls_and_returns(call: ImpairedCall) -> None:
    """2 Mbit/s to 500 kbit/s: a smaller picture without a long freeze; with the capacity the size comes back."""
    call.impair.set("bob", up=Conditions(delay_ms=25), down=WIDE)
    told("2 Mbit/s", call.watch(5))
    call.impair.set("bob", down=NARROW)
    narrow = told("500 kbit/s", call.watch(10))
    call.impair.set("bob", down=WIDE)
    began = time.monotonic()
    with call.observed() as result:
        call.settle(timeout_s=25)
    back = told(f"2 Mbit/s again, {time.monotonic() - began:.1f} s", result[0])
    # A second is what docs/impairments.md measures; here it is told apart from a picture that stops.
    assert narrow.longest_freeze_ms < 3000
    assert narrow.widths[-1][1] < 640
    assert back.longest_freeze_ms < 3000
    assert back.widths[-1][1] == 640
