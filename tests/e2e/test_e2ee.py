"""End-to-end encryption: who has the key sees and hears, all others learn nothing, the server still chooses layers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from mrtc_common.subjects import room_key
from mrtc_embedded.capture import Wanted, capture_room
from mrtc_embedded.dump import read_access

from tests.e2e.caller import Caller, wait_until
from tests.support import pcapng
from tests.support.api import APP
from tests.support.media import Watcher, joined, remote_track
from tests.support.media import wait_until as wait_for_async
from tests.support.suite import RunningSuite

Run = Callable[[Coroutine[Any, Any, Any]], Any]

KEY = {"passphrase": "a small green turtle"}
# Of an encrypted frame: docs/e2ee.md.
TRAILER_END = 0xE1


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs coroutines on a loop in a thread, while the browsers are driven from here."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="aiortc", daemon=True)
    thread.start()
    yield lambda coroutine: asyncio.run_coroutine_threadsafe(coroutine, loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def test_only_who_has_the_key_sees_and_hears(
    alice: Caller, bob: Caller, new_caller: Callable[[], Caller], room: str, suite: RunningSuite, run: Run
) -> None:
    """A wrong key and none at all show nothing; the first is told. The server refuses to record."""
    alice.join(room, "alice", e2ee=KEY)
    alice.publish(21, 440)
    bob.join(room, "bob", e2ee=KEY)
    bob.publish(22, 600)
    eve = new_caller()
    eve.join(room, "eve", e2ee={"passphrase": "a small green tortoise"})
    for caller, other, number, tone in ((alice, "bob", 22, 600), (bob, "alice", 21, 440)):
        caller.sees(other, number)
        caller.hears(other, tone)
    for kind in ("video", "audio"):
        eve.event("encryptionError", "alice", kind, "ENCRYPTION_KEY_WRONG")
    assert not eve.see("alice").get("width")
    assert not eve.call("hear", "alice")
    assert not bob.call("hear", "eve")

    headers = {"authorization": f"Bearer {suite.token(room, 'api', admin='true')}"}
    url = f"{suite.url}/v1/apps/{APP}/rooms/{room}/recordings"
    refused = httpx.post(url, json={"mode": "single"}, headers=headers, timeout=10)
    assert (refused.status_code, refused.json()["code"]) == (409, "media_encrypted")
    run(_sees_nothing(suite, room))
    run(_is_captured_as_encrypted(suite, room))


async def _is_captured_as_encrypted(suite: RunningSuite, room: str) -> None:
    """A capture at the server, whole packets: each frame still ends with the clients' trailer, and no key is in it."""
    wanted = Wanted(room_key(APP, room), 1.0, has_payloads=True)
    ends = 0
    for node in await capture_room(read_access(suite.data_dir), wanted, asyncio.Event()):
        path = Path(node["path"])
        assert KEY["passphrase"].encode() not in path.read_bytes()
        for packet in pcapng.read(path)[0]:
            is_padded, is_marked = packet.data[0] & 0x20, packet.data[1] & 0x80
            if is_marked and not is_padded and not packet.is_rtcp:
                assert packet.data[-1] == TRAILER_END
                ends += 1
        path.unlink()
    assert ends > 20


async def _sees_nothing(suite: RunningSuite, room: str) -> None:
    """A client of the same room without any key: packets come, pictures and tones do not."""
    async with AsyncExitStack() as stack:
        python = await stack.enter_async_context(joined(suite.url, suite.token(room, "python"), room))
        picture = await remote_track(python, "video", "alice", 20)
        sound = await remote_track(python, "audio", "alice")
        publications = python.publications.values()
        assert all(track.is_encrypted for publication in publications for track in publication.tracks)
        watchers = Watcher(picture.media), Watcher(sound.media)
        try:
            # Whatever an Opus decoder makes of ciphertext, it is no tone: of 100 frames some may come near by chance.
            await wait_for_async(lambda: len(watchers[1].tones) >= 100, 20, "sound packets to come")
            assert sum(abs(tone - 440) < 60 for tone, _ in watchers[1].tones) < 30
            assert not [number for number, *_ in watchers[0].pictures if number == 21]
        finally:
            await asyncio.gather(*(watcher.aclose() for watcher in watchers))


