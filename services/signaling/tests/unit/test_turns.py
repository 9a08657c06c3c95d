"""Turns that many share or one has alone."""

from __future__ import annotations

import asyncio
import contextlib
import random

from mrtc_signaling.app.turns import Turns


class Taker:
    """Takes a turn in a task and keeps it until it is let go."""

    def __init__(self, turns: Turns, *, alone: bool) -> None:
        self.has_turn, self._let_go = False, asyncio.Event()
        self.task = asyncio.create_task(self._run(turns, alone))

    async def _run(self, turns: Turns, alone: bool) -> None:
        async with turns.taken(alone=alone):
            self.has_turn = True
            try:
                await self._let_go.wait()
            finally:
                self.has_turn = False

    async def end(self) -> None:
        self._let_go.set()
        await self.task


async def settled(*takers: Taker) -> list[bool]:
    for _ in range(10):
        await asyncio.sleep(0)
    return [taker.has_turn for taker in takers]


async def test_many_share_and_one_is_alone() -> None:
    """Who wants it alone waits for those who share it, and those who come later wait for it."""
    turns = Turns()
    first, second = Taker(turns, alone=False), Taker(turns, alone=False)
    assert await settled(first, second) == [True, True]
    alone, late = Taker(turns, alone=True), Taker(turns, alone=False)
    await first.end()
    assert await settled(second, alone, late) == [True, False, False]
    await second.end()
    assert await settled(alone, late) == [True, False]
    await alone.end()
    assert await settled(late) == [True]
    await late.end()


async def test_who_gives_up_holds_up_nobody() -> None:
    """A cancelled taker leaves nothing behind, whether it waited or had its turn."""
    turns = Turns()
    holder, waiting, late = Taker(turns, alone=False), Taker(turns, alone=True), Taker(turns, alone=False)
    assert await settled(holder, waiting, late) == [True, False, False]
    waiting.task.cancel()
    assert await settled(late) == [True]
    last = Taker(turns, alone=True)
    for taker in (holder, late):
        taker.task.cancel()
    assert await settled(last) == [True]
    await last.end()


async def test_any_order_keeps_the_rule() -> None:
    """Never anybody beside one who is alone; all get their turn."""
    rng = random.Random(4)
    turns = Turns()
    present: list[tuple[Taker, bool]] = []
    for _ in range(400):
        if rng.random() < 0.5 or not present:
            alone = rng.random() < 0.4
            present.append((Taker(turns, alone=alone), alone))
        else:
            taker, _ = present.pop(rng.randrange(len(present)))
            taker.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await taker.task
        await settled()
        holders = [alone for taker, alone in present if taker.has_turn]
        assert holders or not present
        assert len(holders) == 1 or not any(holders)
    for taker, _ in present:
        taker.task.cancel()
