"""The whole suite as processes: nats-server, master, rtcmcu nodes, rtcrecorder, rtcvod, signaling."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mrtc_common.ports import free_port

from mrtc_embedded.process import Process

# Loopback, and the machine's own address: browsers skip loopback among their own candidates.
LOOPBACK = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[4]
SECRETS_FILE = "secrets.json"
"""In the data directory: the suite's secrets, kept from run to run."""
SUITE_FILE = "suite.json"
"""In the data directory while the suite runs: its process id and ports, for tools such as `make dump`."""


@dataclass(frozen=True)
class SuiteOptions:
    """How to run.

    Attributes:
        data_dir: state, files, logs; made if missing.
        http_port: of signaling; 0: any.
        bind_ip: where signaling's HTTP server listens.
        mcus: rtcmcu nodes.
        signalings: signaling instances; the first has `http_port`.
        recorders: rtcrecorder nodes.
        vods: rtcvod nodes.
        demo: serve the demo page and its token endpoint.
        static_dir: the built demo page; None: none.
        log_format: json or text.
        mcu_workers: engine workers per rtcmcu; 0: one per core.
        captures: allow captures of packets, into `captures` of the data directory.
        env: added to every service's environment.
        env_of: added to that of single processes, by name.
        services: kinds to start; nats-server always runs.
        advertised_ips: of rtcmcu's media ports; empty: the machine's own address and loopback.
        drain_timeout_s: how long rtcmcu waits for its clients to move away; short, since mostly the whole suite ends.
    """

    data_dir: Path
    http_port: int = 0
    bind_ip: str = LOOPBACK
    mcus: int = 2
    signalings: int = 1
    recorders: int = 1
    vods: int = 1
    demo: bool = True
    static_dir: Path | None = None
    log_format: str = "text"
    mcu_workers: int = 0
    captures: bool = False
    env: dict[str, str] = field(default_factory=dict)
    env_of: dict[str, dict[str, str]] = field(default_factory=dict)
    services: tuple[str, ...] = ("master", "rtcmcu", "rtcrecorder", "rtcvod", "signaling")
    advertised_ips: tuple[str, ...] = ()
    drain_timeout_s: float = 2.0


