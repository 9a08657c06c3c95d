"""What playing a vod needs of the world: a player of files, the room, the engine, the vod's record."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from mrtc.common.v1 import common_pb2
from mrtc.event.v1 import state_pb2

from .core.records import PlayedTracks, Vod
from .play.wire import Opened, PlayedFrame


class FilePlayer(Protocol):
    """A file that plays, each frame handed out when it is due."""

    async def open(self) -> Opened:
        """Opens the file. Raises BadMediaError, PlayerError."""
        ...

    def frames(self) -> AsyncIterator[PlayedFrame]:
        """All frames up to the end of the file. Raises BadMediaError, PlayerError."""
        ...

    def request_keyframe(self, track: int) -> None:
        """Somebody needs a key frame."""
        ...

    def add_alternative(self, codec: str) -> None:
        """Adds the picture in a further codec."""
        ...

    async def aclose(self) -> None:
        """Ends it."""
        ...


class MediaSources(Protocol):
    """The engine's sources: tracks that are fed by this process."""

    async def create(self, track_id: str, room_key: str, codec: str) -> None:
        """Makes a track. Raises MrtcError."""
        ...

    async def push(self, track_id: str, frames: Sequence[PlayedFrame], late_us: int) -> None:
        """Sends frames of a track when they are due; the first one was due `late_us` ago."""
        ...

    async def set_muted(self, track_id: str, is_muted: bool) -> None:
        """A muted track is not forwarded."""
        ...

    async def remove(self, track_id: str) -> None:
        """Ends a track; no error if it does not exist."""
        ...


class VodRoom(Protocol):
    """The virtual participant's place in its room."""

    async def is_open(self) -> bool:
        """True if the room exists. Raises UnavailableError."""
        ...

    async def join(self, vod: Vod) -> None:
        """Puts the participant into the room, which is made if it does not exist. Raises UnavailableError."""
        ...

    async def publish(self, vod: Vod, tracks: PlayedTracks) -> None:
        """Says what it publishes. Raises UnavailableError."""
        ...

    async def leave(self, vod: Vod, reason: common_pb2.LeaveReason.ValueType) -> None:
        """Takes everything of it away. Raises UnavailableError."""
        ...

    async def keep(self, vod: Vod) -> None:
        """Keeps its session alive. Never returns."""
        ...

    async def watch(
        self,
        on_removed: Callable[[], None],
        on_publication: Callable[[state_pb2.PublicationRecord], None],
        on_codecs_wanted: Callable[[Sequence[str]], None],
    ) -> None:
        """Tells when it was removed, when its publication was changed, when its picture is wanted in further codecs.

        Never returns.
        """
        ...
