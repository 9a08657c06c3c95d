"""Puts the recorder together; the only module that knows core, media and adapters all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mrtc.node.v1.master_service_pb2 import NODE_KIND_RECORDER
from mrtc.recorder.v1 import recording_pb2
from mrtc_common import subjects, tables
from mrtc_common.clock import Clock, SystemClock
from mrtc_common.job_node import JobNode
from mrtc_common.job_record import JobRecord
from mrtc_common.nats_schema import RECORDING_MAX_BYTES
from mrtc_common.run import serve_until
from mrtc_common.storage import LocalStorage
from mrtc_engine import AsyncEngine, EngineConfig

from .adapters.room_watch_nats import follow_room
from .adapters.track_feed_engine import EngineTrackFeed, TrackChanges
from .config import RecorderSettings
from .core.file_names import FileNames, recording_folder
from .core.progress import TERMINAL_STATES, Recording
from .entrypoints.jobs import JobHandler
from .job import JobLimits, RecordingJob
from .joining import join_segments
from .media.single import SingleOutput
from .mix.output import MixedOutput, MixOptions
from .ports import Output


class Recorder:
    """A running recorder. Use as `async with`."""

    def __init__(self, settings: RecorderSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._storage = LocalStorage(settings.storage_root)
        self._changes = TrackChanges()
        engine = AsyncEngine(
            EngineConfig(
                advertised_ips=settings.advertised_ips,
                bind_ip=settings.bind_ip,
                udp_port=settings.udp_port,
                tcp_port=-1,
                workers=1,
            )
        )
        self.node = JobNode(
            settings,
            kind=NODE_KIND_RECORDER,
            subject=subjects.JOB_RECORD,
            engine=engine,
            handle=self._handle,
            table=tables.recordings,
            ended=TERMINAL_STATES,
            on_track_changed=self._changes.tell,
            clock=self._clock,
        )
        self._engine = engine
        metrics = self.node.metrics
        self._dropped = metrics.counter("dropped_frames_total", "Frames left out since the disk or the mixer is slow.")
        self._rooms = tables.rooms(self.node.link)
        self._handler = JobHandler(
            open_store=self.node.record_of,
            record=self._record,
            now_ms=self._clock.unix_ms,
        )

    async def __aenter__(self) -> Recorder:
        await self.node.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.node.__aexit__(*exc)

    async def _handle(self, job: Any) -> None:
        await self._handler.handle(job)

    async def _record(self, record: Recording, store: JobRecord[Recording]) -> None:
        room_key = subjects.room_key(record.app_id, record.room)
        feed = EngineTrackFeed(
            self._engine, self.node.relays, self._changes, room_key=room_key, holder=f"recording {record.id}"
        )
        settings = self._settings
        job = RecordingJob(
            record,
            store=store,
            follow_room=lambda view, on_change: follow_room(self._rooms, room_key, view, on_change),
            feed=feed,
            make_output=lambda on_gap: self._make_output(record, on_gap),
            join=lambda record: join_segments(record, self._storage.local_path),
            delete=self._storage.delete,
            limits=JobLimits(settings.room_wait_s, settings.empty_timeout_s, RECORDING_MAX_BYTES),
            clock=self._clock,
        )
        await job.run()

    def _make_output(self, record: Recording, on_gap: Callable[[str], None]) -> Output:
        names = FileNames(recording_folder(record.app_id, record.room, record.id), self._exists)
        if record.mode == recording_pb2.RECORDING_MODE_SINGLE:
            return SingleOutput(names, self._storage.local_path, on_drop=self._dropped.inc, on_gap=on_gap)
        options = MixOptions(
            width=record.width or 1280,
            height=record.height or 720,
            fps=record.fps or 25,
            delay_us=self._settings.mix_delay_ms * 1000,
            preset=self._settings.x264_preset,
            crf=self._settings.x264_crf,
        )
        return MixedOutput(names, self._storage.local_path, options, on_drop=self._dropped.inc, on_gap=on_gap)

    def _exists(self, key: str) -> bool:
        path: Path = self._storage.local_path(key)
        return path.exists()


async def serve(settings: RecorderSettings, stop: asyncio.Event) -> None:
    """Runs until `stop`, then hands its jobs back."""
    async with Recorder(settings):
        await serve_until(stop)
