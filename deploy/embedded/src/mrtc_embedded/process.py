"""One supervised child process: start, wait until it is ready, stop, kill."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

import httpx
from mrtc_common.ports import Knock, knock

STOP_TIMEOUT_S = 10.0

# The children must not outlive a parent that was killed. A command and no `preexec_fn`: with one, Python really forks,
# and the child of a parent with gRPC's threads may crash before it becomes what it should.
_SETPRIV = shutil.which("setpriv")
_DIE_WITH_PARENT = [_SETPRIV, "--pdeathsig", "TERM"] if _SETPRIV else []


class StartError(RuntimeError):
    """A process ended or did not get ready in time; the message holds the end of its log."""


class Process:
    """A child in a process group of its own, so that the terminal's Ctrl-C reaches only the parent.

    Args:
        name: shown to people and used as the log's file name.
        argv: the command.
        env: added to the parent's environment.
        log_path: where stdout and stderr go (appended).
        ready_url: polled until it answers 200; None: ready as soon as `ready_port` accepts.
        ready_port: TCP port on 127.0.0.1.
    """

    def __init__(
        self,
        name: str,
        argv: list[str],
        env: dict[str, str],
        log_path: Path,
        *,
        ready_url: str | None = None,
        ready_port: int | None = None,
    ) -> None:
        self.name = name
        self.argv = argv
        self.env = env
        self.log_path = log_path
        self.ready_url = ready_url
        self.ready_port = ready_port
        self._child: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Process id of the running child. Raises RuntimeError if it does not run."""
        if self._child is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """True while the child lives."""
        return self._child is not None and self._child.returncode is None

    async def start(self) -> None:
        """Starts the child; returns at once."""
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._child = await asyncio.create_subprocess_exec(
                *_DIE_WITH_PARENT,
                *self.argv,
                env={**os.environ, **self.env},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    async def wait_ready(self, timeout_s: float = 120.0) -> float:
        """Waits until the child is ready; returns how long that took in seconds. Raises StartError."""
        began = time.monotonic()
        async with httpx.AsyncClient(timeout=1.0) as client:
            while not await self._is_ready(client):
                if not self.is_running:
                    raise StartError(f"{self.name} ended while starting; {self.log_tail()}")
                if time.monotonic() - began > timeout_s:
                    raise StartError(f"{self.name} was not ready after {timeout_s:.0f} s; {self.log_tail()}")
                await asyncio.sleep(0.05)
        return time.monotonic() - began

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        if self.ready_url is not None:
            with contextlib.suppress(httpx.HTTPError):
                return (await client.get(self.ready_url)).status_code == 200
            return False
        if self.ready_port is None:
            return self.is_running
        return await knock(f"127.0.0.1:{self.ready_port}") is Knock.OPEN

    def log_tail(self, lines: int = 15) -> str:
        """The end of the log, for an error message."""
        text = self.log_path.read_text(errors="replace").splitlines()[-lines:] if self.log_path.exists() else []
        return f"the end of {self.log_path}:\n" + "\n".join("    " + line for line in text)

    async def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> bool:
        """SIGTERM, then SIGKILL after the timeout. True if it ended by itself."""
        if self._child is None or self._child.returncode is not None:
            return True
        self._child.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self._child.wait(), timeout_s)
        except TimeoutError:
            await self.kill()
            return False
        return True

    async def kill(self) -> None:
        """SIGKILL."""
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            await self._child.wait()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the running child."""
        os.kill(self.pid, number)

    async def wait(self) -> int:
        """Waits for the end; returns the exit code."""
        if self._child is None:
            raise RuntimeError(f"{self.name} is not running")
        return await self._child.wait()
