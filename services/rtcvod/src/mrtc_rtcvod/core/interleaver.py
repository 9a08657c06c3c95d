"""Orders the packets of several streams by time, however badly the file mixes them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# A stream that has nothing within this is taken to be silent for now; bounds what is held.
MAX_SPAN_US = 2_000_000
MAX_ITEMS = 2_000


class Interleaver(Generic[T]):
    """Holds items until every stream has shown one that is later."""

    def __init__(self, streams: set[int]) -> None:
        self._latest: dict[int, int | None] = dict.fromkeys(streams)
        self._heap: list[tuple[int, int, int, T]] = []
        self._count = 0

    def push(self, stream: int, time_us: int, item: T) -> Iterator[tuple[int, int, T]]:
        """Adds an item; gives those (stream, time, item) whose turn has come."""
        self._count += 1
        heapq.heappush(self._heap, (time_us, self._count, stream, item))
        latest = self._latest.get(stream)
        self._latest[stream] = time_us if latest is None else max(latest, time_us)
        newest = max(time for time in self._latest.values() if time is not None)
        while self._heap and (self._is_safe(self._heap[0][0], newest) or len(self._heap) > MAX_ITEMS):
            yield self._pop()

    def flush(self) -> Iterator[tuple[int, int, T]]:
        """Gives all that is left, and begins anew."""
        while self._heap:
            yield self._pop()
        self._latest = dict.fromkeys(self._latest)

    def _is_safe(self, time_us: int, newest: int) -> bool:
        if newest - time_us > MAX_SPAN_US:
            return True
        return all(latest is not None and latest >= time_us for latest in self._latest.values())

    def _pop(self) -> tuple[int, int, T]:
        time_us, _, stream, item = heapq.heappop(self._heap)
        return stream, time_us, item
