"""The synthetic probe against the real suite."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.suite import RunningSuite

pytestmark = pytest.mark.integration


def test_the_probe_reports_what_a_user_would_feel(suite: RunningSuite) -> None:
    """Join time, first picture and sound, delay and loss, on one line; exit code 0."""
    command = [sys.executable, "-m", "mrtc_sdk.probe", "--url", suite.url, "--duration", "4"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    report = json.loads(ended.stdout.splitlines()[-1])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert report["ok"] is True
    assert report["frames"] > 30
    assert report["loss"] < 0.02
    assert 0 < report["join_ms"] <= report["first_frame_ms"]


def test_the_probe_fails_when_nothing_answers() -> None:
    """No suite: exit code 1 and the reason."""
    command = [sys.executable, "-m", "mrtc_sdk.probe", "--url", "http://127.0.0.1:9", "--duration", "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "mrtc-probe" in ended.stderr
