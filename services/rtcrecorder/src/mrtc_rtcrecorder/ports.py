"""What a recording job needs of the world: tracks come in by `TrackFeed`, files go out by `Output`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from .core.frames import Frame
from .core.progress import FileProgress
from .core.room_view import WantedTrack


class TrackFeed(Protocol):
    """Brings frames of tracks of other nodes."""

    async def follow(self, track: WantedTrack, on_start: Callable[[], None], on_frame: Callable[[Frame], None]) -> None:
        """Delivers frames until it is cancelled; mends whatever breaks.

        Args:
            on_start: called each time before the track's frames begin (anew).
            on_frame: called with every frame, in decode order; must not block.
        """
        ...

    def renew(self, track: WantedTrack) -> None:
        """Has the frames of a track that is followed begin anew, pictures with a key frame."""
        ...


class Output(Protocol):
    """Makes the files of one recording. Calls do not block; what cannot be taken in time is dropped and counted."""

    failed: asyncio.Future[str]
    """Set to a reason for people when the files cannot be written any more."""

    def update(self, track: WantedTrack) -> None:
        """A track is wanted, or what is known of it has changed."""
        ...

    def remove(self, track_id: str) -> None:
        """A track is gone."""
        ...

    def restart(self, track_id: str) -> None:
        """A track's frames begin anew."""
        ...

    def push(self, track_id: str, frame: Frame) -> None:
        """A frame of a track."""
        ...

    def files(self) -> list[FileProgress]:
        """All files so far."""
        ...

    async def finish(self) -> None:
        """Completes all files."""
        ...
