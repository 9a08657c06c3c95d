"""Files of a recording that is not transcoded: one series of files per publication, written by one thread."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import av
from mrtc_common.log import get_logger

from mrtc_rtcrecorder.core.file_names import FileNames
from mrtc_rtcrecorder.core.frames import Frame, Kind
from mrtc_rtcrecorder.core.progress import FileProgress
from mrtc_rtcrecorder.core.room_view import WantedTrack
from mrtc_rtcrecorder.core.segmenter import FileSpec, Segmenter
from mrtc_rtcrecorder.errors import UndecodableError

from .muxer import Container, Muxer, choose_container

_log = get_logger(__name__)

# Frames on their way to the writing thread: some seconds of a full room while a disk is slow. Full: frames are dropped.
_QUEUE_ITEMS = 20_000
_QUEUE_BYTES = 64 << 20
# A publication whose file fails so often in a row ends the recording: the disk is full or gone.
_MAX_FAILURES = 5


class PublicationFiles:
    """The `FileWriter` of one publication: opens, names and completes its files.

    Args:
        local_path: where the file of a storage key is.
    """

    def __init__(self, names: FileNames, local_path: Callable[[str], Path], identity: str, publication_id: str) -> None:
        self._names = names
        self._local_path = local_path
        self._identity = identity
        self._publication_id = publication_id
        self._muxer: Muxer | None = None
        self._open_file: FileProgress | None = None
        self._done: list[FileProgress] = []

    @property
    def is_growing(self) -> bool:
        """True if the open file has reached the disk."""
        return self._muxer is not None and self._muxer.size_bytes > 0

    def open(self, spec: FileSpec) -> None:
        """See `FileWriter`. Raises UndecodableError, OSError."""
        self.close()
        video = spec.video
        container = choose_container(video.codec if video else None, spec.audio_codec)
        key = self._names.next(f"{self._identity}-{self._publication_id}", container.extension)
        self._muxer = Muxer(
            self._local_path(key), container, (video.codec, video.keyframe) if video else None, spec.audio_codec
        )
        self._open_file = self._describe(key, container, spec)

    def write(self, kind: Kind, time_us: int, is_keyframe: bool, data: bytes) -> None:
        """See `FileWriter`. Raises OSError."""
        if self._muxer is not None:
            self._muxer.write(kind, time_us, is_keyframe, data)

    def close(self) -> None:
        """See `FileWriter`."""
        muxer, self._muxer = self._muxer, None
        if muxer is None:
            return
        try:
            muxer.close()
        finally:
            if self._open_file is not None:
                self._done.append(_measured(self._open_file, muxer))
                self._open_file = None

    def files(self) -> list[FileProgress]:
        """All files so far."""
        if self._muxer is None or self._open_file is None:
            return list(self._done)
        return [*self._done, _measured(self._open_file, self._muxer)]

    def _describe(self, key: str, container: Container, spec: FileSpec) -> FileProgress:
        return FileProgress(key, container.content_type, 0, 0, spec.begins_at_us, self._identity, self._publication_id)


def _measured(file: FileProgress, muxer: Muxer) -> FileProgress:
    return replace(file, size_bytes=muxer.size_bytes, duration_us=muxer.duration_us)


@dataclass(slots=True)
class _Publication:
    files: PublicationFiles
    segmenter: Segmenter
    tracks: dict[str, WantedTrack]
    failures: int = 0

    def expect(self) -> None:
        kinds = self.tracks.values()
        has_video = any(track.kind is Kind.VIDEO and not track.is_muted for track in kinds)
        audio = next((track.codec or "opus" for track in kinds if track.kind is Kind.AUDIO), None)
        self.segmenter.expect(video=has_video, audio_codec=audio)


class SingleWriter:
    """Writes the publications of one recording; synchronous, used by one thread."""

    def __init__(self, names: FileNames, local_path: Callable[[str], Path]) -> None:
        self._names = names
        self._local_path = local_path
        self._publications: dict[str, _Publication] = {}
        self._ended: list[FileProgress] = []

    def update(self, track: WantedTrack) -> None:
        """A track is wanted, or has changed."""
        publication = self._publications.get(track.publication_id)
        if publication is None:
            files = PublicationFiles(self._names, self._local_path, track.identity, track.publication_id)
            publication = _Publication(files, Segmenter(files), {})
            self._publications[track.publication_id] = publication
        publication.tracks[track.track_id] = track
        publication.expect()

    def remove(self, track_id: str) -> None:
        """A track is gone; with the last one of its publication its file is completed."""
        publication = self._of_track(track_id)
        if publication is None:
            return
        track = publication.tracks.pop(track_id)
        publication.expect()
        if not publication.tracks:
            del self._publications[track.publication_id]
            try:
                publication.segmenter.end()
            finally:
                self._ended += publication.files.files()

    def restart(self, track_id: str) -> None:
        """A track's RTP time starts over."""
        publication = self._of_track(track_id)
        if publication is not None:
            publication.segmenter.restart(publication.tracks[track_id].kind)

    def push(self, track_id: str, frame: Frame) -> None:
        """Writes a frame. Raises OSError when writing fails again and again."""
        publication = self._of_track(track_id)
        if publication is None:
            return
        try:
            publication.segmenter.push(frame)
            publication.failures = 0 if publication.files.is_growing else publication.failures
        except (UndecodableError, av.FFmpegError, ValueError, OSError) as error:
            self._start_over(publication, error)

    def finish(self) -> None:
        """Completes all files. Raises OSError after it has tried all."""
        failure: Exception | None = None
        for publication in self._publications.values():
            try:
                publication.segmenter.end()
            except (av.FFmpegError, OSError) as error:
                failure = error
        if failure is not None:
            raise OSError(f"a file cannot be completed: {failure}") from failure

    def files(self) -> list[FileProgress]:
        """All files so far."""
        return self._ended + [file for one in list(self._publications.values()) for file in one.files.files()]

    def _of_track(self, track_id: str) -> _Publication | None:
        return next((one for one in self._publications.values() if track_id in one.tracks), None)

    def _start_over(self, publication: _Publication, error: Exception) -> None:
        """What was written stays; the next key frame begins a new file."""
        # A sender of false key frames can do this with every frame: no line for each.
        log = _log.debug if isinstance(error, UndecodableError) else _log.warning
        log("a file of a publication failed, another one begins", error=str(error))
        publication.failures += 1
        with contextlib.suppress(av.FFmpegError, OSError):  # the same fault once more
            publication.segmenter.end()
        publication.segmenter = Segmenter(publication.files)
        publication.expect()
        if (
            publication.failures >= _MAX_FAILURES
            and isinstance(error, OSError)
            and not isinstance(error, av.FFmpegError)
        ):
            raise error


