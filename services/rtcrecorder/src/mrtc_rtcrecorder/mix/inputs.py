"""The tracks of a mixed recording: frames wait encoded until the timeline reaches them, then they are decoded."""

from __future__ import annotations

from collections import deque
from typing import cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.video.codeccontext import VideoCodecContext
from av.video.reformatter import VideoReformatter

from mrtc_rtcrecorder.core.frames import CLOCK_RATES, Frame
from mrtc_rtcrecorder.core.media_clock import MediaClock

from .sound import CHANNELS, RATE, Samples

# Bound of the encoded frames of a track that wait for the timeline: it runs up to 0.4 s behind, so 24 frames of video
# or 20 packets of sound are usual.
MAX_WAITING = 600
# A picture that is older than this is not shown any more: its track is muted or its publisher is away.
STALE_US = 3_000_000
# The timeline does not wait for a track of which nothing has come for so long: it is muted, or its publisher is away.
# Silence with DTX is a packet each 0.4 s.
QUIET_US = 1_000_000

_DECODERS = {
    "h264": "h264",
    "vp8": "vp8",
    "vp9": "vp9",
    "av1": "libdav1d",
    "opus": "libopus",
    "pcmu": "pcm_mulaw",
    "pcma": "pcm_alaw",
    "g722": "g722",
}
_SAMPLE_RATES = {"pcmu": 8_000, "pcma": 8_000, "g722": 16_000}


class _Waiting:
    """Frames in decode order with their time on the timeline; the oldest are dropped when there are too many."""

    def __init__(self, now_us: int) -> None:
        self._reached_us = now_us - 1
        self._frames: deque[tuple[int, Frame]] = deque()
        self._clock: MediaClock | None = None
        self._codec = ""
        self.dropped = 0

    def push(self, frame: Frame) -> None:
        if frame.codec != self._codec or self._clock is None:
            self._codec, self._clock = frame.codec, MediaClock(CLOCK_RATES[frame.codec])
        self._reached_us = self._clock.map(frame.rtp_time, frame.captured_at_us)
        self._frames.append((self._reached_us, frame))
        if len(self._frames) > MAX_WAITING:
            self._frames.popleft()
            self.dropped += 1

    def restart(self, now_us: int) -> None:
        self._clock, self._reached_us = None, now_us - 1

    def is_awaited(self, at_us: int, now_us: int) -> bool:
        return self._reached_us < at_us and now_us - self._reached_us < QUIET_US

    def take_until(self, at_us: int) -> list[tuple[int, Frame]]:
        taken = []
        while self._frames and self._frames[0][0] <= at_us:
            taken.append(self._frames.popleft())
        return taken


class PictureInput:
    """A video track: gives the picture that is due."""

    def __init__(self, now_us: int) -> None:
        self._waiting = _Waiting(now_us)
        self._decoder: VideoCodecContext | None = None
        self._codec = ""
        self._awaits_keyframe = True
        self._picture: av.VideoFrame | None = None
        self._picture_at_us = 0
        self._given: av.VideoFrame | None = None
        self.scaler = VideoReformatter()
        self.decode_errors = 0

    def push(self, frame: Frame) -> None:
        """Takes the next frame."""
        self._waiting.push(frame)

    def restart(self, now_us: int) -> None:
        """Says that the track came anew: its RTP time starts over and a key frame comes first."""
        self._waiting.restart(now_us)

    def is_awaited(self, at_us: int, now_us: int) -> bool:
        """Whether what it shows at `at_us` may still come, as of `now_us`."""
        return self._waiting.is_awaited(at_us, now_us)

    def hide(self) -> None:
        """Shows nothing until the next picture."""
        self._picture = None

    def advance(self, at_us: int) -> tuple[av.VideoFrame | None, bool]:
        """(the picture at this time or None, whether it is another one than before)."""
        for time_us, frame in self._waiting.take_until(at_us):
            self._decode(time_us, frame)
        if self._picture is not None and at_us - self._picture_at_us > STALE_US:
            self._picture = None
        before, self._given = self._given, self._picture
        return self._picture, self._picture is not before

    def _decode(self, time_us: int, frame: Frame) -> None:
        if frame.is_discontinuous and not frame.is_keyframe:
            self._awaits_keyframe = True
        if frame.is_keyframe:
            self._awaits_keyframe = False
        if self._awaits_keyframe:
            return
        if self._decoder is None or frame.codec != self._codec:
            self._codec, self._decoder = frame.codec, _video_decoder(frame.codec)
        try:
            pictures = self._decoder.decode(av.Packet(frame.data))
        except av.FFmpegError:
            self.decode_errors += 1
            self._awaits_keyframe = True
            return
        if pictures:
            self._picture, self._picture_at_us = pictures[-1], time_us


class SoundInput:
    """An audio track: gives its samples as 48 kHz stereo with their time."""

    def __init__(self, now_us: int) -> None:
        self._waiting = _Waiting(now_us)
        self._decoder: AudioCodecContext | None = None
        self._resampler: av.AudioResampler | None = None
        self._codec = ""
        self.decode_errors = 0

    def push(self, frame: Frame) -> None:
        """Takes the next packet."""
        self._waiting.push(frame)

    def restart(self, now_us: int) -> None:
        """Says that the track came anew: its RTP time starts over."""
        self._waiting.restart(now_us)

    def is_awaited(self, at_us: int, now_us: int) -> bool:
        """Whether what is heard of it at `at_us` may still come, as of `now_us`."""
        return self._waiting.is_awaited(at_us, now_us)

    def advance(self, at_us: int) -> list[tuple[int, Samples]]:
        """Samples of all packets up to this time, each with its capture time."""
        result = []
        for time_us, frame in self._waiting.take_until(at_us):
            samples = self._decode(frame)
            if samples is not None:
                result.append((time_us, samples))
        return result

    def _decode(self, frame: Frame) -> Samples | None:
        if self._decoder is None or frame.codec != self._codec:
            self._codec, self._decoder = frame.codec, _audio_decoder(frame.codec)
            self._resampler = av.AudioResampler(format="fltp", layout="stereo", rate=RATE)
        assert self._resampler is not None
        try:
            decoded = self._decoder.decode(av.Packet(frame.data))
            blocks = []
            for piece in decoded:
                piece.pts = None
                blocks += [np.asarray(part.to_ndarray(), np.float32) for part in self._resampler.resample(piece)]
        except (av.FFmpegError, ValueError):
            self.decode_errors += 1
            return None
        if not blocks:
            return None
        samples: Samples = np.concatenate(blocks, axis=1)
        assert samples.shape[0] == CHANNELS
        return samples


def _video_decoder(codec: str) -> VideoCodecContext:
    context = cast(VideoCodecContext, av.CodecContext.create(_DECODERS[codec], "r"))
    context.thread_count = 1  # frame threads would add delay; the tracks of a room share the core anyway
    return context


def _audio_decoder(codec: str) -> AudioCodecContext:
    context = cast(AudioCodecContext, av.CodecContext.create(_DECODERS[codec], "r"))
    context.sample_rate = _SAMPLE_RATES.get(codec, RATE)
    context.layout = "mono" if codec in _SAMPLE_RATES else "stereo"
    return context
