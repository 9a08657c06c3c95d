"""Load generators: `sfuload` from outside through WHIP and WHEP, or the engine's own bench where that is absent."""

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

# Longer than its own limit of 4 minutes.
SFULOAD_TIMEOUT_S = 300
# Of SCHED_FIFO; any will do.
REALTIME_PRIORITY = 5


class LoadError(RuntimeError):
    """The load generator could not be built or run; the message says what to do."""


@dataclass(frozen=True)
class LoadResult:
    """What a load generator measured.

    Attributes:
        packets_per_s: forwarded to all subscribers together.
        cpu_us_per_packet: CPU time of the media process per forwarded packet.
        loss: share of the packets that did not arrive, 0 to 1.
        rss_mib: memory of the media process with all subscribers.
        delay_ms: publisher to subscriber, both inside the generator: p50, p95, p99.
        cpu_cores: load of the media process.
        receiving: subscribers that received something.
        errors: of the generator, with the first one's text.
        tool: name of the generator.
    """

    packets_per_s: float
    cpu_us_per_packet: float
    loss: float
    rss_mib: float
    delay_ms: tuple[float, ...]
    cpu_cores: float
    receiving: int
    errors: int
    first_error: str
    tool: str

    @classmethod
    def from_json(cls, got: dict[str, Any], tool: str) -> LoadResult:
        """Of the line that `sfuload` and the engine's bench print alike."""
        return cls(
            packets_per_s=got["out_pps"],
            cpu_us_per_packet=got["server_us_per_pkt"],
            loss=max(0.0, got["loss_pct"] / 100),
            rss_mib=got["server_rss_full_mib"],
            delay_ms=tuple(got["delay_ms_p50_p95_p99"]),
            cpu_cores=got["server_cpu_cores"],
            receiving=got["flows"],
            errors=got["errors"],
            first_error=got.get("first_error", ""),
            tool=tool,
        )


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
        built = subprocess.run([go, "build", "-o", str(binary), "."], cwd=source, capture_output=True, text=True)
        if built.returncode != 0:
            raise LoadError(f"building sfuload failed:\n{built.stderr}")
        return cls(binary, cores, is_realtime)

    async def run(self, url: str, room: str, token: str, pid: int, subscribers: int, seconds: int) -> LoadResult:
        """One publisher of video and `subscribers` players in `room`. Raises LoadError."""
        argv = [
            *(("chrt", "-f", str(REALTIME_PRIORITY)) if self.is_realtime else ()),
            *("taskset", "-c", ",".join(map(str, sorted(self.cores)))),
            *(str(self.binary), "-pid", str(pid), "-token", token, "-kinds", "video"),
            *("-whip", f"{url}/whip/{room}/pub", "-whep", f"{url}/whep/{room}/pub"),
            *("-subs", str(subscribers), "-dur", f"{seconds}s"),
        ]
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
        return LoadResult.from_json(json.loads(stdout), "sfuload")


def run_engine_bench(root: Path, subscribers: int, seconds: int) -> LoadResult:
    """The engine with sockets but without services, loaded by str0m clients of its own. Raises LoadError."""
    argv = ["cargo", "run", "--release", "-q", "-p", "mrtc-net", "--example", "forward_bench", "--"]
    argv += ["--subscribers", str(subscribers), "--seconds", str(seconds)]
    done = subprocess.run(argv, cwd=root / "engine", capture_output=True, text=True)
    if done.returncode != 0:
        raise LoadError(f"the engine's bench failed:\n{done.stderr}")
    return LoadResult.from_json(json.loads(done.stdout), "forward_bench")
