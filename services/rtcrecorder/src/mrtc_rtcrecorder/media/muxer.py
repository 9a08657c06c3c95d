"""Writes encoded frames into a file that plays at every moment of its growth."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer

from mrtc_rtcrecorder.core.frames import Kind

from .growing_file import GrowingFile
from .templates import LinearDecoder, open_audio_template, open_video_template

_MICROSECOND = Fraction(1, 1_000_000)
# Smallest distance of two frames of a kind: more than a tick of the coarsest timescale used here (1/48,000 s), since
# libav refuses equal times.
_MIN_STEP_US = 50

# Length of a fragment. With the muxer's wait for the other track (INTERLEAVE_US) and the time that another recorder
# takes to go on it stays under the second that a killed recorder may cost.
FRAGMENT_US = 200_000
# How long the muxer holds a frame back for an earlier one of the other track.
INTERLEAVE_US = 200_000

MUXER_OPTIONS = {
    # Fragments while it grows; turned into one plain, seekable MP4 by a few bytes at the end (no copy of the file).
    "mp4": {
        "movflags": "hybrid_fragmented+frag_keyframe+default_base_moof",
        "frag_duration": str(FRAGMENT_US),
        "max_interleave_delta": str(INTERLEAVE_US),
        "flush_packets": "1",
    },
    "webm": {
        "cluster_time_limit": str(FRAGMENT_US // 1000),
        "max_interleave_delta": str(INTERLEAVE_US),
        "flush_packets": "1",
    },
}
MUXER_OPTIONS["matroska"] = MUXER_OPTIONS["webm"]


@dataclass(frozen=True, slots=True)
class Container:
    """A file format: libav's name of it, the file name's ending and the media type."""

    format: str
    extension: str
    content_type: str


def choose_container(video_codec: str | None, audio_codec: str | None) -> Container:
    """The format that players know best among those that take these codecs without transcoding."""
    is_opus = audio_codec in (None, "opus")
    if video_codec == "h264" and is_opus:
        return Container("mp4", "mp4", "video/mp4")
    main = "audio" if video_codec is None else "video"
    if video_codec in (None, "vp8", "vp9", "av1") and is_opus:
        return Container("webm", "webm", f"{main}/webm")
    return Container("matroska", "mka" if video_codec is None else "mkv", f"{main}/x-matroska")


class Muxer:
    """One growing file of one picture, one sound, or both. Use from one thread.

    Args:
        path: the file; must not exist.
        container: its format.
        video: codec and a key frame, or None.
        audio_codec: or None.

    Raises:
        UndecodableError: the key frame is none.
    """

    def __init__(
        self, path: Path, container: Container, video: tuple[str, bytes] | None, audio_codec: str | None
    ) -> None:
        self._file = GrowingFile(path)
        self._templates: list[InputContainer] = []
        self._streams: dict[Kind, av.stream.Stream] = {}
        self._last_us: dict[Kind, int] = {}
        if video is not None:
            self._templates.append(open_video_template(*video))
        if audio_codec is not None:
            self._templates.append(open_audio_template(audio_codec))
        self._linear = LinearDecoder(audio_codec) if audio_codec not in (None, "opus") else None
        self._output: OutputContainer = av.open(
            self._file, "w", format=container.format, options=MUXER_OPTIONS[container.format]
        )
        for template in self._templates:
            source = template.streams[0]
            stream = self._output.add_stream_from_template(source, opaque=True)
            stream.time_base = Fraction(1, 90_000 if source.type == "video" else 48_000)
            self._streams[Kind(source.type)] = stream
        self._output.start_encoding()
        self._header_bytes = self._file.pending_bytes

    @property
    def size_bytes(self) -> int:
        """Bytes in the file."""
        return self._file.size_bytes

    @property
    def duration_us(self) -> int:
        """Latest time that was written, in microseconds."""
        return max(self._last_us.values(), default=0)

    @property
    def path(self) -> Path:
        """The file."""
        return self._file.path

    def write(self, kind: Kind, time_us: int, is_keyframe: bool, data: bytes) -> None:
        """Appends a frame; times of a kind grow strictly (one that does not is moved)."""
        if self._linear is not None and kind is Kind.AUDIO:
            data = self._linear.decode(data)
        if not data:
            return
        time_us = max(time_us, self._last_us.get(kind, -_MIN_STEP_US) + _MIN_STEP_US)
        self._last_us[kind] = time_us
        packet = av.Packet(data)
        packet.stream = self._streams[kind]
        packet.time_base = _MICROSECOND
        packet.pts = packet.dts = time_us
        packet.is_keyframe = is_keyframe
        self._output.mux(packet)
        self._commit()

    def close(self) -> None:
        """Completes the file: from now on it is seekable too."""
        try:
            self._output.close()
        finally:
            self._file.close()
            for template in self._templates:
                template.close()

    def _commit(self) -> None:
        # The header alone is not worth a file: it would play nothing.
        if self._file.size_bytes or self._file.pending_bytes > self._header_bytes:
            self._file.commit()
