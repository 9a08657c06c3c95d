"""Starts the mixing process, feeds it, and starts another one when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from mrtc_common.clock import steady_unix_us
from mrtc_common.log import get_logger
from mrtc_common.tasks import end_tasks

from mrtc_rtcrecorder.core.file_names import FileNames
from mrtc_rtcrecorder.core.frames import Frame
from mrtc_rtcrecorder.core.progress import FileProgress
from mrtc_rtcrecorder.core.room_view import WantedTrack

from . import wire

_log = get_logger(__name__)

# Bytes that wait for the pipe: a second of a full room. More: frames are dropped up to the next key frame.
_MAX_WAITING_BYTES = 16 << 20
# A mixer that dies so often within a minute will die again.
_MAX_DEATHS, _DEATHS_WINDOW_S = 5, 60.0
_FINISH_TIMEOUT_S = 20.0
# How often the mixer is told the time, which it has from messages only: nobody in the room may be saying anything.
_TIME_INTERVAL_S = 0.2
_CONTENT_TYPE = "video/mp4"


@dataclass(frozen=True, slots=True)
class MixOptions:
    """Picture of the mixed file and how long at most the mixer waits for media that is late."""

    width: int = 1280
    height: int = 720
    fps: int = 25
    delay_us: int = 400_000
    preset: str = "veryfast"
    crf: int = 25


class MixedOutput:
    """`Output` of a recording in mode MIXED.

    Every mixing process makes one file. When one dies, what it wrote stays, and the next one begins another file.

    Args:
        local_path: where the file of a storage key is.
        on_drop: told the number of frames that were dropped since the mixer is too slow.
        on_gap: told the id of a track of which the mixer lacks frames.
    """

    def __init__(
        self,
        names: FileNames,
        local_path: Callable[[str], Path],
        options: MixOptions,
        *,
        on_drop: Callable[[int], None] = lambda count: None,
        on_gap: Callable[[str], None] = lambda track_id: None,
    ) -> None:
        self._names = names
        self._local_path = local_path
        self._options = options
        self._on_drop = on_drop
        self._on_gap = on_gap
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._process: asyncio.subprocess.Process | None = None
        # What is said while the process is being started.
        self._early = bytearray()
        self._tracks: dict[str, WantedTrack] = {}
        self._numbers: dict[str, int] = {}
        self._next_number = 0
        self._has_gap: set[str] = set()
        self._files: list[FileProgress] = []
        self._is_finishing = False
        self._is_complete = False
        self._deaths: list[float] = []
        self._runner = asyncio.create_task(self._run(), name="mixer")

    def update(self, track: WantedTrack) -> None:
        """See `Output`."""
        known = self._tracks.get(track.track_id)
        self._tracks[track.track_id] = track
        if known is None:
            self._numbers[track.track_id] = self._next_number
            self._next_number = (self._next_number + 1) % 0x10000
            self._send(wire.add_track(self._numbers[track.track_id], track.kind))
        elif track.is_muted and not known.is_muted:
            self._send(wire.track_message(wire.MessageKind.HIDE_TRACK, self._numbers[track.track_id]))

    def remove(self, track_id: str) -> None:
        """See `Output`."""
        if self._tracks.pop(track_id, None) is not None:
            self._has_gap.discard(track_id)
            self._send(wire.track_message(wire.MessageKind.REMOVE_TRACK, self._numbers.pop(track_id)))

    def restart(self, track_id: str) -> None:
        """See `Output`."""
        track = self._tracks.get(track_id)
        if track is not None:
            self._send(wire.add_track(self._numbers[track_id], track.kind))

    def push(self, track_id: str, frame: Frame) -> None:
        """See `Output`."""
        number = self._numbers.get(track_id)
        if number is None:
            return
        if self._waiting_bytes() > _MAX_WAITING_BYTES:
            self._has_gap.add(track_id)
            self._on_drop(1)
            return
        if track_id in self._has_gap:
            self._has_gap.discard(track_id)
            frame = replace(frame, is_discontinuous=True)
            self._on_gap(track_id)
        self._send(wire.encode_frame(number, frame))

    def files(self) -> list[FileProgress]:
        """See `Output`."""
        return list(self._files)

    async def finish(self) -> None:
        """See `Output`."""
        self._is_finishing = True
        self._send(wire.message(wire.MessageKind.FINISH))
        try:
            async with asyncio.timeout(_FINISH_TIMEOUT_S):
                await asyncio.shield(self._runner)
        except TimeoutError:
            _log.error("the mixer does not end; its file stays as it is")
            self._kill()
            await self._runner

    async def _run(self) -> None:
        """Runs one mixing process after the other until one was told to finish and did."""
        while not self.failed.done():
            error = await self._run_process()
            if self._is_complete:
                return
            if self._is_finishing:
                break
            now = time.monotonic()
            self._deaths = [at for at in self._deaths if now - at < _DEATHS_WINDOW_S] + [now]
            _log.warning("the mixer died", error=error, deaths=len(self._deaths))
            if error.startswith("cannot write") or len(self._deaths) >= _MAX_DEATHS:
                self.failed.set_result(error or "the mixer dies again and again")

    async def _run_process(self) -> str:
        """Runs one mixing process to its end; gives the reason it named, if any."""
        key = self._names.next("mixed", "mp4")
        self._begin(key)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "mrtc_rtcrecorder.mix",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            return f"cannot start the mixer: {error.strerror or error}"
        self._process = process
        self._send(bytes(self._early))
        self._early.clear()
        clock = asyncio.create_task(self._tell_time(), name="mixer-time")
        try:
            return await self._follow(process, FileProgress(key, _CONTENT_TYPE, 0, 0, 0))
        finally:
            await end_tasks(clock)
            self._kill()
            await process.wait()
            self._process = None

    def _begin(self, key: str) -> None:
        """Says what a process that is being started has to do: what comes from now on is in its file."""
        options, now_us = self._options, steady_unix_us()
        config = wire.MixConfig(
            path=str(self._local_path(key)),
            width=options.width,
            height=options.height,
            fps=options.fps,
            delay_us=options.delay_us,
            preset=options.preset,
            crf=options.crf,
            begins_at_us=now_us,
        )
        self._early = bytearray(config.encode())
        for track_id, track in self._tracks.items():
            self._early += wire.add_track(self._numbers[track_id], track.kind, now_us)
            if self._deaths:
                self._on_gap(track_id)
        if self._is_finishing:
            self._early += wire.message(wire.MessageKind.FINISH)

    async def _tell_time(self) -> None:
        while True:
            await asyncio.sleep(_TIME_INTERVAL_S)
            if self._waiting_bytes() <= _MAX_WAITING_BYTES:
                self._send(wire.message(wire.MessageKind.TIME))

    async def _follow(self, process: asyncio.subprocess.Process, file: FileProgress) -> str:
        assert process.stdout is not None
        place = len(self._files)
        error = ""
        async for line in process.stdout:
            try:
                progress = wire.MixProgress.decode(line)
            except (ValueError, TypeError):
                continue
            error = progress.error or error
            self._is_complete = self._is_complete or progress.is_complete
            if progress.began_at_us:
                self._files[place:] = [
                    replace(
                        file,
                        begins_at_us=progress.began_at_us,
                        size_bytes=progress.size_bytes,
                        duration_us=progress.duration_us,
                    )
                ]
        return error

    def _waiting_bytes(self) -> int:
        if self._process is None or self._process.stdin is None:
            return len(self._early)
        return self._process.stdin.transport.get_write_buffer_size()

    def _send(self, message: bytes) -> None:
        if self._process is None:
            self._early += message
            return
        if self._process.stdin is None or self._process.stdin.is_closing():
            return
        with contextlib.suppress(OSError, RuntimeError):
            self._process.stdin.write(message)

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
