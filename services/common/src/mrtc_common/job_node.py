"""The frame of a media node that lives on jobs (rtcrecorder, rtcvod): engine, relays, registry, queue, health."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from typing import Any, Protocol

from mrtc.media.v1 import relay_service_pb2_grpc
from mrtc.node.v1.master_service_pb2 import NodeKind, NodeLoad

from .clock import Clock, SystemClock
from .grpc import Channels, GrpcSecurity, GrpcServer
from .health import Health, health_app
from .http import HttpServer
from .job_record import NatsJobRecord
from .jobs import Job, JobQueue, JobWorker
from .kv import KvTable
from .load import CpuMeter, Smoothed, cpu_limit_cores
from .log import bind, get_logger
from .metrics import Metrics
from .nats import NatsLink, NatsOptions
from .node import NodeAgent, NodeDirectory, new_node_id
from .relay import RelayEngine, RelayManager
from .settings import Settings, setting
from .subjects import holder_subject
from .takeover import Takeover
from .tasks import end_tasks

_log = get_logger(__name__)

_ANSWER_TIMEOUT_S = 1.0
_YES = b"1"


class JobNodeSettings(Settings):
    """What every such node has; the service's own class sets the default ports."""

    grpc_port: int = setting(0, "TCP port of the gRPC server; 0: any.", ge=0, le=65535)
    http_port: int = setting(0, "TCP port of health and metrics; 0: any.", ge=0, le=65535)
    node_host: str = setting("127.0.0.1", "Name or address at which other nodes reach this one.", min_length=1)
    advertised_ips: list[str] = setting(["127.0.0.1"], "Addresses at which media nodes reach this one, by UDP.")
    udp_port: int = setting(0, "UDP port of the relays; 0: any.", ge=0, le=65535)
    max_jobs: int = setting(8, "Jobs at once; further ones go to other nodes or wait.", ge=1, le=1000)


class NodeEngine(RelayEngine, Protocol):
    """The part of `mrtc_engine.AsyncEngine` that the frame uses."""

    @property
    def events(self) -> AsyncIterator[Any]:
        """All events; one consumer."""
        ...

    async def aclose(self) -> None:
        """Ends it."""
        ...


