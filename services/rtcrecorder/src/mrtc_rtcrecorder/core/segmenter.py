"""Cuts the frames of one publication into files: when a file begins, what it must hold, when the next one is needed."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Protocol

from .bitstream import picture_format
from .frames import CLOCK_RATES, Frame, Kind, kind_of
from .media_clock import MediaClock

# How long sound waits for the first picture before it gets a file of its own. Longer than a key frame takes over a
# relay, shorter than what would be missed if the recorder died meanwhile.
PICTURE_PATIENCE_US = 2_000_000
# Bound of the frames that wait for the first picture: 2 s of 10 ms packets, with room to spare.
MAX_PENDING = 512


@dataclass(frozen=True, slots=True)
class VideoFormat:
    """What a file header says about its picture: the codec, what `picture_format` found, and the key frame itself."""

    codec: str
    format: bytes
    keyframe: bytes

    def fits(self, other: VideoFormat | None) -> bool:
        """True if one header can describe both."""
        return other is not None and (self.codec, self.format) == (other.codec, other.format)


@dataclass(frozen=True, slots=True)
class FileSpec:
    """What a file holds, and the capture time (Unix microseconds) at which it begins."""

    video: VideoFormat | None
    audio_codec: str | None
    begins_at_us: int


class FileWriter(Protocol):
    """Where the segmenter's frames go. All times are microseconds since the file's beginning."""

    def open(self, spec: FileSpec) -> None:
        """Ends the file that is open and begins another."""
        ...

    def write(self, kind: Kind, time_us: int, is_keyframe: bool, data: bytes) -> None:
        """Appends a frame to the open file."""
        ...

    def close(self) -> None:
        """Ends the file that is open, if there is one."""
        ...


class Segmenter:
    """The files of one publication.

    A file with a picture begins at a key frame. A change of codec, size or parameter sets, or sound that the file has
    no place for, begins another. Pictures after a loss are left out up to the next key frame, so that every file
    decodes without a fault.
    """

    def __init__(self, writer: FileWriter) -> None:
        self._writer = writer
        self._spec: FileSpec | None = None
        self._clocks: dict[str, MediaClock] = {}
        self._pending: deque[tuple[int, Frame]] = deque(maxlen=MAX_PENDING)
        self._expects_video = False
        self._audio_codec: str | None = None
        self._awaits_keyframe = True
        self.skipped_frames = 0

    def expect(self, *, video: bool, audio_codec: str | None) -> None:
        """Says what the publication is made of now: an unmuted picture, sound of a codec."""
        self._expects_video = video
        self._audio_codec = audio_codec

    def push(self, frame: Frame) -> None:
        """Takes the next frame of either kind, in the order of arrival."""
        if frame.codec not in CLOCK_RATES:
            self.skipped_frames += 1
            return
        kind = kind_of(frame.codec)
        clock = self._clocks.setdefault(frame.codec, MediaClock(CLOCK_RATES[frame.codec]))
        at_us = clock.map(frame.rtp_time, frame.captured_at_us)
        if kind is Kind.VIDEO:
            self._push_video(at_us, frame)
        else:
            self._push_audio(at_us, frame)

    def restart(self, kind: Kind) -> None:
        """Says that a track of this kind came anew: its RTP time starts over."""
        self._clocks = {codec: clock for codec, clock in self._clocks.items() if kind_of(codec) is not kind}
        if kind is Kind.VIDEO:
            self._awaits_keyframe = True

    def end(self) -> None:
        """Ends the file that is open; sound that still waits for a picture is written first."""
        if self._spec is None and self._pending:
            self._open_audio_only()
        self._pending.clear()
        self._writer.close()
        self._spec = None

    def _push_video(self, at_us: int, frame: Frame) -> None:
        if frame.is_keyframe:
            self._awaits_keyframe = False
            self._open_if_needed(at_us, frame)
        elif frame.is_discontinuous:
            self._awaits_keyframe = True
        if self._awaits_keyframe or self._spec is None or self._spec.video is None:
            self.skipped_frames += 1
            return
        self._write(Kind.VIDEO, at_us, frame)

    def _open_if_needed(self, at_us: int, frame: Frame) -> None:
        wanted = VideoFormat(frame.codec, picture_format(frame.codec, frame.data), frame.data)
        spec = self._spec
        is_same = spec is not None and wanted.fits(spec.video) and self._audio_codec in (None, spec.audio_codec)
        if not is_same:
            self._open(FileSpec(wanted, self._audio_codec, at_us))

    def _push_audio(self, at_us: int, frame: Frame) -> None:
        self._audio_codec = frame.codec
        if self._spec is None:
            self._pending.append((at_us, frame))
            if not self._expects_video or at_us - self._pending[0][0] >= PICTURE_PATIENCE_US:
                self._open_audio_only()
        elif self._spec.audio_codec == frame.codec:
            self._write(Kind.AUDIO, at_us, frame)
        elif self._spec.video is None:
            self._open(FileSpec(None, frame.codec, at_us))
            self._write(Kind.AUDIO, at_us, frame)
        else:
            self.skipped_frames += 1  # the next key frame opens a file that has a place for it

    def _open_audio_only(self) -> None:
        at_us, frame = self._pending[0]
        self._open(FileSpec(None, frame.codec, at_us))

    def _open(self, spec: FileSpec) -> None:
        self._writer.open(spec)
        self._spec = spec
        pending, self._pending = self._pending, deque(maxlen=MAX_PENDING)
        for at_us, frame in pending:
            if frame.codec == spec.audio_codec:
                self._write(Kind.AUDIO, at_us, frame)

    def _write(self, kind: Kind, at_us: int, frame: Frame) -> None:
        assert self._spec is not None
        time_us = at_us - self._spec.begins_at_us
        if time_us < 0:
            self.skipped_frames += 1  # sound from before the first picture
            return
        self._writer.write(kind, time_us, frame.is_keyframe, frame.data)
