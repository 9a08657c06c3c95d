"""Plays one file: reads packets in the order of their time, makes frames of them, and hands each out when it is due."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import av

from mrtc_rtcvod.core.interleaver import Interleaver
from mrtc_rtcvod.core.pacer import Pacer
from mrtc_rtcvod.errors import BadMediaError

from .audio import AudioChain, PassingAudio, TranscodedAudio
from .probe import MediaFacts, Source, open_source
from .video import EncodedPicture, PassingVideo, VideoDecoder, VideoEncoder
from .wire import Opened, PlayedFrame, PlayOptions, TrackNumber

# Frames that do not decode, in a row, before the file is given up.
_MAX_ERRORS = 300
# Pictures between a key frame and the position to begin at; if there are more, receivers wait for the next key frame.
_MAX_BEFORE = 300
# They leave so close to one another, before everything else.
_RUSH_STEP_US = 100
_LEAD_US = _MAX_BEFORE * _RUSH_STEP_US

Emit = Callable[[PlayedFrame], None]


class Player:
    """Plays the file of `options` through a pacer.

    `request_keyframe` and `add_alternative` may be called from another thread.
    """

    def __init__(self, facts: MediaFacts, options: PlayOptions, pacer: Pacer, emit: Emit) -> None:
        self._facts = facts
        self._options = options
        self._pacer = pacer
        self._emit = emit
        self._obstacle = facts.video.obstacle(options.pass_bitrate_bps) if facts.video else ""
        self._passing: PassingVideo | None = None
        self._decoder: VideoDecoder | None = None
        self._encoders: dict[int, VideoEncoder] = {}
        self._audio: AudioChain | None = None
        self._lock = threading.Lock()
        self._keyframes_wanted: set[int] = set()
        self._alternative_wanted = ""
        self._base_us = 0
        self._lead_us = _LEAD_US if options.start_us else 0
        self._before: list[EncodedPicture] = []
        self._end_us = 0
        self._sound_us = -1
        self._frames = 0
        if self._obstacle:
            self._encoders[TrackNumber.VIDEO] = self._make_encoder(options.video_codec)

    @property
    def opened(self) -> Opened:
        """What is played."""
        facts, encoder = self._facts, self._encoders.get(TrackNumber.VIDEO)
        video = facts.video
        return Opened(
            duration_us=facts.duration_us,
            video_codec=encoder.codec if encoder is not None else video.codec if video is not None else "",
            width=encoder.width if encoder is not None else video.width if video is not None else 0,
            height=encoder.height if encoder is not None else video.height if video is not None else 0,
            audio_codec="opus" if facts.audio is not None else "",
            note=f"transcoded: {self._obstacle}" if self._obstacle else "",
        )

    def request_keyframe(self, track: int) -> None:
        """Somebody needs a key frame. A track that is sent as it is has them every few seconds."""
        with self._lock:
            self._keyframes_wanted.add(track)

    def add_alternative(self, codec: str) -> None:
        """Adds the picture in a further codec."""
        with self._lock:
            self._alternative_wanted = codec

    def play(self) -> None:
        """Plays to the end; for ever if looped. Raises BadMediaError."""
        start_us = self._options.start_us
        self._base_us = self._lead_us - start_us
        while True:
            source = open_source(self._options.path)
            try:
                self._seek(source, start_us)
                self._open_chains(source)
                self._play_once(source)
            finally:
                source.close()
            if not self._frames:
                raise BadMediaError("nothing in the file can be decoded")
            if not self._options.is_loop:
                return
            self._base_us, start_us = self._end_us, 0

    def _open_chains(self, source: Source) -> None:
        video, audio = self._facts.video, self._facts.audio
        self._audio = self._decoder = self._passing = None
        if source.audio is not None and audio is not None:
            self._audio = PassingAudio() if audio.passes else TranscodedAudio(source.audio, self._facts.start_us)
        if source.video is not None and video is not None:
            if not self._obstacle:
                self._passing = PassingVideo(source.video, video.codec)
            if self._encoders:
                self._decoder = VideoDecoder(source.video)

    def _make_encoder(self, codec: str) -> VideoEncoder:
        facts, options = self._facts.video, self._options
        assert facts is not None
        return VideoEncoder(
            codec,
            facts.width,
            facts.height,
            facts.fps,
            max_height=options.max_height,
            max_fps=options.max_fps,
            bitrate_bps=options.video_bitrate_bps,
            rotation=facts.rotation,
        )

    # Reading

    def _play_once(self, source: Source) -> None:
        for stream, time_us, packet in self._packets(source):
            if stream == TrackNumber.VIDEO:
                self._play_video(source, packet)
            else:
                self._play_audio(time_us, packet)
        if self._decoder is not None:
            for picture in self._decoder.take(None):
                self._encode(picture)
        if self._audio is not None:
            self._play_audio(0, None)

    def _packets(self, source: Source) -> Iterator[tuple[int, int, Any]]:
        """Packets of both streams in the order of their time, with that time in microseconds."""
        streams = {
            stream.index: number
            for stream, number in ((source.video, TrackNumber.VIDEO), (source.audio, TrackNumber.AUDIO))
            if stream is not None
        }
        order: Interleaver[Any] = Interleaver(set(streams.values()))
        try:
            for packet in source.container.demux([s for s in (source.video, source.audio) if s is not None]):
                # Matroska has no decoding times at the beginning of a stream with B-frames.
                stamp = packet.dts if packet.dts is not None else packet.pts
                if packet.size and stamp is not None:
                    time_us = self._time_of(packet, stamp)
                    yield from order.push(int(streams[packet.stream.index]), time_us, packet)
        except av.FFmpegError:
            # The rest cannot be read: a file cut short plays up to where it was cut.
            pass
        yield from order.flush()

    def _time_of(self, packet: Any, stamp: int) -> int:
        return int(stamp * packet.time_base * 1_000_000) - self._facts.start_us

    def _seek(self, source: Source, time_us: int) -> None:
        """To the key frame before a position; a file that cannot be sought in is read up to there instead."""
        if time_us > 0:
            with contextlib.suppress(av.FFmpegError):
                source.container.seek(self._facts.start_us + time_us)

    # Playing

    def _play_audio(self, time_us: int, packet: Any | None) -> None:
        assert self._audio is not None
        for at_us, data in self._audio.take(time_us, packet):
            if self._base_us + at_us <= self._sound_us:
                continue  # a damaged file's times may stand still or go back; a receiver's must not
            self._sound_us = self._base_us + at_us
            self._hand_out(TrackNumber.AUDIO, at_us, True, data)
            self._end_us = max(self._end_us, self._base_us + at_us + 20_000)

    def _play_video(self, source: Source, packet: Any) -> None:
        self._handle_wishes(source, packet)
        # The decoder first: the filter that makes Annex B takes the packet's data away.
        if self._decoder is not None:
            for decoded in self._decoder.take(packet):
                self._encode(decoded)
            if self._decoder.errors > _MAX_ERRORS and not self._frames:
                raise BadMediaError("the picture cannot be decoded")
        if self._passing is not None:
            for picture in self._passing.take(
                self._time_of(packet, packet.pts if packet.pts is not None else packet.dts), packet
            ):
                self._pass(picture)

    def _encode(self, picture: av.VideoFrame) -> None:
        if picture.pts is None or picture.time_base is None:
            return
        time_us = int(picture.pts * picture.time_base * 1_000_000) - self._facts.start_us
        if self._base_us + time_us < self._lead_us:
            return
        for track, encoder in self._encoders.items():
            for encoded in encoder.encode(self._base_us + time_us, picture):
                self._hand_out_picture(track, EncodedPicture(time_us, encoded.is_keyframe, encoded.data))

    def _pass(self, picture: EncodedPicture) -> None:
        """Pictures from before the position wait: those since the last key frame are needed to decode what comes."""
        if picture.is_keyframe or len(self._before) == _MAX_BEFORE:
            self._before.clear()
        if self._base_us + picture.time_us >= self._lead_us:
            self._rush()
            self._hand_out_picture(TrackNumber.VIDEO, picture)
        elif picture.is_keyframe or self._before:
            self._before.append(picture)

    def _rush(self) -> None:
        before, self._before = self._before, []
        begin_us = self._lead_us - len(before) * _RUSH_STEP_US
        for number, picture in enumerate(before):
            at_us = begin_us + number * _RUSH_STEP_US
            self._send(TrackNumber.VIDEO, at_us, self._options.start_us, picture.is_keyframe, picture.data)

    def _hand_out_picture(self, track: int, picture: EncodedPicture) -> None:
        self._hand_out(track, picture.time_us, picture.is_keyframe, picture.data)
        step_us = round(1_000_000 / max(1.0, self._facts.video.fps)) if self._facts.video else 0
        self._end_us = max(self._end_us, self._base_us + picture.time_us + step_us)

    def _hand_out(self, track: int, time_us: int, is_keyframe: bool, data: bytes) -> None:
        if self._base_us + time_us >= self._lead_us:  # else it is from before the position to begin at
            self._send(track, self._base_us + time_us, time_us, is_keyframe, data)

    def _send(self, track: int, at_us: int, position_us: int, is_keyframe: bool, data: bytes) -> None:
        self._frames += 1
        pts_us = self._pacer.pace(track, at_us)
        self._emit(PlayedFrame(track, is_keyframe, pts_us, position_us, data))

    def _handle_wishes(self, source: Source, packet: Any) -> None:
        with self._lock:
            wanted, self._keyframes_wanted = self._keyframes_wanted, set()
            codec = self._alternative_wanted
        for track in wanted:
            if track in self._encoders:
                self._encoders[track].request_keyframe()
        can_begin = packet.is_keyframe or self._decoder is not None
        if codec and can_begin and TrackNumber.ALTERNATIVE not in self._encoders:
            assert source.video is not None
            self._encoders[TrackNumber.ALTERNATIVE] = self._make_encoder(codec)
            self._decoder = self._decoder or VideoDecoder(source.video)
