"""Brings tracks of other nodes to this one: a relay, an import, and a sink of the local engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from mrtc_common.engine_errors import engine_errors
from mrtc_common.errors import MrtcError
from mrtc_common.ids import new_id
from mrtc_common.log import get_logger
from mrtc_common.relay import ImportResult, RelayManager
from mrtc_common.tasks import end_tasks

from mrtc_rtcrecorder.core.frames import Frame
from mrtc_rtcrecorder.core.room_view import WantedTrack

_log = get_logger(__name__)

# A track is announced before its node has it; these are the waits between tries.
_RETRY_S = (0.1, 0.2, 0.4, 0.8, 1.5)


class SinkEngine(Protocol):
    """The part of `mrtc_engine.AsyncEngine` that is used here."""

    async def create_sink(self, *, sink: str, track: str) -> Any:
        """Delivers a track's frames."""
        ...

    async def close_sink(self, *, sink: str) -> Any:
        """Ends a sink."""
        ...

    def frames(self, sink: str) -> AsyncIterator[Any]:
        """The frames of a sink."""
        ...


class EngineTrackFeed:
    """`TrackFeed` of one room.

    Args:
        holder: names the recording among those that hold a track.
        changes: told which imported tracks ended or came back.
    """

    def __init__(
        self, engine: SinkEngine, relays: RelayManager, changes: TrackChanges, *, room_key: str, holder: str
    ) -> None:
        self._engine = engine
        self._relays = relays
        self._changes = changes
        self._room_key = room_key
        self._holder = holder
        self._followed: set[str] = set()
        # By origin: the tracks that the next call to it is to import, and that call.
        self._wanted: dict[str, tuple[list[str], asyncio.Task[ImportResult]]] = {}

    async def follow(self, track: WantedTrack, on_start: Callable[[], None], on_frame: Callable[[Frame], None]) -> None:
        """See `TrackFeed`."""
        attempt = 0
        self._followed.add(track.media_id)
        with self._changes.of(track.media_id) as changed:
            try:
                while True:
                    changed.clear()
                    if await self._import(track):
                        attempt = 0
                        await self._pump(track.media_id, changed, on_start, on_frame)
                    delay = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
                    attempt += 1
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(delay):
                            await changed.wait()
            finally:
                self._followed.discard(track.media_id)
                self._relays.release_track(track.media_id, holder=self._holder)

    def renew(self, track: WantedTrack) -> None:
        """See `TrackFeed`: a new sink asks for a key frame."""
        self._changes.tell(track.media_id)

    async def _import(self, track: WantedTrack) -> bool:
        if track.node_id not in self._wanted:
            wanted: list[str] = []
            task = asyncio.create_task(self._import_from(track.node_id, wanted), name=f"import {track.node_id}")
            self._wanted[track.node_id] = (wanted, task)
        wanted, task = self._wanted[track.node_id]
        wanted.append(track.media_id)
        result = await asyncio.shield(task)
        if track.media_id not in result.tracks:
            error = result.unreachable.get(track.media_id)
            reason = error.message if error is not None else ""
            _log.debug("a track is not there yet", track=track.media_id, origin=track.node_id, error=reason)
        return track.media_id in result.tracks

    async def _import_from(self, node_id: str, wanted: list[str]) -> ImportResult:
        """Imports at once what is wanted by now: with a call for each, the last of many would come noticeably late."""
        del self._wanted[node_id]
        result = await self._relays.import_tracks(dict.fromkeys(wanted, node_id), self._room_key, holder=self._holder)
        for track_id in result.tracks.keys() - self._followed:
            self._relays.release_track(track_id, holder=self._holder)
        return result

    async def _pump(
        self, track_id: str, changed: asyncio.Event, on_start: Callable[[], None], on_frame: Callable[[Frame], None]
    ) -> None:
        """Delivers frames until the track changes."""
        sink = new_id("sk")
        try:
            with engine_errors():
                await self._engine.create_sink(sink=sink, track=track_id)
        except MrtcError as error:
            _log.debug("a sink is refused", track=track_id, error=error.message)
            return
        on_start()
        reader = asyncio.create_task(self._read(sink, on_frame), name=f"sink {track_id}")
        waiter = asyncio.create_task(changed.wait())
        try:
            await asyncio.wait({reader, waiter}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(reader, waiter)
            with contextlib.suppress(MrtcError), engine_errors():
                await self._engine.close_sink(sink=sink)

    async def _read(self, sink: str, on_frame: Callable[[Frame], None]) -> None:
        async for frame in self._engine.frames(sink):
            on_frame(
                Frame(
                    codec=frame.codec,
                    is_keyframe=frame.is_keyframe,
                    is_discontinuous=frame.is_discontinuous,
                    rtp_time=frame.rtp_time,
                    captured_at_us=frame.captured_at_us,
                    data=frame.data,
                )
            )


class TrackChanges:
    """Tells followers that their track ended or came back."""

    def __init__(self) -> None:
        self._events: dict[str, set[asyncio.Event]] = {}

    def tell(self, track_id: str) -> None:
        """Wakes all followers of a track."""
        for event in self._events.get(track_id, ()):
            event.set()

    @contextlib.contextmanager
    def of(self, track_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at every change of a track."""
        event = asyncio.Event()
        self._events.setdefault(track_id, set()).add(event)
        try:
            yield event
        finally:
            followers = self._events[track_id]
            followers.discard(event)
            if not followers:
                del self._events[track_id]
