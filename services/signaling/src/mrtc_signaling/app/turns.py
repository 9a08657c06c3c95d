"""Who of a room is carried to another node when: publishers one by one, and those who only receive side by side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Turns:
    """A turn that many share or one has alone. Who wants it alone goes before those who come later."""

    def __init__(self) -> None:
        self._sharing = 0
        self._is_alone = False
        self._wanting_alone = 0
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def taken(self, *, alone: bool) -> AsyncIterator[None]:
        """Waits for the turn and has it inside the block."""
        if alone:
            await self._wait_alone()
            self._is_alone = True
        else:
            await self._wait(lambda: not self._is_alone and not self._wanting_alone)
            self._sharing += 1
        try:
            yield
        finally:
            if alone:
                self._is_alone = False
            else:
                self._sharing -= 1
            self._wake()

    async def _wait_alone(self) -> None:
        self._wanting_alone += 1
        try:
            await self._wait(lambda: not self._is_alone and not self._sharing)
        finally:
            self._wanting_alone -= 1
            self._wake()

    async def _wait(self, is_free: Callable[[], bool]) -> None:
        while not is_free():
            await self._changed.wait()

    def _wake(self) -> None:
        woken, self._changed = self._changed, asyncio.Event()
        woken.set()
