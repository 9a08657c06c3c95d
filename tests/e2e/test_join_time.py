"""How long a newcomer waits for the first picture."""

from __future__ import annotations

import json
import statistics

from tests.e2e.caller import Caller
from tests.support.suite import RunningSuite

JOINS = 30
P50_MS, P95_MS = 400, 800


def test_time_to_first_frame(alice: Caller, bob: Caller, room: str, suite: RunningSuite) -> None:
    """From the call of `connect` to the first remote frame on the screen, 30 joins."""
    alice.join(room, "alice")
    alice.publish(11, 440)
    bob.join(room, "warm-up")
    bob.sees("alice", 11)
    bob.leave()

    times = [bob.call("timeToFirstFrame", suite.url, suite.token(room, f"bob-{i}")) for i in range(JOINS)]
    first = sorted(time["firstFrameMs"] for time in times)
    joined = sorted(time["joinedMs"] for time in times)
    figures = {
        "joins": JOINS,
        "first_frame_p50_ms": round(statistics.median(first)),
        "first_frame_p95_ms": round(first[int(JOINS * 0.95)]),
        "first_frame_max_ms": round(first[-1]),
        "joined_p50_ms": round(statistics.median(joined)),
        "joined_p95_ms": round(joined[int(JOINS * 0.95)]),
    }
    print(json.dumps(figures))
    assert figures["first_frame_p50_ms"] < P50_MS, figures
    assert figures["first_frame_p95_ms"] < P95_MS, figures
