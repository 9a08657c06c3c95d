"""One recording from its job to its end: which tracks are followed, when it ends, what its record says."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace

from mrtc.recorder.v1 import recording_pb2
from mrtc_common.clock import Clock, steady_unix_us
from mrtc_common.errors import LimitExceededError, MediaEncryptedError, MrtcError, UnavailableError
from mrtc_common.job_record import JobRecord, RecordLostError
from mrtc_common.jobs import HELD_AGAIN_S, HandBackError
from mrtc_common.log import get_logger
from mrtc_common.tasks import end_tasks

from .core import progress
from .core.frames import Frame, Kind
from .core.progress import FileProgress, Recording
from .core.room_view import RoomView, Selection, WantedTrack
from .ports import Output, TrackFeed

_log = get_logger(__name__)

_PROGRESS_INTERVAL_S = 1.0
# A record is written as a whole: one of many files is renewed less often while only their sizes have changed.
_PROGRESS_BYTES_PER_S = 2048
# Files may begin between two looks at how large the record is.
_RESERVED_BYTES = 64 * 1024
# Capture times further than this from now are a sender's error; the frame is taken to be of now.
_MAX_PAST_US, _MAX_FUTURE_US = 10_000_000, 500_000

Join = Callable[[Recording], Awaitable[tuple[list[recording_pb2.RecordingFile], list[str]]]]
MakeOutput = Callable[[Callable[[str], None]], Output]
FollowRoom = Callable[[RoomView, Callable[[], None]], Coroutine[None, None, None]]


@dataclass(frozen=True, slots=True)
class JobLimits:
    """What a recording may take.

    Attributes:
        room_wait_s, empty_timeout_s: how long it waits for its room, and for somebody in it.
        max_record_bytes: largest record that can be stored.
    """

    room_wait_s: float
    empty_timeout_s: float
    max_record_bytes: int


class RecordingJob:
    """Records one room until it is told to stop or the room ends.

    Args:
        record: the record as claimed.
        follow_room: keeps a view of the room, see `adapters.room_watch`.
        make_output: makes what writes the files; given whom it tells of tracks of which it lacks frames.
        join: joins the files of several recorders, see `joining.join_segments`.
        delete: deletes a file by its storage key.
    """

    def __init__(
        self,
        record: Recording,
        *,
        store: JobRecord[Recording],
        follow_room: FollowRoom,
        feed: TrackFeed,
        make_output: MakeOutput,
        join: Join,
        delete: Callable[[str], Awaitable[None]],
        limits: JobLimits,
        clock: Clock,
    ) -> None:
        self._record = record
        self._store = store
        self._follow_room = follow_room
        self._feed = feed
        self._make_output = make_output
        self._join, self._delete = join, delete
        self._limits = limits
        self._clock = clock
        self._output: Output | None = None
        self._view = RoomView()
        self._selection = Selection(frozenset(record.identities), record.tag_prefix)
        self._followers: dict[str, tuple[WantedTrack, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._is_stop_requested = record.is_stop_requested
        self._is_lost = False
        self._has_room_snapshot = False
        self._was_open = False
        self._has_followed = self._has_encrypted = False
        self._quiet_since = self._reported_at = clock.monotonic()

    async def run(self) -> None:
        """Records to the end. Raises HandBackError when it is cancelled or cannot go on here."""
        try:
            async with self._helpers():
                await self._supervise()
        except asyncio.CancelledError:
            await self._close_files()
            await self._report()
            raise HandBackError from None
        await self._close_files()
        if self._is_lost:
            _log.warning("another recorder has taken over; what was written stays")
            raise HandBackError(HELD_AGAIN_S)
        await self._end()

    async def _supervise(self) -> None:
        while not self._has_ended():
            self._wake.clear()
            if self._was_open:
                self._reconcile(self._open_output())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PROGRESS_INTERVAL_S):
                    await self._wake.wait()
                    continue
            if self._is_report_due():
                await self._report()

    def _has_ended(self) -> bool:
        if self._is_stop_requested or self._is_lost or self._failure():
            return True
        if not self._has_room_snapshot:
            return False
        now = self._clock.monotonic()
        if self._view.is_open and not self._view.is_empty:
            self._was_open, self._quiet_since = True, now
            return False
        if self._was_open and not self._view.is_open:
            return True
        limit = self._limits.empty_timeout_s if self._was_open else self._limits.room_wait_s
        return now - self._quiet_since >= limit

    # Output

    def _open_output(self) -> Output:
        """Files begin with the first participant: what nobody is in is not worth a file."""
        if self._output is None:
            self._output = self._make_output(self._renew)
            self._output.failed.add_done_callback(lambda _: self._wake.set())
        return self._output

    def _files(self) -> list[FileProgress]:
        return self._output.files() if self._output is not None else []

    def _failure(self) -> str:
        output = self._output
        if output is not None and output.failed.done():
            return output.failed.result()
        if self._record.ByteSize() > self._limits.max_record_bytes - _RESERVED_BYTES:
            return f"{LimitExceededError.code_name()}: it has {len(self._record.files)} files, its record holds no more"
        return ""

    def _nothing_to_record(self) -> str:
        """An error if all there was is end-to-end encrypted: else the empty recording would look like a success."""
        if not self._has_encrypted or self._has_followed:
            return ""
        return f"{MediaEncryptedError.code_name()}: everything published was end-to-end encrypted"

    async def _close_files(self) -> None:
        if self._output is not None:
            await asyncio.shield(self._output.finish())

    # Tracks

    def _reconcile(self, output: Output) -> None:
        self._has_encrypted |= self._view.has_encrypted_media
        wanted = self._view.wanted_tracks(self._selection)
        for track_id in [track_id for track_id in self._followers if track_id not in wanted]:
            self._followers.pop(track_id)[1].cancel()
            output.remove(track_id)
        for track in wanted.values():
            known = self._followers.get(track.track_id)
            if known is not None and known[0] == track:
                continue
            output.update(track)
            if known is not None and (known[0].media_id, known[0].node_id) == (track.media_id, track.node_id):
                self._followers[track.track_id] = (track, known[1])
                continue
            self._has_followed = True
            follow = self._follow(track, output, known[1] if known is not None else None)
            task = asyncio.create_task(follow, name=f"follow {track.media_id}")
            self._followers[track.track_id] = (track, task)

    async def _follow(self, track: WantedTrack, output: Output, former: asyncio.Task[None] | None) -> None:
        """Writes a track; what it was before its publisher moved is written until the first frame comes."""
        has_begun = False

        def on_start() -> None:
            nonlocal has_begun
            has_begun = False

        def on_frame(frame: Frame) -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                if former is not None:
                    former.cancel()
                output.restart(track.track_id)
            output.push(track.track_id, _with_sane_time(frame))

        try:
            await self._feed.follow(track, on_start, on_frame)
        finally:
            if former is not None:
                former.cancel()

    def _renew(self, track_id: str) -> None:
        """The files lack frames of a track: a picture goes on at a key frame, which is asked for."""
        known = self._followers.get(track_id)
        if known is not None and known[0].kind is Kind.VIDEO:
            self._feed.renew(known[0])

    # Record

    def _is_report_due(self) -> bool:
        """Files that begin are told at once: whoever takes over must know of them."""
        if self._clock.monotonic() - self._reported_at >= self._record.ByteSize() / _PROGRESS_BYTES_PER_S:
            return True
        known = {file.key for file in self._record.files}
        return any(file.size_bytes > 0 and file.key not in known for file in self._files())

    async def _report(self) -> None:
        now = self._clock.monotonic()
        try:
            self._record = await self._store.update(lambda record: progress.with_files(record, self._files()))
            self._reported_at = now
        except RecordLostError:
            # An ended record with files still growing: another recorder finished it; a missing one: an operator.
            self._is_lost = True
        except UnavailableError:
            pass  # media goes on; the next second tries again

    async def _end(self) -> None:
        error, files = self._failure() or self._nothing_to_record(), self._files()
        whole, parts = await self._join_files(files)

        def finish(record: Recording) -> Recording:
            updated = progress.with_joined(progress.with_files(record, files), whole, parts)
            return progress.ended(updated, self._clock.unix_ms(), error)

        while True:
            try:
                await self._store.update(finish)
            except RecordLostError:
                return
            except UnavailableError:
                await asyncio.sleep(_PROGRESS_INTERVAL_S)
            else:
                _log.info("recording ended", files=len(whole) or len(files), error=error)
                for key in parts:
                    with contextlib.suppress(MrtcError):
                        await self._delete(key)
                return

    async def _join_files(self, files: list[FileProgress]) -> tuple[list[recording_pb2.RecordingFile], list[str]]:
        """Those that were joined, and the keys of what went into them: nothing, if there was one recorder."""
        if self._record.claims < 2:
            return [], []
        return await self._join(progress.with_files(self._record, files))

    # Helpers

    @contextlib.asynccontextmanager
    async def _helpers(self) -> AsyncIterator[None]:
        """What runs beside: the watches, and the followers, which end with it."""
        tasks = [
            asyncio.create_task(self._store.watch(self._on_stop, self._on_lost), name="record-watch"),
            asyncio.create_task(self._follow_room(self._view, self._on_room), name="room-watch"),
        ]
        try:
            yield
        finally:
            tasks += [task for _, task in self._followers.values()]
            await end_tasks(*tasks)

    def _on_stop(self) -> None:
        self._is_stop_requested = True
        self._wake.set()

    def _on_lost(self) -> None:
        self._is_lost = True
        self._wake.set()

    def _on_room(self) -> None:
        self._has_room_snapshot = True
        self._wake.set()


def _with_sane_time(frame: Frame) -> Frame:
    now_us = steady_unix_us()
    sane = min(max(frame.captured_at_us, now_us - _MAX_PAST_US), now_us + _MAX_FUTURE_US)
    return frame if sane == frame.captured_at_us else replace(frame, captured_at_us=sane)
