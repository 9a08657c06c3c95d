"""kill -9 of the process that plays a file into a call."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from pathlib import Path

import pytest

from tests.support.api import RoomApi
from tests.support.media import Watcher, joined, remote_track, wait_until
from tests.support.pattern_file import FPS, make_pattern_file
from tests.support.store import store_of
from tests.support.suite import RunningSuite

pytestmark = pytest.mark.chaos

NUMBER = 160
MAX_GAP_S = 5.0


async def test_a_killed_player_is_replaced_within_seconds(victims: RunningSuite, tmp_path: Path) -> None:
    """Pictures go on in less than 5 s, in the same track, less than a second from where the file was."""
    room = f"room-{uuid.uuid4().hex[:8]}"
    film = make_pattern_file(tmp_path / "film.webm", NUMBER, 600.0, 30, video="libvpx", audio="libopus")
    api = await asyncio.to_thread(RoomApi, victims, room)
    async with joined(victims.url, victims.token(room, "alice"), room) as alice:
        vod = await asyncio.to_thread(api.start_vod, await asyncio.to_thread(api.upload, film), identity="film")
        picture = Watcher((await remote_track(alice, "video", "film", 20)).media)
        await picture.sees(NUMBER, frames=2 * FPS)
        async with store_of(victims) as store:
            node_id = (await store.vod(room, vod)).node_id
        name = await asyncio.to_thread(victims.process_of_node, node_id)
        killed_at = time.monotonic()
        await asyncio.to_thread(victims.kill, name)
        await wait_until(lambda: time.monotonic() - picture.pictures[-1][2] > 0.5, what="the pictures to stop")
        await picture.sees(NUMBER, frames=FPS)
        await asyncio.to_thread(victims.restart, name)
        seen = [(at, counter) for number, counter, at in picture.pictures if number == NUMBER and at > killed_at - 1]
        await picture.aclose()
    (left_at, left), (back_at, back) = max(itertools.pairwise(seen), key=lambda pair: pair[1][0] - pair[0][0])
    skipped = (back - left + 128) % 256 - 128
    print(f"{back_at - left_at:.2f} s without a picture, {skipped} pictures skipped")
    assert back_at - left_at < MAX_GAP_S
    assert abs(skipped) < FPS
