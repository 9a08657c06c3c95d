"""The work queue: jobs that a worker holds by heartbeats, and that go to another worker when it dies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import nats.errors
import nats.js.errors
from nats.js import JetStreamContext, api

from . import subjects
from .errors import MrtcError, UnavailableError
from .log import get_logger
from .nats import NatsLink, nats_errors
from .tasks import end_tasks

_log = get_logger(__name__)

ACK_WAIT_S = 3.0
"""A job whose worker was silent for so long is offered to others, who ask the worker first (`JobRecord.claim`). With
that question, which takes a second if nobody answers, another one has it within five."""

HELD_AGAIN_S = 3.0
"""A job that the queue hands out though its worker is well comes again after this time: the worker may die yet."""

_HEARTBEAT_S = 1.0
_FETCH_TIMEOUT_S = 5.0
_RETRY_INTERVAL_S = 0.5
_SETTLE_TIMEOUT_S = 30.0
# How long a job may take to complete its files before it is handed back.
_HAND_BACK_S = 10.0
# Jobs of all workers together that may be under way.
_MAX_UNDER_WAY = 100_000


class HandBackError(Exception):
    """Raised by a handler: the job is not done, another worker shall go on with it.

    Args:
        delay_s: not before so many seconds have passed.
    """

    def __init__(self, delay_s: float = 0.0) -> None:
        super().__init__(f"handed back, again in {delay_s} s")
        self.delay_s = delay_s


class Job:
    """A job that this process holds, from the queue.

    Attributes:
        payload: what is to be done.
        former_holder: of a job that was found (`FoundJob`), the node that had it; else empty.
    """

    former_holder = ""

    def __init__(self, message: Any) -> None:
        self._message = message
        self.payload: bytes = message.data

    async def keep(self) -> None:
        """Says that it is still under way. Raises UnavailableError."""
        with nats_errors("job"):
            await self._message.in_progress()

    async def done(self) -> None:
        """It is done, for good or ill. Raises UnavailableError."""
        with nats_errors("job"):
            await self._message.ack_sync(timeout=2)

    async def hand_back(self, delay_s: float = 0.0) -> None:
        """Another worker shall take it. Raises UnavailableError."""
        with nats_errors("job"):
            await self._message.nak(delay=delay_s or None)


class FoundJob(Job):
    """A job whose holder has died. The queue still has it, and will hand it out to somebody as its own time comes."""

    def __init__(self, payload: bytes, former_holder: str) -> None:
        self.payload = payload
        self.former_holder = former_holder

    async def keep(self) -> None:
        """Nothing to say."""

    async def done(self) -> None:
        """Nothing to say: whoever gets it from the queue finds it done."""

    async def hand_back(self, delay_s: float = 0.0) -> None:
        """Nothing to say: the queue has it."""


class JobQueue:
    """The jobs of one subject; workers of the same `name` share them.

    Args:
        subject: `subjects.JOB_RECORD` or `subjects.JOB_VOD`.
        name: durable name of the workers.
        ack_wait_s: after how long a silent worker's job is handed to another.
    """

    def __init__(self, link: NatsLink, subject: str, name: str, *, ack_wait_s: float = ACK_WAIT_S) -> None:
        self._link = link
        self._subject = subject
        self._name = name
        self._ack_wait_s = ack_wait_s
        self._subscription: JetStreamContext.PullSubscription | None = None
        self._epoch = -1

    async def put(self, payload: bytes, *, job_id: str) -> None:
        """Adds a job; one with the same id is not added twice. Raises UnavailableError, LimitExceededError."""
        await self._link.publish_stored(self._subject, payload, message_id=job_id)

    async def take(self) -> Job:
        """Waits for the next job, however long; survives reconnects."""
        while True:
            await self._link.wait_ready()
            try:
                subscription = await self._subscribe()
                messages = await subscription.fetch(1, timeout=_FETCH_TIMEOUT_S)
            except (TimeoutError, nats.errors.TimeoutError):
                continue
            except (UnavailableError, nats.errors.Error, nats.js.errors.Error, OSError):
                self._epoch = -1
                await asyncio.sleep(_RETRY_INTERVAL_S)
                continue
            if messages:
                return Job(messages[0])

    async def aclose(self) -> None:
        """Wants no more jobs; `take` wants them again."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with contextlib.suppress(Exception):
                await subscription.unsubscribe()

    async def _subscribe(self) -> JetStreamContext.PullSubscription:
        epoch = self._link.epoch
        if self._subscription is not None and self._epoch == epoch:
            return self._subscription
        await self.aclose()
        config = api.ConsumerConfig(
            durable_name=self._name,
            filter_subject=self._subject,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait_s,
            max_ack_pending=_MAX_UNDER_WAY,
        )
        jetstream = self._link.jetstream
        await jetstream.add_consumer(subjects.STREAM_JOBS, config)
        self._subscription = await jetstream.pull_subscribe_bind(consumer=self._name, stream=subjects.STREAM_JOBS)
        self._epoch = epoch
        return self._subscription


