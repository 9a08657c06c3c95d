"""A player with a real engine and NATS, and a media node that receives what it plays."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mrtc.event.v1 import state_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common import subjects, tables
from mrtc_common.grpc import Channels, GrpcSecurity
from mrtc_common.ids import new_id
from mrtc_common.nats import NatsLink
from mrtc_common.node import NodeDirectory, new_node_id
from mrtc_common.relay import RelayManager
from mrtc_common.tasks import end_tasks
from mrtc_common.testing import NatsServer
from mrtc_common.testing.fixtures import nats_link, nats_server  # noqa: F401
from mrtc_engine import AsyncEngine, EngineConfig
from mrtc_rtcvod.bootstrap import VodPlayer
from mrtc_rtcvod.config import VodSettings

SECRET = "a secret of the tests"
APP, ROOM = "app", "room"
ROOM_KEY = subjects.room_key(APP, ROOM)


class Receiver:
    """An engine node that takes tracks of other nodes, as an rtcmcu does for its subscribers."""

    def __init__(self, link: NatsLink) -> None:
        self.engine = AsyncEngine(
            EngineConfig(advertised_ips=["127.0.0.1"], bind_ip="127.0.0.1", tcp_port=-1, workers=1, log_filter="warn")
        )
        channels = Channels(GrpcSecurity(SECRET))
        self._directory = NodeDirectory(link)
        self.relays = RelayManager(
            self.engine, node_id=new_node_id("mcu"), channels=channels, directory=self._directory
        )
        self._channels = channels

    async def __aenter__(self) -> Receiver:
        await self._directory.start()
        await self.relays.start()
        self._events = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await end_tasks(self._events)
        await self.relays.aclose()
        await self._directory.aclose()
        await self._channels.aclose()
        await self.engine.aclose()

    async def _follow(self) -> None:
        async for event in self.engine.events:
            self.relays.handle_event(event)

    async def receive(self, track_id: str, node_id: str, count: int) -> list[Any]:
        """The first frames of a track."""
        holder, sink = new_id("ho"), new_id("sk")
        imported = await self.relays.import_tracks({track_id: node_id}, ROOM_KEY, holder=holder)
        assert track_id in imported.tracks, imported
        await self.engine.create_sink(sink=sink, track=track_id)
        frames = []
        async with asyncio.timeout(15):
            async for frame in self.engine.frames(sink):
                frames.append(frame)
                if len(frames) == count:
                    break
        await self.engine.close_sink(sink=sink)
        self.relays.release_track(track_id, holder=holder)
        return frames


@dataclass
class Desk:
    """Where vods are ordered and looked at."""

    link: NatsLink
    folder: Path

    async def start(self, source: Path | None = None, *, media_key: str = "film", **options: Any) -> vod_pb2.Vod:
        """Stores a file and queues a vod as signaling does."""
        if source is not None:
            target = self.folder / APP / "media" / media_key
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        vod = vod_pb2.Vod(
            id=new_id("vod"),
            app_id=APP,
            room=ROOM,
            media_key=media_key,
            state=vod_pb2.VOD_STATE_QUEUED,
            **({"identity": "film"} | options),
        )
        await tables.vods(self.link).put(subjects.vod_key(ROOM_KEY, vod.id), vod)
        await self.link.publish_stored(subjects.JOB_VOD, vod.SerializeToString(), message_id=vod.id)
        return vod

    async def stop(self, vod: vod_pb2.Vod) -> None:
        """Asks for its end as signaling does."""
        table = tables.vods(self.link)
        while True:
            entry = await table.get(subjects.vod_key(ROOM_KEY, vod.id))
            assert entry is not None
            entry.value.is_stop_requested = True
            with contextlib.suppress(Exception):
                await table.update(entry.key, entry.value, entry.revision)
                return

    async def reached(self, vod: vod_pb2.Vod, condition: Callable[[vod_pb2.Vod], bool]) -> vod_pb2.Vod:
        """Waits until its record fulfils a condition."""
        deadline = time.monotonic() + 30
        while True:
            entry = await tables.vods(self.link).get(subjects.vod_key(ROOM_KEY, vod.id))
            assert entry is not None
            if condition(entry.value):
                return entry.value
            assert time.monotonic() < deadline, f"not reached: {entry.value}"
            await asyncio.sleep(0.05)

    async def entries(self, kind: type[Any]) -> list[Any]:
        """The room's records of a type."""
        found = await tables.rooms(self.link).list(subjects.room_filter(ROOM_KEY))
        return [entry.value for entry in found if isinstance(entry.value, kind)]

    async def publication(self) -> state_pb2.PublicationRecord:
        """The one publication of the room."""
        [record] = await self.entries(state_pb2.PublicationRecord)
        assert isinstance(record, state_pb2.PublicationRecord)
        return record

    async def publication_of(self, node_id: str) -> state_pb2.PublicationRecord:
        """The one publication of the room, once it is this node's."""
        async with asyncio.timeout(10):
            while (record := await self.publication()).node_id != node_id:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return record


@pytest.fixture
async def receiver(nats_link: NatsLink) -> AsyncIterator[Receiver]:  # noqa: F811
    """A receiving node."""
    async with Receiver(nats_link) as one:
        yield one


@pytest.fixture
def desk(nats_link: NatsLink, tmp_path: Path) -> Desk:  # noqa: F811
    """Where vods are ordered."""
    return Desk(nats_link, tmp_path / "files")


@pytest.fixture
def make_settings(nats_server: NatsServer, tmp_path: Path) -> Callable[..., VodSettings]:  # noqa: F811
    """Makes settings for a player of a test."""

    def make(**changes: Any) -> VodSettings:
        values = {
            "grpc_port": 0,
            "http_port": 0,
            "udp_port": 0,
            "bind_ip": "127.0.0.1",
            "cluster_secret": SECRET,
            "nats_urls": [nats_server.url],
            "storage_root": tmp_path / "files",
        }
        return VodSettings.from_values(values | changes)

    return make


@pytest.fixture
async def player(make_settings: Callable[..., VodSettings]) -> AsyncIterator[VodPlayer]:
    """A running player."""
    async with VodPlayer(make_settings()) as one:
        yield one
