"""Third-party WHIP publishers and WHEP players in rooms with our own clients."""

from __future__ import annotations

import asyncio
import json
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import av
import httpx
import imageio_ffmpeg
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription
from mrtc_sdk.pattern import PatternTrack, ToneTrack, read_frame

from tests.support.media import Watcher, joined, remote_track, wait_until
from tests.support.pattern_file import make_pattern_file
from tests.support.suite import RunningSuite

pytestmark = pytest.mark.integration

WERIFT = Path(__file__).parent / "werift"


def new_room() -> str:
    """A name nobody used."""
    return f"room-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def ffmpeg_publishing(suite: RunningSuite, room: str, source: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """FFmpeg's WHIP muxer sending a file in a loop."""
    log = suite.data_dir / "log" / "ffmpeg-whip.log"
    with log.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-re", "-stream_loop", "-1", "-i", str(source)),
            *("-c:v", "copy", "-c:a", "libopus", "-ar", "48000", "-ac", "2", "-f", "whip"),
            *("-authorization", suite.token(room, "ffmpeg"), f"{suite.url}/whip/{room}"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=stderr,
        )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def test_ffmpeg_publishes_by_whip_and_a_participant_sees_it(suite: RunningSuite, tmp_path: Path) -> None:
    """FFmpeg's H.264 and Opus reach an aiortc participant; when FFmpeg ends, its participant leaves."""
    source = make_pattern_file(tmp_path / "pattern.mp4", 33, 700.0, 4)
    room = new_room()
    async with joined(suite.url, suite.token(room, "alice"), room) as alice:
        async with ffmpeg_publishing(suite, room, source):
            picture = Watcher((await remote_track(alice, "video", "ffmpeg", 20)).media)
            sound = Watcher((await remote_track(alice, "audio", "ffmpeg")).media)
            await asyncio.gather(picture.sees(33), sound.hears(700.0))
        await wait_until(lambda: len(alice.participants) == 1, 40, "the publisher to leave")
        await asyncio.gather(picture.aclose(), sound.aclose())


async def test_werift_plays_a_participant_by_whep(suite: RunningSuite, tmp_path: Path) -> None:
    """A WebRTC stack of its own (TypeScript) plays a participant's picture and sound."""
    room, out = new_room(), tmp_path / "played.webm"
    async with joined(suite.url, suite.token(room, "alice"), room, video_codecs=("vp8",)) as alice:
        await alice.publish(PatternTrack(88))
        await alice.publish(ToneTrack(900.0))
        player = await asyncio.create_subprocess_exec(
            *(shutil.which("node") or "node", "play.mjs", f"{suite.url}/whep/{room}", suite.token(room, "werift")),
            *("6", str(out)),
            cwd=WERIFT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        printed, errors = await asyncio.wait_for(player.communicate(), 60)
        assert player.returncode == 0, errors.decode()
    report = json.loads(printed.splitlines()[-1])
    assert report["packets"]["video"] > 100
    assert report["packets"]["audio"] > 100
    assert report["deleted"] == 200
    assert 88 in {seen[0] for seen in decoded_patterns(out)}


def decoded_patterns(path: Path) -> list[tuple[int, int]]:
    """(number, counter) of every frame of a file that shows a pattern."""
    with av.open(str(path)) as container:
        seen = [read_frame(frame) for frame in container.decode(video=0)]
    return [item for item in seen if item is not None]


async def test_aiortc_publishes_by_whip_and_plays_by_whep(suite: RunningSuite) -> None:
    """Plain SDP over HTTP in both directions, ended by DELETE as RFC 9725 has it."""
    room = new_room()
    publisher, player = RTCPeerConnection(), RTCPeerConnection()
    async with httpx.AsyncClient(base_url=suite.url, timeout=15) as client:
        publisher.addTrack(PatternTrack(120))
        published = await offer(client, publisher, f"/whip/{room}", suite.token(room, "pub"))
        player.addTransceiver("video", direction="recvonly")
        played = await offer(client, player, f"/whep/{room}", suite.token(room, "play"))
        watcher = Watcher(player.getReceivers()[0].track)
        await watcher.sees(120)
        await watcher.aclose()
        for resource, identity in ((played, "play"), (published, "pub")):
            headers = {"authorization": f"Bearer {suite.token(room, identity)}"}
            assert (await client.delete(resource, headers=headers)).status_code == 200
            assert (await client.delete(resource, headers=headers)).status_code == 404
    await asyncio.gather(publisher.close(), player.close())


async def offer(client: httpx.AsyncClient, pc: RTCPeerConnection, path: str, token: str) -> str:
    """Exchanges offer and answer; returns the resource's URL."""
    await pc.setLocalDescription(await pc.createOffer())
    headers = {"authorization": f"Bearer {token}", "content-type": "application/sdp"}
    response = await client.post(path, content=pc.localDescription.sdp, headers=headers)
    assert response.status_code == 201, response.text
    assert response.headers["content-type"].startswith("application/sdp")
    assert response.headers["etag"]
    await pc.setRemoteDescription(RTCSessionDescription(sdp=response.text, type="answer"))
    return str(httpx.URL(str(response.url)).join(response.headers["location"]))


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        ("POST", "/whip/{room}", {}, "v=0", 401),
        ("POST", "/whip/{room}", {"authorization": "Bearer nonsense"}, "v=0", 401),
        ("POST", "/whip/other-room", {"authorization": "Bearer {token}"}, "v=0", 403),
        ("POST", "/whip/{room}", {"authorization": "Bearer {token}", "content-type": "text/plain"}, "v=0", 415),
        ("POST", "/whip/{room}", {"authorization": "Bearer {token}"}, "this is no SDP", 400),
        ("POST", "/whip/{room}", {"authorization": "Bearer {token}"}, "v" * 2_000_000, 413),
        ("GET", "/whip/{room}", {"authorization": "Bearer {token}"}, "", 405),
        ("DELETE", "/whip/{room}/nothing", {"authorization": "Bearer {token}"}, "", 404),
        ("PATCH", "/whip/{room}/nothing", {"authorization": "Bearer {token}"}, "", 404),
    ],
)
def test_bad_requests_get_the_right_status(
    suite: RunningSuite, method: str, path: str, headers: dict[str, str], body: str, status: int
) -> None:
    """Every wrong request is answered with problem+json and a stable code, and changes nothing."""
    room = new_room()
    token = suite.token(room, "whip")
    filled = {"content-type": "application/sdp", **{k: v.replace("{token}", token) for k, v in headers.items()}}
    response = httpx.request(
        method, suite.url + path.replace("{room}", room), headers=filled, content=body or None, timeout=10
    )
    assert response.status_code == status, response.text
    assert response.headers["content-type"].startswith("application/problem+json")
    assert response.json()["code"]
