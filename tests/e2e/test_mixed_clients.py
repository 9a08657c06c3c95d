"""A browser, an aiortc participant, an FFmpeg publisher (WHIP) and an aiortc player (WHEP) in one room."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiortc import RTCPeerConnection
from mrtc_sdk.pattern import PatternTrack, ToneTrack

from tests.e2e.caller import Caller
from tests.interop.test_whip_whep import ffmpeg_publishing, offer
from tests.support.media import Watcher, joined, remote_track
from tests.support.pattern_file import make_pattern_file
from tests.support.suite import RunningSuite

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs coroutines on a loop in a thread, while the browser is driven from here."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="aiortc", daemon=True)
    thread.start()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_four_kinds_of_clients_in_one_room(
    alice: Caller, room: str, suite: RunningSuite, run: Run, tmp_path: Path
) -> None:
    """Each receiver decodes the others' pictures and tones, whatever stack sent them."""
    source = make_pattern_file(tmp_path / "pattern.mp4", 33, 700.0, 4)
    stack, client = AsyncExitStack(), httpx.AsyncClient(base_url=suite.url, timeout=15)
    player = RTCPeerConnection()

    async def enter() -> tuple[Watcher, Watcher, Watcher]:
        python = await stack.enter_async_context(joined(suite.url, suite.token(room, "python"), room))
        await python.publish(PatternTrack(44))
        await python.publish(ToneTrack(900.0))
        await stack.enter_async_context(ffmpeg_publishing(suite, room, source))
        player.addTransceiver("video", direction="recvonly")
        await offer(client, player, f"/whep/{room}?participant=alice", suite.token(room, "player"))
        pictures = await remote_track(python, "video", "alice", 20), await remote_track(python, "audio", "alice")
        return Watcher(pictures[0].media), Watcher(pictures[1].media), Watcher(player.getReceivers()[0].track)

    async def leave() -> None:
        await asyncio.gather(*(watcher.aclose() for watcher in watchers))
        await player.close()
        await client.aclose()
        await stack.aclose()

    alice.join(room, "alice")
    alice.publish(11, 440)
    watchers: tuple[Watcher, ...] = run(enter())
    try:
        picture, sound, played = watchers
        alice.sees("python", 44)
        alice.hears("python", 900)
        alice.sees("ffmpeg", 33, "file")
        alice.hears("ffmpeg", 700)
        run(picture.sees(11))
        run(sound.hears(440.0))
        run(played.sees(11))
    finally:
        run(leave())
    alice.event("participantLeft", "python", timeout_s=20)
