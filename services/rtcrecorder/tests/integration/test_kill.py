"""A recorder that is killed in mid-recording."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import av
import psutil
import pytest
from mrtc.recorder.v1 import recording_pb2
from mrtc_common.testing import NatsServer, wait_until
from mrtc_rtcrecorder.bootstrap import Recorder
from mrtc_rtcrecorder.media.join import Segment, join

pytestmark = [pytest.mark.integration, pytest.mark.alone]

SINGLE, MIXED = recording_pb2.RECORDING_MODE_SINGLE, recording_pb2.RECORDING_MODE_MIXED


class RecorderProcess:
    """A recorder as a process of its own."""

    def __init__(self, nats: NatsServer, folder: Path, secret: str) -> None:
        values = {
            "GRPC_PORT": "0",
            "HTTP_PORT": "0",
            "UDP_PORT": "0",
            "BIND_IP": "127.0.0.1",
            "NATS_URLS": nats.url,
            "STORAGE_ROOT": str(folder),
            "CLUSTER_SECRET": secret,
        }
        env = os.environ | {f"MRTC_RTCRECORDER_{key}": value for key, value in values.items()}
        self._process = subprocess.Popen([sys.executable, "-m", "mrtc_rtcrecorder"], env=env)

    def send(self, what: signal.Signals) -> None:
        """Sends a signal."""
        self._process.send_signal(what)

    def end(self, how: signal.Signals) -> int:
        """Sends a signal and waits for the end."""
        self.send(how)
        return self._process.wait(30)

    def kill_all(self, how: signal.Signals) -> int:
        """Ends it and its children, as a container's end does."""
        self.send(signal.SIGSTOP)
        for child in psutil.Process(self._process.pid).children():
            child.send_signal(how)
        return self.end(how)


@pytest.mark.parametrize("mode", [SINGLE, MIXED])
async def test_what_was_written_before_a_kill_plays_and_the_next_goes_on(
    mode: Any,
    nats_server: NatsServer,
    make_settings: Any,
    node: Any,
    desk: Any,
    make_frames: Any,
    probe: Any,
    assert_decodes: Any,
) -> None:
    """SIGKILL costs less than a second of media; a new recorder goes on with a file of the next number."""
    alice = await node.join("alice")
    await node.publish(alice, {"video": make_frames("h264"), "audio": make_frames("opus")})
    process = RecorderProcess(nats_server, desk.folder, "a secret of the tests")
    recording = await desk.start(mode, width=320, height=180)
    record = await desk.reached(recording, lambda record: record.files and record.files[0].duration_ms > 3000)
    began_ms = record.started_at_ms
    killed_ms = time.time_ns() // 1_000_000
    await asyncio.to_thread(process.end, signal.SIGKILL)
    path = desk.path(record.files[0])
    if mode == MIXED:  # its mixer sees the pipe close and completes the file
        await wait_until(lambda: path.read_bytes()[40:44] == b"mdat", what="the fragments to become one MP4")
    assert_decodes(path)
    streams = probe(path)["streams"]
    rates = {"video": 30 if mode == SINGLE else 25, "audio": 50 if mode == SINGLE else 48_000 / 1024}
    for stream in streams:
        written_ms = int(stream["nb_read_packets"]) * 1000 / rates[stream["codec_type"]]
        assert killed_ms - began_ms - written_ms < 1_000
    async with Recorder(make_settings()):
        await desk.reached(recording, lambda record: len(record.files) == 2 and record.files[1].duration_ms > 1000)
        await desk.stop(recording)
        done = await desk.reached(recording, lambda r: r.state == recording_pb2.RECORDING_STATE_COMPLETE)
    assert len(done.files) == 1, "joined"
    assert_decodes(desk.path(done.files[0]))


async def test_sigterm_ends_the_process_with_whole_files(
    nats_server: NatsServer, node: Any, desk: Any, make_frames: Any, assert_decodes: Any
) -> None:
    """Within seconds, with status 0, and the job goes back to the queue."""
    alice = await node.join("alice")
    await node.publish(alice, {"video": make_frames("vp8"), "audio": make_frames("opus")})
    process = RecorderProcess(nats_server, desk.folder, "a secret of the tests")
    recording = await desk.start(SINGLE)
    record = await desk.reached(recording, lambda record: record.files and record.files[0].duration_ms > 1000)
    began = time.monotonic()
    assert await asyncio.to_thread(process.end, signal.SIGTERM) == 0
    assert time.monotonic() - began < 10
    assert_decodes(desk.path(record.files[0]))
    assert (await desk.record(recording)).state == recording_pb2.RECORDING_STATE_ACTIVE
    await wait_until(lambda: desk.path(record.files[0]).exists())


