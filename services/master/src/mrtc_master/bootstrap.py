"""Puts master together; the only module that knows all of it."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field

from mrtc.node.v1 import master_service_pb2_grpc
from mrtc_common import tables
from mrtc_common.clock import Clock, SystemClock
from mrtc_common.grpc import GrpcSecurity, GrpcServer
from mrtc_common.health import Health
from mrtc_common.http import HttpServer
from mrtc_common.ids import new_id
from mrtc_common.lease import NatsLease
from mrtc_common.log import get_logger
from mrtc_common.metrics import Metrics
from mrtc_common.nats import NatsLink, NatsOptions
from mrtc_common.node import NodeDirectory
from mrtc_common.presence import PresenceWatch
from mrtc_common.run import serve_until
from mrtc_common.tasks import end_tasks

from .adapters.notifier_nats import NatsNotifier
from .adapters.room_store_nats import NatsRoomStore
from .adapters.session_store_nats import NatsSessionStore
from .config import MasterSettings
from .core.placement import PlacementPolicy, Placer
from .core.reaper import Reaper
from .core.scaling import FleetScaling
from .duties import Duties
from .entrypoints.grpc import MasterServicer
from .entrypoints.http import build_app
from .figures import MasterFigures
from .registry import Registry

_log = get_logger(__name__)

LEASE_NAME = "master"
SIGNALING = "signaling"


@dataclass
class Master:
    """A running master. Use as `async with Master.start(settings)`."""

    settings: MasterSettings
    clock: Clock = field(default_factory=SystemClock)
    grpc_port: int = 0
    http_port: int = 0

    async def __aenter__(self) -> Master:
        settings = self.settings
        self.instance_id = new_id("ms")
        self.health = Health()
        self.metrics = Metrics(settings.service)
        self._stack = contextlib.AsyncExitStack()
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        _log.info("master runs", instance=self.instance_id, grpc_port=self.grpc_port, http_port=self.http_port)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()
        _log.info("master ended")

    async def _start(self) -> None:
        settings, push = self.settings, self._stack.push_async_callback
        figures = MasterFigures(self.metrics)
        self.link = NatsLink(NatsOptions.from_settings(settings), name=self.instance_id)
        self.link.on_change(self.health.follow("nats", "NATS is not connected"))
        push(self.link.aclose)
        self.directory = NodeDirectory(self.link, self.clock)
        scaling = FleetScaling(settings.scaling_target, settings.scaling_hold_s)
        self.registry = Registry(self.link, self.directory, self.clock, scaling)
        self.lease = NatsLease(self.link, LEASE_NAME, self.instance_id, self.clock)
        self.serving = PresenceWatch(self.link, SIGNALING, settings.session_grace_s, self.clock)
        self.duties = self._build_duties(figures)
        self.placer = Placer(PlacementPolicy(settings.placement_watermark, settings.placement_limit))
        self.directory.on_gone(lambda node: self.placer.forget_node(node, self.clock.monotonic()))
        security = GrpcSecurity.from_settings(settings)
        server = GrpcServer(security, self.health)
        servicer = MasterServicer(self.registry, self.placer, figures, self.clock)
        master_service_pb2_grpc.add_MasterServiceServicer_to_server(servicer, server.server)
        self.grpc_port = await server.start(settings.bind_ip, settings.grpc_port)
        push(server.aclose)
        http = HttpServer(build_app(self.registry, self.health, self.metrics, security.cluster_secret))
        self.http_port = await http.start(settings.bind_ip, settings.http_port)
        push(http.aclose)
        for part in (self.directory, self.lease, self.serving, self.duties):
            await part.start()
            push(part.aclose)
        task = asyncio.create_task(self._show(figures), name="figures")
        push(_cancel, task)
        await self.link.start()

    def _build_duties(self, figures: MasterFigures) -> Duties:
        settings = self.settings
        reaper = Reaper(
            orphan_grace_s=settings.orphan_grace_s,
            claim_grace_s=settings.session_grace_s,
            empty_timeout_s=settings.room_empty_timeout_s,
        )
        return Duties(
            self.link,
            self.directory,
            self.lease,
            NatsRoomStore(tables.rooms(self.link), tables.sessions(self.link)),
            NatsNotifier(self.link),
            reaper,
            figures,
            self.clock,
            resync_grace_s=settings.session_grace_s,
            serving=self.serving,
            kept=NatsSessionStore(self.link),
        )

    async def _show(self, figures: MasterFigures) -> None:
        while True:
            synced = self.directory.is_synced and self.duties.is_synced
            self.health.set("registry", synced, "the registry has not been read yet")
            if self.directory.is_synced:
                figures.show_nodes(self.registry.all())
                figures.show_load(self.registry.loads())
            await asyncio.sleep(0.25)


async def _cancel(task: asyncio.Task[None]) -> None:
    await end_tasks(task)


async def serve(settings: MasterSettings, stop: asyncio.Event) -> None:
    """Runs until `stop`."""
    async with Master(settings):
        await serve_until(stop)
