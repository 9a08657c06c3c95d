"""Files played into a room, seen and heard by its participants."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

import pytest
from mrtc.common.v1 import common_pb2

from tests.support.api import RoomApi
from tests.support.media import Watcher, joined, remote_track, wait_until
from tests.support.pattern_file import make_pattern_file
from tests.support.suite import RunningSuite
from tests.support.waiting import wait_for

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("name", "video", "audio"),
    [("film.mp4", "libx264", "aac"), ("film.webm", "libvpx", "libopus"), ("film.mkv", "libx264", "libmp3lame")],
)
async def test_a_file_is_seen_and_heard_as_a_participant(
    suite: RunningSuite, tmp_path: Path, name: str, video: str, audio: str
) -> None:
    """A15, B13: the file's pattern and tone arrive; at its end the virtual participant leaves."""
    room = f"room-{uuid.uuid4().hex[:8]}"
    source = make_pattern_file(tmp_path / name, 150, 600.0, 6, video=video, audio=audio)
    api = await asyncio.to_thread(RoomApi, suite, room)
    async with joined(suite.url, suite.token(room, "alice"), room) as alice:
        media = await asyncio.to_thread(api.upload, source)
        vod = await asyncio.to_thread(api.start_vod, media, identity="film", name="A film")
        picture = Watcher((await remote_track(alice, "video", "film", 20)).media)
        sound = Watcher((await remote_track(alice, "audio", "film")).media)
        film = next(p for p in alice.participants.values() if p.identity == "film")
        assert film.kind == common_pb2.PARTICIPANT_KIND_VOD
        await asyncio.gather(picture.sees(150), sound.hears(600.0))
        await wait_until(lambda: film.id not in alice.participants, 30, "the film to end")
        ended = await asyncio.to_thread(api.vod, vod)
        assert ended["state"] == "ended", ended
        await asyncio.gather(picture.aclose(), sound.aclose())


async def test_a_playing_file_can_be_stopped(suite: RunningSuite, tmp_path: Path) -> None:
    """Stop ends it before its end."""
    room = f"room-{uuid.uuid4().hex[:8]}"
    source = make_pattern_file(tmp_path / "long.mp4", 151, 600.0, 20)
    api = await asyncio.to_thread(RoomApi, suite, room)
    async with joined(suite.url, suite.token(room, "alice"), room) as alice:
        vod = await asyncio.to_thread(api.start_vod, await asyncio.to_thread(api.upload, source), identity="film")
        picture = Watcher((await remote_track(alice, "video", "film", 20)).media)
        await picture.sees(151)
        await asyncio.to_thread(api.call, "POST", f"vods/{vod}/stop")
        await wait_until(lambda: len(alice.participants) == 1, 10, "the film to leave")
        await picture.aclose()


async def test_a_broken_file_fails_with_a_reason(suite: RunningSuite, tmp_path: Path) -> None:
    """What cannot be played is refused at the upload, or fails with a reason; nobody joins."""
    room = f"room-{uuid.uuid4().hex[:8]}"
    whole = make_pattern_file(tmp_path / "whole.mp4", 152, 600.0, 2)
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(whole.read_bytes()[:2000] + b"\0" * 5000)
    api = await asyncio.to_thread(RoomApi, suite, room)
    vod = await asyncio.to_thread(api.start_vod, await asyncio.to_thread(api.upload, broken))
    failed = await asyncio.to_thread(
        wait_for, lambda: (seen := api.vod(vod))["state"] == "failed" and seen, 20, "the vod to fail"
    )
    assert failed["error"]
