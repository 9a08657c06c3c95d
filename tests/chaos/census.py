"""What a suite holds at a moment: memory, descriptors and threads of each process, transports, keys and messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
from mrtc_common.nats_schema import bucket_stream

from tests.support.store import BUCKETS, STREAMS, Store
from tests.support.suite import RunningSuite

# Go's collector and the store's caches breathe; of NATS its keys, messages and consumers are judged.
_FOREIGN = {"nats"}
# They keep what happened for two days, and messages for ten minutes, whoever was there: that is what they are for.
_KEEPING = {"MRTC_EVENTS", "MRTC_MESSAGES"}
# gRPC's pool begins threads when all of its are busy, and ends those that had nothing to do for long: it breathes.
_BREATHING = {"event_engine"}
# Pools begin a thread when all of theirs are busy, up to a bound, and keep it: Python's, named as their process, are
# asyncio's executor, one for each of the database's connections, and the main one.
_POOLED = {"python": min(32, (os.cpu_count() or 1) + 4) + 5 + 1}
# The database's pool opens what it needs and keeps it: five connections of up to three files each. More is a leak.
_DATABASE, _POOLED_FILES = ".sqlite3", 15
# Connections between services end a while after their last use.
_IDLE_S = 60.0
# Records of recordings and vods outlive their rooms: they belong to the app.
_RECORDS = {"mrtc_recordings", "mrtc_vods"}


@dataclass(frozen=True)
class Holding:
    """One process, children included but for `pid`; threads by their names."""

    pid: int
    rss_kb: int
    descriptors: int
    threads: dict[str, int]
    children: int


@dataclass(frozen=True)
class Census:
    """All of it. `stored` is by stream, markers of deleted keys included; `consumers` too."""

    processes: dict[str, Holding]
    transports: int
    keys: dict[str, int]
    stored: dict[str, int]
    consumers: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


async def census_of(suite: RunningSuite, store: Store) -> Census:
    """Counts."""
    nodes = await asyncio.to_thread(suite.nodes)
    streams = [*(bucket_stream(bucket) for bucket in BUCKETS), *STREAMS]
    return Census(
        processes={name: _holding(process.pid) for name, process in suite.suite.processes.items()},
        transports=sum(node.get("load", {}).get("transports", 0) for node in nodes if "DEAD" not in node["state"]),
        keys={bucket: await store.keys(bucket) for bucket in BUCKETS},
        stored={stream: await store.stored(stream) for stream in streams},
        consumers={stream: len(await store.consumers(stream)) for stream in streams},
    )


def descriptors(suite: RunningSuite) -> dict[str, int]:
    """Of each process of ours, children included."""
    ours = {name: process for name, process in suite.suite.processes.items() if name not in _FOREIGN}
    return {name: _descriptors(_family(process.pid)) for name, process in ours.items()}


async def leaked_descriptors(suite: RunningSuite, before: dict[str, int]) -> dict[str, int]:
    """By process those that are more than before any call, and than a connection to each other one needs.

    Connections that nobody uses any more are given a minute.
    """
    deadline, allowed = time.monotonic() + _IDLE_S, len(suite.suite.processes)
    while True:
        now = await asyncio.to_thread(descriptors, suite)
        leaked = {name: more for name, count in now.items() if (more := count - before[name] - allowed) > 0}
        if not leaked or time.monotonic() > deadline:
            return leaked
        await asyncio.sleep(1)


def _holding(pid: int) -> Holding:
    everybody = _family(pid)
    return Holding(
        pid=pid,
        rss_kb=sum(one.memory_info().rss for one in everybody) // 1024,
        descriptors=_descriptors(everybody),
        threads=dict(Counter(_names_of_threads(one.pid for one in everybody))),
        children=len(everybody) - 1,
    )


def _family(pid: int) -> list[psutil.Process]:
    """A process and its children, and theirs."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def _descriptors(processes: Iterable[psutil.Process]) -> int:
    files = [target for one in processes for target in _open_files(one.pid)]
    return len(files) - min(_POOLED_FILES, sum(_DATABASE in target for target in files))


def _open_files(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # it has just been closed
            yield os.readlink(descriptor)


def _names_of_threads(pids: Iterable[int]) -> Iterator[str]:
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has just ended
                yield (thread / "comm").read_text().strip()


def least(looks: Sequence[Census]) -> Census:
    """What was there in every look: connections between services, queries and compactions come and go at rest too."""

    def held(name: str) -> Holding:
        ones = [look.processes[name] for look in looks]
        return Holding(
            pid=ones[-1].pid,
            rss_kb=min(one.rss_kb for one in ones),
            descriptors=min(one.descriptors for one in ones),
            threads=_least_of([one.threads for one in ones]),
            children=min(one.children for one in ones),
        )

    return Census(
        processes={name: held(name) for name in looks[-1].processes},
        transports=min(look.transports for look in looks),
        keys=_least_of([look.keys for look in looks]),
        stored=_least_of([look.stored for look in looks]),
        consumers=_least_of([look.consumers for look in looks]),
    )


def _least_of(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    return {name: min(count.get(name, 0) for count in counts) for name in counts[-1]}


def growth(first: Census, last: Census, tolerance: float = 0.05) -> list[str]:
    """What there is more of than at first by more than the tolerance; of processes those that are the same still."""
    pairs: dict[str, tuple[int, int]] = {"transports": (first.transports, last.transports)}
    for name, now in last.processes.items():
        then = first.processes.get(name)
        if then is None or then.pid != now.pid or name in _FOREIGN:
            continue
        for what in ("rss_kb", "descriptors", "children"):
            pairs[f"{name} {what}"] = getattr(then, what), getattr(now, what)
        for thread in now.threads.keys() - _BREATHING:
            allowed = max(then.threads.get(thread, 0), _POOLED.get(thread, 0))
            pairs[f"{name} threads {thread}"] = allowed, now.threads[thread]
    pairs |= {f"keys of {b}": (first.keys[b], last.keys[b]) for b in BUCKETS if b not in _RECORDS}
    kept = _KEEPING | {bucket_stream(bucket) for bucket in _RECORDS}
    pairs |= {f"stored in {s}": (first.stored[s], n) for s, n in last.stored.items() if s not in kept}
    pairs |= {f"consumers of {s}": (first.consumers[s], n) for s, n in last.consumers.items()}
    return [f"{what}: {then} -> {now}" for what, (then, now) in pairs.items() if now > then * (1 + tolerance)]
