"""The app events in NATS: the stream `MRTC_EVENTS`, read in order from the position that the store keeps.

The position is not kept in NATS: one that the server advances cannot tell what a reader took with it when it died.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.protobuf.message import DecodeError
from mrtc_common import subjects
from mrtc_common.errors import BadRequestError
from mrtc_common.kv import is_deletion
from mrtc_common.log import get_logger
from mrtc_common.nats import NatsLink, nats_errors
from mrtc_common.nats_schema import parse_bucket_subject
from mrtc_common.ordered import OrderedReader, StoredMessage

from mrtc_signaling.core.app_events import AppEvent, StoredWrite, events_of
from mrtc_signaling.core.webhooks import LogPosition

_log = get_logger(__name__)

_AT_ONCE = 100
_WAIT_S = 5.0


class NatsEventBatch:
    """See `webhook_ports.EventBatch`."""

    def __init__(self, messages: Sequence[StoredMessage], stream: str) -> None:
        self.events = [event for message in messages for event in _events(message)]
        self.position = LogPosition(stream, messages[-1].sequence)


class NatsEventLog:
    """See `webhook_ports.EventLog`."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link
        self._reader: OrderedReader | None = None
        self._epoch = -1
        self._stream = ""
        self._goes_on_after: LogPosition | None = None

    async def read(self, after: LogPosition | None) -> NatsEventBatch | None:
        """See the port."""
        # With another connection it may be another server, whose stream was made anew.
        if self._reader is None or self._epoch != self._link.epoch or self._goes_on_after != after:
            await self._open(after)
        assert self._reader is not None
        try:
            async with asyncio.timeout(_WAIT_S):
                first = await anext(self._reader)
        except TimeoutError:
            return None
        batch = NatsEventBatch([first, *self._reader.take_waiting(_AT_ONCE - 1)], self._stream)
        self._goes_on_after = batch.position
        return batch

    async def aclose(self) -> None:
        """See the port."""
        reader, self._reader = self._reader, None
        if reader is not None:
            await reader.aclose()

    async def _open(self, after: LogPosition | None) -> None:
        await self.aclose()
        self._epoch, self._goes_on_after = self._link.epoch, after
        with nats_errors("events"):
            info = await self._link.jetstream.stream_info(subjects.STREAM_EVENTS)
        self._stream = str(info.created)
        first = after.sequence + 1 if after is not None and after.stream == self._stream else 1
        self._reader = await OrderedReader(self._link, subjects.STREAM_EVENTS, ">", start_sequence=first).__aenter__()


def _events(message: StoredMessage) -> list[AppEvent]:
    try:
        bucket, key = parse_bucket_subject(message.subject)
        write = StoredWrite(bucket, key, message.payload or b"", is_deletion(message.headers), message.stored_at_ms)
        return events_of(write)
    except (DecodeError, BadRequestError):
        _log.warning("a write of the state cannot be read; apps are not told of it", subject=message.subject)
        return []
