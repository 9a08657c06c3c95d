"""One vod from its job to its end: joins, plays, reports, leaves."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import replace

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common.errors import MrtcError, UnavailableError
from mrtc_common.job_record import JobRecord, RecordLostError
from mrtc_common.jobs import HELD_AGAIN_S, HandBackError
from mrtc_common.log import get_logger
from mrtc_common.tasks import end_tasks

from .core import records
from .core.pacer import AHEAD_US
from .core.records import PlayedTracks, Vod, VodIds
from .errors import BadMediaError, PlayerError
from .play.wire import PlayedFrame, TrackNumber
from .ports import FilePlayer, MediaSources, VodRoom

_log = get_logger(__name__)

_PROGRESS_INTERVAL_S = 1.0
# Whoever takes over goes on here: what is shown twice then is less than this.
_POSITION_INTERVAL_S = 0.5
_SETTLE_ATTEMPTS = 30
# What the engine still has to send when the file has been read to its end.
_TAIL_S = AHEAD_US / 1e6 + 0.2


class VodJob:
    """Plays one file into one room.

    Args:
        vod: the record as claimed.
        room_key: its room.
        player: the file.
        now_ms: Unix time.
    """

    def __init__(
        self,
        vod: Vod,
        *,
        room_key: str,
        ids: VodIds,
        store: JobRecord[Vod],
        room: VodRoom,
        sources: MediaSources,
        player: FilePlayer,
        now_ms: Callable[[], int],
    ) -> None:
        self._vod = vod
        self._now_ms = now_ms
        self._room_key = room_key
        self._ids = ids
        self._store = store
        self._room = room
        self._sources = sources
        self._player = player
        self._tracks = PlayedTracks()
        self._track_ids = {
            TrackNumber.VIDEO: ids.video,
            TrackNumber.AUDIO: ids.audio,
            TrackNumber.ALTERNATIVE: ids.alternative,
        }
        self._created: list[str] = []
        self._muted: set[str] = set()
        self._stop = asyncio.Event()
        self._is_lost = False
        self._is_joined = False
        self._reason: common_pb2.LeaveReason.ValueType = common_pb2.LEAVE_REASON_ENDED
        self._position_us = vod.position_ms * 1000
        self._origin_us: int | None = None

    async def run(self) -> None:
        """Plays to the end. Raises HandBackError when it is cancelled or cannot go on here."""
        error = ""
        try:
            await self._play()
        except BadMediaError as failure:
            error = str(failure)
        except PlayerError as failure:
            error = str(failure)
            self._reason = common_pb2.LEAVE_REASON_MEDIA_FAILURE
        except asyncio.CancelledError:
            # The participant stays: whoever takes over goes on as the same one.
            await self._report()
            await self._end_media()
            raise HandBackError from None
        except MrtcError as failure:
            _log.warning("a vod cannot be played here now", error=failure.message)
            await self._end_media()
            raise HandBackError(1.0) from None
        await self._end_media()
        if self._is_lost:
            _log.warning("another player has taken over")
            raise HandBackError(HELD_AGAIN_S)
        await self._settle(error)

    def keyframe_requested(self, track_id: str) -> None:
        """A receiver of one of its tracks needs a key frame."""
        for number, known in self._track_ids.items():
            if known == track_id:
                self._player.request_keyframe(number)

    @property
    def track_ids(self) -> Sequence[str]:
        """Its tracks."""
        return list(self._track_ids.values())

    async def _play(self) -> None:
        if self._vod.state == vod_pb2.VOD_STATE_PLAYING and not await self._room.is_open():
            _log.info("the room was closed while nobody played")
            return
        opened = await self._player.open()
        if opened.note:
            _log.info("the picture is transcoded", why=opened.note)
        self._tracks = PlayedTracks(opened.video_codec, opened.width, opened.height, opened.audio_codec)
        for number, codec in ((TrackNumber.VIDEO, opened.video_codec), (TrackNumber.AUDIO, opened.audio_codec)):
            if codec:
                await self._create_source(number, codec)
        await self._room.join(self._vod)
        self._is_joined = True
        await self._room.publish(self._vod, self._tracks)
        duration_us = opened.duration_us
        await self._update(lambda vod: records.playing(vod, self._ids.participant, duration_us, self._now_ms()))
        _log.info("vod plays", duration_ms=duration_us // 1000, video=opened.video_codec, audio=opened.audio_codec)
        async with self._helpers():
            await self._pump()

    async def _create_source(self, number: TrackNumber, codec: str) -> None:
        track_id = self._track_ids[number]
        await self._sources.create(track_id, self._room_key, codec)
        self._created.append(track_id)

    async def _pump(self) -> None:
        """Hands frames to the engine until the file ends or the vod is stopped."""
        feeder = asyncio.create_task(self._feed(), name="vod-feed")
        stopper = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({feeder, stopper}, return_when=asyncio.FIRST_COMPLETED)
            if feeder.done():
                await feeder
        finally:
            await end_tasks(feeder, stopper)

    async def _feed(self) -> None:
        async for frame in self._player.frames():
            self._position_us = frame.position_us
            await self._push(frame)
        await asyncio.sleep(_TAIL_S)

    async def _push(self, frame: PlayedFrame) -> None:
        track_id = self._track_ids[TrackNumber(frame.track)]
        if track_id in self._created:
            with contextlib.suppress(UnavailableError):  # the engine is overloaded: a frame is lost, the vod goes on
                await self._sources.push(track_id, [frame], self._late_us(frame))

    def _late_us(self, frame: PlayedFrame) -> int:
        """How late it is by the clock that the first frame of all set: sound and picture start on the same clock."""
        now_us = time.monotonic_ns() // 1000
        if self._origin_us is None:
            self._origin_us = now_us - frame.pts_us
        return now_us - self._origin_us - frame.pts_us

    # Helpers

    @contextlib.asynccontextmanager
    async def _helpers(self) -> AsyncIterator[None]:
        tasks = [
            asyncio.create_task(self._store.watch(self._stop.set, self._on_lost), name="vod-watch"),
            asyncio.create_task(self._room.keep(self._vod), name="vod-session"),
            asyncio.create_task(
                self._room.watch(self._on_removed, self._on_publication, self._on_codecs_wanted), name="vod-room"
            ),
            asyncio.create_task(self._report_always(), name="vod-progress"),
        ]
        self._tasks: set[asyncio.Task[None]] = set()
        try:
            yield
        finally:
            await end_tasks(*tasks, *self._tasks)

    def _on_lost(self) -> None:
        self._is_lost = True
        self._stop.set()

    def _on_removed(self) -> None:
        self._reason = common_pb2.LEAVE_REASON_REMOVED
        self._stop.set()

    def _on_publication(self, record: state_pb2.PublicationRecord) -> None:
        muted = records.muted_tracks(record)
        changed, self._muted = muted ^ self._muted, muted
        for track_id in changed & set(self._created):
            self._start(self._sources.set_muted(track_id, track_id in muted))

    def _on_codecs_wanted(self, codecs: Sequence[str]) -> None:
        codec = self._tracks.further_codec
        if codec in codecs and not self._tracks.alternative_codec:
            self._tracks = replace(self._tracks, alternative_codec=codec)
            self._start(self._add_alternative(codec))

    async def _add_alternative(self, codec: str) -> None:
        await self._create_source(TrackNumber.ALTERNATIVE, codec)
        self._player.add_alternative(codec)
        await self._room.publish(self._vod, self._tracks)
        _log.info("the picture is sent in a further codec", codec=codec)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(_guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Record

    async def _report_always(self) -> None:
        while True:
            await asyncio.sleep(_POSITION_INTERVAL_S)
            await self._report()

    async def _report(self) -> None:
        with contextlib.suppress(UnavailableError):
            await self._update(lambda vod: records.at_position(vod, self._position_us))

    async def _update(self, change: Callable[[Vod], Vod]) -> None:
        try:
            self._vod = await self._store.update(change)
        except RecordLostError:
            self._on_lost()

    # End

    async def _end_media(self) -> None:
        await asyncio.shield(self._player.aclose())
        for track_id in self._created:
            with contextlib.suppress(MrtcError):
                await self._sources.remove(track_id)

    async def _settle(self, error: str) -> None:
        """Leaves the room and writes the end, also over a short absence of NATS."""
        position_us, ended_at_ms = self._position_us, self._now_ms()
        for _ in range(_SETTLE_ATTEMPTS):
            try:
                if self._is_joined:
                    await self._room.leave(self._vod, self._reason)
                await self._update(lambda vod: records.ended(records.at_position(vod, position_us), ended_at_ms, error))
            except UnavailableError:
                await asyncio.sleep(_PROGRESS_INTERVAL_S)
            else:
                _log.info("vod ended", error=error, position_ms=position_us // 1000)
                return
        raise HandBackError(1.0)


async def _guarded(work: Coroutine[None, None, None]) -> None:
    try:
        await work
    except MrtcError as error:
        _log.warning("a wish for a vod was not met", error=error.message)
