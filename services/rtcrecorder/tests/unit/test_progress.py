"""Records and names of recordings."""

from __future__ import annotations

from mrtc.recorder.v1 import recording_pb2
from mrtc_common.storage import checked_key
from mrtc_rtcrecorder.core import progress
from mrtc_rtcrecorder.core.file_names import FileNames, recording_folder
from mrtc_rtcrecorder.core.progress import FileProgress

ACTIVE, ENDING = recording_pb2.RECORDING_STATE_ACTIVE, recording_pb2.RECORDING_STATE_ENDING


def file(name: str, size: int, begins_ms: int, duration_ms: int = 1000) -> FileProgress:
    return FileProgress(f"app/room/rec/{name}", "video/mp4", size, duration_ms * 1000, begins_ms * 1000, "alice", "pub")


def test_a_claimed_recording_is_active() -> None:
    """Whoever had it before."""
    claimed = progress.claim(recording_pb2.Recording(node_id="dead"))
    assert claimed.state == ACTIVE


def test_the_first_file_starts_the_recording() -> None:
    """Offsets count from there."""
    record = progress.with_files(recording_pb2.Recording(), [file("a", 10, 5_000), file("b", 10, 7_500)])
    assert record.started_at_ms == 5_000
    assert [one.offset_ms for one in record.files] == [0, 2_500]


def test_files_of_the_recorder_before_stay() -> None:
    """And its start."""
    first = progress.with_files(recording_pb2.Recording(), [file("a", 10, 5_000)])
    second = progress.with_files(first, [file("b", 20, 65_000)])
    assert [(one.key[-1], one.offset_ms) for one in second.files] == [("a", 0), ("b", 60_000)]


def test_a_growing_file_is_updated_in_place() -> None:
    """One entry per file."""
    record = progress.with_files(recording_pb2.Recording(), [file("a", 10, 5_000, 1_000)])
    record = progress.with_files(record, [file("a", 99, 5_000, 9_000)])
    assert [(one.size_bytes, one.duration_ms) for one in record.files] == [(99, 9_000)]


def test_a_file_without_bytes_is_not_told() -> None:
    """It does not exist yet."""
    assert not progress.with_files(recording_pb2.Recording(), [file("a", 0, 5_000)]).files


def test_a_requested_stop_shows() -> None:
    """While the files are completed."""
    record = recording_pb2.Recording(state=ACTIVE, is_stop_requested=True)
    assert progress.with_files(record, []).state == ENDING


def test_the_end_is_complete_or_failed() -> None:
    """With the reason."""
    assert progress.ended(recording_pb2.Recording(), 9).state == recording_pb2.RECORDING_STATE_COMPLETE
    failed = progress.ended(recording_pb2.Recording(), 9, "disk full")
    assert (failed.state, failed.error, failed.ended_at_ms) == (recording_pb2.RECORDING_STATE_FAILED, "disk full", 9)


def test_names_count_up_over_what_exists() -> None:
    """A number is taken whatever its ending."""
    existing = {"f/mixed-000.mp4", "f/mixed-001.webm"}
    names = FileNames("f", existing.__contains__)
    assert [names.next("mixed", "mp4") for _ in range(2)] == ["f/mixed-002.mp4", "f/mixed-003.mp4"]


def test_foreign_names_are_safe_keys() -> None:
    """Rooms and identities are any text."""
    names = FileNames(recording_folder("app", "../../etc", "rec_1"), lambda key: False)
    for identity in ("alice", "../..", "", "/etc/passwd", "Ω" * 60, ".hidden", "a\0b"):
        assert checked_key(names.next(f"{identity}-pub", "mp4"))
