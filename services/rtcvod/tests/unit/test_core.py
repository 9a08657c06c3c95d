"""Decisions of the player."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mrtc.common.v1 import common_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common.ids import is_id, new_id
from mrtc_rtcvod.core import records
from mrtc_rtcvod.core.interleaver import MAX_ITEMS, MAX_SPAN_US, Interleaver
from mrtc_rtcvod.core.media import AudioFacts, VideoFacts, scaled_bitrate, scaled_size
from mrtc_rtcvod.core.pacer import Pacer
from mrtc_rtcvod.core.records import PlayedTracks, VodIds

GOOD = VideoFacts("h264", 1280, 720, 30.0, profile="High", keyframe_gap_us=2_000_000, bitrate_bps=2_000_000)


@pytest.mark.parametrize(
    "change",
    [
        {"codec": "hevc"},
        {"profile": "High 10"},
        {"profile": "High 4:4:4 Predictive"},
        {"pixel_format": "yuv422p"},
        {"has_reordering": True},
        {"keyframe_gap_us": 10_000_000},
        {"width": 3840, "height": 2160},
        {"bitrate_bps": 50_000_000},
        {"rotation": 90},
    ],
    ids=str,
)
def test_what_receivers_could_not_take_is_transcoded(change: dict[str, object]) -> None:
    """Each obstacle by itself."""
    assert GOOD.obstacle(8_000_000) == ""
    assert replace(GOOD, **change).obstacle(8_000_000)  # type: ignore[arg-type]


def test_opus_passes_in_one_or_two_channels() -> None:
    """Surround Opus is another payload format."""
    assert AudioFacts("opus", 2, 48_000).passes
    assert not AudioFacts("opus", 6, 48_000).passes
    assert not AudioFacts("aac", 2, 48_000).passes


@given(st.integers(2, 8192), st.integers(2, 4352), st.integers(90, 2160))
def test_scaled_sizes_are_even_and_within_bounds(width: int, height: int, max_height: int) -> None:
    """Nothing is enlarged."""
    scaled = scaled_size(width, height, max_height)
    assert all(value % 2 == 0 and value >= 2 for value in scaled)
    assert scaled[0] <= max(2, width)
    assert scaled[1] <= max(2, min(height, max_height) + 1)


def test_bitrates_follow_the_size() -> None:
    """Less for less, with a floor."""
    assert scaled_bitrate(1280, 720, 720, 2_000_000) == pytest.approx(2_000_000, rel=0.01)
    assert 200_000 < scaled_bitrate(320, 180, 720, 2_000_000) < 300_000
    assert scaled_bitrate(16, 16, 720, 2_000_000) == 100_000


class Clock:
    def __init__(self) -> None:
        self.now_us = 1_000

    def sleep(self, seconds: float) -> None:
        self.now_us += round(seconds * 1e6)


def test_a_player_that_was_held_up_goes_on_later_not_faster() -> None:
    """After two seconds of standstill nothing is hurried, and both tracks are shifted alike."""
    clock = Clock()
    pacer = Pacer(lambda: clock.now_us, clock.sleep)
    pacer.pace(0, 0)
    pacer.pace(1, 0)
    clock.now_us += 2_000_000
    video, audio = pacer.pace(0, 40_000), pacer.pace(1, 40_000)
    assert video == audio == pytest.approx(2_000_000, abs=10)
    assert pacer.pace(0, 80_000) == pytest.approx(2_040_000, abs=10)


def test_a_short_delay_is_made_up() -> None:
    """Times stay as they are when a frame is a little late."""
    clock = Clock()
    pacer = Pacer(lambda: clock.now_us, clock.sleep)
    pacer.pace(0, 0)
    clock.now_us += 300_000
    assert pacer.pace(0, 40_000) == 40_000


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 10_000_000)), max_size=200))
def test_packets_come_out_whole_and_in_order_within_the_span(packets: list[tuple[int, int]]) -> None:
    """None is lost or doubled; what comes out early was later than the span allows."""
    order: Interleaver[int] = Interleaver({0, 1})
    out = []
    for index, (stream, time_us) in enumerate(packets):
        out += list(order.push(stream, time_us, index))
    out += list(order.flush())
    assert sorted(item for _, _, item in out) == list(range(len(packets)))


def test_well_mixed_streams_come_out_sorted() -> None:
    """Half a second of disorder, as files have it."""
    order: Interleaver[None] = Interleaver({0, 1})
    times = []
    for second in range(10):
        for stream in (0, 1):
            for step in range(10):
                times += [t for _, t, _ in order.push(stream, second * 500_000 + step * 50_000, None)]
    times += [t for _, t, _ in order.flush()]
    assert times == sorted(times)
    assert len(times) == 200


def test_a_stream_that_ended_holds_nothing_up() -> None:
    """A film whose sound is shorter."""
    order: Interleaver[None] = Interleaver({0, 1})
    held, longest = 0, 0
    for index in range(5_000):
        held += 1 - len(list(order.push(0, index * 33_000, None)))
        longest = max(longest, held)
    assert longest <= min(MAX_ITEMS, MAX_SPAN_US // 33_000 + 2)


def vod() -> vod_pb2.Vod:
    return vod_pb2.Vod(id=new_id("vod"), app_id="app", room="room", identity="film", name="A film", tag="movie")


def test_ids_follow_from_the_vod() -> None:
    """So that whoever takes over is the same participant."""
    one = vod()
    ids = VodIds.of(one.id)
    assert ids == VodIds.of(one.id)
    assert all(is_id(value) for value in (ids.participant, ids.session, ids.publication, ids.video, ids.alternative))


def test_a_publication_says_what_can_be_had() -> None:
    """Both tracks, and the further codec for those who cannot decode the first."""
    one = vod()
    ids = VodIds.of(one.id)
    record = records.publication_record(one, ids, PlayedTracks("h264", 640, 360, "opus"), "node", 5)
    assert [(track.id, track.codec) for track in record.publication.tracks] == [
        (ids.audio, "opus"),
        (ids.video, "h264"),
    ]
    assert all(track.source == common_pb2.TRACK_SOURCE_FILE for track in record.publication.tracks)
    assert list(record.offered_codecs[ids.video].codecs) == ["h264", "vp8"]
    with_both = records.publication_record(one, ids, PlayedTracks("h264", 640, 360, "opus", "vp8"), "node", 5)
    assert with_both.publication.tracks[2].alternative_of == ids.video


def test_mutes_outlive_a_new_publication_record() -> None:
    """An admin's mute is not undone by an alternative."""
    one = vod()
    ids = VodIds.of(one.id)
    record = records.publication_record(one, ids, PlayedTracks("vp8", 640, 360, "opus"), "node", 5)
    assert records.muted_tracks(records.with_mutes(record, {ids.audio})) == {ids.audio}


def test_records_of_a_life() -> None:
    """Claimed, playing, at a position, ended or failed; the order itself is never changed."""
    one = vod()
    playing = records.playing(records.claimed(one), "pa", 6_000_000, 7)
    assert (playing.state, playing.started_at_ms, playing.duration_ms) == (vod_pb2.VOD_STATE_PLAYING, 7, 6000)
    assert records.at_position(playing, 1_500_000).position_ms == 1500
    assert records.ended(playing, 8).state == vod_pb2.VOD_STATE_ENDED
    assert records.ended(playing, 8, "why").error == "why"
    assert one.node_id == ""
