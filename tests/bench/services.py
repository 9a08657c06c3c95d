"""The suite under measurement: rtcmcu alone on a core, its figures read from outside."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from mrtc_embedded.suite import Suite, SuiteOptions, running

from tests.bench.load import REALTIME_PRIORITY, LoadError
from tests.bench.peers import Door
from tests.bench.profiles import Profile

SERVICES = ("master", "rtcmcu", "signaling")
MCU = "rtcmcu-1"
MCU_CORE = 0
_SAMPLE = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>[^}]*)\})? (?P<value>\S+)")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_DELAY = "mrtc_rtcmcu_engine_tx_delay_seconds_bucket"


@dataclass(frozen=True)
class Mark:
    """rtcmcu at one moment.

    Attributes:
        cpu_s: CPU time of the process, in seconds.
        worker_s: of its workers.
        rss_bytes: resident memory.
        delays: packets sent so far by upper bound of their delay, in seconds.
        packets: of media that each worker has sent.
    """

    cpu_s: float
    worker_s: float
    rss_bytes: int
    delays: dict[float, float]
    packets: dict[str, float]

    def delay_ms_since(self, before: Mark, *shares: float) -> list[float]:
        """Upper bounds of the delay of these shares of the packets sent since `before`."""
        counts = {bound: count - before.delays.get(bound, 0) for bound, count in sorted(self.delays.items())}
        total = max(counts.values(), default=0)
        return [_quantile(counts, share * total) * 1000 for share in shares if total]


def _quantile(counts: dict[float, float], wanted: float) -> float:
    """Linear inside a bucket, as Prometheus' `histogram_quantile` does."""
    below, lower = 0.0, 0.0
    for bound, count in counts.items():
        if count >= wanted and count > below:
            return lower if bound == float("inf") else lower + (bound - lower) * (wanted - below) / (count - below)
        below, lower = count, bound
    return lower


class Measured:
    """A running suite; if it `is_alone`, its rtcmcu has a core of its own."""

    def __init__(self, suite: Suite, *, is_realtime: bool, is_alone: bool) -> None:
        self._suite = suite
        self.pid = suite.processes[MCU].pid
        if is_alone:
            pin(self.pid, {MCU_CORE})
        for name, process in suite.processes.items():
            if name != MCU and is_alone:
                pin(process.pid, other_cores())
            if is_realtime:
                prioritise(process.pid)

    async def door(self, profile: Profile) -> Door:
        """The way into a room named like the profile."""
        async with httpx.AsyncClient() as http:
            params = {"room": profile.name, "identity": "pub"}
            response = await http.get(f"{self._suite.url}/demo/token", params=params)
        response.raise_for_status()
        return Door(self._suite.url, profile.name, str(response.json()["token"]))

    async def mark(self) -> Mark:
        """Its figures now; the workers' are a tenth of a second old at most."""
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"http://127.0.0.1:{self._suite.http_ports[MCU]}/metrics")).text
        process = psutil.Process(self.pid)
        cpu = process.cpu_times()
        busy_us, delays, packets = 0.0, defaultdict[float, float](float), dict[str, float]()
        for name, labels, value in samples(text):
            if name == "mrtc_rtcmcu_engine_busy_us_total":
                busy_us += value
            elif name == _DELAY:
                delays[float(labels["le"])] += value
            elif name == "mrtc_rtcmcu_engine_tx_rtp_packets_total":
                packets[labels["worker"]] = value
        return Mark(cpu.user + cpu.system, busy_us / 1e6, process.memory_info().rss, dict(delays), packets)

    def log_tail(self) -> str:
        """What rtcmcu logged last."""
        return self._suite.processes[MCU].log_tail(40)


@asynccontextmanager
async def measured(data: Path, *, is_realtime: bool, workers: int) -> AsyncIterator[Measured]:
    """A fresh suite of one rtcmcu with so many workers."""
    async with running(SuiteOptions(data_dir=data, mcus=1, mcu_workers=workers, services=SERVICES)) as suite:
        yield Measured(suite, is_realtime=is_realtime, is_alone=workers == 1)


def samples(text: str) -> list[tuple[str, dict[str, str], float]]:
    """Name, labels and value of each line of a service's metrics."""
    found = (_SAMPLE.fullmatch(line) for line in text.splitlines())
    return [(m["name"], dict(_LABEL.findall(m["labels"] or "")), float(m["value"])) for m in found if m]


def figures_of(marks: dict[str, Mark], counted: dict[str, Any], profile: Profile, seconds: float) -> dict[str, Any]:
    """What the peers counted, and rtcmcu's marks at the phases, as one line's fields."""
    empty, begin, end = marks["empty"], marks["begin"], marks["end"]
    cpu_s, received = end.cpu_s - begin.cpu_s, max(1, counted.pop("received"))
    figures = {
        "packets_per_s": round(received / seconds) if received > 1 else 0,
        "rss_mib": round(end.rss_bytes / 2**20, 1),
        "cpu_cores": round(cpu_s / seconds, 3),
        "errors": counted.pop("errors"),
        "first_error": counted.pop("first_error"),
        "load": "forward_bench",
    }
    kib = round((end.rss_bytes - empty.rss_bytes) / 1024 / profile.subscribers, 1)
    if profile.shape == "idle":
        joined = marks["joined"]
        figures |= {
            "kib_per_idle_participant": kib,
            "cpu_ms_per_join": round((begin.worker_s - empty.worker_s) * 1e3 / profile.subscribers, 2),
            "process_cpu_ms_per_join": round((joined.cpu_s - empty.cpu_s) * 1e3 / profile.subscribers, 2),
        }
        return figures
    rounded = {name: round(value, 4) for name, value in counted.items() if isinstance(value, float)}
    delays = [round(ms, 2) for ms in counted["delay_ms_p50_p95_p99"]]
    figures |= {"cpu_us_per_packet": round(cpu_s * 1e6 / received, 2), "kib_per_subscriber": kib}
    return figures | counted | rounded | {"delay_ms_p50_p95_p99": delays}


def other_cores() -> set[int]:
    """Every usable core but the one of rtcmcu; that one too if there is no other."""
    usable = os.sched_getaffinity(0)
    return (usable - {MCU_CORE}) or usable


def pin(pid: int, cores: set[int]) -> None:
    """Binds all present threads of a process; later ones inherit it."""
    usable = cores & os.sched_getaffinity(0)
    if not usable:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            os.sched_setaffinity(int(task.name), usable)
        except ProcessLookupError:
            continue  # a thread that just ended


def prioritise(pid: int) -> None:
    """Puts all threads of a process before everything else on its core. Raises LoadError where that is not allowed."""
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setscheduler(int(task.name), os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))
    except PermissionError:
        raise LoadError("--realtime needs the right to set real-time priorities (root or CAP_SYS_NICE)") from None
