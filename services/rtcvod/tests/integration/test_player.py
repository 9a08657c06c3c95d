"""Playing files in virtual time."""

from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import pytest
from mrtc_rtcvod.core.pacer import AHEAD_US, Pacer
from mrtc_rtcvod.errors import BadMediaError
from mrtc_rtcvod.play.player import Player
from mrtc_rtcvod.play.probe import probe
from mrtc_rtcvod.play.wire import Opened, PlayedFrame, PlayOptions, TrackNumber

pytestmark = pytest.mark.integration

VIDEO, AUDIO, ALTERNATIVE = TrackNumber.VIDEO, TrackNumber.AUDIO, TrackNumber.ALTERNATIVE


class Played:
    """A file played to its end on a clock of its own."""

    def __init__(
        self, path: Path, *, on_frame: Callable[[Played, PlayedFrame], None] | None = None, **options: Any
    ) -> None:
        self.now_us = 0
        self.frames: list[tuple[int, PlayedFrame]] = []
        self._on_frame = on_frame
        self.player = Player(
            probe(str(path)),
            PlayOptions(str(path), **options),
            Pacer(lambda: self.now_us, self._sleep),
            self._emit,
        )
        self.opened: Opened = self.player.opened
        self.player.play()

    def of(self, track: int) -> list[PlayedFrame]:
        return [frame for _, frame in self.frames if frame.track == track]

    def _sleep(self, seconds: float) -> None:
        self.now_us += round(seconds * 1e6)

    def _emit(self, frame: PlayedFrame) -> None:
        self.frames.append((self.now_us, frame))
        if self._on_frame is not None:
            self._on_frame(self, frame)


def pictures(frames: list[PlayedFrame], codec: str) -> list[av.VideoFrame]:
    decoder = cast(Any, av.CodecContext.create({"vp8": "vp8", "h264": "h264"}[codec], "r"))
    return [picture for frame in frames for picture in decoder.decode(av.Packet(frame.data))] + decoder.decode(None)


@pytest.mark.parametrize(
    ("name", "codec", "is_transcoded"),
    [
        ("pass.mp4", "h264", False),
        ("vp8.webm", "vp8", False),
        ("bframes.mkv", "vp8", True),
        ("long-gop.mp4", "vp8", True),
        ("yuv444.mp4", "vp8", True),
        ("vp9.webm", "vp8", True),
    ],
)
def test_a_film_plays_whole_and_decodes(name: str, codec: str, is_transcoded: bool, media_file: Any) -> None:
    """Every picture and all sound, passed through or transcoded, in their time."""
    played = Played(media_file(name))
    assert (played.opened.video_codec, played.opened.audio_codec) == (codec, "opus")
    assert bool(played.opened.note) == is_transcoded
    video, audio = played.of(VIDEO), played.of(AUDIO)
    assert 176 <= len(pictures(video, codec)) <= 180
    assert 296 <= len(audio) <= 302
    assert all(a.pts_us < b.pts_us for a, b in itertools.pairwise(video))
    assert video[-1].pts_us == pytest.approx(5_950_000, abs=60_000)
    assert audio[-1].pts_us == pytest.approx(5_950_000, abs=60_000)


