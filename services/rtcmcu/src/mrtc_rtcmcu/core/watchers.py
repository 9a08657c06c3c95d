"""Hands events to watchers; one that does not keep up is dropped and begins anew with the present state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from mrtc.media.v1 import media_service_pb2 as pb
from mrtc_common.errors import UnavailableError

QUEUE_SIZE = 4096
"""Events that may wait for a watcher: those of a thousand joins."""


class Watcher:
    """One reader of events. Iterate `events`; leaves with `Watchers.remove`."""

    def __init__(self, transport_ids: Iterable[str]) -> None:
        self._only = frozenset(transport_ids)
        self._queue: asyncio.Queue[pb.WatchTransportsResponse | None] = asyncio.Queue(QUEUE_SIZE)
        self.is_overrun = False
        self._open = set(self._only)

    def wants(self, transport_id: str) -> bool:
        """True if the watcher asked for this transport, or for all."""
        return not self._only or transport_id in self._only

    def offer(self, event: pb.WatchTransportsResponse) -> None:
        """Queues an event that the watcher wants; a full queue ends the watch."""
        if not self.wants(event.transport_id) or self.is_overrun:
            return
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            self.is_overrun = True

    def end(self) -> None:
        """No more events come."""
        try:
            self._queue.put_nowait(None)
        except asyncio.QueueFull:
            self.is_overrun = True

    async def events(self) -> AsyncIterator[pb.WatchTransportsResponse]:
        """All events in order. Ends when all transports asked for have ended. Raises UnavailableError if overrun."""
        while True:
            if self.is_overrun:
                raise UnavailableError("the watcher does not keep up; watch again", retry_after_ms=100)
            event = await self._queue.get()
            if event is None:
                return
            yield event
            if event.WhichOneof("event") == "closed" and self._only:
                self._open.discard(event.transport_id)
                if not self._open:
                    return


class Watchers:
    """All watchers."""

    def __init__(self, limit: int = 256) -> None:
        self._watchers: set[Watcher] = set()
        self._limit = limit

    def __len__(self) -> int:
        return len(self._watchers)

    def add(self, transport_ids: Iterable[str]) -> Watcher:
        """A new one. Raises UnavailableError if there are too many."""
        if len(self._watchers) >= self._limit:
            raise UnavailableError(f"this node has {self._limit} watchers already")
        watcher = Watcher(transport_ids)
        self._watchers.add(watcher)
        return watcher

    def remove(self, watcher: Watcher) -> None:
        """It reads no more."""
        self._watchers.discard(watcher)

    def publish(self, event: pb.WatchTransportsResponse) -> None:
        """Offers an event to all."""
        for watcher in self._watchers:
            watcher.offer(event)

    def want_move(self, transport_id: str, *, is_optional: bool = False) -> None:
        """Tells all that a transport's client is to move; `is_optional` as in `MoveWanted`."""
        wanted = pb.MoveWanted(is_optional=is_optional)
        self.publish(pb.WatchTransportsResponse(transport_id=transport_id, move_wanted=wanted))

    def end(self) -> None:
        """Ends all watches."""
        for watcher in self._watchers:
            watcher.end()
