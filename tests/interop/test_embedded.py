"""`make run` as a person uses it: it says what it does, prints the URL, and Ctrl-C ends everything cleanly."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from mrtc_common.ports import free_port

pytestmark = pytest.mark.integration


def test_it_prints_a_url_and_ends_cleanly_on_ctrl_c(tmp_path: Path) -> None:
    """All processes come up, the page and a token are served, and no process outlives Ctrl-C."""
    with running(tmp_path) as (runner, url):
        children = psutil.Process(runner.pid).children(recursive=True)
        assert len(children) >= 7
        assert httpx.get(url, timeout=5).status_code == 200
        token = httpx.get(url + "demo/token", params={"room": "r", "identity": "i"}, timeout=5)
        assert token.json()["token"]
        runner.send_signal(signal.SIGINT)
        assert runner.stdout is not None
        rest = runner.stdout.read()
        assert runner.wait(30) == 0, rest
    assert "ended cleanly" in rest
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


def test_no_process_outlives_a_killed_run(tmp_path: Path) -> None:
    """kill -9 of it ends all that it has started."""
    with running(tmp_path) as (runner, _):
        children = psutil.Process(runner.pid).children(recursive=True)
        runner.kill()
        runner.wait(10)
        _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive


def test_a_second_start_on_the_same_port_says_why_it_fails(tmp_path: Path) -> None:
    """A port in use ends the start with the reason, not with a hang."""
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "mrtc_embedded", "--port", port, "--data", str(tmp_path)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert ended.returncode == 1
    assert "in use" in ended.stderr.lower()


@contextmanager
def running(data: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The suite as a process of its own, once it has told its URL."""
    command = [sys.executable, "-m", "mrtc_embedded", "--port", str(free_port()), "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as runner:
        assert runner.stdout is not None
        printed: list[str] = []
        try:
            for line in runner.stdout:
                printed.append(line)
                if found := re.search(r"is up after [0-9.]+ s: +(http://\S+)", line):
                    yield runner, found[1]
                    return
            raise AssertionError("".join(printed))
        finally:
            runner.kill()
