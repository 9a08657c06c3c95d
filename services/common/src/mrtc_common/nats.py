"""The link to NATS: connects and reconnects for ever, sets streams and buckets up, and turns its errors into ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from .errors import LimitExceededError, UnavailableError
from .log import get_logger
from .nats_schema import SchemaOptions, all_streams
from .tasks import end_tasks

if TYPE_CHECKING:
    from .settings import Settings

_log = get_logger(__name__)

_CONNECT_TIMEOUT_S = 2.0
_RETRY_INTERVAL_S = 0.5
_REQUEST_TIMEOUT_S = 3.0
_STREAM_NAME_IN_USE, _STREAM_CONFIG_INVALID = 10058, 10052
# What a publisher may have on its way while the connection is away; beyond it publishing fails.
_PENDING_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """Where NATS is and how to be let in."""

    urls: tuple[str, ...] = ("nats://127.0.0.1:4222",)
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    credentials_file: Path | None = None
    schema: SchemaOptions = field(default_factory=SchemaOptions)

    @classmethod
    def from_settings(cls, settings: Settings) -> NatsOptions:
        """The options that a service's settings say."""
        return cls(
            urls=tuple(settings.nats_urls),
            user=settings.nats_user,
            password=settings.nats_password.get_secret_value(),
            token=settings.nats_token.get_secret_value(),
            credentials_file=settings.nats_credentials_file,
            schema=SchemaOptions(replicas=settings.nats_replicas, session_grace_s=settings.session_grace_s),
        )


@contextlib.contextmanager
def nats_errors(what: str) -> Iterator[None]:
    """Turns failures of NATS in a block into `UnavailableError` (or `LimitExceededError` when a stream is full)."""
    try:
        yield
    except nats.js.errors.APIError as error:
        # 10047, 10053, 10077, 10110: no room in the stream, account or server; 503 without code: being elected.
        if error.err_code in (10047, 10053, 10077, 10110):
            raise LimitExceededError(f"{what}: the store is full") from error
        raise UnavailableError(f"{what}: the message bus refused: {error.description}") from error
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError, OSError) as error:
        raise UnavailableError(f"{what}: the message bus does not answer") from error


