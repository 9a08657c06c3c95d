"""`make bench`: one publisher, many subscribers, through the real signaling and rtcmcu; one JSON line per profile.

rtcmcu runs with one engine worker, pinned to core 0; everything else, the load generator too, is kept off that core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mrtc_embedded.suite import SuiteOptions, running  # noqa: E402

from tests.bench.load import REALTIME_PRIORITY, LoadError, LoadResult, SfuLoad, run_engine_bench  # noqa: E402

SERVICES = ("master", "rtcmcu", "signaling")
MCU_CORE = 0


@dataclass(frozen=True)
class Profile:
    """One publisher of video to this many subscribers."""

    name: str
    subscribers: int


PROFILES = (Profile("video-1x50", 50), Profile("video-1x200", 200))


def line(profile: Profile, result: LoadResult, *, target: str) -> str:
    """The JSON line of a profile; fields are described in README.md."""
    return json.dumps(
        {
            "profile": profile.name,
            "subscribers": profile.subscribers,
            "packets_per_s": round(result.packets_per_s),
            "cpu_us_per_packet": round(result.cpu_us_per_packet, 2),
            "loss": round(result.loss, 5),
            "rss_mib": round(result.rss_mib, 1),
            "delay_ms_p50_p95_p99": [round(ms, 2) for ms in result.delay_ms],
            "cpu_cores": round(result.cpu_cores, 3),
            "receiving": result.receiving,
            "errors": result.errors,
            "first_error": result.first_error,
            "load": result.tool,
            "target": target,
        }
    )


async def bench_services(profiles: Iterable[Profile], load: SfuLoad, seconds: int) -> bool:
    """Runs all profiles against fresh services, one suite each; True if each one was whole."""
    is_whole = True
    for profile in profiles:
        with tempfile.TemporaryDirectory(prefix="mrtc-bench-") as data:
            options = SuiteOptions(data_dir=Path(data), mcus=1, mcu_workers=1, services=SERVICES)
            async with running(options) as suite:
                pid = suite.processes["rtcmcu-1"].pid
                pin(pid, {MCU_CORE})
                if load.is_realtime:
                    prioritise(pid)
                for name, process in suite.processes.items():
                    if name != "rtcmcu-1":
                        pin(process.pid, other_cores())
                token = await demo_token(suite.url, profile.name)
                try:
                    result = await load.run(suite.url, profile.name, token, pid, profile.subscribers, seconds)
                except LoadError:
                    print(suite.processes["rtcmcu-1"].log_tail(40), file=sys.stderr)
                    raise
        print(line(profile, result, target="services"), flush=True)
        is_whole &= result.receiving == profile.subscribers and result.errors == 0
    return is_whole


async def demo_token(url: str, room: str) -> str:
    """A token that publishes and plays in `room`."""
    async with httpx.AsyncClient() as client:
        response = await client.get(f"{url}/demo/token", params={"room": room, "identity": "pub"})
        response.raise_for_status()
        return str(response.json()["token"])


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
            os.sched_setscheduler(int(task.name), os.SCHED_FIFO, os.sched_param(REALTIME_PRIORITY))
    except PermissionError:
        raise LoadError("--realtime needs the right to set real-time priorities (root or CAP_SYS_NICE)") from None


def main() -> int:
    """Returns 1 if a subscriber received nothing or the load generator had errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", action="append", choices=[p.name for p in PROFILES], help="only this one")
    parser.add_argument("--seconds", type=int, default=20, help="length of the measured window")
    parser.add_argument("--engine-only", action="store_true", help="measure the engine without services, own load tool")
    parser.add_argument(
        "--realtime", action="store_true", help="real-time priority: for machines that are busy otherwise"
    )
    args = parser.parse_args()
    wanted = [p for p in PROFILES if not args.profile or p.name in args.profile]
    try:
        load = None if args.engine_only else SfuLoad.build(ROOT, other_cores(), is_realtime=args.realtime)
        if load is None:
            for profile in wanted:
                print(
                    line(profile, run_engine_bench(ROOT, profile.subscribers, args.seconds), target="engine"),
                    flush=True,
                )
            return 0
        return 0 if asyncio.run(bench_services(wanted, load, args.seconds)) else 1
    except (LoadError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
