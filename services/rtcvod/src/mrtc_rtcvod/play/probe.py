"""Opens a media file and finds out what is in it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from mrtc_rtcvod.core.media import AudioFacts, VideoFacts
from mrtc_rtcvod.errors import BadMediaError

# How much of a file is read to see its order of frames and its key frames.
_SCAN_US = 12_000_000
_SCAN_PACKETS = 1_500
# Protocols are not for files: a playlist or an SDP file could make libav fetch what its author wants.
_DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mp3,wav,ogg,flac,aac,mpegts,flv,avi,ivf,h264"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _DEMUXERS}
_MAX_PIXELS = 8192 * 4352


@dataclass(frozen=True, slots=True)
class MediaFacts:
    """What is in a file: the streams that are played, its first time stamp and its length (0 if not known)."""

    video: VideoFacts | None
    audio: AudioFacts | None
    start_us: int
    duration_us: int


@dataclass(slots=True)
class Source:
    """An open file with the streams that are played."""

    container: InputContainer
    video: VideoStream | None
    audio: AudioStream | None

    def close(self) -> None:
        """Closes the file."""
        self.container.close()


def probe(path: str) -> MediaFacts:
    """Reads the beginning of a file. Raises BadMediaError."""
    source = open_source(path)
    container = source.container
    try:
        return MediaFacts(
            _video_facts(container, source.video, _rotation(path)) if source.video is not None else None,
            _audio_facts(source.audio) if source.audio is not None else None,
            start_us=container.start_time or 0,
            duration_us=container.duration or 0,
        )
    except (av.FFmpegError, ValueError) as error:
        raise BadMediaError(f"the media file is damaged: {_reason(error)}") from None
    finally:
        source.close()


def open_source(path: str) -> Source:
    """Opens a file at its beginning. Raises BadMediaError.

    A file is opened anew rather than sought back in: damaged files and those without an index cannot be sought in.
    """
    try:
        container = av.open(path, "r", options=dict(_OPTIONS))
    except FileNotFoundError:
        raise BadMediaError("there is no such file") from None
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadMediaError(f"not a media file that can be read: {_reason(error)}") from None
    video = next((stream for stream in container.streams.video if _is_picture(stream)), None)
    audio = next((stream for stream in container.streams.audio if _is_known(stream)), None)
    if video is None and audio is None:
        container.close()
        raise BadMediaError("the file has neither picture nor sound that can be decoded")
    return Source(container, video, audio)


def _audio_facts(stream: AudioStream) -> AudioFacts:
    name = stream.codec_context.name
    return AudioFacts({"libopus": "opus"}.get(name, name), stream.channels, stream.rate)


def _is_known(stream: VideoStream | AudioStream) -> bool:
    # PyAV gives no codec context to streams of codecs that libav cannot decode.
    return getattr(stream, "codec_context", None) is not None


def _is_picture(stream: VideoStream) -> bool:
    """Not the cover of a music file."""
    if not _is_known(stream) or stream.disposition & Disposition.attached_pic:
        return False
    return 0 < stream.width * stream.height <= _MAX_PIXELS


def _video_facts(container: InputContainer, stream: VideoStream, rotation: int) -> VideoFacts:
    scan = _Scan()
    for packet in container.demux(stream):
        if not scan.take(packet):
            break
    return VideoFacts(
        codec={"libvpx": "vp8", "libvpx-vp9": "vp9"}.get(stream.codec_context.name, stream.codec_context.name),
        width=stream.width,
        height=stream.height,
        fps=float(stream.average_rate or stream.guessed_rate or 25),
        profile=stream.profile or "",
        pixel_format=stream.pix_fmt or "",
        has_reordering=bool(stream.codec_context.has_b_frames) or scan.has_reordering,
        keyframe_gap_us=scan.keyframe_gap_us,
        bitrate_bps=scan.bitrate_bps,
        rotation=rotation,
    )


def _rotation(path: str) -> int:
    """By how many degrees counterclockwise the picture must be turned, as telephones note it."""
    source = open_source(path)
    try:
        if source.video is not None:
            for picture in itertools.islice(source.container.decode(source.video), 1):
                return round(picture.rotation / 90) * 90 % 360
    except (av.FFmpegError, ValueError):
        pass
    finally:
        source.close()
    return 0


class _Scan:
    """Looks at the first packets of a picture stream."""

    def __init__(self) -> None:
        self.has_reordering = False
        self.keyframe_gap_us = 0
        self._packets = 0
        self._bytes = 0
        self._first_us: int | None = None
        self._keyframe_us: int | None = None
        self._last_us = 0

    @property
    def bitrate_bps(self) -> int:
        """Average of what was seen."""
        span = self._last_us - (self._first_us or 0)
        return self._bytes * 8 * 1_000_000 // span if span > 0 else 0

    def take(self, packet: Any) -> bool:
        """Looks at a packet; false when enough was seen."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None or packet.time_base is None:
            return self._packets < _SCAN_PACKETS
        time_us = round(stamp * packet.time_base * 1_000_000)
        self._packets += 1
        self._bytes += packet.size
        self._first_us = time_us if self._first_us is None else self._first_us
        self._last_us = time_us
        if packet.pts is not None and packet.dts is not None and packet.pts != packet.dts:
            self.has_reordering = True
        since = self._keyframe_us if self._keyframe_us is not None else self._first_us
        self.keyframe_gap_us = max(self.keyframe_gap_us, time_us - since)
        if packet.is_keyframe:
            self._keyframe_us = time_us
        return self._packets < _SCAN_PACKETS and time_us - self._first_us < _SCAN_US


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
