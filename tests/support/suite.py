"""The whole embedded suite for tests: real processes, driven from synchronous or asynchronous test code alike."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import psutil
from mrtc_embedded.process import Process
from mrtc_embedded.suite import Suite, SuiteOptions
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).resolve().parents[2]
_STOP_TIMEOUT_S = 60.0


class RunningSuite:
    """A suite on a loop of its own in a thread, so that any kind of test can use and kill it."""

    def __init__(self, options: SuiteOptions) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="suite", daemon=True)
        self._thread.start()
        self.options = options
        self.suite = Suite(options)

    def start(self) -> None:
        """Starts all processes and waits until they are ready."""
        self._run(self.suite.start(), 180)

    def close(self) -> list[str]:
        """Stops all processes; returns those that had to be killed."""
        killed: list[str] = self._run(self.suite.stop(), 60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        return killed

    @property
    def url(self) -> str:
        """Base URL of the first signaling instance."""
        return self.suite.url

    def signaling_url(self, number: int) -> str:
        """Base URL of a signaling instance, counted from 1."""
        return self.suite.signaling_url(number)

    @property
    def data_dir(self) -> Path:
        """State, files and logs."""
        return self.options.data_dir

    def process(self, name: str) -> Process:
        """A process by name."""
        return self.suite.processes[name]

    def kill(self, name: str) -> None:
        """SIGKILL, and waits until it is gone."""
        self._run(self.process(name).kill(), 10)

    def kill_with_children(self, name: str) -> None:
        """SIGKILL of it and all that it has started, as at the end of a container."""
        os.killpg(self.process(name).pid, signal.SIGKILL)
        self.kill(name)

    def stop(self, name: str) -> bool:
        """SIGTERM; True if it ended by itself. A drain asks the people of a room one after the other."""
        clean: bool = self._run(self.process(name).stop(_STOP_TIMEOUT_S), _STOP_TIMEOUT_S + 10)
        return clean

    def start_process(self, name: str) -> None:
        """Starts a process and returns at once."""
        self._run(self.process(name).start(), 10)

    def restart(self, name: str) -> None:
        """Starts a process that ended and waits until it is ready."""
        self._run(self.suite.restart(name), 60)

    def token(self, room: str, identity: str, **query: str) -> str:
        """An access token of the demo app."""
        params = {"room": room, "identity": identity, **query}
        response = httpx.get(f"{self.url}/demo/token", params=params, timeout=10)
        response.raise_for_status()
        token: str = response.json()["token"]
        return token

    def is_alive(self, name: str) -> bool:
        """True if a process's own loop answers."""
        try:
            response = httpx.get(f"http://127.0.0.1:{self.suite.http_ports[name]}/healthz", timeout=2)
        except httpx.TransportError:
            return False
        return response.status_code == 200

    def readiness(self, name: str) -> tuple[int, dict[str, Any]]:
        """Status and body of a process's /readyz."""
        response = httpx.get(f"http://127.0.0.1:{self.suite.http_ports[name]}/readyz", timeout=5)
        return response.status_code, response.json()

    def metric(self, name: str, metric: str, **labels: str) -> list[float]:
        """Values of a process's metric whose labels are these, perhaps with others."""
        response = httpx.get(f"http://127.0.0.1:{self.suite.http_ports[name]}/metrics", timeout=5)
        families = text_string_to_metric_families(response.raise_for_status().text)
        samples = (sample for family in families for sample in family.samples)
        return [s.value for s in samples if s.name == metric and labels.items() <= s.labels.items()]

    def nodes(self) -> list[dict[str, Any]]:
        """The registry's nodes with their load."""
        headers = {"authorization": f"Bearer {self.suite.cluster_secret}"}
        response = httpx.get(f"http://127.0.0.1:{self.suite.http_ports['master']}/nodes", headers=headers, timeout=5)
        response.raise_for_status()
        nodes: list[dict[str, Any]] = response.json()["nodes"]
        return nodes

    def process_of_node(self, node_id: str) -> str:
        """The name of the process that is a media node."""
        address = next(node["grpc_address"] for node in self.nodes() if node["id"] == node_id)
        port = int(address.rsplit(":", 1)[1])
        for name, process in self.suite.processes.items():
            listening = psutil.Process(process.pid).net_connections("tcp") if process.is_running else []
            if any(c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in listening):
                return name
        raise AssertionError(f"no process listens on {address}")

    def run(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float = 10) -> Any:
        """Runs a coroutine on the suite's own loop, whatever loop the caller is on."""
        return self._run(coroutine, timeout_s)

    def _run(self, coroutine: Coroutine[Any, Any, Any], timeout_s: float) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout_s)


@contextmanager
def running_suite(
    data_dir: Path, prepare: Callable[[Process], None] = lambda process: None, **options: Any
) -> Iterator[RunningSuite]:
    """A suite that is up inside the block; on failure the ends of its logs are printed.

    Args:
        data_dir: state, files and logs.
        prepare: is given each process before it starts.
        options: of `SuiteOptions`.
    """
    static = ROOT / "sdk" / "web" / "dist-demo"
    base = SuiteOptions(data_dir=data_dir, static_dir=static if static.is_dir() else None)
    suite = RunningSuite(replace(base, **options))
    for process in suite.suite.processes.values():
        prepare(process)
    try:
        suite.start()
        yield suite
    except BaseException:
        print_logs(data_dir)
        raise
    finally:
        suite.close()


def print_logs(data_dir: Path, lines: int = 40) -> None:
    """Prints the end of every log, for a failed test's report."""
    for path in sorted((data_dir / "log").glob("*.log")):
        print(f"--- {path.name}")
        print("\n".join(path.read_text(errors="replace").splitlines()[-lines:]))
