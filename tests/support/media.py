"""Reading what a track shows and plays, and waiting for it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from aiortc import MediaStreamTrack
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame
from mrtc_sdk import Room, RoomOptions
from mrtc_sdk.pattern import frequency_of, read_frame
from mrtc_sdk.room import RemoteTrack


class Watcher:
    """Decodes a track for as long as it lives.

    Attributes:
        pictures: (number, counter, time) of every frame that shows a pattern.
        tones: (frequency in Hz, time) of every 20 ms of sound.
        sizes: picture sizes seen, in order, without repeats.
    """

    def __init__(self, media: MediaStreamTrack) -> None:
        self.pictures: list[tuple[int, int, float]] = []
        self.tones: list[tuple[float, float]] = []
        self.sizes: list[tuple[int, int]] = []
        self._task = asyncio.create_task(self._read(media))

    async def _read(self, media: MediaStreamTrack) -> None:
        try:
            while True:
                self._take(await media.recv())
        except MediaStreamError:
            return

    def _take(self, frame: Any) -> None:
        if isinstance(frame, VideoFrame):
            if not self.sizes or self.sizes[-1] != (frame.width, frame.height):
                self.sizes.append((frame.width, frame.height))
            seen = read_frame(frame)
            if seen is not None:
                self.pictures.append((*seen, time.monotonic()))
        elif isinstance(frame, AudioFrame):
            samples = frame.to_ndarray().astype(np.float64).reshape(-1)[:: len(frame.layout.channels)] / 32_768
            self.tones.append((frequency_of(samples, frame.sample_rate), time.monotonic()))

    def longest_gap_s(self, since: float) -> float:
        """The longest time without a new picture since a moment, up to now."""
        return longest_gap_s([since, *(at for _, _, at in self.pictures if at >= since), time.monotonic()])

    async def sees(self, number: int, frames: int = 5, timeout_s: float = 15.0) -> None:
        """Waits until a sender's picture was seen with a moving counter in this many frames from now on."""
        first = len(self.pictures)
        await wait_until(
            lambda: len({counter for seen, counter, _ in self.pictures[first:] if seen == number}) >= frames,
            timeout_s,
            lambda: f"sender {number}'s picture; saw {self.pictures[-3:]}, sizes {self.sizes}",
        )

    async def hears(self, frequency_hz: float, timeout_s: float = 15.0) -> None:
        """Waits until a tone is heard in ten frames from now on (20 ms frames have 50 Hz resolution)."""
        first = len(self.tones)
        await wait_until(
            lambda: sum(abs(tone - frequency_hz) < 60 for tone, _ in self.tones[first:]) >= 10,
            timeout_s,
            lambda: f"a tone of {frequency_hz} Hz; heard {self.tones[-3:]}",
        )

    async def aclose(self) -> None:
        """Stops decoding."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


class Viewer:
    """Sees a sender's picture in a room, wherever it comes from: after a move of either of them it is a new track."""

    def __init__(self, room: Room, number: int) -> None:
        self._number = number
        self._watchers: dict[MediaStreamTrack, Watcher] = {}
        for track in room.tracks.values():
            self._watch(track)
        self._follower = asyncio.create_task(self._follow(room))

    def _watch(self, track: RemoteTrack) -> None:
        if track.media.kind == "video" and track.media not in self._watchers:
            self._watchers[track.media] = Watcher(track.media)

    async def _follow(self, room: Room) -> None:
        while True:
            name, value = await room.next_event()
            if name == "track_subscribed":
                self._watch(value)

    async def sees(self, frames: int = 5, timeout_s: float = 20.0) -> None:
        """Waits for more pictures."""
        since = time.monotonic()
        await wait_until(lambda: len([at for at in self._times() if at > since]) >= frames, timeout_s, "the picture")

    def longest_gap_s(self, since: float) -> float:
        """Between two pictures since a moment."""
        return longest_gap_s([since, *(at for at in self._times() if at > since)])

    async def aclose(self) -> None:
        """Looks away."""
        self._follower.cancel()
        watchers = self._watchers.values()
        await asyncio.gather(self._follower, *(one.aclose() for one in watchers), return_exceptions=True)

    def _times(self) -> list[float]:
        shown = (one.pictures for one in self._watchers.values())
        return sorted(at for pictures in shown for number, _, at in pictures if number == self._number)


def longest_gap_s(times: Iterable[float]) -> float:
    """Between two of these moments."""
    return max(after - before for before, after in itertools.pairwise(times))


async def wait_until(
    condition: Callable[[], Any], timeout_s: float = 10.0, what: Callable[[], str] | str = "the condition"
) -> Any:
    """Polls a condition until it holds and returns its value. Raises AssertionError that says what was waited for."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s for {what() if callable(what) else what}")
        await asyncio.sleep(0.02)


@asynccontextmanager
async def joined(url: str, token: str, room: str, **options: Any) -> AsyncIterator[Room]:
    """A participant that leaves at the end of the block."""
    participant = await Room.connect(url, token, room, RoomOptions(**options))
    try:
        yield participant
    finally:
        await participant.leave()


async def remote_track(room: Room, kind: str, identity: str | None = None, timeout_s: float = 10.0) -> RemoteTrack:
    """The subscribed track of a kind, of a participant with this identity if given."""

    def find() -> RemoteTrack | None:
        for track in room.tracks.values():
            owner = room.participants.get(track.publication.participant_id)
            if track.media.kind == kind and (identity is None or (owner is not None and owner.identity == identity)):
                return track
        return None

    found: RemoteTrack = await wait_until(
        find, timeout_s, lambda: f"a {kind} track of {identity}; has {list(room.tracks)}, {room.publications}"
    )
    return found
