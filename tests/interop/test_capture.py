"""`make capture`: what a room sends and receives, in a file for Wireshark."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from mrtc_sdk.pattern import PatternTrack, ToneTrack

from tests.interop.test_python_room import new_room
from tests.support import pcapng
from tests.support.media import Watcher, joined, remote_track, wait_until
from tests.support.suite import RunningSuite

pytestmark = pytest.mark.integration


async def begin(suite: RunningSuite, room: str, *arguments: str) -> asyncio.subprocess.Process:
    """Starts the command."""
    command = [sys.executable, "-m", "mrtc_embedded.capture", room, "--data", str(suite.data_dir), *arguments]
    return await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)


async def end(process: asyncio.subprocess.Process) -> list[dict[str, Any]]:
    """What the command prints: one entry per node."""
    out, _ = await process.communicate()
    assert process.returncode == 0
    return [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize("content", ["headers", "packets"])
async def test_a_call_can_be_captured_in_the_clear(suite: RunningSuite, content: str) -> None:
    """Both directions, RTP and RTCP, with the media only if that was asked for; nothing of other rooms."""
    room, other = new_room(), new_room()
    async with (
        joined(suite.url, suite.token(room, "alice"), room) as alice,
        joined(suite.url, suite.token(room, "bob"), room) as bob,
        joined(suite.url, suite.token(other, "carol"), other) as carol,
    ):
        await alice.publish(PatternTrack(61))
        await alice.publish(ToneTrack(500.0))
        await carol.publish(PatternTrack(62))
        watcher = Watcher((await remote_track(bob, "video", "alice")).media)
        await watcher.sees(61)
        arguments = ["--packets"] if content == "packets" else []
        found = await end(await begin(suite, room, "--seconds", "2.5", *arguments))
        await watcher.aclose()
    assert len(found) == suite.options.mcus
    assert not any(node["dropped"] for node in found)
    packets: list[pcapng.Packet] = []
    for node in found:
        path = Path(node["path"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_size == node["bytes"]
        read, dropped = pcapng.read(path)
        assert (len(read), dropped) == (node["packets"], 0)
        packets += read
    check(packets, content)
    if shutil.which("tshark"):
        for node in found:
            subprocess.run(["tshark", "-r", node["path"]], check=True, capture_output=True)
    for node in found:
        Path(node["path"]).unlink()


def check(packets: list[pcapng.Packet], content: str) -> None:
    """What a capture of one publisher of sound and picture and one viewer holds."""
    rtp = [packet for packet in packets if not packet.is_rtcp]
    assert all(packet.data[0] >> 6 == 2 for packet in packets)
    assert abs(packets[-1].at_us / 1e6 - time.time()) < 30
    publisher = max({p.source for p in rtp}, key=lambda one: sum(p.source == one for p in rtp))
    ends = {p.source for p in packets} | {p.destination for p in packets}
    # alice, bob, and one port of each worker that serves them; never carol.
    assert len(ends) in (3, 4), ends
    streams = {p.data[8:12] for p in rtp}
    assert len(streams) >= 4, "sound and picture, received and sent"
    assert any(p.destination == publisher for p in packets if p.is_rtcp), "reports to the publisher"
    assert any(p.source == publisher for p in rtp)
    whole = [p for p in rtp if len(p.data) == p.length]
    assert (len(whole) == len(rtp)) if content == "packets" else not whole
    assert all(len(p.data) == p.length for p in packets if p.is_rtcp)
    received = {p.data[12:] for p in rtp if p.source == publisher}
    sent = {p.data for p in rtp if p.source != publisher}
    if content == "packets":
        # What was received is what was sent: the end of a payload stays, whatever header is before it.
        tails = {data[-40:] for data in received if len(data) > 60}
        assert len(tails & {data[-40:] for data in sent}) >= 3


async def test_ctrl_c_completes_the_files(suite: RunningSuite) -> None:
    """Long before the time is over; also of a room without packets."""
    files = suite.data_dir / "captures"
    before = set(files.glob("*"))
    process = await begin(suite, new_room(), "--seconds", "3600")
    await wait_until(lambda: len(set(files.glob("*")) - before) == suite.options.mcus, 20, "files")
    process.send_signal(signal.SIGINT)
    for node in await end(process):
        assert pcapng.read(Path(node["path"])) == ([], 0)
        Path(node["path"]).unlink()


def test_without_a_suite_it_says_so(tmp_path: Path) -> None:
    """As `make dump` does."""
    command = [sys.executable, "-m", "mrtc_embedded.capture", "lobby", "--data", str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "make run" in ended.stderr
    assert "Traceback" not in ended.stderr
