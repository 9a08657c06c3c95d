"""What does a client notice when its transport moves? `python -m tests.bench.handover --client chromium --way restart`.

An engine on loopback has the client, which sends sound and pictures and receives a picture. Its transport is exported
there and imported at the next engine, at a port of its own, and so on, in one of two ways:

- `restart`: the client makes an offer that restarts ICE, and the new engine answers it;
- `call`: the client is told nothing, the new engine sends a check to where it was last.

`--former gone` closes the former transport at once, as a node does that dies; otherwise it takes what the client still
sends and answers its checks for as long as the trial lasts.

Prints one JSON line: of each trial's longest time without a picture at the client (`received_ms`) and without sound of
the client at either engine (`sent_ms`) the median and the longest, the time from the move to the first sound at the new
engine (`new_path_ms`), and the gaps while nothing happens (`idle_ms`). `failed`: 1 if the client of the last trial did
not come over the new path in time, which ends the run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import statistics
import sys
from contextlib import AsyncExitStack
from typing import Any

from tests.bench.handover.clients import CLIENTS, Client
from tests.bench.handover.nodes import Call, Film, Node

_IDLE_S = 3.0
_TRIAL_S = {"restart": 3.0, "call": 8.0}


async def run(client: Client, way: str, trials: int, *, is_former_gone: bool) -> dict[str, Any]:
    """All trials of one client."""
    key = secrets.token_bytes(32)
    async with AsyncExitStack() as stack:
        film = await stack.enter_async_context(Film())
        call = await stack.enter_async_context(Call(client))
        here = await stack.enter_async_context(Node(film))
        await call.begin(here)
        idle = await call.watch(_IDLE_S)
        moves = []
        for _ in range(trials):
            there = await stack.enter_async_context(Node(film))
            await call.move(here, there, way, key, is_former_gone=is_former_gone)
            moves.append(await call.watch(_TRIAL_S[way]))
            print(moves[-1], file=sys.stderr)
            if not moves[-1].is_whole:
                break
            await here.close(call.name)
            here = there
    whole = [gaps for gaps in moves if gaps.is_whole]
    return {
        "client": client.name,
        "way": way,
        "former": "gone" if is_former_gone else "there",
        "trials": len(moves),
        "failed": len(moves) - len(whole),
        "received_ms": _median_and_longest([gaps.received_ms for gaps in whole]),
        "sent_ms": _median_and_longest([gaps.sent_ms for gaps in whole]),
        "new_path_ms": _median_and_longest([gaps.new_path_ms for gaps in whole]),
        "idle_ms": [round(idle.received_ms), round(idle.sent_ms)],
        "load": round(os.getloadavg()[0], 1),
    }


def _median_and_longest(values: list[float]) -> list[int]:
    return [round(statistics.median(values)), round(max(values))] if values else []


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", choices=sorted(CLIENTS), required=True)
    parser.add_argument("--way", choices=sorted(_TRIAL_S), required=True)
    parser.add_argument("--former", choices=["there", "gone"], default="there")
    parser.add_argument("--trials", type=int, default=10)
    arguments = parser.parse_args()
    async with CLIENTS[arguments.client]() as client:
        print(json.dumps(await run(client, arguments.way, arguments.trials, is_former_gone=arguments.former == "gone")))


if __name__ == "__main__":
    asyncio.run(_main())
