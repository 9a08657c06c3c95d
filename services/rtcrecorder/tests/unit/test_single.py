"""Files of a recording without transcoding, through the writing thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mrtc_common.testing import wait_until
from mrtc_rtcrecorder.core.file_names import FileNames
from mrtc_rtcrecorder.core.frames import Frame, Kind
from mrtc_rtcrecorder.core.room_view import WantedTrack
from mrtc_rtcrecorder.media import single
from mrtc_rtcrecorder.media.single import SingleOutput

VIDEO = WantedTrack("v", "v", Kind.VIDEO, "node", "vp8", False, "pub", "alice")
AUDIO = WantedTrack("a", "a", Kind.AUDIO, "node", "opus", False, "pub", "alice")


def output_in(folder: Path, on_drop: Callable[[int], None] = lambda count: None) -> SingleOutput:
    names = FileNames("app/room/rec", lambda key: (folder / key).exists())
    return SingleOutput(names, lambda key: folder / key, on_drop=on_drop)


def feed(output: SingleOutput, tracks: dict[str, list[Frame]]) -> None:
    events = sorted(((f.captured_at_us, t, f) for t, frames in tracks.items() for f in frames), key=lambda e: e[:2])
    for _, track, frame in events:
        output.push(track, frame)


def shifted(frame: Frame, by_us: int) -> Frame:
    moved_rtp = frame.rtp_time + by_us * 9 // 100
    return replace(frame, captured_at_us=frame.captured_at_us + by_us, rtp_time=moved_rtp)


async def written(output: SingleOutput) -> None:
    """Waits until the thread has taken all that was put."""
    await wait_until(lambda: output._steps.qsize() == 0)


async def test_a_publication_becomes_one_file(
    tmp_path: Path, make_frames: Any, probe: Any, assert_decodes: Any
) -> None:
    """Picture and sound together, named for who sent them."""
    output = output_in(tmp_path)
    output.update(VIDEO)
    output.update(AUDIO)
    feed(output, {"v": make_frames("vp8"), "a": make_frames("opus")})
    await output.finish()
    [file] = output.files()
    assert file.key == "app/room/rec/alice-pub-000.webm"
    assert (file.identity, file.publication_id, file.content_type) == ("alice", "pub", "video/webm")
    assert file.size_bytes == (tmp_path / file.key).stat().st_size
    assert_decodes(tmp_path / file.key)
    assert {s["codec_type"] for s in probe(tmp_path / file.key)["streams"]} == {"video", "audio"}


async def test_a_new_size_is_a_new_file_and_both_decode(tmp_path: Path, make_frames: Any, assert_decodes: Any) -> None:
    """A camera that was turned."""
    output = output_in(tmp_path)
    output.update(VIDEO)
    frames = make_frames("vp8")
    later = [shifted(frame, 3_000_000) for frame in make_frames("vp8", size="180x320")]
    feed(output, {"v": frames + later})
    await output.finish()
    first, second = output.files()
    assert second.begins_at_us - first.begins_at_us == pytest.approx(3_000_000, abs=1_000)
    for file in (first, second):
        assert_decodes(tmp_path / file.key)


async def test_a_removed_publication_is_complete_while_others_go_on(tmp_path: Path, make_frames: Any) -> None:
    """Its files stay in the list."""
    output = output_in(tmp_path)
    output.update(AUDIO)
    feed(output, {"a": make_frames("opus")})
    output.remove("a")
    other = replace(AUDIO, track_id="b", publication_id="pub2", identity="bob")
    output.update(other)
    feed(output, {"b": make_frames("opus")})
    await output.finish()
    assert [file.identity for file in output.files()] == ["alice", "bob"]


async def test_false_key_frames_cost_nobody_else_a_file(tmp_path: Path, make_frames: Any, assert_decodes: Any) -> None:
    """One sender of garbage, one of pictures."""
    output = output_in(tmp_path)
    output.update(VIDEO)
    output.update(replace(VIDEO, track_id="w", publication_id="pub2", identity="mallory"))
    good = make_frames("vp8")
    feed(output, {"v": good, "w": [replace(f, data=b"\x00\x00\x00\x9d\x01\x2a" + b"\xff" * 40) for f in good]})
    await output.finish()
    assert not output.failed.done()
    [mine] = [file for file in output.files() if file.identity == "alice"]
    assert_decodes(tmp_path / mine.key)


async def test_a_disk_that_takes_nothing_ends_the_recording(tmp_path: Path, make_frames: Any) -> None:
    """With the reason, after some tries."""
    (tmp_path / "app").write_bytes(b"in the way")
    output = output_in(tmp_path)
    output.update(VIDEO)
    frames = make_frames("vp8")
    for turn in range(8):
        shift = turn * 3_000_000
        moved = [
            replace(f, captured_at_us=f.captured_at_us + shift, rtp_time=f.rtp_time + turn * 270_000) for f in frames
        ]
        feed(output, {"v": moved})
    async with asyncio.timeout(20):
        assert "cannot write" in await output.failed
    await output.finish()


async def test_a_disk_that_is_too_slow_loses_frames_not_memory(
    tmp_path: Path, make_frames: Any, monkeypatch: pytest.MonkeyPatch, assert_decodes: Any
) -> None:
    """Frames are dropped and counted, pictures up to the next key frame, and the file still decodes."""
    monkeypatch.setattr(single, "_QUEUE_ITEMS", 20)
    dropped: list[int] = []
    output = output_in(tmp_path, dropped.append)
    output.update(VIDEO)
    gate = threading.Event()
    output._put(lambda writer: gate.wait(10) and None)
    frames = make_frames("vp8")
    feed(output, {"v": frames[:40]})
    assert dropped
    gate.set()
    await written(output)
    for part in (frames[40:50], frames[50:60]):
        feed(output, {"v": part})
        await written(output)
    feed(output, {"v": frames[60:75]})
    await output.finish()
    [file] = output.files()
    assert_decodes(tmp_path / file.key)
