"""The timeline of a mixed recording, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
from mrtc_rtcrecorder.core.frames import Frame, Kind
from mrtc_rtcrecorder.mix.encoder import SAMPLES_PER_BLOCK
from mrtc_rtcrecorder.mix.inputs import STALE_US
from mrtc_rtcrecorder.mix.session import MAX_TRACKS, MixSession
from mrtc_rtcrecorder.mix.sound import RATE

EPOCH_US = 1_700_000_000_000_000
DELAY_US = 400_000
FPS = 25
BLACK = 16
CLOCK = Fraction(1, 90_000)
_REALTIME = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}


class Output:
    """A `MixOutput` that remembers."""

    def __init__(self) -> None:
        self.pictures: dict[int, npt.NDArray[np.uint8]] = {}
        self.sound: dict[int, npt.NDArray[np.float32]] = {}

    def write_picture(self, index: int, picture: av.VideoFrame) -> None:
        self.pictures[index] = picture.to_ndarray()[: picture.height].copy()

    def write_sound(self, position: int, block: npt.NDArray[np.float32]) -> None:
        self.sound[position] = block.copy()

    def all_sound(self) -> npt.NDArray[np.float32]:
        return np.concatenate([self.sound[position][0] for position in sorted(self.sound)])


@pytest.fixture
def output() -> Output:
    return Output()


@pytest.fixture
def session(output: Output) -> MixSession:
    return MixSession(output, width=640, height=360, fps=FPS, begins_at_us=EPOCH_US, delay_us=DELAY_US)


def feed(session: MixSession, tracks: dict[int, list[Frame]], *, lateness_us: int = 50_000) -> None:
    """Frames arrive `lateness_us` after their capture, in order."""
    events = sorted(((f.captured_at_us, t, f) for t, frames in tracks.items() for f in frames), key=lambda e: e[:2])
    for at_us, track, frame in events:
        session.advance(at_us + lateness_us)
        session.push(track, frame)


def test_an_empty_room_is_black_and_silent_in_real_time(session: MixSession, output: Output) -> None:
    """Two seconds later two seconds are there, less half the delay: somebody may just come."""
    for at_us in range(0, 2_000_001, 10_000):
        session.advance(EPOCH_US + at_us + DELAY_US // 2)
    assert len(output.pictures) == 2 * FPS + 1
    assert all((picture == BLACK).all() for picture in output.pictures.values())
    assert not output.all_sound().any()
    assert len(output.sound) == 2 * RATE // SAMPLES_PER_BLOCK


def test_nothing_is_done_before_its_time(session: MixSession, output: Output) -> None:
    """The delay is what late frames have to arrive in."""
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    session.advance(EPOCH_US + DELAY_US - 1)
    assert not output.pictures
    session.advance(EPOCH_US + DELAY_US)
    assert len(output.pictures) == 1


def written_us(output: Output) -> int:
    """How far the timeline has come, as the time of the latest tick."""
    return max(output.pictures) * 1_000_000 // FPS


def test_a_moment_waits_for_the_last_track_only(session: MixSession, output: Output, make_frames: Any) -> None:
    """What is not written is lost when the process dies: with everybody on time that is half the delay."""
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    session.add_track(1, Kind.AUDIO, EPOCH_US)
    feed(session, {0: make_frames("h264", 2.0), 1: make_frames("opus", 2.0)})
    assert written_us(output) == pytest.approx(2_000_000 + 30_000 - DELAY_US // 2, abs=40_000)


def test_a_moment_waits_for_one_who_is_late(session: MixSession, output: Output, make_frames: Any) -> None:
    """With half a second of nothing from one of two, the others go on after the delay."""
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    session.add_track(1, Kind.AUDIO, EPOCH_US)
    feed(session, {0: make_frames("h264", 2.0), 1: make_frames("opus", 1.5)})
    assert written_us(output) == pytest.approx(2_000_000 + 30_000 - DELAY_US, abs=40_000)


def test_one_who_has_been_quiet_is_not_waited_for(session: MixSession, output: Output, make_frames: Any) -> None:
    """Who is muted does not make the others wait."""
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    session.add_track(1, Kind.AUDIO, EPOCH_US)
    feed(session, {0: make_frames("h264", 2.0), 1: make_frames("opus", 0.5)})
    assert written_us(output) == pytest.approx(2_000_000 + 30_000 - DELAY_US // 2, abs=40_000)


@pytest.mark.parametrize("codec", ["h264", "vp8", "vp9", "av1"])
def test_a_picture_of_every_codec_is_shown(codec: str, session: MixSession, output: Output, make_frames: Any) -> None:
    """From its first frame on."""
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    feed(session, {0: make_frames(codec, 1.0)})
    session.finish(EPOCH_US + 900_000)
    assert (output.pictures[0] != BLACK).mean() > 0.9


@pytest.mark.parametrize("codec", ["opus", "pcmu", "pcma", "g722"])
def test_sound_of_every_codec_is_heard(codec: str, session: MixSession, output: Output, make_frames: Any) -> None:
    """440 Hz stay 440 Hz at 48 kHz."""
    session.add_track(0, Kind.AUDIO, EPOCH_US)
    feed(session, {0: make_frames(codec, 2.0)})
    session.finish(EPOCH_US + 1_900_000)
    spectrum = np.abs(np.fft.rfft(output.all_sound()[RATE // 2 : RATE * 3 // 2]))
    assert abs(int(spectrum.argmax()) - 440) <= 2


def test_two_pictures_stand_side_by_side_and_one_has_it_all(
    session: MixSession, output: Output, make_frames: Any
) -> None:
    """A late joiner halves the picture; when it leaves the other has all again."""
    frames = make_frames("h264", 3.0)
    late = [f for f in frames if f.captured_at_us >= EPOCH_US + 1_000_000]
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    feed(session, {0: [f for f in frames if f not in late]})
    session.add_track(1, Kind.VIDEO, EPOCH_US + 1_000_000)
    middle = EPOCH_US + 2_000_000
    feed(
        session, {0: [f for f in late if f.captured_at_us < middle], 1: [f for f in late if f.captured_at_us < middle]}
    )
    session.remove_track(1, middle)
    feed(session, {0: [f for f in late if f.captured_at_us >= middle]})
    session.finish(EPOCH_US + 2_900_000)
    corner, middle_edge = (slice(0, 60), slice(0, 640)), (slice(90, 270), slice(300, 340))
    assert (output.pictures[10][corner] != BLACK).mean() > 0.5
    assert (output.pictures[45][corner] == BLACK).all(), "letterboxed above"
    assert (output.pictures[45][middle_edge] != BLACK).mean() > 0.5
    assert (output.pictures[70][corner] != BLACK).mean() > 0.5


def test_arrival_does_not_matter_within_the_delay(output: Output, make_frames: Any) -> None:
    """The same frames in bursts of 300 ms make the same file."""

    def mixed(lateness_us: int) -> Output:
        out = Output()
        one = MixSession(out, width=320, height=180, fps=FPS, begins_at_us=EPOCH_US, delay_us=DELAY_US)
        one.add_track(0, Kind.VIDEO, EPOCH_US)
        one.add_track(1, Kind.AUDIO, EPOCH_US)
        feed(one, {0: make_frames("h264", 2.0), 1: make_frames("opus", 2.0)}, lateness_us=lateness_us)
        one.finish(EPOCH_US + 1_980_000)
        return out

    prompt, slow = mixed(0), mixed(390_000)
    assert prompt.pictures.keys() == slow.pictures.keys()
    assert all((prompt.pictures[index] == slow.pictures[index]).all() for index in prompt.pictures)
    assert (prompt.all_sound() == slow.all_sound()).all()


def test_a_picture_that_stops_turns_black(session: MixSession, output: Output, make_frames: Any) -> None:
    """A frozen face is not a participant."""
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    feed(session, {0: make_frames("h264", 1.0)})
    session.finish(EPOCH_US + 1_000_000 + STALE_US + 200_000)
    assert (output.pictures[50] != BLACK).any()
    assert (output.pictures[max(output.pictures)] == BLACK).all()


def test_a_muted_picture_turns_black_at_once(session: MixSession, output: Output, make_frames: Any) -> None:
    """Mute must not show the last picture for seconds."""
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    feed(session, {0: make_frames("h264", 1.0)})
    session.finish(EPOCH_US + 1_000_000)
    session.hide_track(0, EPOCH_US + 1_050_000)
    session.finish(EPOCH_US + 1_100_000)
    assert (output.pictures[max(output.pictures)] == BLACK).all()


def test_lost_frames_freeze_and_do_not_smear(session: MixSession, output: Output, make_frames: Any) -> None:
    """After a loss the last good picture stays up to the next key frame."""
    frames = make_frames("h264", 3.0)
    broken = [replace(f, is_discontinuous=i == 40) for i, f in enumerate(frames) if i != 39]
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    feed(session, {0: broken})
    session.finish(EPOCH_US + 2_900_000)
    at = [index * FPS // 30 for index in (41, 50, 58)]
    assert all((output.pictures[index] == output.pictures[at[0]]).all() for index in at)
    assert (output.pictures[60] != output.pictures[at[0]]).any()


def test_garbage_costs_nothing_but_itself(session: MixSession, output: Output, make_frames: Any) -> None:
    """A sender of nonsense does not stop the others."""
    frames = make_frames("vp8", 2.0)
    garbage = [replace(f, data=b"\x00garbage" * 20) for f in frames]
    noise = [replace(f, data=b"\xffnoise") for f in make_frames("opus", 2.0)]
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    session.add_track(1, Kind.VIDEO, EPOCH_US)
    session.add_track(2, Kind.AUDIO, EPOCH_US)
    feed(session, {0: garbage, 1: frames, 2: noise})
    session.finish(EPOCH_US + 1_900_000)
    assert (output.pictures[40][90:270, 330:630] != BLACK).mean() > 0.9


def test_tracks_are_bounded(session: MixSession) -> None:
    """A room of thousands is recorded as far as it goes."""
    for track in range(MAX_TRACKS + 5):
        session.add_track(track, Kind.AUDIO, EPOCH_US)
    assert session.refused_tracks == 5


def test_a_machine_that_is_too_slow_loses_pictures_not_sound(session: MixSession, output: Output) -> None:
    """The further it is behind the fewer; the sound is whole."""
    made = []
    for second, behind_us in enumerate([900_000, 1_000_000, 5_900_000, 7_000_000, 10_000_000], 1):
        before = len(output.pictures)
        session.advance(EPOCH_US + second * 1_000_000 + DELAY_US // 2, behind_us)
        made.append(len(output.pictures) - before)
    assert made == pytest.approx([FPS + 1, FPS / 2, FPS / 3, FPS / 4, 0], abs=1)
    assert session.skipped_pictures + len(output.pictures) == 5 * FPS + 1
    assert len(output.sound) == 5 * RATE // SAMPLES_PER_BLOCK


def flash_and_beep(offset_us: int) -> tuple[list[Frame], list[Frame]]:
    """White pictures and a tone in the same 200 ms of every second; the sound is off by `offset_us`."""
    video: Any = av.CodecContext.create("libvpx", "w")
    video.width, video.height, video.pix_fmt, video.bit_rate = 64, 64, "yuv420p", 2_000_000
    video.time_base, video.options = CLOCK, _REALTIME
    audio: Any = av.CodecContext.create("libopus", "w")
    audio.sample_rate, audio.layout, audio.format = RATE, "stereo", "flt"
    pictures, sounds = [], []
    for index in range(90):
        is_on = index % 30 < 6
        frame = av.VideoFrame.from_ndarray(np.full((96, 64), 235 if is_on else 16, np.uint8), format="yuv420p")
        for plane in frame.planes[1:]:
            plane.update(bytes([128]) * plane.buffer_size)
        frame.pts, frame.time_base = index * 3000, CLOCK
        for packet in video.encode(frame):
            at_us = EPOCH_US + index * 100_000 // 3
            pictures.append(Frame("vp8", packet.is_keyframe, False, index * 3000, at_us, bytes(packet)))
    for index in range(150):
        times = np.arange(index * 960, (index + 1) * 960)
        tone = np.where(times % RATE < RATE // 5, np.sin(times * 0.1), 0).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(tone.repeat(2)[None, :], format="flt", layout="stereo")
        frame.sample_rate, frame.pts = RATE, index * 960
        for packet in audio.encode(frame):
            at_us = EPOCH_US + offset_us + len(sounds) * 20_000
            sounds.append(Frame("opus", True, False, len(sounds) * 960, at_us, bytes(packet)))
    return pictures, sounds


@pytest.mark.parametrize("offset_us", [0, 120_000, -80_000])
def test_sound_and_picture_stay_within_40_ms(output: Output, offset_us: int) -> None:
    """What was captured together is shown and heard together, by capture time alone."""
    pictures, sounds = flash_and_beep(offset_us)
    session = MixSession(output, width=64, height=64, fps=50, begins_at_us=EPOCH_US, delay_us=DELAY_US)
    session.add_track(0, Kind.VIDEO, EPOCH_US)
    session.add_track(1, Kind.AUDIO, EPOCH_US)
    feed(session, {0: pictures, 1: sounds}, lateness_us=100_000)
    session.finish(EPOCH_US + 2_900_000)
    flash_s = min(i for i, p in output.pictures.items() if i > 40 and p.mean() > 120) / 50
    heard = np.flatnonzero(np.abs(output.all_sound()) > 0.2) / RATE
    beep_s = heard[heard > 0.6].min()
    # The Opus encoder of the test delays by 6.5 ms; a real sender's reports account for that.
    assert abs(beep_s - flash_s - offset_us / 1e6 - 0.0065) < 0.04
