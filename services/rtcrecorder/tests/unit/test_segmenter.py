"""Files of a publication: when they begin, what is in them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc_rtcrecorder.core.frames import Frame, Kind
from mrtc_rtcrecorder.core.segmenter import MAX_PENDING, PICTURE_PATIENCE_US, FileSpec, Segmenter

EPOCH_US = 1_700_000_000_000_000
VP8_KEYFRAME = bytes([0x10, 0, 0, 0x9D, 1, 0x2A])


class Files:
    """A `FileWriter` that remembers."""

    def __init__(self) -> None:
        self.specs: list[FileSpec] = []
        self.frames: list[list[tuple[Kind, int]]] = []
        self.is_open = False

    def open(self, spec: FileSpec) -> None:
        self.specs.append(spec)
        self.frames.append([])
        self.is_open = True

    def write(self, kind: Kind, time_us: int, is_keyframe: bool, data: bytes) -> None:
        assert self.is_open
        self.frames[-1].append((kind, time_us))

    def close(self) -> None:
        self.is_open = False


def picture(ms: int, *, key: bool = False, gap: bool = False, size: int = 320, codec: str = "vp8") -> Frame:
    data = VP8_KEYFRAME + size.to_bytes(2, "little") * 2 if key else b"\x11delta"
    return Frame(codec, key, gap, ms * 90, EPOCH_US + ms * 1000, data)


def sound(ms: int, codec: str = "opus") -> Frame:
    return Frame(codec, True, False, ms * (48 if codec == "opus" else 8), EPOCH_US + ms * 1000, b"sound")


@pytest.fixture
def files() -> Files:
    return Files()


def segmenter(files: Files, *, video: bool = True, audio: str | None = "opus") -> Segmenter:
    one = Segmenter(files)
    one.expect(video=video, audio_codec=audio)
    return one


def test_a_file_begins_at_the_first_key_frame(files: Files) -> None:
    """Pictures before it cannot be decoded; sound before it is left out."""
    one = segmenter(files)
    for frame in (sound(0), picture(10), sound(20), picture(33, key=True), sound(40), picture(66)):
        one.push(frame)
    assert files.specs[0].begins_at_us == EPOCH_US + 33_000
    assert [kind for kind, _ in files.frames[0]] == [Kind.VIDEO, Kind.AUDIO, Kind.VIDEO]
    assert files.frames[0][0][1] == 0


def test_sound_that_came_later_than_the_key_frame_was_captured_is_kept(files: Files) -> None:
    """Sound arrives before the picture of the same moment."""
    one = segmenter(files)
    for frame in (sound(0), sound(20), sound(40), picture(20, key=True)):
        one.push(frame)
    audio = [time for kind, time in files.frames[0] if kind is Kind.AUDIO]
    assert audio == [pytest.approx(0, abs=10), pytest.approx(20_000, abs=10)]


def test_sound_alone_gets_a_file_after_a_while(files: Files) -> None:
    """A camera that never sends must not cost the sound; nothing of it is lost."""
    one = segmenter(files)
    count = PICTURE_PATIENCE_US // 20_000 + 1
    for index in range(count):
        one.push(sound(index * 20))
    assert files.specs[0].video is None
    assert len(files.frames[0]) == count


def test_a_publication_without_picture_does_not_wait(files: Files) -> None:
    """A microphone is recorded from its first packet."""
    segmenter(files, video=False).push(sound(0))
    assert files.frames == [[(Kind.AUDIO, 0)]]


def test_a_picture_after_sound_alone_begins_another_file(files: Files) -> None:
    """The first file's header has no place for it."""
    one = segmenter(files, video=False)
    for frame in (sound(0), picture(20, key=True), sound(40)):
        one.push(frame)
    assert [spec.video is None for spec in files.specs] == [True, False]
    assert [kind for kind, _ in files.frames[1]] == [Kind.VIDEO, Kind.AUDIO]


@pytest.mark.parametrize("change", [{"size": 640}, {"codec": "vp9"}], ids=["size", "codec"])
def test_another_picture_format_begins_another_file(files: Files, change: dict[str, Any]) -> None:
    """A header describes one format."""
    one = segmenter(files)
    for frame in (picture(0, key=True), picture(33), picture(66, key=True, **change), picture(99)):
        one.push(frame)
    assert len(files.specs) == 2
    assert files.specs[1].begins_at_us == EPOCH_US + 66_000


def test_a_key_frame_of_the_same_format_goes_on(files: Files) -> None:
    """Key frames are no reason for files."""
    one = segmenter(files)
    for ms in range(0, 3000, 100):
        one.push(picture(ms, key=ms % 1000 == 0))
    assert len(files.specs) == 1
    assert len(files.frames[0]) == 30


def test_pictures_after_a_loss_wait_for_a_key_frame(files: Files) -> None:
    """A frozen picture is better than a broken one."""
    one = segmenter(files)
    for frame in (picture(0, key=True), picture(33, gap=True), picture(66), picture(99, key=True), picture(133)):
        one.push(frame)
    assert [round(time / 1000) for _, time in files.frames[0]] == [0, 99, 133]
    assert one.skipped_frames == 2


def test_sound_that_a_file_has_no_place_for_comes_with_the_next_key_frame(files: Files) -> None:
    """A microphone added to a publication that was picture only."""
    one = segmenter(files, audio=None)
    for frame in (picture(0, key=True), sound(20), picture(33), picture(66, key=True), sound(80)):
        one.push(frame)
    assert [spec.audio_codec for spec in files.specs] == [None, "opus"]


def test_the_sound_codec_may_change(files: Files) -> None:
    """Sound alone changes file at once."""
    one = segmenter(files, video=False)
    for frame in (sound(0), sound(20, "pcmu"), sound(40, "pcmu")):
        one.push(frame)
    assert [spec.audio_codec for spec in files.specs] == ["opus", "pcmu"]


def test_a_restarted_track_keeps_its_place_in_time(files: Files) -> None:
    """A publisher that moved to another node sends with RTP times of its own."""
    one = segmenter(files)
    one.push(picture(0, key=True))
    one.restart(Kind.VIDEO)
    one.push(picture(50))
    one.push(replace(picture(5_000, key=True), rtp_time=7))
    assert [time for _, time in files.frames[0]] == [0, 5_000_000]


def test_the_end_writes_what_waits(files: Files) -> None:
    """A call of one second of sound is a file."""
    one = segmenter(files)
    for ms in range(0, 1000, 20):
        one.push(sound(ms))
    one.end()
    assert len(files.frames[0]) == 50
    assert not files.is_open


def test_the_wait_for_a_picture_is_bounded(files: Files) -> None:
    """Frames of one and the same time never add up."""
    one = segmenter(files)
    for _ in range(MAX_PENDING * 2):
        one.push(sound(0))
    assert len(one._pending) <= MAX_PENDING


@given(st.lists(st.sampled_from([sound(0), picture(0), picture(1, key=True), picture(2, gap=True), sound(9, "pcmu")])))
def test_no_order_of_frames_breaks_it(frames: list[Frame]) -> None:
    """Every frame goes into an open file, or nowhere."""
    files = Files()
    one = segmenter(files)
    for index, frame in enumerate(frames):
        one.push(replace(frame, rtp_time=frame.rtp_time + index * 100))
    one.end()
    assert all(not written or written[0][1] >= 0 for written in files.frames)
