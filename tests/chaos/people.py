"""Participants of a call that is tormented: each publishes, watches everybody, talks, and keeps a record of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av.packet import Packet
from mrtc.common.v1 import common_pb2
from mrtc_sdk import Room, RoomOptions
from mrtc_sdk.errors import MrtcError
from mrtc_sdk.pattern import PatternTrack, ToneTrack

from tests.chaos import rtp_log

_TALK_INTERVAL_S = 0.5
SIZE = (160, 96)
FPS = 30
# Others that can be seen and heard at once; each costs every client time whenever it connects.
_SLOTS = 7
# RFC 6716 section 3.1: SILK, narrow band, 60 ms, one frame; of nothing.
_SILENCE = bytes([0x18, 0xFF, 0xFE])


@dataclass
class Seen:
    """What came of one track or one talker, over all the objects that brought it. Seconds on the monotonic clock."""

    last: float
    longest: float = 0.0
    frames: int = 0

    def frame(self, now: float) -> None:
        """One more frame."""
        self.longest = max(self.longest, now - self.last)
        self.last = now
        self.frames += 1


class EncodedSilence(MediaStreamTrack):
    """Opus packets of 60 ms, of which many clients in one process can send and receive as many as they like."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._count = 0

    async def recv(self) -> Packet[Any]:
        """The next packet, when it is due."""
        await asyncio.sleep(max(0.0, self._began + 0.06 * self._count - time.monotonic()))
        packet = Packet(_SILENCE)
        packet.pts = packet.dts = 2880 * self._count
        packet.time_base = Fraction(1, 48_000)
        self._count += 1
        return packet


@dataclass
class Person:
    """A participant on the Python SDK.

    Attributes:
        sent: numbers of own messages that the server has taken.
        received: how often each message of each other came.
        seen: by track id.
        heard: messages of each other.
    """

    identity: str
    room: Room
    sent: list[int] = field(default_factory=list)
    received: dict[str, Counter[int]] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    heard: dict[str, Seen] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _media: list[MediaStreamTrack] = field(default_factory=list)
    _is_gone: bool = False
    _talking: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    async def join(cls, url: str, token: str, room: str, identity: str, number: int, is_light: bool = False) -> Person:
        """Joins and publishes a picture and a tone; a light one silence that is encoded already, and nothing else."""
        slots = (4, 0) if is_light else (_SLOTS, _SLOTS)
        joined = await Room.connect(url, token, room, RoomOptions(audio_slots=slots[0], video_slots=slots[1]))
        person = cls(identity, joined)
        person._spawn(person._follow())
        try:
            if is_light:
                await person._publish(EncodedSilence(), common_pb2.TRACK_SOURCE_MICROPHONE)
            else:
                await person._publish(ToneTrack(400 + 20 * number), common_pb2.TRACK_SOURCE_MICROPHONE)
                await person._publish(PatternTrack(number, *SIZE, fps=FPS), common_pb2.TRACK_SOURCE_CAMERA)
        except BaseException:
            await person.vanish()
            raise
        return person

    def talk(self) -> None:
        """Begins to send a numbered message now and then."""
        self._talking.set()
        self._spawn(self._talk())

    def stop_talking(self) -> None:
        """Says no more; what is on its way is still counted."""
        self._talking.clear()

    def mark(self) -> float:
        """Gaps are counted from now on; returns the time."""
        now = time.monotonic()
        for seen in self.seen.values():
            seen.longest, seen.last = 0.0, max(seen.last, now - 1 / FPS)
        for heard in self.heard.values():
            heard.longest, heard.last = 0.0, max(heard.last, now - _TALK_INTERVAL_S)
        return now

    def tracks(self) -> set[str]:
        """Ids of all tracks of the others, as the room has them."""
        return {
            track.id
            for publication in self.room.publications.values()
            if publication.participant_id != self.room.local.id
            for track in publication.tracks
        }

    def gaps_s(self) -> dict[str, float]:
        """By the others' identities the longest time without a frame since the mark, up to now."""
        now, gaps = time.monotonic(), dict[str, float]()
        for publication in self.room.publications.values():
            owner = self.room.participants.get(publication.participant_id)
            if owner is None or owner.id == self.room.local.id:
                continue
            of_tracks = [self.seen[track.id] for track in publication.tracks if track.id in self.seen]
            for seen in of_tracks:
                gaps[owner.identity] = max(gaps.get(owner.identity, 0.0), seen.longest, now - seen.last)
        return gaps

    def message_gap_s(self) -> float:
        """The longest time without a message of anybody who talks since the mark, up to now."""
        now = time.monotonic()
        return max((max(heard.longest, now - heard.last) for heard in self.heard.values()), default=0.0)

    def is_whole(self, since: float) -> bool:
        """True if a frame of every other's every track came after a moment."""
        return all(one in self.seen and self.seen[one].last > since for one in self.tracks())

    async def aclose(self) -> None:
        """Leaves; nothing happens the second time."""
        if self._is_gone:
            return
        await self._end()
        with contextlib.suppress(MrtcError, OSError):
            await self.room.leave()

    async def vanish(self) -> None:
        """Is gone without a word."""
        await self._end()
        await self.room.aclose()

    async def _publish(self, media: MediaStreamTrack, source: common_pb2.TrackSource.ValueType) -> None:
        self._media.append(media)
        await self.room.publish(media, source=source)

    async def _end(self) -> None:
        self._is_gone = True
        for media in self._media:
            media.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _talk(self) -> None:
        number = 0
        while self._talking.is_set():
            number += 1
            # Waits while the connection is away; a request that is repeated has no second effect.
            await self.room.send_message(str(number).encode())
            self.sent.append(number)
            await asyncio.sleep(_TALK_INTERVAL_S)

    async def _follow(self) -> None:
        while True:
            name, value = await self.room.next_event()
            if name == "track_subscribed":
                self._spawn(self._watch(value.id, value.media))
            elif name == "message":
                self.received.setdefault(value.identity, Counter())[int(value.payload)] += 1
                now = time.monotonic()
                self.heard.setdefault(value.identity, Seen(now)).frame(now)

    async def _watch(self, track_id: str, media: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                await media.recv()
                now = time.monotonic()
                seen = self.seen.setdefault(track_id, Seen(now))
                if now - seen.last > rtp_log.STILL_S:
                    rtp_log.stood_still(self.identity, track_id, now - seen.last)
                seen.frame(now)

    def _spawn(self, work: object) -> None:
        self._tasks.append(asyncio.ensure_future(work))  # type: ignore[arg-type]