class JobWorker:
    """Takes jobs while it has room, runs a handler for each, and keeps them by heartbeats meanwhile.

    A handler that returns has done its job. One that raises `HandBackError` gives it to another worker; one that fails
    otherwise does too, after `retry_delay_s`. Handlers are cancelled by `aclose` only, and should then raise
    `HandBackError`.

    Args:
        handler: does a job.
        max_jobs: jobs at once.
    """

    def __init__(
        self,
        queue: JobQueue,
        handler: Callable[[Job], Awaitable[None]],
        *,
        max_jobs: int,
        retry_delay_s: float = 2.0,
        heartbeat_s: float = _HEARTBEAT_S,
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._max_jobs = max_jobs
        self._room = asyncio.Semaphore(max_jobs)
        self._retry_delay_s = retry_delay_s
        self._heartbeat_s = heartbeat_s
        self._taker: asyncio.Task[None] | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._is_paused = False

    @property
    def jobs(self) -> int:
        """Jobs under way."""
        return len(self._jobs)

    @property
    def has_room(self) -> bool:
        """True if it takes another job."""
        return not self._is_paused and self.jobs < self._max_jobs

    def start(self) -> None:
        """Begins to take jobs."""
        self._is_paused = False
        if self._taker is None:
            self._taker = asyncio.create_task(self._take_jobs(), name="job-taker")

    async def adopt(self, job: Job) -> None:
        """Does a job that did not come from the queue, if there is room; returns at once."""
        if not self._is_paused and not self._room.locked():
            await self._room.acquire()
            self._begin(job)

    async def pause(self) -> None:
        """Takes no more jobs; those under way go on."""
        self._is_paused = True
        taker, self._taker = self._taker, None
        await end_tasks(taker)
        # The server may have been asked for a job on our behalf: without this it would give it to nobody.
        await self._queue.aclose()

    async def aclose(self) -> None:
        """Takes no more jobs and has those under way handed back."""
        await self.pause()
        await end_tasks(*self._jobs, recancel_s=_HAND_BACK_S)

    async def _take_jobs(self) -> None:
        while True:
            await self._room.acquire()
            try:
                job = await self._queue.take()
            except BaseException:
                self._room.release()
                raise
            self._begin(job)

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._run(job), name="job")
        self._jobs.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        self._room.release()

    async def _run(self, job: Job) -> None:
        heartbeat = asyncio.create_task(self._keep(job), name="job-heartbeat")
        settle: Callable[[], Awaitable[None]]
        try:
            await self._handler(job)
            settle = job.done
        except (HandBackError, asyncio.CancelledError) as error:
            delay_s = error.delay_s if isinstance(error, HandBackError) else 0.0
            settle = _hand_back(job, delay_s)
        except Exception:
            _log.exception("a job failed, it will be tried again")
            settle = _hand_back(job, self._retry_delay_s)
        finally:
            heartbeat.cancel()
        await _settle(settle)

    async def _keep(self, job: Job) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            with contextlib.suppress(UnavailableError):
                await job.keep()


def _hand_back(job: Job, delay_s: float) -> Callable[[], Awaitable[None]]:
    return lambda: job.hand_back(delay_s)


async def _settle(settle: Callable[[], Awaitable[None]]) -> None:
    """Tells the queue, also over a short absence of it; after that the job is simply handed out again."""
    deadline = asyncio.get_running_loop().time() + _SETTLE_TIMEOUT_S
    while asyncio.get_running_loop().time() < deadline:
        try:
            await settle()
        except MrtcError:
            await asyncio.sleep(_RETRY_INTERVAL_S)
        else:
            return