class NatsLink:
    """One connection to NATS for the process; usable before it is up.

    `start` returns at once and connects in the background, endlessly. Calls while it is down raise `UnavailableError`.
    After every (re)connect the streams and buckets are set up again, so that an emptied server is no problem.
    """

    def __init__(self, options: NatsOptions, *, name: str) -> None:
        self._options = options
        self._name = name
        self._client: Client | None = None
        self._js: JetStreamContext | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._epoch = 0
        self._listeners: list[Callable[[bool], None]] = []

    @property
    def is_ready(self) -> bool:
        """True while connected and set up."""
        return self._ready.is_set() and self._client is not None and self._client.is_connected

    @property
    def epoch(self) -> int:
        """Counts the times that the link came up; watches compare it to see that they must begin anew."""
        return self._epoch

    @property
    def client(self) -> Client:
        """The nats-py client. Raises UnavailableError while the link is down."""
        if self._client is None or not self.is_ready:
            raise UnavailableError("the message bus is not connected")
        return self._client

    @property
    def jetstream(self) -> JetStreamContext:
        """The JetStream context. Raises UnavailableError while the link is down."""
        if self._js is None or not self.is_ready:
            raise UnavailableError("the message bus is not connected")
        return self._js

    def on_change(self, listener: Callable[[bool], None]) -> Callable[[], None]:
        """Calls `listener(is_ready)` at every change, and now. Returns what ends it."""
        self._listeners.append(listener)
        listener(self.is_ready)

        def remove() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(listener)

        return remove

    async def start(self) -> None:
        """Begins to connect; returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="nats-link")

    async def wait_ready(self, timeout_s: float | None = None) -> None:
        """Waits until the link is up. Raises UnavailableError when the time is over."""
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError:
            raise UnavailableError("the message bus is not connected") from None

    async def aclose(self) -> None:
        """Sends what is pending and closes."""
        task, self._task = self._task, None
        if task is not None:
            await end_tasks(task)
        client, self._client = self._client, None
        self._set_ready(False)
        if client is not None:
            with contextlib.suppress(Exception):
                if client.is_connected:
                    await client.flush(timeout=1)
            with contextlib.suppress(Exception):
                await client.close()

    async def __aenter__(self) -> NatsLink:
        await self.start()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.aclose()

    async def publish(self, subject: str, payload: bytes) -> None:
        """Publishes without storing. Raises UnavailableError."""
        with nats_errors("publish"):
            await self.client.publish(subject, payload)

    async def publish_stored(
        self, subject: str, payload: bytes, *, message_id: str = "", headers: dict[str, str] | None = None
    ) -> int:
        """Publishes into a stream and returns the stream sequence; a repeated `message_id` has no second effect.

        Raises UnavailableError, LimitExceededError.
        """
        all_headers = dict(headers or {})
        if message_id:
            all_headers["Nats-Msg-Id"] = message_id
        with nats_errors("publish"):
            ack = await self.jetstream.publish(subject, payload, headers=all_headers or None)
        return int(ack.seq)

    async def subscribe(self, subject: str, handler: Callable[[str, bytes], Awaitable[None]]) -> NatsSubscription:
        """Calls `handler(subject, payload)` for every message, one after the other; survives reconnects.

        Needs the link to be up once. Raises UnavailableError.
        """

        async def on_message(message: Any) -> None:
            try:
                await handler(message.subject, message.data)
            except Exception:
                _log.exception("a message handler failed", subject=subject)

        with nats_errors("subscribe"):
            subscription = await self.client.subscribe(subject, cb=on_message, pending_msgs_limit=65_536)
        return NatsSubscription(subscription)

    async def ask(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes | None:
        """Asks whoever answers there; None if nobody does in time. Raises UnavailableError while the link is down."""
        client = self.client
        try:
            return bytes((await client.request(subject, payload, timeout=timeout_s)).data)
        except (TimeoutError, nats.errors.TimeoutError, nats.errors.NoRespondersError):
            return None
        except (nats.errors.Error, OSError) as error:
            raise UnavailableError(f"nobody could be asked: {_brief(error)}") from error

    async def answer(
        self, subject: str, answer: Callable[[bytes], bytes] | Callable[[bytes], Awaitable[bytes]]
    ) -> NatsSubscription:
        """Answers what `ask` asks; survives reconnects. Needs the link to be up once. Raises UnavailableError."""

        async def on_message(message: Any) -> None:
            given = answer(message.data)
            with contextlib.suppress(nats.errors.Error):
                await message.respond(given if isinstance(given, bytes) else await given)

        with nats_errors("subscribe"):
            return NatsSubscription(await self.client.subscribe(subject, cb=on_message))

    # Connection

    async def _run(self) -> None:
        warned = False
        while self._client is None:
            try:
                self._client = await self._connect()
            except Exception as error:
                if not warned:
                    _log.warning(
                        "NATS cannot be reached, trying on", urls=list(self._options.urls), error=_brief(error)
                    )
                    warned = True
                await asyncio.sleep(_RETRY_INTERVAL_S)
        while True:
            self._lost.clear()
            await self._set_up()
            await self._lost.wait()
            self._set_ready(False)
            _log.warning("connection to NATS lost, reconnecting")
            while not (self._client is not None and self._client.is_connected):
                if self._client is None or self._client.is_closed:
                    # nats-py gives up for good on an authorization error; so begin with a new client.
                    self._client = None
                    return await self._run()
                await asyncio.sleep(0.05)

    async def _connect(self) -> Client:
        options: dict[str, Any] = {
            "servers": list(self._options.urls),
            "name": self._name,
            "connect_timeout": _CONNECT_TIMEOUT_S,
            "reconnect_time_wait": _RETRY_INTERVAL_S,
            "max_reconnect_attempts": -1,
            "ping_interval": 5,
            "max_outstanding_pings": 2,
            "pending_size": _PENDING_BYTES,
            "drain_timeout": 2,
            "disconnected_cb": self._on_disconnected,
            "closed_cb": self._on_disconnected,
            "error_cb": self._on_error,
        }
        if self._options.user:
            options |= {"user": self._options.user, "password": self._options.password}
        if self._options.token:
            options["token"] = self._options.token
        if self._options.credentials_file is not None:
            options["user_credentials"] = str(self._options.credentials_file)
        client = Client()
        try:
            # nats-py tries for ever by itself here, but hides why; one bounded try at a time shows it.
            await asyncio.wait_for(client.connect(**options), _CONNECT_TIMEOUT_S + 1)
        except BaseException:
            with contextlib.suppress(Exception):
                await client.close()
            raise
        return client

    async def _set_up(self) -> None:
        assert self._client is not None
        js = self._client.jetstream(timeout=_REQUEST_TIMEOUT_S)
        warned = False
        while not self._lost.is_set():
            try:
                for config in all_streams(self._options.schema):
                    await _ensure_stream(js, config)
            except Exception as error:
                if not warned:
                    _log.warning("JetStream is not ready, trying on", error=_brief(error))
                    warned = True
                await asyncio.sleep(_RETRY_INTERVAL_S)
                continue
            self._js = js
            self._epoch += 1
            self._set_ready(True)
            _log.info(
                "connected to NATS", server=str(self._client.connected_url.netloc if self._client.connected_url else "")
            )
            return

    def _set_ready(self, ready: bool) -> None:
        if ready == self._ready.is_set():
            return
        if ready:
            self._ready.set()
        else:
            self._ready.clear()
        for listener in list(self._listeners):
            listener(ready)

    async def _on_disconnected(self) -> None:
        self._lost.set()
        self._set_ready(False)

    async def _on_error(self, error: Exception) -> None:
        _log.debug("NATS reported an error", error=_brief(error))


class NatsSubscription:
    """A core NATS subscription."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    async def aclose(self) -> None:
        """Ends it; no error if the connection is away."""
        with contextlib.suppress(Exception):
            await self._subscription.unsubscribe()


async def _ensure_stream(js: JetStreamContext, config: api.StreamConfig) -> None:
    try:
        await js.add_stream(config)
    except nats.js.errors.BadRequestError as error:
        if error.err_code != _STREAM_NAME_IN_USE:  # with a different configuration
            raise
        await _update_stream(js, config)


async def _update_stream(js: JetStreamContext, config: api.StreamConfig) -> None:
    try:
        await js.update_stream(config)
    except nats.js.errors.APIError as error:
        if error.err_code != _STREAM_CONFIG_INVALID:
            raise
        # nats-server 2.11 does not let this limit change; what an older version of the suite made there has none.
        present = (await js.stream_info(config.name or "")).config
        await js.update_stream(replace(config, max_consumers=present.max_consumers))


def _brief(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
