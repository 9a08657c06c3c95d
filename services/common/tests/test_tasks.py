"""Background tasks end."""

from __future__ import annotations

import asyncio

from mrtc_common.errors import UnavailableError
from mrtc_common.tasks import end_tasks, repeat


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    """As `asyncio.wait_for` of Python 3.11 can."""
    lost = 0

    async def loop() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                lost += 1
                if lost == 3:
                    raise

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end_tasks(task, None, recancel_s=0.01)
    assert task.cancelled()


async def test_ended_tasks_are_no_matter() -> None:
    """Nor are failed ones."""

    async def fail() -> None:
        raise ValueError

    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    await end_tasks(task)
    assert isinstance(task.exception(), ValueError)


async def test_a_step_is_repeated_whatever_happens_to_it() -> None:
    """Until the task is cancelled."""
    errors: list[Exception] = [UnavailableError(), ValueError()]
    done = asyncio.Event()

    async def step() -> None:
        if errors:
            raise errors.pop()
        done.set()

    task = asyncio.create_task(repeat(step, 0.001, "test"))
    async with asyncio.timeout(5):
        await done.wait()
    await end_tasks(task)
    assert task.cancelled()
