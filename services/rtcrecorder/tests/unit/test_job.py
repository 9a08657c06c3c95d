"""The life of a recording, with everything around it faked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.recorder.v1 import recording_pb2
from mrtc_common import subjects
from mrtc_common.clock import ManualClock
from mrtc_common.errors import UnavailableError
from mrtc_common.job_record import RecordLostError
from mrtc_common.jobs import HandBackError
from mrtc_common.tasks import end_tasks
from mrtc_common.testing import wait_until
from mrtc_rtcrecorder.core.frames import Frame
from mrtc_rtcrecorder.core.progress import FileProgress, Recording
from mrtc_rtcrecorder.core.room_view import RoomView, WantedTrack
from mrtc_rtcrecorder.job import JobLimits, RecordingJob

KEY = subjects.room_key("app", "room")
COMPLETE, FAILED = recording_pb2.RECORDING_STATE_COMPLETE, recording_pb2.RECORDING_STATE_FAILED


class Store:
    """A `JobRecord` in memory."""

    def __init__(self) -> None:
        self.record = Recording(id="rec", app_id="app", room="room", state=recording_pb2.RECORDING_STATE_ACTIVE)
        self.is_away = self.is_lost = False
        self.writes = 0
        self.on_stop: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None

    async def claim(self, change: Callable[[Recording], Recording]) -> Recording:
        return await self.update(change)

    async def update(self, change: Callable[[Recording], Recording]) -> Recording:
        if self.is_away:
            raise UnavailableError
        if self.is_lost:
            raise RecordLostError
        self.record = change(self.record)
        self.writes += 1
        return self.record

    async def watch(self, on_stop: Callable[[], None], on_lost: Callable[[], None]) -> None:
        self.on_stop, self.on_lost = on_stop, on_lost
        await asyncio.Event().wait()


class Files:
    """An `Output` that remembers."""

    def __init__(self, on_gap: Callable[[str], None]) -> None:
        self.on_gap = on_gap
        self.count = 1
        self.failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.tracks: dict[str, WantedTrack] = {}
        self.frames: list[str] = []
        self.is_finished = False

    def update(self, track: WantedTrack) -> None:
        self.tracks[track.track_id] = track

    def remove(self, track_id: str) -> None:
        del self.tracks[track_id]

    def restart(self, track_id: str) -> None:
        pass

    def push(self, track_id: str, frame: Frame) -> None:
        self.frames.append(track_id)

    def files(self) -> list[FileProgress]:
        keys = ["app/room/rec/f.mp4", *(f"app/room/rec/f-{number}.mp4" for number in range(1, self.count))]
        return [FileProgress(key, "video/mp4", 100, 1_000_000, 1_700_000_000_000_000) for key in keys]

    async def finish(self) -> None:
        self.is_finished = True


class Feed:
    """A `TrackFeed` whose tracks are followed for as long as they are wanted."""

    def __init__(self) -> None:
        self.followed: dict[str, WantedTrack] = {}
        self.renewed: list[str] = []
        self.starts = 0

    def renew(self, track: WantedTrack) -> None:
        self.renewed.append(track.track_id)

    async def follow(self, track: WantedTrack, on_start: Callable[[], None], on_frame: Callable[[Frame], None]) -> None:
        self.followed[track.track_id] = track
        self.starts += 1
        on_start()
        on_frame(Frame("opus", True, False, 0, 0, b"x"))
        try:
            await asyncio.Event().wait()
        finally:
            if self.followed.get(track.track_id) is track:
                del self.followed[track.track_id]


class World:
    """A job and what is around it."""

    def __init__(self) -> None:
        self.store, self.feed, self.clock = Store(), Feed(), ManualClock()
        self.outputs: list[Files] = []
        self.deleted: list[str] = []
        self._view: RoomView | None = None
        self._on_change: Callable[[], None] = lambda: None
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        job = RecordingJob(
            self.store.record,
            store=self.store,
            follow_room=self._follow,
            feed=self.feed,
            make_output=self._make_output,
            join=self._join,
            delete=self._delete,
            limits=JobLimits(room_wait_s=60, empty_timeout_s=10, max_record_bytes=100_000),
            clock=self.clock,
        )
        self.task = asyncio.create_task(job.run())
        await wait_until(lambda: self._view is not None)

    async def _join(self, record: Recording) -> tuple[list[recording_pb2.RecordingFile], list[str]]:
        first, *others = record.files
        whole = recording_pb2.RecordingFile(key=first.key, duration_ms=sum(file.duration_ms for file in record.files))
        return [whole], [file.key for file in others]

    async def _delete(self, key: str) -> None:
        self.deleted.append(key)

    @property
    def output(self) -> Files:
        return self.outputs[0]

    def tell(self, key: str, value: object) -> None:
        assert self._view is not None
        self._view.apply(key, value)  # type: ignore[arg-type]
        self._on_change()

    def open_room(self) -> None:
        self.tell(subjects.room_record_key(KEY), state_pb2.RoomRecord(name="room"))
        record = state_pb2.ParticipantRecord(participant=common_pb2.Participant(id="pa", identity="alice"))
        self.tell(subjects.participant_key(KEY, "pa"), record)

    def publish(self, *, node: str = "mcu", has_picture: bool = False, **fields: bool) -> None:
        track = common_pb2.Track(id="tr", kind=common_pb2.TRACK_KIND_AUDIO, codec="opus", **fields)
        picture = common_pb2.Track(id="tr-v", kind=common_pb2.TRACK_KIND_VIDEO, codec="vp8")
        tracks = [track, picture] if has_picture else [track]
        publication = common_pb2.Publication(id="pub", participant_id="pa", tracks=tracks)
        record = state_pb2.PublicationRecord(publication=publication, node_id=node)
        self.tell(subjects.publication_key(KEY, "pub"), record)

    async def ended(self) -> Recording:
        assert self.task is not None
        async with asyncio.timeout(5):
            await self.task
        return self.store.record

    async def _follow(self, view: RoomView, on_change: Callable[[], None]) -> None:
        self._view, self._on_change = view, on_change
        await asyncio.Event().wait()

    def _make_output(self, on_gap: Callable[[str], None]) -> Files:
        self.outputs.append(Files(on_gap))
        return self.outputs[-1]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    one = World()
    await one.start()
    yield one
    with contextlib.suppress(HandBackError):
        await end_tasks(one.task)


async def test_tracks_are_followed_while_they_are_published(world: World) -> None:
    """And their frames reach the files."""
    world.open_room()
    world.publish()
    await wait_until(lambda: world.feed.followed)
    assert world.output.frames == ["tr"]
    world.tell(subjects.publication_key(KEY, "pub"), None)
    await wait_until(lambda: not world.feed.followed)
    assert not world.output.tracks


async def test_a_mute_is_told_without_following_anew(world: World) -> None:
    """The track stays the same."""
    world.open_room()
    world.publish()
    await wait_until(lambda: world.feed.followed)
    world.publish(is_muted=True)
    await wait_until(lambda: world.output.tracks["tr"].is_muted)
    assert world.feed.starts == 1


async def test_encrypted_tracks_are_left_out(world: World) -> None:
    """And if there was nothing else, the record says why it is empty."""
    world.open_room()
    world.publish(is_encrypted=True)
    await wait_until(lambda: world.outputs)
    assert not world.feed.followed
    world.store.on_stop()
    assert (await world.ended()).error.startswith("media_encrypted")


async def test_a_track_that_moves_is_followed_to_its_new_node(world: World) -> None:
    """A drained or dead node."""
    world.open_room()
    world.publish()
    await wait_until(lambda: world.feed.followed)
    world.publish(node="mcu-2")
    await wait_until(lambda: world.feed.starts == 2)
    assert world.feed.followed["tr"].node_id == "mcu-2"


async def test_a_picture_that_lacks_frames_is_asked_for_anew(world: World) -> None:
    """It goes on at a key frame only; sound goes on by itself."""
    world.open_room()
    world.publish(has_picture=True)
    await wait_until(lambda: len(world.feed.followed) == 2)
    for track_id in ("tr", "tr-v", "gone"):
        world.output.on_gap(track_id)
    assert world.feed.renewed == ["tr-v"]


async def test_no_file_begins_before_anybody_is_there(world: World) -> None:
    """A recording may be ordered before its room exists."""
    world.tell(subjects.room_record_key(KEY), state_pb2.RoomRecord(name="room"))
    await asyncio.sleep(0)
    assert not world.outputs
    world.open_room()
    await wait_until(lambda: world.outputs)


async def test_a_stop_completes_the_files(world: World) -> None:
    """And the record."""
    world.open_room()
    await wait_until(lambda: world.outputs)
    world.store.on_stop()
    record = await world.ended()
    assert record.state == COMPLETE
    assert [file.size_bytes for file in record.files] == [100]
    assert world.output.is_finished


async def test_a_closed_room_ends_it(world: World) -> None:
    """At once."""
    world.open_room()
    await wait_until(lambda: world.outputs)
    world.tell(subjects.room_record_key(KEY), None)
    assert (await world.ended()).state == COMPLETE


async def test_an_empty_room_ends_it_after_a_while(world: World) -> None:
    """Somebody may come back."""
    world.open_room()
    await wait_until(lambda: world.outputs)
    world.tell(subjects.participant_key(KEY, "pa"), None)
    await asyncio.sleep(0.01)
    assert not world.output.is_finished
    world.clock.advance(11)
    world.tell(subjects.room_record_key(KEY), state_pb2.RoomRecord(name="room"))
    assert (await world.ended()).state == COMPLETE


async def test_a_room_that_never_comes_ends_it(world: World) -> None:
    """Without a file."""
    world.tell(subjects.participant_key(KEY, "pa"), None)
    world.clock.advance(61)
    world.tell(subjects.participant_key(KEY, "pa"), None)
    assert (await world.ended()).state == COMPLETE
    assert not world.outputs


async def test_files_that_cannot_be_written_fail_it(world: World) -> None:
    """With the reason in the record."""
    world.open_room()
    await wait_until(lambda: world.outputs)
    world.output.failed.set_result("cannot write: No space left on device")
    record = await world.ended()
    assert (record.state, record.error) == (FAILED, "cannot write: No space left on device")


async def test_more_files_than_the_record_can_hold_fail_it(world: World) -> None:
    """What was written stays, and its record can still be stored."""
    world.open_room()
    await wait_until(lambda: world.outputs)
    world.output.count = 2_000
    record = await world.ended()
    assert (record.state, len(record.files)) == (FAILED, 2_000)
    assert record.error == "limit_exceeded: it has 2000 files, its record holds no more"
    assert world.output.is_finished


async def test_a_large_record_is_written_seldom_while_only_sizes_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that begins is told at once."""
    monkeypatch.setattr("mrtc_rtcrecorder.job._PROGRESS_INTERVAL_S", 0.001)
    world.open_room()
    await wait_until(lambda: world.outputs)
    world.output.count = 200
    await wait_until(lambda: len(world.store.record.files) == 200)
    writes = world.store.writes
    await asyncio.sleep(0.05)
    assert world.store.writes == writes
    world.output.count = 201
    await wait_until(lambda: len(world.store.record.files) == 201)
    world.clock.advance(world.store.record.ByteSize() / 2048)
    await wait_until(lambda: world.store.writes == writes + 2)


