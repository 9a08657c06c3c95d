"""Puts the player together; the only module that knows core, playing and adapters all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from mrtc.node.v1.master_service_pb2 import NODE_KIND_VOD
from mrtc_common import subjects, tables
from mrtc_common.clock import Clock, SystemClock
from mrtc_common.job_node import JobNode
from mrtc_common.job_record import JobRecord
from mrtc_common.jobs import Job
from mrtc_common.run import serve_until
from mrtc_common.storage import LocalStorage
from mrtc_engine import AsyncEngine, EngineConfig, Event

from .adapters.player_process import PlayerProcess
from .adapters.room_nats import NatsVodRoom
from .adapters.sources_engine import EngineSources
from .config import VodSettings
from .core.records import TERMINAL_STATES, Vod, VodIds
from .entrypoints.jobs import JobHandler
from .job import VodJob
from .play.wire import PlayOptions


class VodPlayer:
    """A running rtcvod. Use as `async with`."""

    def __init__(self, settings: VodSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._engine = AsyncEngine(
            EngineConfig(
                advertised_ips=settings.advertised_ips,
                bind_ip=settings.bind_ip,
                udp_port=settings.udp_port,
                tcp_port=-1,
                workers=1,
            )
        )
        self._jobs: dict[str, VodJob] = {}
        self.node = JobNode(
            settings,
            kind=NODE_KIND_VOD,
            subject=subjects.JOB_VOD,
            engine=self._engine,
            handle=self._handle,
            table=tables.vods,
            ended=TERMINAL_STATES,
            on_event=self._on_event,
            relay_max_edges=settings.relay_max_edges,
            clock=self._clock,
        )
        self._keyframes = self.node.metrics.counter("keyframes_requested_total", "Key frames that receivers asked for.")
        self._handler = JobHandler(
            storage=LocalStorage(settings.storage_root),
            open_store=self.node.record_of,
            play=self._play,
            now_ms=self._clock.unix_ms,
        )

    async def __aenter__(self) -> VodPlayer:
        await self.node.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.node.__aexit__(*exc)

    async def _handle(self, job: Job) -> None:
        await self._handler.handle(job)

    def _on_event(self, event: Any) -> None:
        if isinstance(event, Event.KeyframeRequested) and (job := self._jobs.get(event.track)) is not None:
            self._keyframes.inc()
            job.keyframe_requested(event.track)

    async def _play(self, vod: Vod, store: JobRecord[Vod], path: Path) -> None:
        room_key, ids = subjects.room_key(vod.app_id, vod.room), VodIds.of(vod.id)
        room = NatsVodRoom(
            self.node.link,
            room_key=room_key,
            identity=vod.identity,
            ids=ids,
            node_id=self.node.node_id,
            clock=self._clock,
            session_interval_s=min(5.0, self._settings.session_grace_s / 3),
        )
        job = VodJob(
            vod,
            room_key=room_key,
            ids=ids,
            store=store,
            room=room,
            sources=EngineSources(self._engine),
            player=PlayerProcess(self._play_options(vod, path)),
            now_ms=self._clock.unix_ms,
        )
        self._jobs |= dict.fromkeys(job.track_ids, job)
        try:
            await job.run()
        finally:
            for track_id in job.track_ids:
                self._jobs.pop(track_id, None)

    def _play_options(self, vod: Vod, path: Path) -> PlayOptions:
        settings = self._settings
        return PlayOptions(
            path=str(path),
            start_us=vod.position_ms * 1000,
            is_loop=vod.is_loop,
            video_codec=settings.video_codec,
            max_height=settings.max_height,
            max_fps=settings.max_fps,
            video_bitrate_bps=settings.video_bitrate_bps,
            pass_bitrate_bps=settings.pass_bitrate_bps,
            memory_limit_bytes=settings.memory_limit_mib << 20,
        )


async def serve(settings: VodSettings, stop: asyncio.Event) -> None:
    """Runs until `stop`, then hands its jobs back."""
    async with VodPlayer(settings):
        await serve_until(stop)
