"""The clients that are moved, each driven by four verbs: offer, answer, what was seen, end."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from aiortc import MediaStreamTrack, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from mrtc_sdk.transport import repeat_candidates
from playwright.async_api import async_playwright

from tests.e2e.browser import CHROMIUM, FLAGS
from tests.e2e.firefox import running_firefox
from tests.interop.test_foreign_stacks import elementary
from tests.support.pattern_file import make_pattern_file
from tests.support.suite import ROOT

_HERE = Path(__file__).parent
_PAGE = (_HERE / "page.js").read_text()


class Client(ABC):
    """A client that sends sound and pictures and receives pictures."""

    name: str

    @abstractmethod
    async def offer(self, *, is_restart: bool) -> str:
        """Its next offer, applied."""

    @abstractmethod
    async def answer(self, sdp: str) -> None:
        """Takes the answer to it."""

    @abstractmethod
    async def seen(self) -> list[float]:
        """Unix times of the pictures that it received last."""


class _Page(Client):
    """A page of a browser."""

    def __init__(self, name: str, evaluate: Callable[..., Awaitable[Any]]) -> None:
        self.name = name
        self._evaluate = evaluate

    async def offer(self, *, is_restart: bool) -> str:
        return str(await self._evaluate("(restart) => mover.offer(restart)", is_restart))

    async def answer(self, sdp: str) -> None:
        await self._evaluate("(sdp) => mover.answer(sdp)", sdp)

    async def seen(self) -> list[float]:
        return [at / 1e3 for at in await self._evaluate("() => mover.seen.slice(-2000)", None)]


@asynccontextmanager
async def _chromium() -> AsyncIterator[Client]:
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page()
        await page.evaluate(_PAGE)
        yield _Page("chromium", page.evaluate)
        await browser.close()


@asynccontextmanager
async def _firefox() -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory(prefix="firefox") as folder, running_firefox(Path(folder)) as browser:
        page = browser.new_context().new_page()
        page.evaluate(f"() => {{ {_PAGE} }}")
        yield _Page("firefox", functools.partial(asyncio.to_thread, page.evaluate))


class _Pion(Client):
    """`peer move` of tests/interop/pion."""

    name = "pion"

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    async def offer(self, *, is_restart: bool) -> str:
        return str((await self._ask(do="offer", restart=is_restart))["sdp"])

    async def answer(self, sdp: str) -> None:
        await self._ask(do="answer", sdp=sdp)

    async def seen(self) -> list[float]:
        return [at / 1e3 for at in (await self._ask(do="seen")).get("seen", [])]


@asynccontextmanager
async def _pion() -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory() as folder:
        film = make_pattern_file(Path(folder) / "film.webm", 41, 600.0, 4, video="libvpx", audio="libopus")
        video, audio = elementary(film)
        binary = ROOT / ".cache" / "pion-peer"
        build = ["go", "build", "-mod=readonly", "-o", str(binary), "."]
        built = await asyncio.create_subprocess_exec(*build, cwd=ROOT / "tests" / "interop" / "pion")
        assert await built.wait() == 0
        async with _process(str(binary), "move", str(video), str(audio)) as ask:
            yield _Pion(ask)


class _Aiortc(Client):
    """In this process. It cannot restart ICE."""

    name = "aiortc"

    def __init__(self) -> None:
        self._pc = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._pc.addTransceiver(AudioStreamTrack(), direction="sendonly")
        self._pc.addTransceiver(VideoStreamTrack(), direction="sendonly")
        self._pc.addTransceiver("video", direction="recvonly")
        self._pc.on("track", self._on_track)
        self._seen: list[float] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def offer(self, *, is_restart: bool) -> str:
        if is_restart:
            raise SystemExit("aiortc has no ICE restart")
        await self._pc.setLocalDescription(await self._pc.createOffer())
        return str(self._pc.localDescription.sdp)

    async def answer(self, sdp: str) -> None:
        await self._pc.setRemoteDescription(RTCSessionDescription(repeat_candidates(sdp), "answer"))

    async def seen(self) -> list[float]:
        return self._seen

    async def end(self) -> None:
        """Closes the connection."""
        await self._pc.close()
        for task in self._tasks:
            task.cancel()

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.create_task(self._pump(track)))

    async def _pump(self, track: MediaStreamTrack) -> None:
        while True:
            await track.recv()
            self._seen.append(time.time())


@asynccontextmanager
async def _aiortc() -> AsyncIterator[Client]:
    client = _Aiortc()
    yield client
    await client.end()


@asynccontextmanager
async def _process(*command: str) -> AsyncIterator[Callable[..., Any]]:
    """A child that answers lines of JSON, one by one."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=os.environ, limit=1 << 24)
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout, ids = child.stdin, child.stdout, itertools.count()

    async def ask(**question: object) -> Any:
        stdin.write(json.dumps({"id": next(ids), **question}).encode() + b"\n")
        await stdin.drain()
        line = await asyncio.wait_for(stdout.readline(), 30)
        assert line, f"{command[0]} ended"
        return json.loads(line)

    try:
        yield ask
    finally:
        stdin.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.wait(), 10)
        if child.returncode is None:
            child.kill()


CLIENTS: dict[str, Callable[[], AbstractAsyncContextManager[Client]]] = {
    "aiortc": _aiortc,
    "chromium": _chromium,
    "firefox": _firefox,
    "pion": _pion,
}
