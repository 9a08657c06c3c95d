"""Recordings over real relays, engines and NATS."""

from __future__ import annotations

from typing import Any

import pytest
from mrtc.recorder.v1 import recording_pb2
from mrtc_common import subjects
from mrtc_common.testing import NatsServer, wait_until
from mrtc_rtcrecorder.bootstrap import Recorder

pytestmark = pytest.mark.integration

SINGLE, MIXED = recording_pb2.RECORDING_MODE_SINGLE, recording_pb2.RECORDING_MODE_MIXED
COMPLETE = recording_pb2.RECORDING_STATE_COMPLETE
ACTIVE = recording_pb2.RECORDING_STATE_ACTIVE
FAILED = recording_pb2.RECORDING_STATE_FAILED


def grown_to(seconds: float, files: int = 1) -> Any:
    """True of a record when so many files have grown so long."""
    return lambda record: sum(file.duration_ms >= seconds * 1000 for file in record.files) >= files


@pytest.mark.parametrize(("video", "extension"), [("vp8", "webm"), ("h264", "mp4")])
async def test_a_publication_is_recorded_as_it_is(
    video: str,
    extension: str,
    recorder: Recorder,
    node: Any,
    desk: Any,
    make_frames: Any,
    probe: Any,
    assert_decodes: Any,
) -> None:
    """Its codecs, its pictures, sound in sync with them; complete after the stop."""
    alice = await node.join("alice")
    await node.publish(alice, {"video": make_frames(video), "audio": make_frames("opus")}, tag="cam")
    recording = await desk.start(SINGLE)
    await desk.reached(recording, grown_to(3.0))
    await desk.stop(recording)
    done = await desk.reached(recording, lambda record: record.state == COMPLETE)
    [file] = done.files
    assert file.key.endswith(extension)
    assert file.key.startswith(f"app/room/{recording}/alice-")
    assert file.participant_identity == "alice"
    path = desk.path(file)
    assert_decodes(path)
    report = probe(path)
    assert {s["codec_name"] for s in report["streams"]} == {video, "opus"}
    assert path.stat().st_size == file.size_bytes
    assert float(report["format"]["duration"]) == pytest.approx(file.duration_ms / 1000, abs=0.2)
    counts = {s["codec_type"]: int(s["nb_read_packets"]) for s in report["streams"]}
    assert counts["video"] / 30 == pytest.approx(counts["audio"] / 50, abs=0.3)


async def test_a_late_joiner_gets_a_file_of_its_own(
    recorder: Recorder, node: Any, desk: Any, make_frames: Any, assert_decodes: Any
) -> None:
    """With the time at which it came; a leaver's file is completed while the others go on."""
    alice = await node.join("alice")
    first = await node.publish(alice, {"video": make_frames("vp8")})
    recording = await desk.start(SINGLE)
    await desk.reached(recording, grown_to(1.0))
    bob = await node.join("bob")
    await node.publish(bob, {"audio": make_frames("opus")})
    await desk.reached(recording, grown_to(1.0, files=2))
    await node.unpublish(first)
    await desk.stop(recording)
    done = await desk.reached(recording, lambda record: record.state == COMPLETE)
    by_identity = {file.participant_identity: file for file in done.files}
    assert by_identity["alice"].offset_ms == 0
    assert by_identity["bob"].offset_ms > 800
    for file in done.files:
        assert_decodes(desk.path(file))


async def test_only_wanted_publications_are_recorded(
    recorder: Recorder, node: Any, desk: Any, make_frames: Any
) -> None:
    """By identity and by the beginning of the tag."""
    alice, bob = await node.join("alice"), await node.join("bob")
    await node.publish(alice, {"audio": make_frames("opus")}, tag="cam/1")
    await node.publish(alice, {"audio": make_frames("opus")}, tag="screen")
    await node.publish(bob, {"audio": make_frames("opus")}, tag="cam/2")
    recording = await desk.start(SINGLE, identities=["alice"], tag_prefix="cam")
    await desk.reached(recording, grown_to(1.0))
    await desk.stop(recording)
    done = await desk.reached(recording, lambda record: record.state == COMPLETE)
    assert [file.participant_identity for file in done.files] == ["alice"]


async def test_a_room_is_mixed(
    recorder: Recorder, node: Any, desk: Any, make_frames: Any, probe: Any, assert_decodes: Any
) -> None:
    """One MP4 of H.264 and AAC in the wanted size."""
    alice, bob = await node.join("alice"), await node.join("bob")
    await node.publish(alice, {"video": make_frames("vp8"), "audio": make_frames("opus")})
    await node.publish(bob, {"video": make_frames("h264"), "audio": make_frames("opus")})
    recording = await desk.start(MIXED, width=640, height=360, fps=20)
    await desk.reached(recording, grown_to(3.0))
    await desk.stop(recording)
    done = await desk.reached(recording, lambda record: record.state == COMPLETE)
    [file] = done.files
    assert_decodes(desk.path(file))
    report = probe(desk.path(file))
    streams = {s["codec_type"]: s for s in report["streams"]}
    assert (streams["video"]["codec_name"], streams["audio"]["codec_name"]) == ("h264", "aac")
    assert (streams["video"]["width"], streams["video"]["height"]) == (640, 360)


