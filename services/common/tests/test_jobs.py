"""The work queue on a real nats-server."""

from __future__ import annotations

import asyncio

import pytest
from mrtc_common import subjects
from mrtc_common.jobs import HandBackError, Job, JobQueue, JobWorker
from mrtc_common.nats import NatsLink, NatsOptions
from mrtc_common.testing import NatsServer, wait_until

pytestmark = pytest.mark.integration


def queue_of(link: NatsLink, *, ack_wait_s: float = 1.0) -> JobQueue:
    return JobQueue(link, subjects.JOB_RECORD, "tester", ack_wait_s=ack_wait_s)


class Bench:
    """A worker whose jobs end when the test says so."""

    def __init__(self, link: NatsLink, *, max_jobs: int = 2, heartbeat_s: float = 0.3) -> None:
        self.begun: list[bytes] = []
        self.handed_back: list[bytes] = []
        self.may_end = asyncio.Event()
        self.worker = JobWorker(
            queue_of(link), self._handle, max_jobs=max_jobs, heartbeat_s=heartbeat_s, retry_delay_s=0.2
        )
        self.worker.start()

    async def _handle(self, job: Job) -> None:
        self.begun.append(job.payload)
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.handed_back.append(job.payload)
            raise HandBackError from None


async def test_a_job_is_done_once(nats_link: NatsLink) -> None:
    """Though it was put twice under one id, and though the queue is asked again."""
    bench = Bench(nats_link)
    for _ in range(2):
        await queue_of(nats_link).put(b"one", job_id="one")
    bench.may_end.set()
    await wait_until(lambda: bench.begun)
    await asyncio.sleep(1.5)
    assert bench.begun == [b"one"]
    await bench.worker.aclose()


async def test_a_worker_takes_no_more_than_it_has_room_for(nats_link: NatsLink) -> None:
    """The others wait, and come when one is done."""
    bench = Bench(nats_link, max_jobs=2)
    for number in range(4):
        await queue_of(nats_link).put(b"%d" % number, job_id=str(number))
    await wait_until(lambda: len(bench.begun) == 2)
    assert not bench.worker.has_room
    bench.may_end.set()
    await wait_until(lambda: len(bench.begun) == 4)
    await bench.worker.aclose()


async def test_a_long_job_stays_with_its_worker(nats_link: NatsLink) -> None:
    """Its heartbeats keep it though it takes longer than the queue would wait."""
    first, second = Bench(nats_link, max_jobs=1), Bench(nats_link, max_jobs=1)
    await queue_of(nats_link).put(b"long", job_id="long")
    await wait_until(lambda: first.begun + second.begun)
    await asyncio.sleep(2.5)
    assert first.begun + second.begun == [b"long"]
    await first.worker.aclose()
    await second.worker.aclose()


async def test_a_dead_workers_job_goes_to_another(nats_link: NatsLink) -> None:
    """When its heartbeats stop."""
    dead = Bench(nats_link, heartbeat_s=60)
    await queue_of(nats_link).put(b"job", job_id="job")
    await wait_until(lambda: dead.begun)
    await dead.worker.pause()
    other = Bench(nats_link)
    await wait_until(lambda: other.begun == [b"job"])
    await other.worker.aclose()
    await dead.worker.aclose()


async def test_a_worker_that_ends_hands_its_jobs_over_at_once(nats_link: NatsLink) -> None:
    """Not after the queue has waited for it in vain, and not to itself."""
    first = Bench(nats_link)
    await queue_of(nats_link, ack_wait_s=1.0).put(b"job", job_id="job")
    await wait_until(lambda: first.begun)
    second = Bench(nats_link)
    began = asyncio.get_running_loop().time()
    await first.worker.aclose()
    assert first.handed_back == [b"job"]
    await wait_until(lambda: second.begun == [b"job"])
    assert asyncio.get_running_loop().time() - began < 0.9
    await second.worker.aclose()


async def test_a_failed_job_is_tried_again(nats_link: NatsLink) -> None:
    """Until it is done."""
    tries: list[int] = []

    async def handle(_job: Job) -> None:
        tries.append(len(tries) + 1)
        if len(tries) < 3:
            raise ValueError("not yet")

    worker = JobWorker(queue_of(nats_link), handle, max_jobs=1, retry_delay_s=0.05)
    worker.start()
    await queue_of(nats_link).put(b"job", job_id="job")
    await wait_until(lambda: tries == [1, 2, 3])
    await worker.aclose()


@pytest.mark.parametrize("is_wiped", [False, True])
async def test_jobs_come_after_nats_was_away(nats_server: NatsServer, is_wiped: bool) -> None:
    """Killed and started again, with its data or without."""
    async with NatsLink(NatsOptions(urls=(nats_server.url,)), name="test") as link:
        await link.wait_ready(10)
        bench = Bench(link)
        bench.may_end.set()
        await queue_of(link).put(b"before", job_id="before")
        await wait_until(lambda: bench.begun == [b"before"])
        nats_server.kill()
        await wait_until(lambda: not link.is_ready)
        if is_wiped:
            nats_server.wipe()
        nats_server.start()
        await link.wait_ready(20)
        await queue_of(link).put(b"after", job_id="after")
        await wait_until(lambda: b"after" in bench.begun, timeout_s=20)
        await bench.worker.aclose()
