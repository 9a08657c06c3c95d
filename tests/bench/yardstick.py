"""Plain pion under the same load on the same core: what figures of different machines are compared by."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from mrtc_common.ports import Knock, free_port, knock

from tests.bench.load import LoadError, SfuLoad, on_cores
from tests.bench.profiles import Profile
from tests.bench.services import MCU_CORE

START_TIMEOUT_S = 10
_TOKEN = "pion asks for none"


async def yardstick(profile: Profile, load: SfuLoad, seconds: int) -> dict[str, Any]:
    """Cost of a packet in `pionfloor`, alone on the core that rtcmcu has otherwise. Raises LoadError."""
    async with _serving(load) as (url, pid):
        figures = await load.run(url, profile.name, _TOKEN, pid, profile, seconds)
    if figures["receiving"] != profile.receivers:
        raise LoadError(f"pionfloor served {figures['receiving']} of {profile.receivers}: {figures['first_error']}")
    return {"pion_cpu_us_per_packet": figures["cpu_us_per_packet"], "pion_loss": figures["loss"]}


@contextlib.asynccontextmanager
async def _serving(load: SfuLoad) -> AsyncIterator[tuple[str, int]]:
    """A running `pionfloor`: its URL and its process."""
    port = free_port()
    argv = [*on_cores({MCU_CORE}, is_realtime=load.is_realtime), str(load.yardstick), "-addr", f"127.0.0.1:{port}"]
    process = await asyncio.create_subprocess_exec(*argv, stderr=asyncio.subprocess.DEVNULL)
    try:
        await _until_open(port)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.kill()
        await process.wait()


async def _until_open(port: int) -> None:
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                if await knock(f"127.0.0.1:{port}") is Knock.OPEN:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise LoadError(f"pionfloor did not start within {START_TIMEOUT_S} s") from None
