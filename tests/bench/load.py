"""`sfuload`: the load generator that comes from outside, through WHIP and WHEP."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.profiles import Profile

# Longer than its own limit.
SFULOAD_TIMEOUT_S = 420
SFULOAD_LIMIT = "6m"
# Of SCHED_RR; any will do.
REALTIME_PRIORITY = 5
# How fast a room fills; slow enough that nobody waits for a handshake.
FILL_PER_S = 40
BURST_JOINS = 60


class LoadError(RuntimeError):
    """The load generator could not be built or run; the message says what to do."""


@dataclass(frozen=True)
class SfuLoad:
    """The built `sfuload`, to be run on these cores."""

    binary: Path
    cores: set[int]
    is_realtime: bool

    @classmethod
    def build(cls, root: Path, cores: set[int], *, is_realtime: bool) -> SfuLoad | None:
        """Builds it from `SFULOAD_DIR` (default: `../shared/bench/sfuload`); None, and a note, if it is not there."""
        source = Path(os.environ.get("SFULOAD_DIR") or root.parent / "shared" / "bench" / "sfuload")
        go = shutil.which("go")
        if not (source / "main.go").is_file() or go is None:
            lacking = "Go is not installed" if go is None else f"there is no sfuload at {source} (set SFULOAD_DIR)"
            print(f"bench: {lacking}; measuring the engine alone with its own load instead", file=sys.stderr)
            return None
        binary = root / ".cache" / "sfuload"
        binary.parent.mkdir(exist_ok=True)
        for package, name in ((".", binary.name), ("./cmd/pionfloor", "pionfloor")):
            argv = [go, "build", "-o", str(binary.with_name(name)), package]
            built = subprocess.run(argv, cwd=source, capture_output=True, text=True)
            if built.returncode != 0:
                raise LoadError(f"building {name} failed:\n{built.stderr}")
        return cls(binary, cores, is_realtime)

    @property
    def yardstick(self) -> Path:
        """The built `pionfloor`: plain pion that forwards, to measure beside ours."""
        return self.binary.with_name("pionfloor")

    async def run(self, url: str, room: str, token: str, pid: int, profile: Profile, seconds: int) -> dict[str, Any]:
        """Loads `room` with a profile; fields as in README.md. Raises LoadError."""
        argv = [*on_cores(self.cores, is_realtime=self.is_realtime), str(self.binary)]
        argv += ["-pid", str(pid), "-token", token, "-kinds", profile.kind, "-limit", SFULOAD_LIMIT]
        argv += ["-whip", f"{url}/whip/{room}/pub{{pub}}", "-whep", f"{url}/whep/{room}/pub{{pub}}"]
        argv += ["-pubs", str(profile.publishers), "-subs", str(profile.subscribers), "-dur", f"{seconds}s"]
        argv += ["-rate", str(FILL_PER_S)]
        if profile.shape == "meeting":
            argv.append("-meeting")
        if profile.shape == "joins":
            argv += ["-joins", str(profile.extra), "-burst", str(BURST_JOINS)]
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            stdout, stderr = await asyncio.wait_for(process.communicate(), SFULOAD_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            raise LoadError(f"sfuload did not end within {SFULOAD_TIMEOUT_S} s") from None
        if process.returncode != 0:
            raise LoadError(f"sfuload failed ({process.returncode}):\n{stderr.decode(errors='replace')}")
        return _figures(json.loads(stdout), profile)


def on_cores(cores: set[int], *, is_realtime: bool) -> list[str]:
    """What is put before a load generator's command line."""
    # Round robin: what shares the core, the other services, gets its turn too.
    priority = ["chrt", "-r", str(REALTIME_PRIORITY)] if is_realtime else []
    return [*priority, "taskset", "-c", ",".join(map(str, sorted(cores)))]


def _figures(got: dict[str, Any], profile: Profile) -> dict[str, Any]:
    figures = {
        "packets_per_s": round(got["out_pps"]),
        "cpu_us_per_packet": round(got["server_us_per_pkt"], 2),
        "loss": round(max(0.0, got["loss_pct"] / 100), 5),
        "rss_mib": round(got["server_rss_full_mib"], 1),
        "kib_per_subscriber": round(got["server_rss_kib_per_sub"], 1),
        "delay_ms_p50_p95_p99": [round(ms, 2) for ms in got["delay_ms_p50_p95_p99"]],
        "cpu_cores": round(got["server_cpu_cores"], 3),
        "receiving": got["flows"],
        "errors": got["errors"],
        "first_error": got.get("first_error", ""),
        "load": "sfuload",
    }
    if profile.shape == "joins":
        figures |= {
            "join_ms_p50_p95_max": [round(ms, 1) for ms in got["join_ms_p50_p95_max"]],
            "burst_joins_per_s": round(got["burst_joins_per_s"], 1),
            "burst_join_ms_p50_p95": [round(ms, 1) for ms in got["burst_join_ms_p50_p95"]],
            "process_cpu_ms_per_join": round(got["server_cpu_ms_per_join"], 2),
        }
    return figures
