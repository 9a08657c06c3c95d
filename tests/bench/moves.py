"""A full media node ends: `python -m tests.bench.moves`. How long until everybody is elsewhere, and who noticed?

Rooms of four, light participants on the Python SDK (sound that is encoded already), all on one of two nodes, which gets
SIGTERM. Prints one JSON line; `gap_before_ms` is what these clients show when nothing happens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.services import SERVICES
from tests.chaos.figures import percentile
from tests.chaos.remote import Crowd, Invitation, Report
from tests.support.api import RoomApi
from tests.support.suite import RunningSuite, running_suite
from tests.support.versions import present

_ROOM = 4
_TIMEOUT_S = 120.0
_POLL_S = 0.25
_IDLE_S = 5.0


async def run(suite: RunningSuite, people: int, processes: int) -> dict[str, Any]:
    """One run: everybody is on the first node, which ends."""
    await asyncio.to_thread(suite.stop, "rtcmcu-2")
    invited = [await _invitation(suite, number) for number in range(people)]
    share = -(-people // processes)
    crowds = await asyncio.gather(*(Crowd.join(invited[at : at + share], present()) for at in range(0, people, share)))
    try:
        await _all_hear(crowds)
        await asyncio.to_thread(suite.restart, "rtcmcu-2")
        apis = [await asyncio.to_thread(RoomApi, suite, room) for room in sorted({one.room for one in invited})]
        former = await _nodes(apis)
        assert len(former) == 1, f"all were to be on one node, not on {former}"
        await asyncio.gather(*(crowd.mark() for crowd in crowds))
        await asyncio.sleep(_IDLE_S)
        before = await _gaps_ms(crowds)
        await asyncio.gather(*(crowd.mark() for crowd in crowds))
        began, process = time.monotonic(), suite.process("rtcmcu-1")
        os.kill(process.pid, signal.SIGTERM)
        while await _nodes(apis) & former:
            assert time.monotonic() - began < _TIMEOUT_S, "they do not go"
            await asyncio.sleep(_POLL_S)
        moved_s = time.monotonic() - began
        while process.is_running:
            assert time.monotonic() - began < _TIMEOUT_S, "the node does not end"
            await asyncio.sleep(_POLL_S)
        ended_s = time.monotonic() - began
        await _all_hear(crowds)
        gaps = await _gaps_ms(crowds)
    finally:
        await asyncio.gather(*(crowd.aclose() for crowd in crowds))
    return {
        "people": people,
        "moved_s": round(moved_s, 1),
        "node_ended_s": round(ended_s, 1),
        **{f"gap_ms_p{percent}": percentile(gaps, percent) for percent in (50, 95, 100)},
        **{f"gap_before_ms_p{percent}": percentile(before, percent) for percent in (50, 95, 100)},
    }


async def _invitation(suite: RunningSuite, number: int) -> Invitation:
    room, identity = f"moves-{number // _ROOM}", f"p{number}"
    token = await asyncio.to_thread(suite.token, room, identity)
    return Invitation(suite.url, token, room, identity, number % 256, is_light=True)


async def _nodes(apis: list[RoomApi]) -> set[str]:
    listed = await asyncio.gather(*(asyncio.to_thread(api.call, "GET", "participants") for api in apis))
    return {one["node_id"] for answer in listed for one in answer["participants"]}


async def _reports(crowds: list[Crowd]) -> list[Report]:
    return [report for reports in await asyncio.gather(*(crowd.reports() for crowd in crowds)) for report in reports]


async def _gaps_ms(crowds: list[Crowd]) -> list[float]:
    return [round(1000 * report.gap_s) for report in await _reports(crowds)]


async def _all_hear(crowds: list[Crowd]) -> None:
    """Waits until everybody hears everybody else of the room."""
    since = time.monotonic()
    while not all(len(one.tracks) == _ROOM - 1 and one.is_whole(since) for one in await _reports(crowds)):
        assert time.monotonic() - since < _TIMEOUT_S, "somebody does not hear the others"
        await asyncio.sleep(_POLL_S)


def main() -> int:
    """Prints the line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.moves", description=__doc__)
    parser.add_argument("--people", type=int, default=100, help=f"participants, a multiple of {_ROOM} (default 100)")
    parser.add_argument("--processes", type=int, default=4, help="processes that they share (default 4)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="mrtc-moves-") as data,
        running_suite(Path(data), mcus=2, mcu_workers=1, drain_timeout_s=60.0, services=SERVICES) as suite,
    ):
        print(json.dumps(asyncio.run(run(suite, options.people, options.processes))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
