"""What a client without transport-wide feedback sends: what its path takes, and no more than its cap lets through."""

from __future__ import annotations

import asyncio
import time
import uuid

import numpy as np
import pytest
from aiortc import VideoStreamTrack
from av import VideoFrame
from mrtc_common.auth import TokenCaps

from tests.support.api import RoomApi, token_with_caps
from tests.support.media import joined, wait_until
from tests.support.suite import RunningSuite

pytestmark = [pytest.mark.integration, pytest.mark.alone]

# aiortc's VP8 never goes below 250 kbit/s.
CAP_BPS = 100_000


class Noise(VideoStreamTrack):  # type: ignore[misc]
    """A picture that no encoder makes small."""

    def __init__(self, width: int = 320, height: int = 180) -> None:
        super().__init__()
        self._shape = (height, width, 3)

    async def recv(self) -> VideoFrame:
        """The next one."""
        pts, time_base = await self.next_timestamp()
        frame = VideoFrame.from_ndarray(np.random.default_rng(pts).integers(0, 256, self._shape, np.uint8), "rgb24")
        frame.pts, frame.time_base = pts, time_base
        return frame


async def test_a_sender_that_exceeds_its_cap_is_bounded(suite: RunningSuite) -> None:
    """Others are sent no more than the cap of what it sends, and what is over it is counted with its reason."""
    room = f"room-{uuid.uuid4().hex[:8]}"
    api = RoomApi(suite, room)

    def bytes_of(identity: str, name: str) -> int:
        return int(api.transport_of(identity)[name])

    token = token_with_caps(suite, room, "alice", TokenCaps(max_ingress_bps=CAP_BPS))
    async with joined(suite.url, token, room) as alice, joined(suite.url, suite.token(room, "bob"), room):
        await alice.publish(Noise())
        await wait_until(lambda: bytes_of("bob", "tx_bytes") > 50_000, 20, "the picture to flow")
        before = drops(suite)
        await wait_until(lambda: drops(suite) > before, 20, "the cap to be enforced")
        began_at, sent, got = time.monotonic(), bytes_of("alice", "rx_bytes"), bytes_of("bob", "tx_bytes")
        await asyncio.sleep(6)
        seconds = time.monotonic() - began_at
        assert (bytes_of("alice", "rx_bytes") - sent) * 8 / seconds > 2 * CAP_BPS
        assert (bytes_of("bob", "tx_bytes") - got) * 8 / seconds < 1.5 * CAP_BPS


async def test_a_sender_is_told_what_its_path_takes(suite: RunningSuite) -> None:
    """By REMB, since aiortc has nothing else: without it VP8 stays at the 500 kbit/s that it begins with."""
    room = f"room-{uuid.uuid4().hex[:8]}"
    api = RoomApi(suite, room)
    seen: list[tuple[float, int]] = []

    def is_fast() -> bool:
        seen.append((time.monotonic(), int(api.transport_of("alice")["rx_bytes"])))
        now, count = seen[-1]
        began_at, before = next((one for one in reversed(seen) if now - one[0] > 1), seen[-1])
        return began_at < now and (count - before) * 8 / (now - began_at) > 800_000

    async with (
        joined(suite.url, suite.token(room, "alice"), room, video_codecs=("vp8",)) as alice,
        joined(suite.url, suite.token(room, "bob"), room),
    ):
        await alice.publish(Noise(480, 270))
        await wait_until(is_fast, 40, lambda: f"800 kbit/s; {seen[-20:]}")


def drops(suite: RunningSuite) -> float:
    """Packets over a cap, of all nodes."""
    return sum(
        value
        for name in suite.suite.processes
        if name.startswith("rtcmcu")
        for value in suite.metric(name, "mrtc_rtcmcu_engine_drops_total", reason="ingress_cap")
    )
