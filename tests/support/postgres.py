"""A real PostgreSQL server for tests."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from mrtc_common.ports import free_port

from tests.support.waiting import wait_for

_USER = "mrtc"
# It refuses to run as root; Debian's package makes this user for it.
_ACCOUNT = "postgres" if os.geteuid() == 0 else None


def _binary(name: str) -> str:
    # Debian keeps them apart by version, and not on the path.
    apart = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    found = str(apart[-1]) if apart else shutil.which(name)
    assert found is not None, f"{name} is not installed (apt install postgresql)"
    return found


class Postgres:
    """A server that can be ended and started again, with databases of its own."""

    def __init__(self, folder: Path, password: str) -> None:
        self._folder = folder
        self._password = password
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it answers."""
        listen = ["-h", "127.0.0.1", "-p", str(self._port), "-k", str(self._folder)]
        command = [_binary("postgres"), "-D", str(self._folder / "data"), *listen, "-c", "fsync=off"]
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, user=_ACCOUNT, cwd=self._folder)
        log.close()
        wait_for(self._answers, 30, "PostgreSQL to answer")

    def kill(self) -> None:
        """Ends it at once; its next start repeats what its log says."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)  # SIGKILL would leave its children and its shared memory
        self._process.wait(20)

    def new_database(self) -> str:
        """URL of an empty one."""
        name = f"db_{secrets.token_hex(4)}"
        self._run(f"CREATE DATABASE {name}")
        return f"postgresql+asyncpg://{_USER}:{self._password}@127.0.0.1:{self._port}/{name}"

    def _answers(self) -> bool:
        try:
            self._run("SELECT 1")
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    def _run(self, statement: str) -> None:
        async def run() -> None:
            server = {"host": "127.0.0.1", "port": self._port, "database": "postgres"}
            connection = await asyncpg.connect(user=_USER, password=self._password, **server)
            await connection.execute(statement)
            await connection.close()

        asyncio.run(run())


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """One inside the block."""
    with tempfile.TemporaryDirectory(prefix="mrtc-postgres-") as name:
        folder, password = Path(name), secrets.token_hex(8)
        if _ACCOUNT:
            shutil.chown(folder, _ACCOUNT)
        (folder / "password").write_text(password)
        options = ["-U", _USER, "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"]
        command = [_binary("initdb"), "-D", str(folder / "data"), *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, user=_ACCOUNT, cwd=folder)
        server = Postgres(folder, password)
        server.start()
        try:
            yield server
        finally:
            server.kill()