_Step = Callable[[SingleWriter], None]


class SingleOutput:
    """`Output` of a recording in mode SINGLE: hands everything to a writing thread.

    Args:
        on_drop: told the number of frames that were dropped since the disk is too slow.
        on_gap: told the id of a track of which frames were dropped, when it is written again.
    """

    def __init__(
        self,
        names: FileNames,
        local_path: Callable[[str], Path],
        *,
        on_drop: Callable[[int], None] = lambda count: None,
        on_gap: Callable[[str], None] = lambda track_id: None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[str] = self._loop.create_future()
        self._writer = SingleWriter(names, local_path)
        self._steps: queue.Queue[tuple[_Step, int] | None] = queue.Queue()
        self._queued_bytes = 0
        self._lock = threading.Lock()
        self._on_drop = on_drop
        self._on_gap = on_gap
        self._has_gap: set[str] = set()
        self._finished: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="recording-writer", daemon=True)
        self._thread.start()

    def update(self, track: WantedTrack) -> None:
        """See `Output`."""
        self._put(lambda writer: writer.update(track))

    def remove(self, track_id: str) -> None:
        """See `Output`."""
        self._has_gap.discard(track_id)
        self._put(lambda writer: writer.remove(track_id))

    def restart(self, track_id: str) -> None:
        """See `Output`."""
        self._put(lambda writer: writer.restart(track_id))

    def push(self, track_id: str, frame: Frame) -> None:
        """See `Output`."""
        if self._steps.qsize() >= _QUEUE_ITEMS or self._queued_bytes >= _QUEUE_BYTES:
            self._has_gap.add(track_id)
            self._on_drop(1)
            return
        if track_id in self._has_gap:
            self._has_gap.discard(track_id)
            frame = replace(frame, is_discontinuous=True)
            self._on_gap(track_id)
        self._put(lambda writer: writer.push(track_id, frame), len(frame.data))

    def files(self) -> list[FileProgress]:
        """See `Output`."""
        return self._writer.files()

    async def finish(self) -> None:
        """See `Output`."""
        self._steps.put(None)
        await self._finished

    def _put(self, step: _Step, size: int = 0) -> None:
        with self._lock:
            self._queued_bytes += size
        self._steps.put((step, size))

    def _run(self) -> None:
        error = ""
        try:
            while (item := self._steps.get()) is not None:
                step, size = item
                with self._lock:
                    self._queued_bytes -= size
                step(self._writer)
        except Exception as failure:
            error = f"cannot write: {getattr(failure, 'strerror', None) or failure}"
            _log.exception("writing of a recording failed")
        try:
            self._writer.finish()
        except OSError as failure:
            error = error or str(failure)
        self._loop.call_soon_threadsafe(self._end, error)

    def _end(self, error: str) -> None:
        if error and not self.failed.done():
            self.failed.set_result(error)
        if not self._finished.done():
            self._finished.set_result(None)
