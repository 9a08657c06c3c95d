"""Recordings and vods: records in KV, jobs in the work queue `MRTC_JOBS`."""

from __future__ import annotations

from typing import TypeVar

from mrtc.recorder.v1 import recording_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common import subjects, tables
from mrtc_common.errors import MrtcError, NotFoundError, UnavailableError
from mrtc_common.kv import Entry, KvTable, RevisionMismatchError
from mrtc_common.nats import NatsLink

J = TypeVar("J", recording_pb2.Recording, vod_pb2.Vod)

_CAS_TRIES = 5


class NatsJobs:
    """See `ports.Jobs`."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self._recordings = tables.recordings(link)
        self._vods = tables.vods(link)

    async def start_recording(self, recording: recording_pb2.Recording) -> None:
        """See the port."""
        room_key = subjects.room_key(recording.app_id, recording.room)
        key = subjects.recording_key(room_key, recording.id)
        await self._start(self._recordings, key, recording, subjects.JOB_RECORD)

    async def list_recordings(self, app_id: str, room: str = "") -> list[recording_pb2.Recording]:
        """See the port."""
        found = await self._recordings.list(_filter(app_id, room))
        return [entry.value for entry in found]

    async def stop_recording(self, app_id: str, recording_id: str) -> recording_pb2.Recording:
        """See the port."""
        return await self._stop(self._recordings, app_id, recording_id, "recording")

    async def start_vod(self, vod: vod_pb2.Vod) -> None:
        """See the port."""
        room_key = subjects.room_key(vod.app_id, vod.room)
        await self._start(self._vods, subjects.vod_key(room_key, vod.id), vod, subjects.JOB_VOD)

    async def list_vods(self, app_id: str, room: str = "") -> list[vod_pb2.Vod]:
        """See the port."""
        return [entry.value for entry in await self._vods.list(_filter(app_id, room))]

    async def stop_vod(self, app_id: str, vod_id: str) -> vod_pb2.Vod:
        """See the port."""
        return await self._stop(self._vods, app_id, vod_id, "vod")

    async def _start(self, table: KvTable[J], key: str, job: J, subject: str) -> None:
        """The record first: a worker that gets the job finds it. A job that cannot be queued leaves none behind."""
        await table.put(key, job)
        try:
            await self._link.publish_stored(subject, job.SerializeToString(), message_id=job.id)
        except MrtcError:
            await table.delete(key)
            raise

    async def _stop(self, table: KvTable[J], app_id: str, job_id: str, noun: str) -> J:
        for _ in range(_CAS_TRIES):
            entry = await self._find(table, app_id, job_id, noun)
            if entry.value.is_stop_requested:
                return entry.value
            entry.value.is_stop_requested = True
            try:
                await table.update(entry.key, entry.value, entry.revision)
                return entry.value
            except RevisionMismatchError:
                continue  # the worker has just written its progress
        raise UnavailableError(f"the {noun} changes too quickly; try again", retry_after_ms=200)

    async def _find(self, table: KvTable[J], app_id: str, job_id: str, noun: str) -> Entry[J]:
        for entry in await table.list(_filter(app_id, "")):
            if entry.value.id == job_id:
                return entry
        raise NotFoundError(f"no such {noun}")


def _filter(app_id: str, room: str) -> str:
    return subjects.room_filter(subjects.room_key(app_id, room)) if room else subjects.app_filter(app_id)
