"""Makes the stream headers (libav "templates") of tracks that come as bare frames, without an encoder at hand."""

from __future__ import annotations

import functools
import io
import struct
from typing import cast

import av
from av.audio.codeccontext import AudioCodecContext
from av.container import InputContainer
from av.video.stream import VideoStream

from mrtc_rtcrecorder.errors import UndecodableError

_IVF_FOURCC = {"vp8": b"VP80", "vp9": b"VP90", "av1": b"AV01"}
_LINEAR_RATES = {"pcmu": "8000", "pcma": "8000", "g722": "16000"}


def open_video_template(codec: str, keyframe: bytes) -> InputContainer:
    """A container whose first stream describes the picture of this key frame.

    Raises:
        UndecodableError: the bytes are no key frame of the codec.
    """
    if codec == "h264":
        return _open(keyframe, "h264", codec)
    return _open(_ivf(_IVF_FOURCC[codec], keyframe), "ivf", codec)


def open_audio_template(codec: str) -> InputContainer:
    """A container whose first stream describes sound of this codec: 48 kHz stereo for Opus, else linear mono."""
    if codec == "opus":
        return _open(_ogg_opus(), "ogg", codec)
    return _open(bytes(4000), "s16le", codec, {"sample_rate": _LINEAR_RATES[codec], "ch_layout": "mono"})


class LinearDecoder:
    """Expands a telephone codec (PCMU, PCMA, G.722) to 16-bit samples, which every file format takes."""

    def __init__(self, codec: str) -> None:
        name = {"pcmu": "pcm_mulaw", "pcma": "pcm_alaw", "g722": "g722"}[codec]
        self._context = cast(AudioCodecContext, av.CodecContext.create(name, "r"))
        self._context.sample_rate = int(_LINEAR_RATES[codec])
        self._context.layout = "mono"

    def decode(self, data: bytes) -> bytes:
        """The samples of a packet, little endian; none if the packet is broken."""
        try:
            frames = self._context.decode(av.Packet(data))
        except av.FFmpegError:
            return b""
        return b"".join(bytes(frame.planes[0])[: frame.samples * 2] for frame in frames)


def _open(data: bytes, demuxer: str, codec: str, options: dict[str, str] | None = None) -> InputContainer:
    try:
        container = av.open(io.BytesIO(data), "r", format=demuxer, options=options or {})
    except (av.FFmpegError, ValueError) as error:
        raise UndecodableError(f"not a key frame of {codec}") from error
    stream = container.streams[0] if container.streams else None
    if stream is None or (isinstance(stream, VideoStream) and not stream.width):
        container.close()
        raise UndecodableError(f"not a key frame of {codec}")
    return container


def _ivf(fourcc: bytes, frame: bytes) -> bytes:
    """An IVF file of one frame; libav reads the picture's size from the frame, not from the header."""
    header = struct.pack("<4sHH4sHHIIII", b"DKIF", 0, 32, fourcc, 0, 0, 90_000, 1, 1, 0)
    return header + struct.pack("<IQ", len(frame), 0) + frame


@functools.cache
def _ogg_opus() -> bytes:
    """An Ogg file of one silent Opus packet: carries the OpusHead (RFC 7845 section 5.1) of 48 kHz stereo."""
    target = io.BytesIO()
    with av.open(target, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="stereo")
        silence = av.AudioFrame(format="flt", layout="stereo", samples=960)
        silence.sample_rate = 48_000
        silence.pts = 0
        for plane in silence.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux(stream.encode(silence))
        container.mux(stream.encode(None))
    return target.getvalue()
