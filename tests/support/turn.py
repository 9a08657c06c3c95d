"""A real TURN server (coturn) on loopback: UDP, TCP and TLS, with credentials made from a shared secret."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mrtc_common.ports import free_port
from mrtc_signaling.core.ice_servers import TurnSecret

from tests.support.waiting import wait_for

SECRET = "turn-secret-of-tests"


@dataclass(frozen=True)
class TurnServer:
    """Where it listens, and its log."""

    port: int
    tls_port: int
    log: Path

    def url(self, transport: str) -> str:
        """By `udp`, `tcp` or `tls`."""
        if transport == "tls":
            return f"turns:127.0.0.1:{self.tls_port}?transport=tcp"
        return f"turn:127.0.0.1:{self.port}?transport={transport}"

    def secret(self, transport: str) -> TurnSecret:
        """What makes credentials for it."""
        return TurnSecret((self.url(transport),), SECRET, 600)

    def env(self, transport: str) -> dict[str, str]:
        """Settings of signaling that hand it out."""
        return {"MRTC_SIGNALING_TURN_URLS": self.url(transport), "MRTC_SIGNALING_TURN_SECRET": SECRET}

    def is_up(self) -> bool:
        """True if it listens everywhere; UDP comes last."""
        log = self.log.read_text(errors="replace")
        return all(f"UDP listener opened on: 127.0.0.1:{port}" in log for port in (self.port, self.tls_port))

    def allocations(self) -> int:
        """Allocations made so far."""
        return self.log.read_text(errors="replace").count("ALLOCATE processed, success")


@contextlib.contextmanager
def running_turn_server(folder: Path) -> Iterator[TurnServer]:
    """A coturn that lives inside the block."""
    program = shutil.which("turnserver")
    if program is None:
        pytest.fail("turnserver is not installed (apt install coturn)")
    server = TurnServer(free_port(), free_port(), folder / "turn.log")
    certificate, key = _self_signed(folder)
    options = {
        "listening-ip": "127.0.0.1",
        "relay-ip": "127.0.0.1",
        "listening-port": str(server.port),
        "tls-listening-port": str(server.tls_port),
        "relay-threads": "1",
        "realm": "test",
        "static-auth-secret": SECRET,
        "cert": str(certificate),
        "pkey": str(key),
        "log-file": "stdout",
        "pidfile": str(folder / "turn.pid"),
        "userdb": str(folder / "turn.db"),
    }
    flags = ["--use-auth-secret", "--allow-loopback-peers", "--no-cli", "--fingerprint", "--verbose"]
    arguments = [program, "-n", *flags, *(f"--{name}={value}" for name, value in options.items())]
    with server.log.open("wb") as log, subprocess.Popen(arguments, stdout=log, stderr=log, cwd=folder) as process:
        try:
            wait_for(server.is_up, what="coturn")
            yield server
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


def _self_signed(folder: Path) -> tuple[Path, Path]:
    certificate, key = folder / "turn.crt", folder / "turn.key"
    openssl = shutil.which("openssl") or "openssl"
    command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *command, *names, *files], check=True, capture_output=True)
    return certificate, key