@pytest.mark.parametrize(
    ("mode", "is_container"),
    [
        pytest.param(SINGLE, False, id="single"),
        pytest.param(MIXED, False, id="mixed"),
        pytest.param(MIXED, True, id="mixed, its mixer dies with it"),
    ],
)
async def test_another_recorder_goes_on_at_once(
    mode: Any,
    is_container: bool,
    nats_server: NatsServer,
    make_settings: Any,
    node: Any,
    desk: Any,
    make_frames: Any,
    assert_decodes: Any,
) -> None:
    """A recorder that stands by sees the other one die, and has the job long before the queue hands it out again."""
    alice = await node.join("alice")
    # A key frame each 0.3 s: publishers send one when they are asked, these do not.
    await node.publish(alice, {"video": make_frames("h264", 0.3), "audio": make_frames("opus")})
    process = RecorderProcess(nats_server, desk.folder, "a secret of the tests")
    recording = await desk.start(mode, width=320, height=180)
    record = await desk.reached(recording, lambda record: record.files and record.files[0].duration_ms > 2000)
    async with Recorder(make_settings()) as other:
        await wait_until(lambda: other.node.watches == {record.node_id}, what="the other to be watched")
        await asyncio.to_thread(process.kill_all if is_container else process.end, signal.SIGKILL)
        killed_at = time.monotonic()
        await desk.reached(recording, lambda record: record.node_id == other.node.node_id)
        taken_s = time.monotonic() - killed_at
        await desk.reached(recording, lambda record: len(record.files) == 2 and record.files[1].duration_ms > 2000)
        await desk.stop(recording)
        done = await desk.reached(recording, lambda r: r.state == recording_pb2.RECORDING_STATE_COMPLETE)
    assert taken_s < 1
    assert [file.key.rsplit("-", 1)[1] for file in done.files] == ["000.mp4"], "one file, joined"
    path = desk.path(done.files[0])
    assert_decodes(path)
    assert list(path.parent.glob("*-001*")) == []
    for kind, times in _packet_times(path).items():
        gap_s = max(b - a for a, b in itertools.pairwise(times))
        print(f"{kind}: taken over after {taken_s:.2f} s, {gap_s:.2f} s missing of {times[-1]:.1f} s")
        assert gap_s < 1
    once = _packet_times(path)
    join([Segment(path, 0), Segment(path, 0)])
    assert _packet_times(path) == once, "to join again changes nothing"
    assert done.files[0].duration_ms == pytest.approx(times[-1] * 1000, abs=100)


def _packet_times(path: Path) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {}
    with av.open(str(path)) as file:
        for packet in file.demux():
            if packet.pts is not None:
                times.setdefault(packet.stream.type, []).append(float(packet.pts * packet.time_base))
    return times


async def test_a_recorder_that_hangs_loses_its_job(
    nats_server: NatsServer, make_settings: Any, node: Any, desk: Any, make_frames: Any, assert_decodes: Any
) -> None:
    """It is silent and answers nobody: another one has the job within seconds. When it is back it lets go."""
    alice = await node.join("alice")
    await node.publish(alice, {"video": make_frames("h264"), "audio": make_frames("opus")})
    process = RecorderProcess(nats_server, desk.folder, "a secret of the tests")
    recording = await desk.start(SINGLE)
    record = await desk.reached(recording, lambda record: record.files and record.files[0].duration_ms > 1000)
    async with Recorder(make_settings()) as other:
        await wait_until(lambda: other.node.watches == {record.node_id}, what="the other to be watched")
        hangs_at = time.monotonic()
        process.send(signal.SIGSTOP)
        await desk.reached(recording, lambda record: record.node_id == other.node.node_id)
        assert time.monotonic() - hangs_at < 5
        process.send(signal.SIGCONT)
        await desk.reached(recording, lambda record: len(record.files) == 2 and record.files[1].duration_ms > 2000)
        record = await desk.record(recording)
        assert (record.node_id, record.claims) == (other.node.node_id, 2)
        await desk.stop(recording)
        done = await desk.reached(recording, lambda r: r.state == recording_pb2.RECORDING_STATE_COMPLETE)
    assert await asyncio.to_thread(process.end, signal.SIGTERM) == 0
    for file in done.files:
        assert_decodes(desk.path(file))
