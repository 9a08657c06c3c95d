"""Turns a message of the job queue into a recording."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from google.protobuf.message import DecodeError
from mrtc.recorder.v1 import recording_pb2
from mrtc_common import subjects
from mrtc_common.errors import MrtcError, UnavailableError
from mrtc_common.job_record import JobHeldError, JobRecord, RecordLostError
from mrtc_common.jobs import HELD_AGAIN_S, HandBackError, Job
from mrtc_common.log import bound, get_logger

from mrtc_rtcrecorder.core import progress
from mrtc_rtcrecorder.core.progress import Recording

_log = get_logger(__name__)

# A job that was handed out so often kills its recorders; it is given up so that it stops doing so. Every restart of a
# recorder counts too, so that a recording of days must be able to see many.
MAX_CLAIMS = 100
_MODES = (recording_pb2.RECORDING_MODE_SINGLE, recording_pb2.RECORDING_MODE_MIXED)
_MAX_PIXELS, _MAX_FPS = 3840 * 2160, 60


class JobHandler:
    """Handles jobs.

    Args:
        open_store: the record of a key.
        record: records to the end, see `RecordingJob.run`.
        now_ms: Unix time.
    """

    def __init__(
        self,
        *,
        open_store: Callable[[str], JobRecord[Recording]],
        record: Callable[[Recording, JobRecord[Recording]], Awaitable[None]],
        now_ms: Callable[[], int],
    ) -> None:
        self._open_store = open_store
        self._record = record
        self._now_ms = now_ms

    async def handle(self, job: Job) -> None:
        """Does one job. Raises HandBackError."""
        try:
            wanted = Recording.FromString(job.payload)
            key = subjects.recording_key(subjects.room_key(wanted.app_id, wanted.room), wanted.id)
        except (DecodeError, MrtcError):
            _log.error("a job is malformed, it is dropped")
            return
        with bound(room=wanted.room, app=wanted.app_id, recording=wanted.id):
            store = self._open_store(key)
            try:
                await self._handle(store, job)
            except JobHeldError:
                raise HandBackError(HELD_AGAIN_S) from None
            except RecordLostError:
                _log.info("a job of an ended recording is dropped")
            except UnavailableError:
                raise HandBackError(1.0) from None

    async def _handle(self, store: JobRecord[Recording], job: Job) -> None:
        record = await store.claim(progress.claim, job.former_holder)
        try:
            await self._begin(store, record)
        finally:
            store.release()

    async def _begin(self, store: JobRecord[Recording], record: Recording) -> None:
        problem = _problem(record)
        if record.claims > MAX_CLAIMS:
            problem = f"given up after {MAX_CLAIMS} tries"
        if problem:
            await store.update(lambda record: progress.ended(record, self._now_ms(), problem))
            _log.error("a recording is given up", error=problem)
            return
        _log.info("recording taken", mode=recording_pb2.RecordingMode.Name(record.mode), claims=record.claims)
        await self._record(record, store)


def _problem(record: Recording) -> str:
    """What is wrong with the request; empty if nothing is."""
    if record.mode not in _MODES:
        return "mode must be single or mixed"
    if record.width % 2 or record.height % 2 or record.width * record.height > _MAX_PIXELS:
        return "width and height must be even, together at most 3840x2160"
    if (record.width and record.width < 64) or (record.height and record.height < 64):
        return "width and height must be at least 64"
    if record.fps > _MAX_FPS:
        return f"fps must be at most {_MAX_FPS}"
    return ""
