"""`make bench`: every profile through the real signaling and rtcmcu; one JSON line each, then a table.

rtcmcu runs with one engine worker, alone on core 0; everything else, the load generators too, is kept off that core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench import peers  # noqa: E402
from tests.bench.load import LoadError, SfuLoad  # noqa: E402
from tests.bench.peers import PeerLoad  # noqa: E402
from tests.bench.profiles import PION, PROFILES, Profile  # noqa: E402
from tests.bench.services import Mark, Measured, figures_of, measured, other_cores  # noqa: E402
from tests.bench.table import bars, table  # noqa: E402
from tests.bench.yardstick import yardstick  # noqa: E402


async def bench_services(profile: Profile, load: SfuLoad, args: argparse.Namespace) -> dict[str, Any]:
    """One profile against fresh services, before them plain pion where it is compared with. Raises LoadError."""
    beside = await yardstick(profile, load, args.seconds) if profile.name in PION else {}
    with tempfile.TemporaryDirectory(prefix="mrtc-bench-") as data:
        async with measured(Path(data), is_realtime=args.realtime, workers=profile.workers) as suite:
            try:
                if profile.is_sfuload:
                    figures = await run_sfuload(suite, profile, load, args.seconds)
                    return figures | beside | in_relation(figures, beside)
                return await run_peers(suite, profile, args)
            except LoadError:
                print(suite.log_tail(), file=sys.stderr)
                raise


async def run_sfuload(suite: Measured, profile: Profile, load: SfuLoad, seconds: int) -> dict[str, Any]:
    """`sfuload` takes its own figures; what the node says of delays is of the whole run."""
    door, before = await suite.door(profile), await suite.mark()
    figures = await load.run(door.url, door.room, door.token, suite.pid, profile, seconds)
    after = await suite.mark()
    return figures | node_delay(after, before) | spread(after, before)


async def run_peers(suite: Measured, profile: Profile, args: argparse.Namespace) -> dict[str, Any]:
    """The str0m peers; rtcmcu is looked at where their phases begin."""
    load = PeerLoad(peers.build(ROOT), other_cores(), is_realtime=args.realtime)
    marks: dict[str, Mark] = {}

    async def on_phase(name: str) -> None:
        marks[name] = await suite.mark()

    counted = await load.run(await suite.door(profile), profile, args.seconds, on_phase)
    figures = figures_of(marks, counted, profile, args.seconds)
    return figures | node_delay(marks["end"], marks["begin"])


def in_relation(figures: dict[str, Any], beside: dict[str, Any]) -> dict[str, Any]:
    """What a packet costs here for each microsecond that it costs plain pion."""
    pion = beside.get("pion_cpu_us_per_packet")
    return {"share_of_pion": round(figures["cpu_us_per_packet"] / pion, 3)} if pion else {}


def node_delay(now: Mark, before: Mark) -> dict[str, Any]:
    """What the node itself adds: from the kernel's time of arrival to the end of the call that sends."""
    delays = now.delay_ms_since(before, 0.5, 0.95, 0.99)
    return {"node_delay_ms_p50_p95_p99": [round(ms, 2) for ms in delays]} if delays else {}


def spread(now: Mark, before: Mark) -> dict[str, Any]:
    """Of several workers: how many packets each sent."""
    sent = [now.packets[worker] - before.packets.get(worker, 0) for worker in sorted(now.packets)]
    return {"worker_packets": [round(packets) for packets in sent]} if len(sent) > 1 else {}


def is_whole(profile: Profile, figures: dict[str, Any]) -> bool:
    """True if everybody received and nothing failed."""
    has_all = profile.shape == "idle" or figures["receiving"] == profile.receivers
    has_storm = profile.shape != "storm" or figures["storm_receiving"] == profile.extra
    return bool(has_all and has_storm and figures["errors"] == 0)


def main() -> int:
    """Returns 1 if a subscriber received nothing or a load generator had errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--profile", action="append", choices=[p.name for p in PROFILES], help="only this one")
    parser.add_argument("--seconds", type=int, default=15, help="length of the measured window")
    parser.add_argument("--engine-only", action="store_true", help="measure the engine without services, own load tool")
    parser.add_argument(
        "--realtime", action="store_true", help="real-time priority: for machines that are busy otherwise"
    )
    args = parser.parse_args()
    wanted = [p for p in PROFILES if not args.profile or p.name in args.profile]
    lines: list[dict[str, Any]] = []
    all_whole = True
    try:
        load = None if args.engine_only else SfuLoad.build(ROOT, other_cores(), is_realtime=args.realtime)
        if load is None:
            wanted = [p for p in wanted if p.shape not in ("meeting", "joins") and p.kind == "video" and p.workers == 1]
        for profile in wanted:
            if load is None:
                binary = peers.build(ROOT)
                figures = peers.run_engine_alone(binary, profile, args.seconds, is_realtime=args.realtime)
            else:
                figures = asyncio.run(bench_services(profile, load, args))
            target = "engine" if load is None else "services"
            line = {"profile": profile.name, "subscribers": profile.subscribers, **figures, "target": target}
            print(json.dumps(line), flush=True)
            lines.append(line)
            all_whole &= is_whole(profile, figures)
    except (LoadError, subprocess.CalledProcessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print("\n\n".join(filter(None, (table(lines), bars(lines)))))
    return 0 if all_whole else 1


if __name__ == "__main__":
    sys.exit(main())
