"""What several recorders wrote of one recording becomes one file for each publication, where it fits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from mrtc.recorder.v1 import recording_pb2
from mrtc_common.log import get_logger

from .core.progress import Recording
from .media.growing_file import wait_until_closed
from .media.join import Segment, fit, join

_log = get_logger(__name__)

# A mixer whose recorder died completes its file, on a busy machine for some seconds; a process that hangs never does.
_WRITTEN_TIMEOUT_S = 5.0

File = recording_pb2.RecordingFile
LocalPath = Callable[[str], Path]


async def join_segments(record: Recording, local_path: LocalPath) -> tuple[list[File], list[str]]:
    """The files of a recording after joining, and the keys of those that went into others and may be deleted.

    What cannot be joined stays as it is.
    """
    return await asyncio.to_thread(_join_all, list(record.files), local_path)


def _join_all(files: Sequence[File], local_path: LocalPath) -> tuple[list[File], list[str]]:
    left: list[File] = []
    gone: list[str] = []
    for run in _runs(files, local_path):
        try:
            left.append(_joined(run, local_path) if len(run) > 1 else run[0])
            gone += [file.key for file in run[1:]]
        except OSError as error:
            _log.warning("segments stay apart", error=str(error), files=[file.key for file in run])
            left += run
    return left, gone


def _runs(files: Sequence[File], local_path: LocalPath) -> Iterator[list[File]]:
    """Files that follow one another and fit."""
    groups: dict[tuple[str, str, str], list[File]] = {}
    for file in files:
        groups.setdefault((file.participant_identity, file.publication_id, file.content_type), []).append(file)
    for group in groups.values():
        run: list[File] = []
        for file in sorted(group, key=lambda file: file.offset_ms):
            with contextlib.suppress(OSError):
                wait_until_closed(local_path(file.key), _WRITTEN_TIMEOUT_S)
            if run and not fit(local_path(run[-1].key), local_path(file.key)):
                yield run
                run = []
            run.append(file)
        yield run


def _joined(run: Sequence[File], local_path: LocalPath) -> File:
    first = run[0]
    segments = [Segment(local_path(file.key), (file.offset_ms - first.offset_ms) * 1000) for file in run]
    duration_us = join(segments)
    result = File()
    result.CopyFrom(first)
    result.size_bytes = segments[0].path.stat().st_size
    result.duration_ms = duration_us // 1000
    return result
