"""`MediaSources` of the local engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mrtc_common.engine_errors import engine_errors
from mrtc_common.errors import AlreadyExistsError, UnavailableError
from mrtc_engine import AsyncEngine, SourceFrame

from mrtc_rtcvod.play.wire import PlayedFrame

_BUSY_RETRIES = 5
_BUSY_WAIT_S = 0.02


class EngineSources:
    """See `MediaSources`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def create(self, track_id: str, room_key: str, codec: str) -> None:
        """See `MediaSources`. A track left over from an earlier try is replaced."""
        try:
            with engine_errors():
                await self._engine.create_source(track=track_id, room=room_key, codec=codec)
        except AlreadyExistsError:
            await self.remove(track_id)
            with engine_errors():
                await self._engine.create_source(track=track_id, room=room_key, codec=codec)

    async def push(self, track_id: str, frames: Sequence[PlayedFrame], late_us: int) -> None:
        """See `MediaSources`. Waits for a moment when the engine is busy; a frame that cannot be placed is lost."""
        batch = [SourceFrame(pts_us=frame.pts_us, is_keyframe=frame.is_keyframe, data=frame.data) for frame in frames]
        for attempt in range(_BUSY_RETRIES):
            try:
                with engine_errors():
                    await self._engine.push_frames(track=track_id, frames=batch, late_us=late_us)
                return
            except UnavailableError:
                if attempt == _BUSY_RETRIES - 1:
                    raise
                await asyncio.sleep(_BUSY_WAIT_S)

    async def set_muted(self, track_id: str, is_muted: bool) -> None:
        """See `MediaSources`."""
        with engine_errors():
            await self._engine.set_track_muted(track=track_id, is_muted=is_muted)

    async def remove(self, track_id: str) -> None:
        """See `MediaSources`."""
        with engine_errors():
            await self._engine.unpublish_track(track=track_id)