async def test_a_recorder_that_ends_hands_it_back(world: World) -> None:
    """Files complete, record still active."""
    world.open_room()
    await wait_until(lambda: world.outputs)
    assert world.task is not None
    world.task.cancel()
    with pytest.raises(HandBackError):
        await world.task
    assert world.output.is_finished
    assert world.store.record.state == recording_pb2.RECORDING_STATE_ACTIVE


async def test_a_recorder_that_lost_it_completes_its_files_and_says_nothing(world: World) -> None:
    """Another has the record now."""
    world.open_room()
    await wait_until(lambda: world.outputs)
    world.store.on_lost()
    with pytest.raises(HandBackError):
        await world.ended()
    assert world.output.is_finished
    assert world.store.record.state == recording_pb2.RECORDING_STATE_ACTIVE


async def test_what_several_recorders_wrote_is_joined_at_the_end(world: World) -> None:
    """The record names the whole, the parts are deleted."""
    world.store.record.claims = 2
    world.store.record.files.add(key="one", duration_ms=3_000)
    world.open_room()
    await wait_until(lambda: world.outputs)
    world.store.on_stop()
    record = await world.ended()
    assert [(file.key, file.duration_ms) for file in record.files] == [("one", 4_000)]
    assert world.deleted == ["app/room/rec/f.mp4"]


async def test_it_goes_on_while_the_store_is_away(world: World) -> None:
    """Media is worth more than its record."""
    world.store.is_away = True
    world.open_room()
    world.publish()
    await wait_until(lambda: world.feed.followed)
    await asyncio.sleep(1.2)
    assert world.feed.followed
    world.store.is_away = False
    world.store.on_stop()
    assert (await world.ended()).state == COMPLETE
