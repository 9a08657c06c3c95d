"""Engines that show the same film, and a call that goes from one to the other."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Self

import av
import numpy as np
from av.video.frame import PictureType
from mrtc_embedded.suite import advertised_ips
from mrtc_engine import AsyncEngine, EngineClosed, EngineConfig, Event, Reply, SourceFrame, Subscription

if TYPE_CHECKING:
    from tests.bench.handover.clients import Client

_FILM = "film"
_FRAMES_PER_S = 30
_DEADLINE_S = 20.0
_FOLLOW_S = 2.0


class Node:
    """An engine with the film as a track of its own."""

    def __init__(self, film: Film) -> None:
        self._film = film
        # A port of its own at the machine's addresses: a page that was granted no device has no candidate of loopback.
        self.engine = AsyncEngine(
            EngineConfig(advertised_ips=advertised_ips(), workers=1, tcp_port=-1, log_filter="warn")
        )
        self.is_keyframe_wanted = True
        self.connected = asyncio.Event()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self.engine)
        await self.engine.create_source(track=_FILM, room="room", codec="vp8")
        await self._stack.enter_async_context(_running(self._follow()))
        self._film.nodes.append(self)
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._film.nodes.remove(self)
        await self._stack.aclose()

    async def _follow(self) -> None:
        async for event in self.engine.events:
            if isinstance(event, Event.KeyframeRequested):
                self.is_keyframe_wanted = True
            elif isinstance(event, Event.TransportConnected):
                self.connected.set()

    async def serve(self, transport: str, answer: Reply.Answer) -> str:
        """Gives a transport the film and publishes what it sends; the name of its track of sound."""
        for line in answer.lines:
            if line.is_inbound:
                await self.engine.publish_track(track=f"{transport}-{line.kind}", transport=transport, mid=line.mid)
        wanted = [Subscription(track=_FILM, kind="video")]
        slots = await self.engine.set_subscriptions(transport=transport, subscriptions=wanted)
        assert not slots.unplaced, slots
        assert not slots.no_common_codec, slots
        return f"{transport}-audio"

    async def close(self, transport: str) -> None:
        """Ends a transport, if it is there."""
        await self.engine.close_transport(transport=transport)


class Film:
    """A moving picture, encoded once for all nodes."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(_running(self._show()))
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    async def _show(self) -> None:
        codec = av.CodecContext.create("libvpx", "w")
        codec.width, codec.height, codec.pix_fmt, codec.bit_rate = 320, 240, "yuv420p", 500_000
        codec.framerate, codec.time_base = Fraction(_FRAMES_PER_S), Fraction(1, _FRAMES_PER_S)
        codec.options = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "g": "100000"}
        began = time.monotonic()
        number = 0
        while True:
            picture = np.full((360, 320), 110, np.uint8)
            picture[:240, (number * 4) % 300 :][:, :20] = 200
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts = number
            if any(node.is_keyframe_wanted for node in self.nodes):
                frame.pict_type = PictureType.I
                for node in self.nodes:
                    node.is_keyframe_wanted = False
            for packet in codec.encode(frame):
                encoded = SourceFrame(
                    pts_us=number * 1_000_000 // _FRAMES_PER_S, is_keyframe=packet.is_keyframe, data=bytes(packet)
                )
                for node in list(self.nodes):
                    with contextlib.suppress(EngineClosed):
                        await node.engine.push_frames(track=_FILM, frames=[encoded])
            number += 1
            await asyncio.sleep(max(0.0, began + number / _FRAMES_PER_S - time.monotonic()))


@dataclass
class Gaps:
    """The longest times without something new, in ms."""

    received_ms: float
    sent_ms: float
    new_path_ms: float
    """From the move to the first sound at the new node."""
    is_whole: bool
    """Something came both ways in the last second."""


class Call:
    """One client, wherever it is: when its sound came to either node, and its way from one to the other."""

    def __init__(self, client: Client) -> None:
        self.name = "mover"
        self._client = client
        self._heard: list[tuple[float, str]] = []
        self._offer = ""
        self._sinks = AsyncExitStack()
        self._moves = 0
        self._began_at = 0.0

    async def begin(self, node: Node) -> None:
        """Joins and waits for media both ways."""
        self._offer = await self._client.offer(is_restart=False)
        answer = await node.engine.create_transport(transport=self.name, room="room", offer=self._offer)
        await self._client.answer(answer.answer)
        await self._serve(node, answer)
        async with asyncio.timeout(_DEADLINE_S):
            while not (self._heard and len(await self._client.seen()) > _FRAMES_PER_S):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        self._began_at = time.time()

    async def move(self, here: Node, there: Node, way: str, key: bytes, *, is_former_gone: bool) -> None:
        """Exports it here and imports it there."""
        if way == "restart":
            self._offer = await self._client.offer(is_restart=True)
        self._began_at = time.time()
        self._moves += 1
        # While the former node is there it goes on until the client is at the new one, or nothing was given up.
        is_final = is_former_gone
        there.connected.clear()
        state = await here.engine.export_transport(
            transport=self.name, purpose="go_on" if is_final else "meet", key=key
        )
        if is_former_gone:
            await here.close(self.name)
        answer = await there.engine.import_transport(
            transport=self.name, room="room", offer=self._offer, state=state, key=key
        )
        if way == "restart":
            await self._client.answer(answer.answer)
        await self._serve(there, answer)
        if not is_final:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(there.connected.wait(), _FOLLOW_S)
                state = await here.engine.export_transport(transport=self.name, purpose="go_on", key=key)
                await there.engine.complete_transport(transport=self.name, state=state, key=key)

    async def watch(self, for_s: float) -> Gaps:
        """Lets it run; the gaps since it began or moved."""
        await asyncio.sleep(for_s)
        since, until = self._began_at - 0.3, time.time()
        seen = [at for at in await self._client.seen() if since < at]
        heard = [at for at, _ in self._heard if since < at]
        here = f"sink-{self._moves}"
        new = [at for at, sink in self._heard if sink == here and at > self._began_at]
        return Gaps(
            received_ms=_longest_ms(seen, until),
            sent_ms=_longest_ms(heard, until),
            new_path_ms=(new[0] - self._began_at) * 1e3 if new else 0.0,
            is_whole=bool(seen and new) and until - seen[-1] < 1 and until - new[-1] < 1,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._sinks.aclose()

    async def _serve(self, node: Node, answer: Reply.Answer) -> None:
        sound = await node.serve(self.name, answer)
        sink = f"sink-{self._moves}"
        await node.engine.create_sink(sink=sink, track=sound)
        await self._sinks.enter_async_context(_running(self._listen(node, sink)))

    async def _listen(self, node: Node, sink: str) -> None:
        async for _ in node.engine.frames(sink):
            self._heard.append((time.time(), sink))


def _longest_ms(times: list[float], until: float) -> float:
    times = [*sorted(times), until]
    return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0) * 1e3


@contextlib.asynccontextmanager
async def _running(work: object) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
