"""A rolling upgrade under a call, and back again: `python -m tests.chaos.upgrade COMMIT`. Ends with one JSON line.

The suite begins as the other version, built from this repository's history. Each process gets SIGTERM and comes
back as this version, one after the other in any order, while people of both versions talk and are recorded; then
all go back, as after an upgrade that was given up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.call import Call, call_of
from tests.chaos.figures import Losses, percentile
from tests.chaos.recording import record_while
from tests.support.suite import running_suite
from tests.support.versions import Version, built, present


@dataclass
class Figures(Losses):
    """What it cost: longest gap of each participant for each process, and how long a newcomer took after it (ms)."""

    gaps: list[float] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)
    recording_lost_ms: float = 0.0


async def replace_all(call: Call, version: Version, chance: random.Random, figures: Figures) -> None:
    """Each process by one of a version; after each of them all goes on and somebody new can join."""
    names = [name for name in call.suite.suite.processes if name != "nats"]
    chance.shuffle(names)
    for name in names:
        version.take(call.suite.process(name))
        gaps = await call.restart(name)
        join = await call.time_to_join()
        say(f"{name} is of {version.name}: longest gap {max(gaps):.0f} ms, a join {join:.0f} ms")
        figures.gaps += gaps
        figures.joins.append(join)


async def run(versions: Sequence[Version], options: argparse.Namespace) -> Figures:
    """From the first version to the second and back."""
    former, new = versions
    chance, figures = random.Random(options.seed), Figures()

    with (
        tempfile.TemporaryDirectory(prefix="mrtc-upgrade-") as data,
        running_suite(
            Path(data), mcus=3, signalings=2, recorders=2, mcu_workers=1, drain_timeout_s=60.0, prepare=former.take
        ) as suite,
    ):
        async with call_of(suite, "upgrade", options.people, versions=versions) as call:

            async def there_and_back(_recording: str) -> None:
                for version in (new, former):
                    await replace_all(call, version, chance, figures)

            figures.recording_lost_ms = await record_while(call, there_and_back)
            await call.settle(figures)
    return figures


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """0 if nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.upgrade", description=__doc__)
    parser.add_argument("commit", help="of the version to upgrade from")
    parser.add_argument("--people", type=int, default=4, help="participants, half of them of each version (default 4)")
    parser.add_argument("--seed", type=int, default=1, help="decides the order (default 1)")
    options = parser.parse_args()
    say(f"building {options.commit}")
    versions = [built(options.commit), present()]
    figures = asyncio.run(run(versions, options))
    line = {
        "from": versions[0].name,
        "to": versions[1].name,
        "replaced": len(figures.joins),
        "gap_ms_p95": percentile(figures.gaps, 95),
        "gap_ms_max": percentile(figures.gaps, 100),
        "join_ms_max": percentile(figures.joins, 100),
        "recording_lost_ms": figures.recording_lost_ms,
        **figures.of_messages(),
    }
    print(json.dumps(line))
    return 1 if figures.has_lost else 0


if __name__ == "__main__":
    raise SystemExit(main())
