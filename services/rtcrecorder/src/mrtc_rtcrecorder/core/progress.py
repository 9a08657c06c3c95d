"""Keeps a recording's record: what the files are, how far they are, how it ended."""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass

from mrtc.recorder.v1 import recording_pb2

Recording = recording_pb2.Recording

TERMINAL_STATES = frozenset({recording_pb2.RECORDING_STATE_COMPLETE, recording_pb2.RECORDING_STATE_FAILED})


@dataclass(frozen=True, slots=True)
class FileProgress:
    """A file of a recording.

    Attributes:
        key: storage key.
        begins_at_us: capture time of its beginning, Unix microseconds.
        identity, publication_id: whose media; empty in a mixed recording.
    """

    key: str
    content_type: str
    size_bytes: int
    duration_us: int
    begins_at_us: int
    identity: str = ""
    publication_id: str = ""


def claim(record: Recording) -> Recording:
    """The record once a recorder has the job."""
    claimed = _copy(record)
    claimed.state = (
        recording_pb2.RECORDING_STATE_ENDING if record.is_stop_requested else recording_pb2.RECORDING_STATE_ACTIVE
    )
    return claimed


def with_files(record: Recording, files: Iterable[FileProgress]) -> Recording:
    """The record with the present figures of these files; files of earlier recorders stay as they are."""
    updated = _copy(record)
    present = [file for file in files if file.size_bytes > 0]
    if present and not updated.started_at_ms:
        updated.started_at_ms = min(file.begins_at_us for file in present) // 1000
    by_key = {file.key: file for file in updated.files}
    for file in present:
        target = by_key.get(file.key)
        if target is None:
            target = updated.files.add(key=file.key)
        target.content_type = file.content_type
        target.size_bytes = file.size_bytes
        target.duration_ms = file.duration_us // 1000
        target.participant_identity = file.identity
        target.publication_id = file.publication_id
        target.offset_ms = max(0, file.begins_at_us // 1000 - updated.started_at_ms)
    if record.is_stop_requested and updated.state == recording_pb2.RECORDING_STATE_ACTIVE:
        updated.state = recording_pb2.RECORDING_STATE_ENDING
    return updated


def with_joined(record: Recording, whole: Iterable[recording_pb2.RecordingFile], parts: Container[str]) -> Recording:
    """The record after files were joined: these replace those of the same key, the parts are gone."""
    updated = _copy(record)
    joined = {file.key: file for file in whole}
    files = [joined.get(file.key, file) for file in record.files if file.key not in parts]
    del updated.files[:]
    updated.files.extend(files)
    return updated


def ended(record: Recording, now_ms: int, error: str = "") -> Recording:
    """The record after the end: complete, or failed with a reason."""
    result = _copy(record)
    result.ended_at_ms = now_ms
    result.error = error
    result.state = recording_pb2.RECORDING_STATE_FAILED if error else recording_pb2.RECORDING_STATE_COMPLETE
    return result


def _copy(record: Recording) -> Recording:
    copy = Recording()
    copy.CopyFrom(record)
    return copy
