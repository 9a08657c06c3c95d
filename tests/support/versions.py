"""This version, and others of this repository's history, to run beside each other."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from mrtc_embedded.process import Process

from tests.support.suite import ROOT


@dataclass(frozen=True)
class Version:
    """A checkout with all that it needs to run in its `.venv`."""

    name: str
    home: Path
    python: str
    python_path: str = ""

    def take(self, process: Process) -> None:
        """From its next start a service's process is of this version."""
        if process.name != "nats":
            process.argv[0] = self.python
            process.env |= self.env

    @property
    def env(self) -> dict[str, str]:
        """What its Python needs."""
        return {"PYTHONPATH": self.python_path}


def present() -> Version:
    """What runs this program."""
    return Version("this version", ROOT, sys.executable, os.environ.get("PYTHONPATH", ""))


def built(commit: str) -> Version:
    """Another version, built once into `.cache/versions`. Raises CalledProcessError."""
    name = _commit(commit)
    home = ROOT / ".cache" / "versions" / name
    if not home.exists():
        subprocess.run(["git", "clone", "-q", "--shared", "--no-checkout", str(ROOT), str(home)], check=True)
        subprocess.run(["git", "-C", str(home), "checkout", "-q", name], check=True)
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(["make", "-s", "setup"], cwd=home, env=env, check=True, stdout=sys.stderr)
    return Version(name, home, str(home / ".venv" / "bin" / "python"))


def _commit(name: str) -> str:
    command = ["git", "-C", str(ROOT), "rev-parse", "--short=12", f"{name}^{{commit}}"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
