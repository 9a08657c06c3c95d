"""Files of encoded frames."""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mrtc_rtcrecorder.core.frames import CLOCK_RATES, Frame, Kind
from mrtc_rtcrecorder.errors import UndecodableError
from mrtc_rtcrecorder.media.muxer import Muxer, choose_container

pytestmark = pytest.mark.integration

Probe = Callable[[Path], dict[str, Any]]


def interleave(video: list[Frame], audio: list[Frame]) -> list[tuple[Kind, int, Frame]]:
    def timed(kind: Kind, frames: list[Frame]) -> list[tuple[int, str, Frame]]:
        rate = CLOCK_RATES[frames[0].codec] if frames else 1
        return [((f.rtp_time - frames[0].rtp_time) * 1_000_000 // rate, kind, f) for f in frames]

    merged = heapq.merge(timed(Kind.VIDEO, video), timed(Kind.AUDIO, audio), key=lambda item: item[:2])
    return [(Kind(kind), at, frame) for at, kind, frame in merged]


def mux(
    path: Path, video: list[Frame], audio: list[Frame], *, until_us: int | None = None, close: bool = True
) -> Muxer:
    container = choose_container(video[0].codec if video else None, audio[0].codec if audio else None)
    muxer = Muxer(
        path,
        container,
        (video[0].codec, video[0].data) if video else None,
        audio[0].codec if audio else None,
    )
    for kind, at, frame in interleave(video, audio):
        if until_us is not None and at > until_us:
            break
        muxer.write(kind, at, frame.is_keyframe, frame.data)
    if close:
        muxer.close()
    return muxer


@pytest.mark.parametrize("audio", [None, "opus", "pcmu", "pcma", "g722"])
@pytest.mark.parametrize("video", [None, "h264", "vp8", "vp9", "av1"])
def test_every_pair_of_codecs_decodes_without_complaint(
    video: str | None, audio: str | None, tmp_path: Path, make_frames: Any, probe: Probe, assert_decodes: Any
) -> None:
    """Whatever a publisher may send ends in a file with every frame in it."""
    if video is None and audio is None:
        pytest.skip("nothing to record")
    pictures = make_frames(video) if video else []
    sounds = make_frames(audio) if audio else []
    mux(tmp_path / "file", pictures, sounds)
    assert_decodes(tmp_path / "file")
    report = probe(tmp_path / "file")
    counted = {s["codec_type"]: int(s["nb_read_packets"]) for s in report["streams"]}
    assert counted == {k: len(v) for k, v in (("video", pictures), ("audio", sounds)) if v}
    assert float(report["format"]["duration"]) == pytest.approx(3.0, abs=0.08)


@pytest.mark.parametrize("video", ["h264", "vp8"])
def test_a_file_plays_at_every_moment_of_its_growth(
    video: str, tmp_path: Path, make_frames: Any, probe: Probe, assert_decodes: Any
) -> None:
    """What is on the disk while frames come decodes, and lacks less than a second."""
    pictures, sounds = make_frames(video), make_frames("opus")
    container = choose_container(video, "opus")
    muxer = Muxer(tmp_path / "growing", container, (video, pictures[0].data), "opus")
    for index, (kind, at, frame) in enumerate(interleave(pictures, sounds)):
        muxer.write(kind, at, frame.is_keyframe, frame.data)
        if at > 1_000_000 and index % 29 == 0:
            copy = tmp_path / f"copy-{index}"
            shutil.copyfile(muxer.path, copy)
            assert_decodes(copy)
            report = probe(copy)
            count = {s["codec_type"]: int(s["nb_read_packets"]) for s in report["streams"]}
            assert count["video"] / 30 > at / 1e6 - 1
            assert count["audio"] / 50 > at / 1e6 - 1
    muxer.close()


def test_nothing_is_on_the_disk_before_it_could_play(tmp_path: Path, make_frames: Any) -> None:
    """A reader never meets an empty file or a bare header."""
    mux(tmp_path / "file", make_frames("h264"), make_frames("opus"), until_us=100_000, close=False)
    assert not (tmp_path / "file").exists()


def test_sound_that_stops_does_not_hold_pictures_back(tmp_path: Path, make_frames: Any, probe: Probe) -> None:
    """A muted microphone delays the file by no more than the interleaving limit."""
    sounds = [f for f in make_frames("opus") if f.rtp_time < 24_000]
    mux(tmp_path / "file", make_frames("h264"), sounds, close=False)
    count = {s["codec_type"]: int(s["nb_read_packets"]) for s in probe(tmp_path / "file")["streams"]}
    assert count["video"] >= 90 - 30


def test_times_that_do_not_grow_are_moved(tmp_path: Path, make_frames: Any, assert_decodes: Any) -> None:
    """Equal and earlier times cost no frame and no file."""
    pictures = make_frames("h264")
    muxer = Muxer(tmp_path / "file", choose_container("h264", None), ("h264", pictures[0].data), None)
    for index, frame in enumerate(pictures):
        muxer.write(Kind.VIDEO, max(0, (index // 3) * 100_000 - 50_000), frame.is_keyframe, frame.data)
    muxer.close()
    assert_decodes(tmp_path / "file")


def test_garbage_is_no_key_frame(tmp_path: Path) -> None:
    """A frame that only claims to be a key frame opens no file."""
    for codec in ("h264", "vp8", "vp9", "av1"):
        with pytest.raises(UndecodableError):
            Muxer(tmp_path / codec, choose_container(codec, None), (codec, b"\x00\x00\x00\x01\x67garbage" * 5), None)


def test_an_existing_file_is_never_overwritten(tmp_path: Path, make_frames: Any) -> None:
    """Two recorders that take the same name do not destroy each other's work."""
    (tmp_path / "file").write_bytes(b"precious")
    with pytest.raises(FileExistsError):
        mux(tmp_path / "file", make_frames("h264"), [])
    assert (tmp_path / "file").read_bytes() == b"precious"
