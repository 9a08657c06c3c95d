"""Joins what several recorders wrote of one thing into one file, packet by packet, without transcoding."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import OutputContainer
from mrtc_common.log import get_logger

_log = get_logger(__name__)

_FORMATS = {".mp4": "mp4", ".webm": "webm", ".mkv": "matroska", ".mka": "matroska"}
_OPTIONS = {"mp4": {"movflags": "faststart"}}


@dataclass(frozen=True, slots=True)
class Segment:
    """A file, and when its media begins: microseconds after the first one's."""

    path: Path
    offset_us: int


def fit(first: Path, second: Path) -> bool:
    """True if one file can hold both: the same streams with the same decoder set-up."""
    try:
        with av.open(str(first)) as one, av.open(str(second)) as other:
            return [_set_up(stream) for stream in one.streams] == [_set_up(stream) for stream in other.streams]
    except (av.FFmpegError, OSError):
        return False


def join(segments: Sequence[Segment]) -> int:
    """Puts all segments, which fit, into the first one's file; returns its duration in microseconds.

    The file is replaced when the new one is complete; to repeat this changes nothing. What two segments both have is
    taken from the later one: its recorder had the job, and its first picture is a key frame. Raises OSError.
    """
    target = segments[0].path
    made = target.with_name(f".{target.name}.joining")
    try:
        duration_us = _write(segments, made)
        with made.open("rb") as file:
            os.fsync(file.fileno())
        made.replace(target)
    except (av.FFmpegError, ValueError) as error:
        raise OSError(f"files cannot be joined: {error}") from error
    finally:
        made.unlink(missing_ok=True)
    return duration_us


def _write(segments: Sequence[Segment], made: Path) -> int:
    kind = _FORMATS[segments[0].path.suffix]
    with (
        av.open(str(segments[0].path)) as first,
        av.open(str(made), "w", format=kind, options=_OPTIONS.get(kind, {})) as out,
    ):
        tracks = [_Track(out, stream) for stream in first.streams]
        begins = [_begins(segment) for segment in segments]
        for index, segment in enumerate(segments):
            for number, track in enumerate(tracks):
                later = (begin[number] for begin in begins[index + 1 :] if number in begin)
                track.begin_segment(min(later, default=None))
            with av.open(str(segment.path)) as source:
                for packet in source.demux():
                    if packet.dts is not None:
                        tracks[packet.stream_index].write(packet, segment.offset_us)
    return max(track.end_us for track in tracks)


def _begins(segment: Segment) -> dict[int, int]:
    """By stream the time of the first packet that can follow another encoder's; of streams that have one."""
    begins: dict[int, int] = {}
    with av.open(str(segment.path)) as source:
        for packet in source.demux():
            if packet.dts is not None and packet.is_keyframe:
                begins.setdefault(packet.stream_index, _time_us(packet) + segment.offset_us)
                if len(begins) == len(source.streams):
                    break
    return begins


class _Track:
    """One stream of the joined file."""

    def __init__(self, out: OutputContainer, template: Any) -> None:
        self._out = out
        self._stream = out.add_stream_from_template(template, opaque=True)
        self._is_video = template.type == "video"
        self._last_us = -1
        self._awaits_keyframe = False
        self._until_us: int | None = None
        self.end_us = 0

    def begin_segment(self, until_us: int | None) -> None:
        """Pictures of another encoder begin at a key frame; what is later than `until_us` the next segments have."""
        self._awaits_keyframe = self._is_video
        self._until_us = until_us

    def write(self, packet: Any, offset_us: int) -> None:
        """Appends a packet, if it is not from before what is there."""
        base = packet.time_base
        at_us = _time_us(packet) + offset_us
        if self._until_us is not None and at_us >= self._until_us:
            return
        if at_us <= self._last_us or (self._awaits_keyframe and not packet.is_keyframe):
            return
        self._awaits_keyframe = False
        self._last_us = at_us
        self.end_us = at_us + round((packet.duration or 0) * base * 1_000_000)
        shift = round(Fraction(offset_us, 1_000_000) / base)
        packet.dts += shift
        packet.pts = packet.dts if packet.pts is None else packet.pts + shift
        packet.stream = self._stream
        self._out.mux(packet)


def _time_us(packet: Any) -> int:
    dts: Fraction = packet.dts * packet.time_base
    return round(dts * 1_000_000)


def _set_up(stream: Any) -> tuple[Any, ...]:
    context = stream.codec_context
    size = (context.width, context.height) if stream.type == "video" else (context.sample_rate, context.channels)
    return (stream.type, context.name, size, bytes(context.extradata or b""))
