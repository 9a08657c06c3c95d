"""Files played over real relays, engines and NATS."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from typing import Any, cast

import av
import numpy as np
import pytest
from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2
from mrtc.vod.v1 import vod_pb2
from mrtc_common import subjects, tables
from mrtc_common.testing import NatsServer, wait_until
from mrtc_rtcvod.bootstrap import VodPlayer
from mrtc_rtcvod.core.records import VodIds

pytestmark = pytest.mark.integration

PLAYING, ENDED, FAILED = vod_pb2.VOD_STATE_PLAYING, vod_pb2.VOD_STATE_ENDED, vod_pb2.VOD_STATE_FAILED
ROOM_KEY = subjects.room_key("app", "room")


def is_playing(vod: vod_pb2.Vod) -> bool:
    """True once it plays."""
    return vod.state == PLAYING


def is_over(vod: vod_pb2.Vod) -> bool:
    """True once it has ended or failed."""
    return vod.state in (ENDED, FAILED)


@pytest.mark.parametrize(
    ("name", "codec"), [("pass.mp4", "h264"), ("vp8.webm", "vp8"), ("bframes.mkv", "vp8"), ("music.mp3", "")]
)
async def test_a_file_is_played_to_its_end(
    name: str, codec: str, player: VodPlayer, desk: Any, receiver: Any, media_file: Any
) -> None:
    """Its tracks arrive on another node and decode; then the participant is gone without a trace."""
    vod = await desk.start(media_file(name), name="A film", tag="movie")
    playing = await desk.reached(vod, is_playing)
    [participant] = await desk.entries(state_pb2.ParticipantRecord)
    assert participant.participant.kind == common_pb2.PARTICIPANT_KIND_VOD
    assert (participant.participant.identity, participant.participant.name) == ("film", "A film")
    assert playing.participant_id == participant.participant.id
    record = await desk.publication()
    assert record.publication.tag == "movie"
    tracks = {track.kind: track for track in record.publication.tracks}
    sound = await receiver.receive(tracks[common_pb2.TRACK_KIND_AUDIO].id, record.node_id, 50)
    assert {frame.codec for frame in sound} == {"opus"}
    if codec:
        assert tracks[common_pb2.TRACK_KIND_VIDEO].codec == codec
        frames = await receiver.receive(tracks[common_pb2.TRACK_KIND_VIDEO].id, record.node_id, 45)
        assert frames[0].is_keyframe
        decoder = cast(Any, av.CodecContext.create(codec, "r"))
        pictures = [picture for frame in frames for picture in decoder.decode(av.Packet(frame.data))]
        assert len(pictures) > 40
    ended = await desk.reached(vod, is_over)
    assert (ended.state, ended.error) == (ENDED, "")
    assert ended.position_ms == pytest.approx(5950, abs=100)
    assert await desk.entries(state_pb2.ParticipantRecord) == []
    assert await desk.entries(state_pb2.PublicationRecord) == []
    assert await desk.entries(state_pb2.IdentityRecord) == []
    assert await tables.sessions(desk.link).list() == []


def onset_us(levels: list[tuple[int, float]], threshold: float) -> int:
    """When a signal first rises over a threshold after it was below; times in microseconds."""
    return next(at for (_, before), (at, level) in itertools.pairwise(levels) if before < threshold <= level)


@pytest.mark.parametrize("name", ["flash.mp4", "flash.webm"])
async def test_sound_and_picture_arrive_together(
    name: str, player: VodPlayer, desk: Any, receiver: Any, media_file: Any
) -> None:
    """A flash and a beep of the same moment have capture times less than 40 ms apart on another node."""
    vod = await desk.start(media_file(name), is_loop=True)
    await desk.reached(vod, is_playing)
    record, ids = await desk.publication(), VodIds.of(vod.id)
    video, audio = await asyncio.gather(
        receiver.receive(ids.video, record.node_id, 110), receiver.receive(ids.audio, record.node_id, 110)
    )
    pictures: Any = av.CodecContext.create(video[0].codec, "r")
    sound: Any = av.CodecContext.create("libopus", "r")
    sound.sample_rate, sound.layout = 48_000, "stereo"
    seen = [
        (frame.captured_at_us, float(picture.to_ndarray()[: picture.height].mean()))
        for frame in video
        for picture in pictures.decode(av.Packet(frame.data))
    ]
    heard = [
        (frame.captured_at_us + index * 2_500, float(np.abs(block).max()))
        for frame in audio
        for decoded in sound.decode(av.Packet(frame.data))
        for index, block in enumerate(np.array_split(decoded.to_ndarray().reshape(-1), 8))
    ]
    apart_us = (onset_us(heard, 0.05) - onset_us(seen, 100) + 500_000) % 1_000_000 - 500_000
    assert abs(apart_us) < 40_000
    await desk.stop(vod)
    await desk.reached(vod, is_over)


async def test_a_vod_is_stopped(player: VodPlayer, desk: Any, media_file: Any) -> None:
    """Long before its end."""
    vod = await desk.start(media_file("vp8.webm"), is_loop=True)
    await desk.reached(vod, is_playing)
    await desk.stop(vod)
    assert (await desk.reached(vod, is_over)).state == ENDED
    assert await desk.entries(state_pb2.ParticipantRecord) == []


async def test_a_removed_participant_ends_its_vod(player: VodPlayer, desk: Any, media_file: Any) -> None:
    """An admin removes it as anybody else."""
    vod = await desk.start(media_file("vp8.webm"), is_loop=True)
    await desk.reached(vod, is_playing)
    key = subjects.participant_key(ROOM_KEY, VodIds.of(vod.id).participant)
    await tables.rooms(desk.link).delete(key)
    assert (await desk.reached(vod, is_over)).state == ENDED


async def test_the_newest_of_an_identity_wins(player: VodPlayer, desk: Any, media_file: Any) -> None:
    """Two vods of one name: the first leaves, as for every participant."""
    first = await desk.start(media_file("vp8.webm"), is_loop=True)
    await desk.reached(first, is_playing)
    second = await desk.start(media_file("vp8.webm"), is_loop=True)
    await desk.reached(second, is_playing)
    assert (await desk.reached(first, is_over)).state == ENDED
    [identity] = await desk.entries(state_pb2.IdentityRecord)
    assert identity.participant_id == VodIds.of(second.id).participant
    await desk.stop(second)
    await desk.reached(second, is_over)


async def test_a_picture_is_had_in_a_further_codec(
    player: VodPlayer, desk: Any, receiver: Any, media_file: Any
) -> None:
    """When a receiver wants one, it is published as an alternative and decodes."""
    vod = await desk.start(media_file("pass.mp4"), is_loop=True)
    await desk.reached(vod, is_playing)
    ids = VodIds.of(vod.id)
    want = subjects.codec_want_key(ROOM_KEY, ids.video)
    await tables.rooms(desk.link).put(want, state_pb2.CodecList(codecs=["vp8"]))

    async def has_alternative() -> bool:
        return any(track.alternative_of == ids.video for track in (await desk.publication()).publication.tracks)

    await wait_until(has_alternative, what="the alternative")
    record = await desk.publication()
    frames = await receiver.receive(ids.alternative, record.node_id, 40)
    assert {frame.codec for frame in frames} == {"vp8"}
    decoder = cast(Any, av.CodecContext.create("vp8", "r"))
    assert len([picture for frame in frames for picture in decoder.decode(av.Packet(frame.data))]) > 35
    await desk.stop(vod)
    await desk.reached(vod, is_over)


async def test_a_vod_outlives_its_player(make_settings: Any, desk: Any, receiver: Any, media_file: Any) -> None:
    """The next one goes on where the first was, as the same participant, which never leaves."""
    async with VodPlayer(make_settings()) as first:
        vod = await desk.start(media_file("vp8.webm", 20.0))
        await desk.reached(vod, lambda vod: vod.position_ms > 1_500)
        async with VodPlayer(make_settings()) as second:
            await first.__aexit__(None, None, None)
            taken = await desk.reached(vod, lambda vod: vod.node_id == second.node.node_id and vod.position_ms > 3_000)
            assert await desk.entries(state_pb2.ParticipantRecord) != []
            record = await desk.publication()
            assert record.node_id == second.node.node_id
            frames = await receiver.receive(VodIds.of(vod.id).video, record.node_id, 10)
            assert frames
            assert taken.participant_id == VodIds.of(vod.id).participant
            await desk.stop(vod)
            await desk.reached(vod, is_over)


async def test_a_killed_player_is_replaced_at_once(
    make_settings: Any, nats_server: NatsServer, desk: Any, receiver: Any, media_file: Any
) -> None:
    """SIGKILL: another player goes on within a second, at the place where the file was, as the same participant."""
    values = make_settings()
    env = os.environ | {
        f"MRTC_RTCVOD_{key}": str(value)
        for key, value in {
            "GRPC_PORT": 0,
            "HTTP_PORT": 0,
            "UDP_PORT": 0,
            "BIND_IP": "127.0.0.1",
            "NATS_URLS": nats_server.url,
            "STORAGE_ROOT": values.storage_root,
            "CLUSTER_SECRET": "a secret of the tests",
        }.items()
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "mrtc_rtcvod", env=env)
    vod = await desk.start(media_file("vp8.webm", 20.0))
    playing = await desk.reached(vod, lambda vod: vod.position_ms > 1_500)
    async with VodPlayer(make_settings()) as second:
        await wait_until(lambda: second.node.watches == {playing.node_id}, what="the first to be watched")
        before, killed_at = (await desk.reached(vod, is_playing)).position_ms, time.monotonic()
        process.kill()
        await process.wait()
        taken = await desk.reached(vod, lambda vod: vod.node_id == second.node.node_id)
        assert time.monotonic() - killed_at < 1
        assert before <= taken.position_ms <= before + 1_000
        record = await desk.publication_of(second.node.node_id)
        frames = await receiver.receive(VodIds.of(vod.id).video, record.node_id, 10)
        assert frames[0].is_keyframe
        going = await desk.reached(vod, lambda vod: vod.position_ms > taken.position_ms + 1_000)
        played_ms = (time.monotonic() - killed_at) * 1000
        assert going.position_ms - before == pytest.approx(played_ms, abs=2_000)
        [participant] = await desk.entries(state_pb2.ParticipantRecord)
        assert participant.participant.id == playing.participant_id
        await desk.stop(vod)
        await desk.reached(vod, is_over)


@pytest.mark.parametrize(
    ("content", "options", "reason"),
    [
        (b"not a film", {}, "not a media file"),
        (None, {"media_key": "missing"}, "no such media file"),
        (None, {"media_key": "../../etc/passwd"}, "media_key"),
        (None, {"media_key": "/etc/passwd"}, "media_key"),
        (b"x", {"identity": ""}, "identity"),
    ],
)
async def test_what_cannot_be_played_fails_with_a_reason(
    content: bytes | None, options: dict[str, str], reason: str, player: VodPlayer, desk: Any, tmp_path: Any
) -> None:
    """And nobody joins."""
    source = None
    if content is not None:
        source = tmp_path / "source"
        source.write_bytes(content)
    vod = await desk.start(source, **options)
    failed = await desk.reached(vod, is_over)
    assert failed.state == FAILED
    assert reason in failed.error
    assert await desk.entries(state_pb2.ParticipantRecord) == []
