"""Helpers of the engine's Python tests: a configuration on loopback, aiortc peers, waiting with a deadline."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from av import AudioFrame, VideoFrame
from mrtc_engine import AsyncEngine, EngineConfig, Line, Subscription

DEADLINE_S = 20
OFFER = (Path(__file__).parents[3] / "tests/vectors/sdp/aiortc_play.sdp").read_text()
"""Of a client that never connects."""


def config(**settings: object) -> EngineConfig:
    """Loopback, any free ports. aiortc has no loopback candidates of its own but reaches one of ours."""
    return EngineConfig(**{"advertised_ips": ["127.0.0.1"], "log_filter": "warn", "log_format": "text"} | settings)


async def until(is_done: Callable[[], bool], what: str) -> None:
    """Waits for a condition."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_done():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert is_done(), what


class Colour(VideoStreamTrack):
    """A picture of one colour: (y, u, v)."""

    def __init__(self, yuv: tuple[int, int, int]) -> None:
        super().__init__()
        self._yuv = yuv

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        planes = [np.full((240, 320), self._yuv[0]), np.full((60, 320), self._yuv[1]), np.full((60, 320), self._yuv[2])]
        frame = VideoFrame.from_ndarray(np.vstack(planes).astype(np.uint8), format="yuv420p")
        frame.pts, frame.time_base = pts, time_base
        return frame


class Tone(AudioStreamTrack):
    """A sine of one frequency."""

    def __init__(self, hertz: int) -> None:
        super().__init__()
        self._hertz = hertz

    async def recv(self) -> AudioFrame:
        silence = await super().recv()
        rate, count = silence.sample_rate, silence.samples
        at = (np.arange(count) + silence.pts) / rate
        wave = (np.sin(2 * np.pi * self._hertz * at) * 12_000).astype(np.int16)
        frame = AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout="mono")
        frame.pts, frame.sample_rate, frame.time_base = silence.pts, rate, Fraction(1, rate)
        return frame


class Viewer:
    """Keeps what a peer decodes: the last picture's mean (y, u, v) and the last second of sound."""

    def __init__(self, pc: RTCPeerConnection) -> None:
        self.pictures = 0
        self.yuv = (0, 0, 0)
        self._sound: list[np.ndarray] = []
        self._rate = 48_000
        self._tasks: list[asyncio.Task[None]] = []
        pc.on("track", self._on_track)

    def loudest_hertz(self) -> float:
        """The strongest frequency of the last second; 0 before there is one."""
        sound = np.concatenate(self._sound[-50:]) if self._sound else np.zeros(1)
        if len(sound) < self._rate // 2:
            return 0.0
        spectrum = np.abs(np.fft.rfft(sound))
        return float(np.fft.rfftfreq(len(sound), 1 / self._rate)[int(spectrum.argmax())])

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.create_task(self._pump(track)))

    async def _pump(self, track: MediaStreamTrack) -> None:
        while True:
            try:
                frame = await track.recv()
            except Exception:  # aiortc: the track ended
                return
            if isinstance(frame, VideoFrame):
                picture = frame.to_ndarray(format="yuv420p")
                luma, chroma = np.split(picture, [frame.height])
                self.yuv = (int(luma.mean()), *(int(half.mean()) for half in np.split(chroma, 2)))
                self.pictures += 1
            else:
                samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
                self._rate = frame.sample_rate
                self._sound.append(samples[:, 0].astype(float))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def connect(engine: AsyncEngine, pc: RTCPeerConnection, transport: str, room: str = "room") -> list[Line]:
    """Opens a transport for a peer."""
    await pc.setLocalDescription(await pc.createOffer())
    answer = await engine.create_transport(transport=transport, room=room, offer=pc.localDescription.sdp)
    await pc.setRemoteDescription(RTCSessionDescription(answer.answer, "answer"))
    return answer.lines


@asynccontextmanager
async def publisher(
    engine: AsyncEngine, name: str, *, video: MediaStreamTrack | None = None, audio: MediaStreamTrack | None = None
) -> AsyncIterator[dict[str, str]]:
    """A peer that publishes; gives the ids of its tracks by kind."""
    pc = RTCPeerConnection()
    for track in (audio, video):
        if track is not None:
            pc.addTransceiver(track, direction="sendonly")
    tracks = {}
    for line in await connect(engine, pc, name):
        tracks[line.kind] = f"{name}-{line.kind}"
        await engine.publish_track(track=tracks[line.kind], transport=name, mid=line.mid)
    try:
        yield tracks
    finally:
        await pc.close()


@asynccontextmanager
async def viewer(engine: AsyncEngine, name: str, kinds: tuple[str, ...] = ("audio", "video")) -> AsyncIterator[Viewer]:
    """A peer with a slot of each kind."""
    pc = RTCPeerConnection()
    seen = Viewer(pc)
    for kind in kinds:
        pc.addTransceiver(kind, direction="recvonly")
    await connect(engine, pc, name)
    try:
        yield seen
    finally:
        await pc.close()
        await seen.close()


async def subscribe(engine: AsyncEngine, transport: str, tracks: dict[str, str]) -> None:
    """Subscribes to tracks by kind; all of them must find a slot."""
    reply = await engine.set_subscriptions(
        transport=transport, subscriptions=[Subscription(track=track, kind=kind) for kind, track in tracks.items()]
    )
    assert (reply.unplaced, reply.no_common_codec, reply.missing) == ([], [], [])


def is_near(seen: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 12) -> bool:
    """True if a picture has about the colour."""
    return all(abs(a - b) <= tolerance for a, b in zip(seen, wanted, strict=True))