@pytest.mark.parametrize("mode", [SINGLE, MIXED])
async def test_the_end_of_the_room_ends_the_recording(
    mode: Any, recorder: Recorder, node: Any, desk: Any, make_frames: Any
) -> None:
    """Nobody needs to stop it."""
    alice = await node.join("alice")
    await node.publish(alice, {"audio": make_frames("opus")})
    recording = await desk.start(mode)
    await desk.reached(recording, grown_to(1.0))
    await node.close_room()
    done = await desk.reached(recording, lambda record: record.state == COMPLETE)
    assert done.ended_at_ms > done.started_at_ms


async def test_an_empty_room_ends_the_recording(recorder: Recorder, node: Any, desk: Any, make_frames: Any) -> None:
    """After its time-out."""
    alice = await node.join("alice")
    await node.publish(alice, {"audio": make_frames("opus")})
    recording = await desk.start(SINGLE)
    await desk.reached(recording, grown_to(1.0))
    await node.leave(alice)
    await desk.reached(recording, lambda record: record.state == COMPLETE)


async def test_a_recorder_that_ends_hands_its_job_over(
    make_settings: Any, recorder: Recorder, node: Any, desk: Any, make_frames: Any, assert_decodes: Any
) -> None:
    """The next one goes on with a file of the next number; in the end it is one file."""
    alice = await node.join("alice")
    await node.publish(alice, {"video": make_frames("vp8"), "audio": make_frames("opus")})
    recording = await desk.start(SINGLE)
    await desk.reached(recording, grown_to(1.5))
    async with Recorder(make_settings()):
        await recorder.__aexit__(None, None, None)
        both = await desk.reached(recording, lambda r: len(r.files) == 2 and r.files[1].duration_ms > 1000)
        first, second = both.files
        assert (first.key[-8:], second.key[-8:]) == ("000.webm", "001.webm")
        assert second.offset_ms >= first.duration_ms
        await desk.stop(recording)
        done = await desk.reached(recording, lambda record: record.state == COMPLETE)
    [file] = done.files
    assert file.key == first.key
    assert file.duration_ms >= second.offset_ms + second.duration_ms
    assert_decodes(desk.path(file))


async def test_media_goes_on_while_nats_is_away(
    nats_server: NatsServer, recorder: Recorder, node: Any, desk: Any, make_frames: Any, assert_decodes: Any
) -> None:
    """The file grows meanwhile, and the record follows when NATS is back."""
    alice = await node.join("alice")
    await node.publish(alice, {"audio": make_frames("opus")})
    recording = await desk.start(SINGLE)
    before = await desk.reached(recording, grown_to(1.0))
    nats_server.kill()
    path = desk.path(before.files[0])
    size = path.stat().st_size
    await wait_until(lambda: path.stat().st_size > size + 20_000, what="the file to grow")
    nats_server.start()
    await desk.link.wait_ready(20)
    await desk.reached(recording, grown_to(before.files[0].duration_ms / 1000 + 1.5))
    await desk.stop(recording)
    done = await desk.reached(recording, lambda record: record.state == COMPLETE)
    assert len(done.files) == 1
    assert_decodes(path)


@pytest.mark.parametrize("options", [{"width": 641}, {"width": 20_000, "height": 20_000}, {"fps": 500}])
async def test_an_impossible_order_fails_with_a_reason(options: dict[str, int], recorder: Recorder, desk: Any) -> None:
    """And is not tried again and again."""
    recording = await desk.start(MIXED, **options)
    failed = await desk.reached(recording, lambda record: record.state == FAILED)
    assert failed.error


async def test_malformed_jobs_are_dropped(recorder: Recorder, node: Any, desk: Any, make_frames: Any) -> None:
    """Garbage in the queue stops nobody."""
    foreign = recording_pb2.Recording(id="../x", room="r").SerializeToString()
    for index, payload in enumerate((b"\xff\xff", b"", foreign)):
        await desk.link.publish_stored(subjects.JOB_RECORD, payload, message_id=f"bad-{index}")
    alice = await node.join("alice")
    await node.publish(alice, {"audio": make_frames("opus")})
    recording = await desk.start(SINGLE)
    await desk.reached(recording, grown_to(0.5))
    await desk.stop(recording)
    await desk.reached(recording, lambda record: record.state == COMPLETE)
