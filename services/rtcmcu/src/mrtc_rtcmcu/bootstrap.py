"""Puts rtcmcu together; the only module that knows all of it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from mrtc.media.v1 import media_service_pb2_grpc, relay_service_pb2_grpc
from mrtc.node.v1.master_service_pb2 import NODE_KIND_MCU, NodeLoad
from mrtc_common.clock import Clock, SystemClock
from mrtc_common.grpc import Channels, GrpcSecurity, GrpcServer
from mrtc_common.health import Health, health_app
from mrtc_common.http import HttpServer
from mrtc_common.load import CpuMeter, RateMeter, Smoothed, cpu_limit_cores
from mrtc_common.log import bind, get_logger
from mrtc_common.metrics import Metrics
from mrtc_common.nats import NatsLink, NatsOptions
from mrtc_common.node import NodeAgent, NodeDirectory, new_node_id
from mrtc_common.relay import RelayManager
from mrtc_common.run import serve_until
from mrtc_common.tasks import end_tasks

from .adapters.engine_mrtc import EngineKit, real_engine_kit
from .adapters.owners_nats import NatsOwners
from .captures import Captures
from .config import McuSettings
from .core.load import LoadLimits, node_load
from .core.relief import Relief, ReliefPolicy
from .drain import Drain
from .entrypoints.grpc import MediaServicer
from .figures import EngineCollector, McuFigures
from .media import Media
from .speakers import SpeakerNotices
from .sweeper import Sweeper

_log = get_logger(__name__)

_PASS_ON_TIMEOUT_S = 5.0  # other nodes see the drain and have their tracks from elsewhere in a second


class Mcu:
    """A running rtcmcu. Use as `async with Mcu(settings)`.

    Args:
        engine_kit: for tests; by default the real engine.
    """

    def __init__(
        self,
        settings: McuSettings,
        *,
        engine_kit: EngineKit | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.settings = settings
        self._kit = engine_kit or real_engine_kit()
        self._clock = clock or SystemClock()
        self._stack = contextlib.AsyncExitStack()
        self.node_id = new_node_id("mcu")
        self.health = Health()
        self.metrics = Metrics(settings.service)
        self.figures = McuFigures(self.metrics)
        self._cpu, self._smoothed = CpuMeter(), Smoothed()
        self._load_limits = LoadLimits(
            settings.max_transports, settings.max_egress_packets_per_s, settings.max_egress_bps, cpu_limit_cores()
        )
        self._relief = Relief(ReliefPolicy(settings.relief_above, settings.relief_below, settings.relief_after_s))
        self._packets, self._tx_bytes, self._rx_bytes = RateMeter(), RateMeter(), RateMeter()
        self.grpc_port = 0
        self.http_port = 0

    async def __aenter__(self) -> Mcu:
        bind(node=self.node_id)
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        addresses = [f"{kind} {address}" for kind, address in self.engine.local_addresses()]
        _log.info("rtcmcu runs", grpc_port=self.grpc_port, http_port=self.http_port, media=addresses)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()
        _log.info("rtcmcu ended")

    async def drain(self) -> None:
        """Takes nothing new, has its clients move away, and after a while closes what is left."""
        self.agent.drain()
        self.health.set("draining", False, "the process is ending")
        self.mover.set(True)
        await self.mover.wait_empty(self.settings.drain_timeout_s)
        await self.relays.wait_nothing_passed_on(min(self.settings.drain_timeout_s, _PASS_ON_TIMEOUT_S))
        await self.media.close_all("node_shutdown")

    async def _start(self) -> None:
        settings, push = self.settings, self._stack.push_async_callback
        security = GrpcSecurity.from_settings(settings)
        self.engine = self._kit.start(settings)
        push(self.engine.aclose)
        self.metrics.registry.register(EngineCollector(self.engine.counters))
        self.link = NatsLink(NatsOptions.from_settings(settings), name=self.node_id)
        self.link.on_change(self.health.follow("nats", "NATS is not connected; media goes on"))
        push(self.link.aclose)
        channels = Channels(security)
        push(channels.aclose)
        self._build(channels)
        self.grpc = server = GrpcServer(security, self.health)
        captures = Captures(self.engine, settings)
        servicer = MediaServicer(self.media, captures, self.figures, settings.max_subscriptions_per_transport)
        media_service_pb2_grpc.add_MediaServiceServicer_to_server(servicer, server.server)
        relay_service_pb2_grpc.add_RelayServiceServicer_to_server(self.relays.server, server.server)
        self.grpc_port = await server.start(settings.bind_ip, settings.grpc_port)
        push(server.aclose)
        http = HttpServer(health_app(self.health, self.metrics))
        self.http_port = await http.start(settings.bind_ip, settings.http_port)
        push(http.aclose)
        self.agent = self._build_agent()
        for part in (self.directory, self.relays, self.speakers, self.agent, self.sweeper):
            await part.start()
            push(part.aclose)
        push(self.media.subscriptions.aclose)
        push(self.mover.aclose)
        push(_cancel, asyncio.create_task(self._follow_engine(), name="engine-events"))
        await self.link.start()

    def _build(self, channels: Channels) -> None:
        self.directory = NodeDirectory(self.link, self._clock)
        self.relays = RelayManager(
            self.engine,
            node_id=self.node_id,
            channels=channels,
            directory=self.directory,
            on_changed=lambda track_id: self.media.subscriptions.track_changed(track_id),
            clock=self._clock,
            max_edges=self.settings.relay_max_edges,
        )
        self.media = Media(
            self.engine,
            self.relays,
            self.settings,
            self.figures,
            self.node_id,
            lambda: self.agent.is_draining,
            self._kit.make_subscription,
        )
        self.mover = Drain(
            self.media.transports,
            self.media.watchers,
            self._clock,
            moves_per_s=self.settings.drain_moves_per_s,
            spread_s=min(self.settings.drain_spread_s, self.settings.drain_timeout_s / 2),
        )
        self.sweeper = Sweeper(
            self.media, NatsOwners(self.link), self.link, self._clock, grace_s=self.settings.orphan_grace_s
        )
        self.speakers = SpeakerNotices(self.link, self.media.transports, self.node_id, self._clock)

    def _build_agent(self) -> NodeAgent:
        settings = self.settings
        host = f"[{settings.node_host}]" if ":" in settings.node_host else settings.node_host
        return NodeAgent(
            self.link,
            node_id=self.node_id,
            kind=NODE_KIND_MCU,
            grpc_address=f"{host}:{self.grpc_port}",
            load=self._load,
            region=settings.region,
            zone=settings.zone,
            passes_tracks_on=True,
            on_drain=self._on_drain,
            on_fenced=self.media.abandon,
            clock=self._clock,
        )

    def _on_drain(self, is_draining: bool) -> None:
        self.health.set("draining", not is_draining, "told to take nobody new")
        self.mover.set(is_draining)

    def _load(self) -> NodeLoad:
        workers = self.engine.counters()
        total = {name: sum(worker.get(name, 0) for worker in workers) for name in _LOAD_COUNTERS}
        load = node_load(
            self._load_limits,
            self._smoothed.update,
            cpu_cores=self._cpu.cores(),
            egress_packets_per_s=self._packets.rate(total["tx_rtp_packets"] + total["tx_relay_datagrams"]),
            egress_bps=8 * self._tx_bytes.rate(total["tx_bytes"]),
            ingress_bps=8 * self._rx_bytes.rate(total["rx_bytes"]),
            transports=len(self.media.transports),
            rooms=self.media.transports.room_count(),
        )
        self.figures.load.set(load.load)
        self.figures.transports.set(load.transports)
        self.figures.rooms.set(load.rooms)
        self.figures.relays.set(self.relays.relay_count)
        self.figures.passed_on.set(len(self.relays.passed_on))
        self._relieve(load.load)
        return load

    def _relieve(self, load: float) -> None:
        if self.agent.is_draining:
            return
        for transport_id in self._relief.due(load, self.media.transports, self._clock.monotonic()):
            self.media.watchers.want_move(transport_id, is_optional=True)
            self.figures.relief_asked.inc()

    async def _follow_engine(self) -> None:
        async for event in self.engine.events:
            try:
                if type(event).__name__.endswith("ActiveSpeakers"):
                    self.speakers.update(event.room, tuple(event.speakers), event.worker)
                self.media.handle_event(event)
            except Exception:
                _log.exception("an engine event failed", kind=type(event).__name__)
        self.health.set_live(False, "the engine ended")


_LOAD_COUNTERS = ("tx_rtp_packets", "tx_relay_datagrams", "tx_bytes", "rx_bytes")


async def _cancel(task: asyncio.Task[Any]) -> None:
    await end_tasks(task)


async def serve(settings: McuSettings, stop: asyncio.Event) -> None:
    """Runs until `stop`, then drains."""
    async with Mcu(settings) as mcu:
        await serve_until(stop)
        await mcu.drain()