class JobNode:
    """A running node. Use as `async with`; inside it takes jobs.

    Args:
        kind: what it registers as.
        subject: the jobs it takes.
        engine: a running engine; closed with the node.
        handle: does one job.
        table: the records of its jobs.
        ended: the states of jobs that are over.
        on_event: told every event of the engine.
        on_track_changed: told the id of an imported track that ended or came back.
        relay_max_edges: to so many nodes each node sends a track that begins here; 0: all take it from here.
    """

    def __init__(
        self,
        settings: JobNodeSettings,
        *,
        kind: NodeKind.ValueType,
        subject: str,
        engine: NodeEngine,
        handle: Callable[[Job], Awaitable[None]],
        on_event: Callable[[Any], None] = lambda event: None,
        table: Callable[[NatsLink], KvTable[Any]],
        ended: Container[Any],
        on_track_changed: Callable[[str], None] = lambda track_id: None,
        relay_max_edges: int = 0,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._kind = kind
        self.engine = engine
        self._on_event = on_event
        self._clock = clock or SystemClock()
        self._stack = contextlib.AsyncExitStack()
        self._cpu, self._smoothed = CpuMeter(include_children=True), Smoothed()
        self.node_id = new_node_id(settings.service)
        self.health = Health()
        self.metrics = Metrics(settings.service)
        self._load_ratio = self.metrics.gauge("load_ratio", "0 (idle) to 1 (full): the largest of CPU and jobs.")
        self._jobs_under_way = self.metrics.gauge("jobs_under_way", "Jobs that this node has.")
        self.link = NatsLink(NatsOptions.from_settings(settings), name=self.node_id)
        self.directory = NodeDirectory(self.link, self._clock)
        security = GrpcSecurity.from_settings(settings)
        self._channels = Channels(security)
        self.relays = RelayManager(
            engine,
            node_id=self.node_id,
            channels=self._channels,
            directory=self.directory,
            on_changed=on_track_changed,
            clock=self._clock,
            max_edges=relay_max_edges,
        )
        self._grpc = GrpcServer(security, self.health)
        self._http = HttpServer(health_app(self.health, self.metrics))
        queue = JobQueue(self.link, subject, settings.service)
        self.worker = JobWorker(queue, handle, max_jobs=settings.max_jobs)
        self.records = table(self.link)
        self._ended = ended
        self._held: set[str] = set()
        self._takeover = Takeover(self.records, self.node_id, ended, self.directory, self.worker)
        self.grpc_port = 0
        self.http_port = 0

    async def __aenter__(self) -> JobNode:
        bind(node=self.node_id)
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        _log.info("node runs", grpc_port=self.grpc_port, http_port=self.http_port)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._stack.aclose()
        _log.info("node ended")

    async def _start(self) -> None:
        settings, push = self._settings, self._stack.push_async_callback
        push(self.engine.aclose)
        self.link.on_change(self.health.follow("nats", "NATS is not connected"))
        push(self.link.aclose)
        relay_service_pb2_grpc.add_RelayServiceServicer_to_server(self.relays.server, self._grpc.server)
        self.grpc_port = await self._grpc.start(settings.bind_ip, settings.grpc_port)
        push(self._grpc.aclose)
        self.http_port = await self._http.start(settings.bind_ip, settings.http_port)
        push(self._http.aclose)
        push(self._channels.aclose)
        agent = self._make_agent()
        for part in (self.directory, self.relays, agent):
            await part.start()
            push(part.aclose)
        for work in (self._follow_events(), self._measure(), self._answer()):
            push(_cancel, asyncio.create_task(work, name="node-frame"))
        await self.link.start()
        self.worker.start()
        push(self.worker.aclose)
        await self._takeover.start()
        push(self._takeover.aclose)
        self._stack.callback(agent.drain)

    @property
    def watches(self) -> frozenset[str]:
        """The workers whose death would be noticed now."""
        return self._takeover.watches

    def record_of(self, key: str) -> NatsJobRecord[Any]:
        """The record of a job."""
        return NatsJobRecord(self.records, key, self.node_id, self._ended, self._held, self._holds)

    async def _holds(self, node_id: str, key: str) -> bool:
        """True if another node says that it does a job: one that died or hangs says nothing."""
        reply = await self.link.ask(holder_subject(node_id), key.encode(), timeout_s=_ANSWER_TIMEOUT_S)
        return reply == _YES

    async def _answer(self) -> None:
        """Tells others which jobs are done here."""
        await self.link.wait_ready()

        def answer(key: bytes) -> bytes:
            return _YES if key.decode("utf-8", "replace") in self._held else b""

        await self.link.answer(holder_subject(self.node_id), answer)

    def _make_agent(self) -> NodeAgent:
        settings = self._settings
        return NodeAgent(
            self.link,
            node_id=self.node_id,
            kind=self._kind,
            grpc_address=f"{settings.node_host}:{self.grpc_port}",
            load=self._load,
            region=settings.region,
            zone=settings.zone,
            on_drain=self._drain,
            clock=self._clock,
        )

    def _drain(self, is_draining: bool) -> None:
        """Jobs under way go on; no new ones come."""
        self.health.set("draining", not is_draining, "told to take no new jobs")
        self._drain_task = asyncio.create_task(self.worker.pause() if is_draining else self._resume())

    async def _resume(self) -> None:
        self.worker.start()

    def _load(self) -> NodeLoad:
        cores, limit = self._cpu.cores(), cpu_limit_cores()
        jobs, max_jobs = self.worker.jobs, self._settings.max_jobs
        load = min(1.0, max(self._smoothed.update(min(1.0, cores / limit)), jobs / max_jobs))
        self._load_ratio.set(load)
        return NodeLoad(load=load, cpu_cores=cores, cpu_limit_cores=limit, jobs=jobs, max_jobs=max_jobs)

    async def _follow_events(self) -> None:
        async for event in self.engine.events:
            try:
                self.relays.handle_event(event)
                self._on_event(event)
            except Exception:
                _log.exception("an engine event failed", kind=type(event).__name__)

    async def _measure(self) -> None:
        while True:
            self._jobs_under_way.set(self.worker.jobs)
            self._load()
            await asyncio.sleep(1.0)


async def _cancel(task: asyncio.Task[None]) -> None:
    await end_tasks(task)