class Suite:
    """Processes by name: nats, master, rtcmcu-1 …, rtcrecorder, rtcrecorder-2 …, rtcvod, rtcvod-2 …, signaling-1 …"""

    def __init__(self, options: SuiteOptions) -> None:
        self.options = options
        self.processes: dict[str, Process] = {}
        self.http_ports: dict[str, int] = {}
        self._secrets = _load_secrets(options.data_dir)
        self._nats_port = free_port()
        self.master_port = free_port()
        self._build()

    @property
    def url(self) -> str:
        """Where the first signaling instance serves."""
        return self.signaling_url(1)

    @property
    def cluster_secret(self) -> str:
        """What services authenticate each other with."""
        return self._secrets["cluster_secret"]

    @property
    def service_env(self) -> dict[str, str]:
        """The environment that connects a further process to this suite."""
        return {
            "MRTC_CLUSTER_SECRET": self._secrets["cluster_secret"],
            "MRTC_NATS_URLS": f"nats://{LOOPBACK}:{self._nats_port}",
            "MRTC_NATS_USER": "mrtc",
            "MRTC_NATS_PASSWORD": self._secrets["nats_password"],
            "MRTC_LOG_FORMAT": self.options.log_format,
            **self.options.env,
        }

    def signaling_url(self, number: int) -> str:
        """Where a signaling instance serves, counted from 1."""
        return f"http://{LOOPBACK}:{self.http_ports[f'signaling-{number}']}"

    async def start(self, on_ready: Callable[[str, float], None] = lambda name, seconds: None) -> None:
        """Starts everything and waits until it is ready. Raises StartError; what was started is stopped then.

        Args:
            on_ready: told each process's name and how long it took in seconds.
        """
        try:
            await self._start_one(self.processes["nats"], on_ready)
            others = [process for name, process in self.processes.items() if name != "nats"]
            async with asyncio.TaskGroup() as group:
                for process in others:
                    group.create_task(self._start_one(process, on_ready))
            self._tell_ports()
        except BaseException as error:
            await self.stop()
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def stop(self) -> list[str]:
        """Ends everything in order, clients' door first; returns the names that had to be killed."""
        (self.options.data_dir / SUITE_FILE).unlink(missing_ok=True)
        killed: list[str] = []
        for kind in ("signaling", "rtcvod", "rtcrecorder", "rtcmcu", "master", "nats"):
            group = [p for name, p in self.processes.items() if name.split("-")[0] == kind]
            ended = await asyncio.gather(*(process.stop() for process in group))
            killed += [process.name for process, clean in zip(group, ended, strict=True) if not clean]
        return killed

    async def restart(self, name: str) -> None:
        """Starts a process that ended or was killed, and waits until it is ready."""
        await self._start_one(self.processes[name], lambda name, seconds: None)

    async def _start_one(self, process: Process, on_ready: Callable[[str, float], None]) -> None:
        await process.start()
        on_ready(process.name, await process.wait_ready())

    def _tell_ports(self) -> None:
        ports = {
            "pid": os.getpid(),
            "nats_port": self._nats_port,
            "master_grpc_port": self.master_port,
            "http_ports": self.http_ports,
        }
        path = self.options.data_dir / SUITE_FILE
        path.touch(mode=0o600)
        path.write_text(json.dumps(ports, indent=2) + "\n")

    def _build(self) -> None:
        data = self.options.data_dir
        self._add_nats(data)
        self._add("master", {"GRPC_PORT": str(self.master_port)})
        for number in range(1, self.options.mcus + 1):
            self._add(
                f"rtcmcu-{number}",
                {
                    "GRPC_PORT": "0",
                    "NODE_HOST": LOOPBACK,
                    "ADVERTISED_IPS": ",".join(self.options.advertised_ips or advertised_ips()),
                    "UDP_PORT": "0",
                    "TCP_PORT": "0",
                    "WORKERS": str(self.options.mcu_workers),
                    "DRAIN_TIMEOUT_S": str(self.options.drain_timeout_s),
                    "CAPTURE_DIR": str(data / "captures") if self.options.captures else "",
                },
            )
        recorders = _names("rtcrecorder", self.options.recorders)
        for name in (*recorders, *_names("rtcvod", self.options.vods)):
            settings = {
                "GRPC_PORT": "0",
                "NODE_HOST": LOOPBACK,
                "ADVERTISED_IPS": LOOPBACK,
                "UDP_PORT": "0",
                "STORAGE_ROOT": str(data / "files"),
            }
            self._add(name, settings)
        for number in range(1, self.options.signalings + 1):
            self._add(f"signaling-{number}", self._signaling_settings(number))

    def _signaling_settings(self, number: int) -> dict[str, str]:
        settings = {
            "HTTP_PORT": str(self.options.http_port if number == 1 and self.options.http_port else free_port()),
            "BIND_IP": self.options.bind_ip,
            "MASTER_ADDRESS": f"{LOOPBACK}:{self.master_port}",
            "DATABASE_URL": f"sqlite+aiosqlite:///{self.options.data_dir / 'mrtc.sqlite3'}",
            "SECRETS_KEY": self._secrets["secrets_key"],
            "STORAGE_ROOT": str(self.options.data_dir / "files"),
            "DEMO": "true" if self.options.demo else "false",
        }
        if self.options.static_dir is not None:
            settings["STATIC_DIR"] = str(self.options.static_dir)
        return settings

    def _add(self, name: str, settings: dict[str, str]) -> None:
        service = name.split("-")[0]
        if service not in self.options.services:
            return
        settings = {"BIND_IP": LOOPBACK, "HTTP_PORT": str(free_port()), **settings}
        self.http_ports[name] = port = int(settings["HTTP_PORT"])
        env = self.service_env | {f"MRTC_{service.upper()}_{key}": value for key, value in settings.items()}
        env |= self.options.env_of.get(name, {})
        self.processes[name] = Process(
            name,
            [sys.executable, "-m", f"mrtc_{service}"],
            env,
            self.options.data_dir / "log" / f"{name}.log",
            ready_url=f"http://{LOOPBACK}:{port}/readyz",
        )

    def _add_nats(self, data: Path) -> None:
        config = data / "nats.conf"
        # In a file, not on the command line: any user of the machine can read that.
        authorization = {"user": "mrtc", "password": self._secrets["nats_password"]}
        config.write_text(
            f"listen: {LOOPBACK}:{self._nats_port}\n"
            f"jetstream: {{store_dir: {json.dumps(str(data / 'nats'))}, max_file_store: 4GB}}\n"
            f"authorization: {json.dumps(authorization)}\n"
        )
        config.chmod(stat.S_IRUSR | stat.S_IWUSR)
        binary = str(Path(sys.executable).parent / "nats-server")
        self.processes["nats"] = Process(
            "nats", [binary, "-c", str(config)], {}, data / "log" / "nats.log", ready_port=self._nats_port
        )


def _names(service: str, count: int) -> list[str]:
    return [service, *(f"{service}-{number}" for number in range(2, count + 1))]


@asynccontextmanager
async def running(options: SuiteOptions) -> AsyncIterator[Suite]:
    """A suite that is up inside the block."""
    suite = Suite(options)
    await suite.start()
    try:
        yield suite
    finally:
        await suite.stop()


def advertised_ips() -> list[str]:
    """Addresses for ICE candidates: the machine's own, found by its route (nothing is sent), and loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737 documentation address
            own = str(probe.getsockname()[0])
        except OSError:
            own = LOOPBACK
    return list(dict.fromkeys([own, LOOPBACK]))


def _load_secrets(data_dir: Path) -> dict[str, str]:
    """Random secrets, made once per data directory and readable by its owner only."""
    data_dir.mkdir(parents=True, exist_ok=True)
    path = data_dir / SECRETS_FILE
    if not path.exists():
        made = {name: secrets.token_urlsafe(32) for name in ("cluster_secret", "nats_password", "secrets_key")}
        path.touch(mode=0o600)
        path.write_text(json.dumps(made))
    loaded: dict[str, str] = json.loads(path.read_text())
    return loaded
