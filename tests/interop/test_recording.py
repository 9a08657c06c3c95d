"""Recordings of a real call, checked by what is decoded from the files."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from mrtc_sdk.pattern import PatternTrack, ToneTrack, read

from tests.support.api import RoomApi
from tests.support.media import joined
from tests.support.probe_file import decode, streams
from tests.support.suite import RunningSuite, running_suite
from tests.support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.alone]


def new_room() -> str:
    """A name nobody used."""
    return f"room-{uuid.uuid4().hex[:8]}"


async def test_single_recordings_hold_each_participant_untranscoded(suite: RunningSuite, tmp_path: Path) -> None:
    """A5: one file per publication in the codec that was sent, with the sender's picture or tone."""
    room = new_room()
    api = await asyncio.to_thread(RoomApi, suite, room)
    async with (
        joined(suite.url, suite.token(room, "alice"), room, video_codecs=("vp8",)) as alice,
        joined(suite.url, suite.token(room, "bob"), room, video_codecs=("h264",)) as bob,
    ):
        await alice.publish(PatternTrack(71))
        await bob.publish(PatternTrack(72))
        await bob.publish(ToneTrack(800.0))
        recording = await asyncio.to_thread(api.start_recording, "single")
        await asyncio.to_thread(api.wait_for_recording, recording, "active")
        await asyncio.sleep(5)
        done = await asyncio.to_thread(api.stop_recording, recording)
    seen: dict[str, set[int]] = {}
    codecs: dict[str, set[str]] = {}
    tones = set()
    for file in done["files"]:
        path = await asyncio.to_thread(api.download, file, tmp_path)
        contents = decode(path)
        owner = file["participant_identity"]
        codecs.setdefault(owner, set()).update(streams(path).values())
        if contents.has_tone(800.0):
            tones.add(owner)
        seen.setdefault(owner, set()).update(number for _, number, _ in contents.patterns())
        if contents.pictures:
            assert contents.pictures[-1][0] - contents.pictures[0][0] > 3.0
    assert seen["alice"] == {71}
    assert seen["bob"] == {72}
    assert tones == {"bob"}
    assert codecs["alice"] == {"vp8"}
    assert codecs["bob"] == {"h264", "opus"}


async def test_the_mixed_recording_shows_everybody_in_a_grid(suite: RunningSuite, tmp_path: Path) -> None:
    """A7: one MP4 of H.264 and AAC with both pictures side by side and both tones; a late joiner comes in."""
    room = new_room()
    api = await asyncio.to_thread(RoomApi, suite, room)
    async with joined(suite.url, suite.token(room, "alice"), room) as alice:
        await alice.publish(PatternTrack(71))
        await alice.publish(ToneTrack(500.0))
        recording = await asyncio.to_thread(api.start_recording, "mixed")
        await asyncio.to_thread(api.wait_for_recording, recording, "active")
        await asyncio.sleep(3)
        async with joined(suite.url, suite.token(room, "bob"), room) as bob:
            await bob.publish(PatternTrack(72))
            await asyncio.sleep(4)
        done = await asyncio.to_thread(api.stop_recording, recording)
    assert len(done["files"]) == 1
    path = await asyncio.to_thread(api.download, done["files"][0], tmp_path)
    assert streams(path) == {"video": "h264", "audio": "aac"}
    contents = decode(path)
    assert (contents.width, contents.height) == (1280, 720)
    assert contents.has_tone(500.0)
    assert 71 in {number for _, number, _ in contents.patterns()}, "alice alone, before bob came"
    assert {71, 72} <= set().union(*(halves(plane) for _, plane in contents.pictures))


def halves(plane: object) -> set[int]:
    """Numbers of the patterns in the left and the right half, letterboxed to 16:9."""
    height, width = plane.shape  # type: ignore[attr-defined]
    inner = width // 2 * 9 // 16
    top = (height - inner) // 2
    found = (read(plane[top : top + inner, left : left + width // 2]) for left in (0, width // 2))  # type: ignore[index]
    return {seen[0] for seen in found if seen is not None}


@pytest.fixture
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite of its own, whose recorder may die."""
    with running_suite(tmp_path_factory.mktemp("breakable"), mcus=1, mcu_workers=1) as running:
        yield running


@pytest.mark.parametrize("mode", ["single", "mixed"])
async def test_what_was_written_before_a_kill_plays(breakable: RunningSuite, tmp_path: Path, mode: str) -> None:
    """SIGKILL in mid-recording: what was there a second before plays, the next recorder goes on, and all is joined."""
    room = new_room()
    api = await asyncio.to_thread(RoomApi, breakable, room)
    async with joined(breakable.url, breakable.token(room, "alice"), room) as alice:
        await alice.publish(PatternTrack(73))
        recording = await asyncio.to_thread(api.start_recording, mode)
        await asyncio.to_thread(api.wait_for_recording, recording, "active")
        await asyncio.sleep(6)
        await asyncio.to_thread(breakable.kill, "rtcrecorder")
        left = sorted((breakable.data_dir / "files").rglob(f"*{recording}*/*"))
        written = [decode(path) for path in left if path.suffix in {".mp4", ".webm", ".mkv"}]
        longest = max(contents.pictures[-1][0] - contents.pictures[0][0] for contents in written if contents.pictures)
        assert longest > 4.0, "of six seconds at most the last one may be missing, and the start of the pipeline"
        assert 73 in {number for contents in written for _, number, _ in contents.patterns()}
        await asyncio.to_thread(breakable.restart, "rtcrecorder")
        # The next recorder goes on with a segment of its own.
        await asyncio.to_thread(wait_for, lambda: len(api.recording(recording)["files"]) > len(written), 60)
        done = await asyncio.to_thread(api.stop_recording, recording)
    [file] = done["files"]
    whole = decode(await asyncio.to_thread(api.download, file, tmp_path))
    after = [number for at, number, _ in whole.patterns() if at > longest + 0.5]
    assert 73 in after, "the second recorder's pictures follow the first one's"
