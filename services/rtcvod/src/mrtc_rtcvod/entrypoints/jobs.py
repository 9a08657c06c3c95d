"""Turns a message of the job queue into a vod."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from google.protobuf.message import DecodeError
from mrtc_common import subjects
from mrtc_common.errors import MrtcError, UnavailableError
from mrtc_common.job_record import JobHeldError, JobRecord, RecordLostError
from mrtc_common.jobs import HELD_AGAIN_S, HandBackError, Job
from mrtc_common.log import bound, get_logger
from mrtc_common.storage import Storage, safe_part

from mrtc_rtcvod.core import records
from mrtc_rtcvod.core.records import Vod

_log = get_logger(__name__)

# A job that was handed out so often kills its players.
MAX_CLAIMS = 10
MEDIA_FOLDER = "media"
"""Folder of an app's media files below its own folder; signaling stores them there."""


class JobHandler:
    """Handles jobs.

    Args:
        open_store: the record of a key.
        play: plays a file to the end.
        now_ms: Unix time.
    """

    def __init__(
        self,
        *,
        storage: Storage,
        open_store: Callable[[str], JobRecord[Vod]],
        play: Callable[[Vod, JobRecord[Vod], Path], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> None:
        self._now_ms = now_ms
        self._storage = storage
        self._open_store = open_store
        self._play = play

    async def handle(self, job: Job) -> None:
        """Does one job. Raises HandBackError."""
        try:
            wanted = Vod.FromString(job.payload)
            key = subjects.vod_key(subjects.room_key(wanted.app_id, wanted.room), wanted.id)
        except (DecodeError, MrtcError):
            _log.error("a job is malformed, it is dropped")
            return
        with bound(room=wanted.room, app=wanted.app_id, vod=wanted.id):
            try:
                await self._handle(self._open_store(key), job)
            except RecordLostError:
                _log.info("a job of an ended vod is dropped")
            except JobHeldError:
                raise HandBackError(HELD_AGAIN_S) from None
            except UnavailableError:
                raise HandBackError(1.0) from None

    async def _handle(self, store: JobRecord[Vod], job: Job) -> None:
        vod = await store.claim(records.claimed, job.former_holder)
        try:
            await self._begin(store, vod)
        finally:
            store.release()

    async def _begin(self, store: JobRecord[Vod], vod: Vod) -> None:
        problem, path = self._find(vod)
        if vod.claims > MAX_CLAIMS:
            problem = f"given up after {MAX_CLAIMS} tries"
        if problem or path is None or (vod.is_stop_requested and not vod.participant_id):
            await store.update(lambda vod: records.ended(vod, self._now_ms(), problem))
            _log.info("vod is not played", error=problem)
            return
        await self._play(vod, store, path)

    def _find(self, vod: Vod) -> tuple[str, Path | None]:
        """(what is wrong with the request, the file)."""
        try:
            subjects.encode_name(vod.identity)
        except MrtcError:
            return "identity must have 1 to 128 bytes", None
        try:
            path = self._storage.local_path(f"{safe_part(vod.app_id)}/{MEDIA_FOLDER}/{vod.media_key}")
        except MrtcError as error:
            return f"media_key: {error.message}", None
        if not path.is_file():
            return "there is no such media file", None
        return "", path