@pytest.mark.parametrize(("codec", "source"), [("h264", "camera"), ("vp9", "screen_share"), ("av1", "screen_share")])
def test_every_codec_passes(alice: Caller, bob: Caller, room: str, codec: str, source: str) -> None:
    """Packetizers, server and depacketizers find what they need of each codec; see sdk/web/src/e2ee/wire.ts."""
    alice.join(room, "alice", e2ee={**KEY, "keyBits": 256}, videoCodec=codec)
    alice.publish(23, source=source)
    bob.join(room, "bob", e2ee={**KEY, "keyBits": 256})
    bob.sees("alice", 23, source)
    assert bob.call("receivedCodec", "alice", source) == codec


def test_the_server_switches_layers_of_encrypted_simulcast(alice: Caller, bob: Caller, room: str) -> None:
    """Key frames and sizes are known to it without the key."""
    alice.join(room, "alice", e2ee=KEY)
    alice.publish(24, width=1280, height=720)
    bob.join(room, "bob", e2ee=KEY)
    bob.sees("alice", 24)
    for width, height, fits in (
        (320, 180, lambda w: w <= 320),
        (1280, 720, lambda w: w >= 640),
        (320, 180, lambda w: w <= 320),
    ):
        bob.call("resize", "alice", width, height)
        wait_until(
            lambda fits=fits: fits(bob.see("alice").get("width", 0)),  # type: ignore[misc]
            lambda width=width: f"a picture that fits {width} pixels; {bob.see('alice')}\n{bob.report()}",  # type: ignore[misc]
            30,
        )
        bob.sees("alice", 24)


def test_keys_of_ones_own_are_rotated_without_a_gap(alice: Caller, bob: Caller, room: str) -> None:
    """Each participant has keys that a provider gives; a wrong one is told, a right one restores."""
    keys = {"alice:0": "one of alice", "alice:1": "two of alice", "bob:0": "one of bob"}
    alice.join(room, "alice", e2ee={"keys": keys})
    alice.publish(25, 440)
    bob.join(room, "bob", e2ee={"keys": keys})
    bob.sees("alice", 25)
    bob.call("watch", "alice")
    alice.call("setKey", "two of alice", {"index": 1})
    wait_until(lambda: alice.page.evaluate("call.room.e2ee.keyIndex") == 1, "the new key is used")
    bob.sees("alice", 25)
    alice.call("ratchet")
    bob.sees("alice", 25)
    assert bob.call("longestStill") < 1000
    assert not [event for event in bob.events() if event[0] == "encryptionError"]

    alice.call("setKey", "three of alice", {"index": 2})
    bob.event("encryptionError", "alice", "video", "ENCRYPTION_KEY_MISSING")
    bob.call("setKey", "not three of alice", {"index": 2, "identity": "alice"})
    bob.call("setKey", "three of alice", {"index": 2, "identity": "alice"})
    bob.event("encryptionRestored", "alice", "video")
    bob.sees("alice", 25)
    bob.hears("alice", 440)


def test_what_is_not_encrypted_is_not_shown(alice: Caller, bob: Caller, room: str) -> None:
    """Neither to those who demand encryption, nor are encrypted tracks shown to those who have none."""
    alice.join(room, "alice")
    alice.publish(26)
    bob.join(room, "bob", e2ee=KEY)
    bob.publish(27)
    bob.event("encryptionError", "alice", "video", "ENCRYPTION_ABSENT")
    alice.event("encryptionError", "bob", "video", "ENCRYPTION_KEY_MISSING")
    assert bob.see("alice").get("number") is None
    assert alice.see("bob").get("number") is None


def test_browsers_without_script_transforms_encrypt_too(alice: Caller, bob: Caller, room: str) -> None:
    """By `createEncodedStreams`, the older way of Chromium."""
    alice.join(room, "alice", e2ee=KEY, withoutScriptTransform=True)
    alice.publish(28, 500)
    bob.join(room, "bob", e2ee=KEY)
    bob.publish(29)
    bob.sees("alice", 28)
    bob.hears("alice", 500)
    alice.sees("bob", 29)