@pytest.mark.parametrize("name", ["music.mp3", "music.ogg", "tone.wav"])
def test_music_plays_without_a_picture(name: str, media_file: Any) -> None:
    """Opus at 48 kHz, whatever it was, and still 440 Hz."""
    played = Played(media_file(name))
    assert played.opened.video_codec == ""
    decoder = cast(Any, av.CodecContext.create("libopus", "r"))
    decoder.sample_rate, decoder.layout = 48_000, "stereo"
    blocks = [f.to_ndarray().reshape(-1, 2)[:, 0] for p in played.of(AUDIO) for f in decoder.decode(av.Packet(p.data))]
    samples = np.concatenate(blocks).astype(np.float64)[48_000:96_000]
    assert abs(int(np.abs(np.fft.rfft(samples)).argmax()) - 440) <= 2


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_film_of_a_telephone_stands_upright(degrees: int, media_file: Any, tmp_path: Path) -> None:
    """Its note of how it was held is followed: what ffmpeg shows is what is sent."""
    source, target = media_file("pass.mp4"), tmp_path / "turned.mp4"
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-i",
        str(source),
        "-c",
        "copy",
        "-metadata:s:v",
        f"rotate={degrees}",
        str(target),
    ]
    subprocess.run(command, check=True)
    raw = ["ffmpeg", "-v", "error", "-i", str(target), "-frames:v", "1", "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    expected = np.frombuffer(subprocess.run(raw, check=True, capture_output=True).stdout, np.uint8)
    played = Played(target)
    assert played.opened.note
    picture = pictures(played.of(VIDEO)[:3], "vp8")[0]
    assert (picture.width, picture.height) == ((320, 180) if degrees == 180 else (180, 320))
    luma = picture.reformat(format="gray").to_ndarray().astype(np.int16)
    assert np.abs(luma - expected.reshape(luma.shape)).mean() < 20


def test_a_film_without_sound_plays(media_file: Any) -> None:
    """No track is promised that never comes."""
    played = Played(media_file("silent.mp4"))
    assert played.opened.audio_codec == ""
    assert len(played.of(VIDEO)) == 180


@pytest.mark.parametrize("name", ["pass.mp4", "bframes.mkv", "vp8.webm"])
def test_frames_leave_at_their_time_or_a_little_ahead(name: str, media_file: Any) -> None:
    """Never more than the limit ahead, never late; the first of each track exactly at its time."""
    played = Played(media_file(name))
    epoch = played.frames[0][0] - played.frames[0][1].pts_us
    leads = [frame.pts_us - (at - epoch) for at, frame in played.frames]
    assert max(leads) <= AHEAD_US + 1
    assert min(leads) >= -1
    for track in (VIDEO, AUDIO):
        at, frame = next(item for item in played.frames if item[1].track == track)
        assert abs(at - epoch - frame.pts_us) <= 1


def test_a_passed_h264_key_frame_carries_its_parameter_sets(media_file: Any) -> None:
    """A receiver that joins in the middle has never seen the first one."""
    for frame in Played(media_file("pass.mp4")).of(VIDEO):
        if frame.is_keyframe:
            assert b"\x00\x00\x01\x67" in frame.data
            assert b"\x00\x00\x01\x68" in frame.data


def test_a_key_frame_comes_when_it_is_asked_for(media_file: Any) -> None:
    """With the next picture that is encoded."""
    asked: list[int] = []

    def ask(played: Played, frame: PlayedFrame) -> None:
        if frame.track == VIDEO and len(played.of(VIDEO)) == 20:
            asked.append(frame.pts_us)
            played.player.request_keyframe(VIDEO)

    played = Played(media_file("bframes.mkv"), on_frame=ask)
    after = [frame.pts_us for frame in played.of(VIDEO) if frame.is_keyframe and frame.pts_us > asked[0]]
    assert after[0] - asked[0] < 100_000


@pytest.mark.parametrize(("name", "codec"), [("pass.mp4", "vp8"), ("vp8.webm", "h264"), ("bframes.mkv", "h264")])
def test_an_alternative_joins_in_the_middle(name: str, codec: str, media_file: Any) -> None:
    """From the next key frame on, the same pictures in the other codec, at the same times."""

    def ask(played: Played, frame: PlayedFrame) -> None:
        if len(played.frames) == 100:
            played.player.add_alternative(codec)

    played = Played(media_file(name), on_frame=ask)
    other = played.of(ALTERNATIVE)
    assert other[0].is_keyframe
    assert len(pictures(other, codec)) == len(other) > 50
    assert {frame.pts_us for frame in other} <= {frame.pts_us for frame in played.of(VIDEO)}


def test_a_loop_goes_on_in_time(media_file: Any) -> None:
    """Times grow over the seam, sound and picture stay together."""

    class Enough(Exception):
        pass

    seen: list[PlayedFrame] = []

    def stop(_played: Played, frame: PlayedFrame) -> None:
        seen.append(frame)
        if frame.pts_us > 14_000_000:
            raise Enough

    with pytest.raises(Enough):
        Played(media_file("pass.mp4"), on_frame=stop, is_loop=True)
    for track in (VIDEO, AUDIO):
        times = [frame.pts_us for frame in seen if frame.track == track]
        steps = [b - a for a, b in itertools.pairwise(times)]
        assert min(steps) > 0
        assert max(steps) < 80_000


@pytest.mark.parametrize("name", ["pass.mp4", "bframes.mkv", "vp8.webm", "music.mp3"])
def test_a_vod_that_is_taken_over_goes_on_where_it_was(name: str, media_file: Any) -> None:
    """From a position between two key frames on, the clock from zero; its first picture decodes."""
    played = Played(media_file(name), start_us=3_500_000)
    first = played.frames[0][1]
    assert first.pts_us < 60_000
    assert 3_490_000 <= first.position_us < 3_600_000
    assert played.frames[-1][1].pts_us < 2_600_000
    if video := played.of(VIDEO):
        assert video[0].is_keyframe
        assert all(a.pts_us < b.pts_us for a, b in itertools.pairwise(video))
        shown = [frame for frame in video if frame.pts_us > video[0].pts_us + 40_000]
        assert shown[0].pts_us < 150_000
        assert len(pictures(video, played.opened.video_codec)) == pytest.approx(len(video), abs=2)
        assert len(shown) == pytest.approx(2.5 * 30, abs=4)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"not a film" * 1000, b"#EXTM3U\nfile:///etc/passwd\n"])
