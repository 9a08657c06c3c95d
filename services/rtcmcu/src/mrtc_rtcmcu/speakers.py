"""Publishes who speaks in the rooms of this node."""

from __future__ import annotations

import asyncio
import contextlib

from mrtc.event.v1 import state_pb2
from mrtc_common import subjects
from mrtc_common.clock import Clock
from mrtc_common.errors import UnavailableError
from mrtc_common.nats import NatsLink
from mrtc_common.speakers import Levels
from mrtc_common.tasks import end_tasks

from .core.speaker_pacing import SpeakerPacing
from .core.transports import Transports


class SpeakerNotices:
    """Takes the engine's speaker events and publishes `NodeSpeakers`, paced."""

    def __init__(self, link: NatsLink, transports: Transports, node_id: str, clock: Clock) -> None:
        self._link = link
        self._transports = transports
        self._node_id = node_id
        self._clock = clock
        self._pacing = SpeakerPacing()
        self._updated = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins."""
        self._task = asyncio.create_task(self._run(), name="speakers")

    async def aclose(self) -> None:
        """Ends."""
        if self._task is not None:
            await end_tasks(self._task)

    def update(self, room_key: str, speakers: Levels, worker: int) -> None:
        """Takes what a worker of the engine heard."""
        self._pacing.update(room_key, speakers, worker)
        self._updated.set()

    async def _run(self) -> None:
        while True:
            next_at = self._pacing.next_at(self._clock.monotonic())
            timeout = None if next_at is None else max(0.0, next_at - self._clock.monotonic())
            if timeout != 0.0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout):
                        await self._updated.wait()
            self._updated.clear()
            for room_key, speakers in self._pacing.due(self._clock.monotonic()):
                with contextlib.suppress(UnavailableError):  # the next notice replaces it
                    await self._link.publish(subjects.speakers_subject(room_key), self._encode(speakers))

    def _encode(self, speakers: Levels) -> bytes:
        message = state_pb2.NodeSpeakers(node_id=self._node_id)
        for track_id, level in speakers:
            owner = self._transports.owner_of(track_id)
            if owner is not None:
                message.tracks.add(track_id=track_id, participant_id=owner.participant_id, level=level)
        return message.SerializeToString()
