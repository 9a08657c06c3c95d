"""The mixing process as the recorder runs it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import pytest
from mrtc_common.testing import wait_until
from mrtc_rtcrecorder.core.file_names import FileNames
from mrtc_rtcrecorder.core.frames import Kind
from mrtc_rtcrecorder.core.room_view import WantedTrack
from mrtc_rtcrecorder.mix.output import MixedOutput, MixOptions

pytestmark = pytest.mark.integration

VIDEO = WantedTrack("v", "v", Kind.VIDEO, "node", "h264", False, "pub", "alice")
AUDIO = WantedTrack("a", "a", Kind.AUDIO, "node", "opus", False, "pub", "alice")


@pytest.fixture
def gaps() -> list[str]:
    """The tracks of which a mixer lacked frames."""
    return []


@pytest.fixture
async def output(tmp_path: Path, gaps: list[str]) -> AsyncIterator[MixedOutput]:
    names = FileNames("app/room/rec", lambda key: (tmp_path / key).exists())
    one = MixedOutput(names, lambda key: tmp_path / key, MixOptions(width=320, height=180), on_gap=gaps.append)
    yield one
    if not one._runner.done():
        await one.finish()


async def play(output: MixedOutput, make_frames: Any, seconds: float) -> None:
    """Feeds a pattern and a tone as they would be captured now."""
    frames = [("v", f) for f in make_frames("h264", 3.0)] + [("a", f) for f in make_frames("opus", 3.0)]
    frames.sort(key=lambda item: item[1].captured_at_us)
    shift = time.time_ns() // 1000 - frames[0][1].captured_at_us
    for track, frame in frames:
        now_us = time.time_ns() // 1000
        due_us = frame.captured_at_us + shift
        if due_us - shift - frames[0][1].captured_at_us > seconds * 1e6:
            return
        if due_us > now_us:
            await asyncio.sleep((due_us - now_us) / 1e6)
        output.push(track, replace(frame, captured_at_us=due_us))


async def test_a_mixed_file_is_made(output: MixedOutput, tmp_path: Path, make_frames: Any, probe: Any) -> None:
    """H.264 and AAC of the right length, complete at the end."""
    output.update(VIDEO)
    output.update(AUDIO)
    await wait_until(lambda: output.files(), what="the mixer to begin")
    await play(output, make_frames, 2.0)
    await output.finish()
    [file] = output.files()
    assert file.size_bytes == (tmp_path / file.key).stat().st_size
    report = probe(tmp_path / file.key)
    assert {s["codec_name"] for s in report["streams"]} == {"h264", "aac"}
    assert float(report["format"]["duration"]) == pytest.approx(file.duration_us / 1e6, abs=0.1)
    assert file.duration_us > 2_000_000


async def test_a_killed_mixer_is_replaced_and_its_file_plays(
    output: MixedOutput, gaps: list[str], tmp_path: Path, make_frames: Any, assert_decodes: Any, probe: Any
) -> None:
    """What it wrote stays, less than a second is missing, and another file begins, with key frames."""
    output.update(VIDEO)
    output.update(AUDIO)
    await wait_until(lambda: output.files(), what="the mixer to begin")
    began_us = output.files()[0].begins_at_us
    await play(output, make_frames, 2.5)
    assert output._process is not None
    killed_us = time.time_ns() // 1000
    output._process.kill()
    await wait_until(lambda: len(output.files()) == 2, what="another mixer")
    assert gaps == ["v", "a"]
    await output.finish()
    first, second = output.files()
    assert_decodes(tmp_path / first.key)
    [picture] = [s for s in probe(tmp_path / first.key)["streams"] if s["codec_type"] == "video"]
    written_us = int(picture["nb_read_packets"]) * 40_000
    assert killed_us - began_us - written_us < 1_500_000, "a second, and what the timeline runs behind"
    assert second.key.endswith("mixed-001.mp4")


async def test_a_folder_that_cannot_be_written_ends_the_recording(tmp_path: Path) -> None:
    """With the reason, and not by trying for ever."""
    (tmp_path / "app").write_bytes(b"in the way")
    names = FileNames("app/room/rec", lambda key: False)
    output = MixedOutput(names, lambda key: tmp_path / key, MixOptions(width=320, height=180))
    async with asyncio.timeout(20):
        assert "cannot write" in await output.failed
    await output.finish()


async def test_a_stop_at_once_makes_no_trouble(tmp_path: Path) -> None:
    """Stopped before the process is up."""
    names = FileNames("app/room/rec", lambda key: False)
    output = MixedOutput(names, lambda key: tmp_path / key, MixOptions(width=320, height=180))
    async with asyncio.timeout(20):
        await output.finish()
    assert not output.failed.done()


async def test_what_comes_while_the_process_starts_is_in_the_file(
    output: MixedOutput, tmp_path: Path, make_frames: Any, probe: Any
) -> None:
    """From the first frame on, key frame and all: it is not told anybody twice."""
    output.update(VIDEO)
    await asyncio.sleep(0)  # the process is being started
    output.update(AUDIO)
    await play(output, make_frames, 1.5)
    await output.finish()
    [file] = output.files()
    report = probe(tmp_path / file.key)
    counted = {s["codec_type"]: int(s["nb_read_packets"]) for s in report["streams"]}
    seconds = file.duration_us / 1e6
    assert seconds == pytest.approx(1.5, abs=0.3)
    assert counted["video"] == pytest.approx(seconds * 25, abs=3)
    with av.open(str(tmp_path / file.key)) as container:
        lit = [frame.time or 0.0 for frame in container.decode(video=0) if frame.to_ndarray()[:180].mean() > 40]
    assert lit[0] < 0.3