def test_what_is_no_media_file_fails_with_a_reason(content: bytes, tmp_path: Path) -> None:
    """Playlists too: they could name any file."""
    (tmp_path / "film.mp4").write_bytes(content)
    with pytest.raises(BadMediaError, match="not a media file"):
        Played(tmp_path / "film.mp4")


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    """It may have been deleted since it was queued."""
    with pytest.raises(BadMediaError, match="no such file"):
        Played(tmp_path / "film.mp4")


def test_an_sdp_file_opens_no_socket(tmp_path: Path) -> None:
    """Only file formats are read."""
    (tmp_path / "film.sdp").write_text(
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
    )
    with pytest.raises(BadMediaError):
        Played(tmp_path / "film.sdp")


def test_a_film_that_is_cut_short_plays_up_to_there(media_file: Any, tmp_path: Path) -> None:
    """Half a download."""
    whole = media_file("bframes.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert len(Played(tmp_path / "cut.mkv").of(VIDEO)) > 30


def test_sound_that_changes_its_format_plays_on(media_file: Any, tmp_path: Path) -> None:
    """Mono at 22 kHz and then stereo at 48, as in a recording of a broadcast."""
    parts = []
    for at, *form in (("0", "-ar", "22050", "-ac", "1"), ("6", "-ar", "48000", "-ac", "2")):
        command = ["ffmpeg", "-v", "error", "-i", str(media_file("pass.mp4")), "-c:v", "copy", *form]
        command += ["-output_ts_offset", at, "-f", "mpegts", "-"]
        parts.append(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    (tmp_path / "film.ts").write_bytes(b"".join(parts))
    played = Played(tmp_path / "film.ts")
    assert played.of(AUDIO)[-1].pts_us > 11_500_000
    assert len(played.of(AUDIO)) > 590, "twice six seconds of 20 ms each"


@pytest.mark.parametrize("seed", range(24))
def test_damaged_films_play_or_fail_but_never_crash(seed: int, media_file: Any, tmp_path: Path) -> None:
    """Random bytes overwritten all over the file."""
    name = ["pass.mp4", "bframes.mkv", "vp8.webm"][seed % 3]
    data = bytearray(media_file(name).read_bytes())
    generator = np.random.default_rng(seed)
    for at in generator.integers(2000, len(data), 300):
        data[at] = int(generator.integers(0, 256))
    (tmp_path / name).write_bytes(data)
    try:
        played = Played(tmp_path / name)
    except BadMediaError:
        return
    assert all(a.pts_us < b.pts_us for a, b in itertools.pairwise(played.of(AUDIO)))
