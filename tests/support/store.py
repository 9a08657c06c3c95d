"""What is really in NATS, read past the services."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common import subjects
from mrtc_common.kv import is_deletion
from mrtc_common.nats_schema import bucket_stream, bucket_subject
from nats.js import JetStreamContext, api

from tests.support.api import APP
from tests.support.suite import RunningSuite

BUCKETS = (
    subjects.BUCKET_NODES,
    subjects.BUCKET_ROOMS,
    subjects.BUCKET_SESSIONS,
    subjects.BUCKET_RECORDINGS,
    subjects.BUCKET_VODS,
    subjects.BUCKET_LEASES,
    subjects.BUCKET_DRAINS,
)
STREAMS = (subjects.STREAM_MESSAGES, subjects.STREAM_JOBS, subjects.STREAM_EVENTS)


class Store:
    """Reads buckets and streams."""

    def __init__(self, jetstream: JetStreamContext) -> None:
        self._js = jetstream

    async def recording(self, room: str, identifier: str) -> recording_pb2.Recording:
        """A recording's record. Raises nats.js.errors.NotFoundError."""
        key = subjects.recording_key(subjects.room_key(APP, room), identifier)
        subject = bucket_subject(subjects.BUCKET_RECORDINGS, key)
        found = await self._js.get_msg(bucket_stream(subjects.BUCKET_RECORDINGS), subject=subject, direct=True)
        return recording_pb2.Recording.FromString(found.data or b"")

    async def vod(self, room: str, identifier: str) -> vod_pb2.Vod:
        """A vod's record. Raises nats.js.errors.NotFoundError."""
        key = subjects.vod_key(subjects.room_key(APP, room), identifier)
        subject = bucket_subject(subjects.BUCKET_VODS, key)
        found = await self._js.get_msg(bucket_stream(subjects.BUCKET_VODS), subject=subject, direct=True)
        return vod_pb2.Vod.FromString(found.data or b"")

    async def keys(self, bucket: str) -> int:
        """How many keys exist; markers of deleted ones do not count."""
        stream = bucket_stream(bucket)
        info = await self._js.stream_info(stream, subjects_filter=">")
        count = 0
        for subject in info.state.subjects or {}:
            try:
                found = await self._js.get_msg(stream, subject=subject, direct=True)
            except nats.js.errors.NotFoundError:
                continue
            count += not is_deletion(found.headers or {})
        return count

    async def stored(self, stream: str) -> int:
        """How many messages a stream holds, markers of deleted keys included."""
        return (await self._js.stream_info(stream)).state.messages

    async def consumers(self, stream: str) -> list[api.ConsumerInfo]:
        """The consumers of a stream."""
        return await self._js.consumers_info(stream)


@asynccontextmanager
async def store_of(suite: RunningSuite) -> AsyncIterator[Store]:
    """A connection of its own, which sets nothing up."""
    env = suite.suite.service_env

    async def ignore(_error: Exception) -> None:
        """Tests that kill NATS know."""

    client = await nats.connect(
        env["MRTC_NATS_URLS"],
        user=env["MRTC_NATS_USER"],
        password=env["MRTC_NATS_PASSWORD"],
        max_reconnect_attempts=-1,
        reconnect_time_wait=0.5,
        error_cb=ignore,
    )
    try:
        yield Store(client.jetstream())
    finally:
        await client.close()
