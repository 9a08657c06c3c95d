"""A recorder with a real engine and NATS, and a media node whose tracks it records."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.media.v1 import relay_service_pb2_grpc
from mrtc.node.v1.master_service_pb2 import NODE_KIND_MCU, NodeLoad
from mrtc.recorder.v1 import recording_pb2
from mrtc_common import subjects, tables
from mrtc_common.grpc import Channels, GrpcSecurity, GrpcServer
from mrtc_common.health import Health
from mrtc_common.ids import new_id
from mrtc_common.nats import NatsLink
from mrtc_common.node import NodeAgent, NodeDirectory, new_node_id
from mrtc_common.relay import RelayManager
from mrtc_common.testing import NatsServer
from mrtc_common.testing.fixtures import nats_link, nats_server  # noqa: F401
from mrtc_engine import AsyncEngine, EngineConfig, SourceFrame
from mrtc_rtcrecorder.bootstrap import Recorder
from mrtc_rtcrecorder.config import RecorderSettings
from mrtc_rtcrecorder.core.frames import Frame

SECRET = "a secret of the tests"
APP, ROOM = "app", "room"
ROOM_KEY = subjects.room_key(APP, ROOM)


class MediaNode:
    """An engine node that publishes frames as if they came from a browser."""

    def __init__(self, link: NatsLink) -> None:
        self.link = link
        self.node_id = new_node_id("mcu")
        self.engine = AsyncEngine(
            EngineConfig(advertised_ips=["127.0.0.1"], bind_ip="127.0.0.1", tcp_port=-1, workers=1, log_filter="warn")
        )
        self.rooms = tables.rooms(link)
        self._stack = contextlib.AsyncExitStack()
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> MediaNode:
        push = self._stack.push_async_callback
        push(self.engine.aclose)
        security = GrpcSecurity(SECRET)
        channels, directory = Channels(security), NodeDirectory(self.link)
        relays = RelayManager(self.engine, node_id=self.node_id, channels=channels, directory=directory)
        server = GrpcServer(security, Health())
        relay_service_pb2_grpc.add_RelayServiceServicer_to_server(relays.server, server.server)
        port = await server.start("127.0.0.1", 0)
        push(server.aclose, 0.1)
        agent = NodeAgent(
            self.link,
            node_id=self.node_id,
            kind=NODE_KIND_MCU,
            grpc_address=f"127.0.0.1:{port}",
            load=NodeLoad,
        )
        for part in (directory, relays, agent):
            await part.start()
            push(part.aclose)
        events = asyncio.create_task(self._follow(relays))
        push(_cancel, events)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        for task in self._tasks.values():
            await _cancel(task)
        await self._stack.aclose()

    async def _follow(self, relays: RelayManager) -> None:
        async for event in self.engine.events:
            relays.handle_event(event)

    async def open_room(self) -> None:
        """Writes the room's record."""
        await self.rooms.put(subjects.room_record_key(ROOM_KEY), state_pb2.RoomRecord(app_id=APP, name=ROOM))

    async def close_room(self) -> None:
        """Deletes the room's record."""
        await self.rooms.delete(subjects.room_record_key(ROOM_KEY))

    async def join(self, identity: str) -> str:
        """Writes a participant's record; gives its id."""
        participant = common_pb2.Participant(id=new_id("pa"), identity=identity, joined_at_ms=time.time_ns() // 10**6)
        record = state_pb2.ParticipantRecord(participant=participant, node_id=self.node_id)
        await self.rooms.put(subjects.participant_key(ROOM_KEY, participant.id), record)
        return participant.id

    async def leave(self, participant_id: str) -> None:
        """Deletes a participant's record."""
        await self.rooms.delete(subjects.participant_key(ROOM_KEY, participant_id))

    async def publish(self, participant_id: str, tracks: dict[str, list[Frame]], *, tag: str = "") -> str:
        """Publishes tracks that send these frames, round and round; gives the publication's id."""
        publication = common_pb2.Publication(id=new_id("pub"), participant_id=participant_id, tag=tag)
        for kind, frames in tracks.items():
            track = publication.tracks.add(id=new_id("tr"), codec=frames[0].codec)
            track.kind = common_pb2.TRACK_KIND_AUDIO if kind == "audio" else common_pb2.TRACK_KIND_VIDEO
            await self.engine.create_source(track=track.id, room=ROOM_KEY, codec=track.codec)
            self._tasks[track.id] = asyncio.create_task(self._play(track.id, frames))
        record = state_pb2.PublicationRecord(publication=publication, node_id=self.node_id)
        await self.rooms.put(subjects.publication_key(ROOM_KEY, publication.id), record)
        return publication.id

    async def unpublish(self, publication_id: str) -> None:
        """Takes a publication back."""
        await self.rooms.delete(subjects.publication_key(ROOM_KEY, publication_id))

    async def _play(self, track: str, frames: list[Frame]) -> None:
        began, offset_us = time.monotonic(), 0
        first_us = frames[0].captured_at_us
        step_us = frames[1].captured_at_us - first_us
        while True:
            for frame in frames:
                pts_us = offset_us + frame.captured_at_us - first_us
                await asyncio.sleep(max(0.0, began + pts_us / 1e6 - time.monotonic()))
                sent = SourceFrame(pts_us=pts_us, is_keyframe=frame.is_keyframe, data=frame.data)
                await self.engine.push_frames(track=track, frames=[sent])
            offset_us += frames[-1].captured_at_us - first_us + step_us


async def _cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@dataclass
class Desk:
    """Where recordings are ordered and looked at."""

    link: NatsLink
    folder: Path
    keys: dict[str, str] = field(default_factory=dict)

    async def start(self, mode: recording_pb2.RecordingMode.ValueType, **options: Any) -> str:
        """Queues a recording as signaling does; gives its id."""
        record = recording_pb2.Recording(
            id=new_id("rec"), app_id=APP, room=ROOM, mode=mode, state=recording_pb2.RECORDING_STATE_QUEUED, **options
        )
        self.keys[record.id] = subjects.recording_key(ROOM_KEY, record.id)
        await tables.recordings(self.link).put(self.keys[record.id], record)
        await self.link.publish_stored(subjects.JOB_RECORD, record.SerializeToString(), message_id=record.id)
        return record.id

    async def stop(self, recording_id: str) -> None:
        """Asks for its end as signaling does."""
        table = tables.recordings(self.link)
        while True:
            entry = await table.get(self.keys[recording_id])
            assert entry is not None
            entry.value.is_stop_requested = True
            with contextlib.suppress(Exception):
                await table.update(entry.key, entry.value, entry.revision)
                return

    async def record(self, recording_id: str) -> recording_pb2.Recording:
        """As it is now."""
        entry = await tables.recordings(self.link).get(self.keys[recording_id])
        assert entry is not None
        return entry.value

    async def reached(self, recording_id: str, condition: Callable[[recording_pb2.Recording], bool]) -> Any:
        """Waits until a record fulfils a condition."""
        deadline = time.monotonic() + 30
        while not condition(seen := await self.record(recording_id)):
            assert time.monotonic() < deadline, f"not reached: {seen}"
            await asyncio.sleep(0.05)
        return seen

    def path(self, file: recording_pb2.RecordingFile) -> Path:
        """Where a file is."""
        return self.folder / file.key


@pytest.fixture
def make_settings(nats_server: NatsServer, folder: Path) -> Callable[..., RecorderSettings]:  # noqa: F811
    """Makes settings for a recorder of a test."""

    def make(**changes: Any) -> RecorderSettings:
        values = {
            "grpc_port": 0,
            "http_port": 0,
            "udp_port": 0,
            "bind_ip": "127.0.0.1",
            "cluster_secret": SECRET,
            "nats_urls": [nats_server.url],
            "storage_root": folder,
            "empty_timeout_s": 1.0,
        }
        return RecorderSettings.from_values(values | changes)

    return make


@pytest.fixture
async def node(nats_link: NatsLink) -> AsyncIterator[MediaNode]:  # noqa: F811
    """A media node with an open room."""
    async with MediaNode(nats_link) as one:
        await one.open_room()
        yield one


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where recordings go."""
    return tmp_path / "files"


@pytest.fixture
def desk(nats_link: NatsLink, folder: Path) -> Desk:  # noqa: F811
    """Where recordings are ordered."""
    return Desk(nats_link, folder)


@pytest.fixture
async def recorder(make_settings: Callable[..., RecorderSettings]) -> AsyncIterator[Recorder]:
    """A running recorder."""
    async with Recorder(make_settings()) as one:
        yield one
