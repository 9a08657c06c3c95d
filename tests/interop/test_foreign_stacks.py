"""Other WebRTC stacks publish and play: pion (Go) and GStreamer's webrtcbin (C), over WHIP and WHEP.

What each sends is decoded by another stack, and what each receives is decoded from the file that it wrote.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mrtc_sdk.pattern import PatternTrack, ToneTrack

from tests.support.media import Watcher, joined, remote_track, wait_until
from tests.support.pattern_file import make_pattern_file
from tests.support.probe_file import decode
from tests.support.suite import ROOT, RunningSuite

pytestmark = pytest.mark.integration

HERE = Path(__file__).parent
SYSTEM_PYTHON = "/usr/bin/python3"
GSTREAMER_NEEDS = "gi.require_version('GstWebRTC', '1.0'); from gi.repository import Gst; Gst.init(None)"
ELEMENTS = ("webrtcbin", "nicesrc", "rtph264pay", "rtpvp8depay", "rtpopuspay", "webmmux", "oggmux", "matroskademux")


@pytest.fixture(scope="module")
def pion() -> list[str]:
    """The pion client's command, built from its pinned modules."""
    if shutil.which("go") is None:
        pytest.skip("pion is not tested: Go 1.24 or newer is not installed")
    binary = ROOT / ".cache" / "pion-peer"
    binary.parent.mkdir(exist_ok=True)
    built = subprocess.run(
        ["go", "build", "-mod=readonly", "-o", binary, "."], cwd=HERE / "pion", capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    return [str(binary)]


@pytest.fixture(scope="module")
def gstreamer() -> list[str]:
    """The GStreamer client's command."""
    has_bindings = subprocess.run([SYSTEM_PYTHON, "-c", f"import gi; {GSTREAMER_NEEDS}"], capture_output=True)
    # Not `--exists`: that compares versions, and nicesrc has that of its own library.
    quiet = subprocess.DEVNULL
    missing = [name for name in ELEMENTS if subprocess.run(["gst-inspect-1.0", name], stdout=quiet).returncode]
    assert has_bindings.returncode == 0, f"GStreamer is missing: run `make setup`; {has_bindings.stderr!r}"
    assert not missing, f"GStreamer lacks {missing}: run `make setup`"
    return [SYSTEM_PYTHON, str(HERE / "gstreamer" / "peer.py")]


def new_room() -> str:
    """A name nobody used."""
    return f"room-{uuid.uuid4().hex[:8]}"


@asynccontextmanager
async def running(command: list[str], *arguments: str | Path) -> AsyncIterator[dict[str, Any]]:
    """A foreign client inside the block; afterwards the dictionary holds what it reported."""
    process = await asyncio.create_subprocess_exec(
        *(*command, *map(str, arguments)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "GST_DEBUG": "2"},
    )
    report: dict[str, Any] = {}
    try:
        yield report
        printed, errors = await asyncio.wait_for(process.communicate(b""), 20)  # ends its input
        assert process.returncode == 0, errors.decode()
        report.update(json.loads(printed.splitlines()[-1]))
    except AssertionError as error:
        if process.returncode is None:
            process.kill()
        assert process.stderr is not None
        errors = await process.stderr.read()
        raise AssertionError(f"{error}\n{errors.decode()[-2000:]}") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def is_seen(suite: RunningSuite, room: str, identity: str, number: int, tone_hz: float) -> None:
    """An aiortc participant decodes the picture and hears the tone of a publisher."""
    async with joined(suite.url, suite.token(room, "alice"), room) as alice:
        picture = Watcher((await remote_track(alice, "video", identity, 20)).media)
        sound = Watcher((await remote_track(alice, "audio", identity)).media)
        await asyncio.gather(picture.sees(number), sound.hears(tone_hz))
        await asyncio.gather(picture.aclose(), sound.aclose())


async def test_pion_publishes(suite: RunningSuite, pion: list[str], tmp_path: Path) -> None:
    """Its VP8 and Opus are seen and heard; with the resource deleted its participant leaves."""
    video, audio = elementary(make_pattern_file(tmp_path / "pion.webm", 41, 600.0, 4, video="libvpx", audio="libopus"))
    room = new_room()
    url = f"{suite.url}/whip/{room}"
    async with running(pion, "publish", url, suite.token(room, "pion"), video, audio) as report:
        await is_seen(suite, room, "pion", 41, 600.0)
    assert report["deleted"] == 200
    assert report["packets"]["video"] > 0


def elementary(path: Path) -> tuple[Path, Path]:
    """A file's picture as IVF and its sound as Ogg with one Opus packet a page."""
    video, audio = path.with_suffix(".ivf"), path.with_suffix(".ogg")
    quiet = ["ffmpeg", "-v", "error", "-y", "-i", str(path), "-c", "copy"]
    subprocess.run([*quiet, "-map", "0:v", str(video)], check=True)
    subprocess.run([*quiet, "-map", "0:a", "-page_duration", "20000", str(audio)], check=True)
    return video, audio


async def test_gstreamer_publishes(suite: RunningSuite, gstreamer: list[str], tmp_path: Path) -> None:
    """Its H.264 and Opus are seen and heard."""
    source = make_pattern_file(tmp_path / "gstreamer.mkv", 42, 700.0, 30, audio="libopus")
    room = new_room()
    url = f"{suite.url}/whip/{room}"
    async with running(gstreamer, "publish", url, suite.token(room, "gstreamer"), source) as report:
        await is_seen(suite, room, "gstreamer", 42, 700.0)
    assert report["deleted"] == 200
    assert report["packets"]["video"] > 0


async def plays(suite: RunningSuite, command: list[str], room: str, identity: str, *files: Path) -> None:
    """A foreign client plays an aiortc participant's VP8 and Opus until its files hold some seconds."""
    async with joined(suite.url, suite.token(room, "alice"), room, video_codecs=("vp8",)) as alice:
        await alice.publish(PatternTrack(88))
        await alice.publish(ToneTrack(900.0))
        url = f"{suite.url}/whep/{room}"
        async with running(command, "play", url, suite.token(room, identity), *files) as report:
            await wait_until(
                lambda: sum(file.stat().st_size for file in files if file.exists()) > 100_000,
                30,
                lambda: f"100 kB in {[(file.name, file.exists() and file.stat().st_size) for file in files]}",
            )
    assert report["deleted"] == 200
    assert report["packets"]["video"] > 50
    assert report["packets"]["audio"] > 50


async def test_pion_plays(suite: RunningSuite, pion: list[str], tmp_path: Path) -> None:
    """What it received decodes to what was sent."""
    video, audio = tmp_path / "played.ivf", tmp_path / "played.ogg"
    await plays(suite, pion, new_room(), "pion", video, audio)
    assert 88 in {number for _, number, _ in decode(video).patterns()}
    assert decode(audio).has_tone(900.0)


async def test_gstreamer_plays(suite: RunningSuite, gstreamer: list[str], tmp_path: Path) -> None:
    """What it received decodes to what was sent."""
    video, audio = tmp_path / "played.webm", tmp_path / "played.ogg"
    await plays(suite, gstreamer, new_room(), "gstreamer", video, audio)
    assert 88 in {number for _, number, _ in decode(video).patterns()}
    assert decode(audio).has_tone(900.0)


async def test_pion_plays_what_gstreamer_publishes(
    suite: RunningSuite, gstreamer: list[str], pion: list[str], tmp_path: Path
) -> None:
    """Two stacks that are not ours meet in a room: sound passes whatever the picture's codec."""
    source = make_pattern_file(tmp_path / "gstreamer.mkv", 43, 500.0, 30, audio="libopus")
    video, audio = tmp_path / "played.ivf", tmp_path / "played.ogg"
    room = new_room()
    send, receive = f"{suite.url}/whip/{room}", f"{suite.url}/whep/{room}"
    async with running(gstreamer, "publish", send, suite.token(room, "gstreamer"), source):
        async with joined(suite.url, suite.token(room, "alice"), room) as alice:
            await remote_track(alice, "audio", "gstreamer", 20)
        async with running(pion, "play", receive, suite.token(room, "pion"), video, audio) as report:
            await wait_until(lambda: audio.exists() and audio.stat().st_size > 30_000, 30, "sound in pion's file")
    assert report["packets"]["audio"] > 50
    assert decode(audio).has_tone(500.0)
