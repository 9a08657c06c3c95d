"""A service process ends."""

from __future__ import annotations

import signal
import subprocess
import sys

# Its task loses a cancellation, as `asyncio.wait_for` of Python 3.11 can, and its end waits for somebody who is away.
SERVICE = """
import asyncio
from typing import ClassVar
from mrtc_common.run import run_service
from mrtc_common.settings import Settings

class StubbornSettings(Settings):
    service: ClassVar[str] = "stubborn"

async def loses_one():
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        await asyncio.Event().wait()

async def serve(settings, stop):
    stubborn = asyncio.create_task(loses_one())
    await asyncio.sleep(0)
    print("runs", flush=True)
    await stop.wait()
    print("ends", flush=True)
    await asyncio.Event().wait()

raise SystemExit(run_service(StubbornSettings, serve))
"""


def test_the_second_signal_ends_a_process_whatever_its_tasks_do() -> None:
    """The first one ends it in order, which may take its time; nobody has to kill it."""
    command = [sys.executable, "-c", SERVICE, "--cluster-secret", "of sixteen letters or more"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "runs\n"
            process.send_signal(signal.SIGTERM)
            assert process.stdout.readline() == "ends\n"
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 1
        finally:
            process.kill()
