"""deploy/config/ documents exactly the settings that the services have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("service", ["signaling", "master", "rtcmcu", "rtcrecorder", "rtcvod"])
def test_the_annotated_file_is_what_the_service_prints(service: str) -> None:
    """`make settings` renews the files."""
    printed = subprocess.run(
        [sys.executable, "-m", f"mrtc_{service}", "--print-config"], check=True, capture_output=True, text=True, env={}
    ).stdout
    assert (ROOT / "deploy" / "config" / f"{service}.yaml").read_text() == printed
