"""Text messages in the JetStream stream `MRTC_MESSAGES`; a message's number is its stream sequence."""

from __future__ import annotations

from collections.abc import AsyncIterator

import nats.js.errors
from google.protobuf.message import DecodeError
from mrtc.event.v1 import state_pb2
from mrtc_common import subjects
from mrtc_common.log import get_logger
from mrtc_common.nats import NatsLink, nats_errors
from mrtc_common.ordered import OrderedReader

_log = get_logger(__name__)

_READ_BATCH = 64


class NatsMessageLog:
    """See `ports.MessageLog`."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link

    async def publish(self, room_key: str, message: state_pb2.RoomMessage, message_id: str) -> int:
        """See the port."""
        return await self._link.publish_stored(
            subjects.message_subject(room_key), message.SerializeToString(), message_id=message_id
        )

    async def last_seq(self, room_key: str) -> int:
        """See the port."""
        with nats_errors("messages"):
            try:
                found = await self._link.jetstream.get_msg(
                    subjects.STREAM_MESSAGES, subject=subjects.message_subject(room_key), direct=True
                )
            except nats.js.errors.NotFoundError:
                return 0
        return int(found.seq or 0)

    async def read(self, room_key: str, after_seq: int, up_to_seq: int) -> list[tuple[int, state_pb2.RoomMessage]]:
        """See the port."""
        batch: list[tuple[int, state_pb2.RoomMessage]] = []
        subject = subjects.message_subject(room_key)
        while len(batch) < _READ_BATCH and after_seq < up_to_seq:
            with nats_errors("messages"):
                try:
                    found = await self._link.jetstream.get_msg(
                        subjects.STREAM_MESSAGES, seq=after_seq + 1, subject=subject, next=True, direct=True
                    )
                except nats.js.errors.NotFoundError:
                    break
            after_seq = int(found.seq or 0)
            if after_seq > up_to_seq:
                break
            if (message := _decode(found.data or b"")) is not None:
                batch.append((after_seq, message))
        return batch

    async def follow(self, room_key: str, after_seq: int) -> AsyncIterator[tuple[int, state_pb2.RoomMessage]]:
        """See the port."""
        subject = subjects.message_subject(room_key)
        async with OrderedReader(self._link, subjects.STREAM_MESSAGES, subject, start_sequence=after_seq + 1) as reader:
            async for stored in reader:
                if (message := _decode(stored.payload)) is not None:
                    yield stored.sequence, message


def _decode(payload: bytes) -> state_pb2.RoomMessage | None:
    try:
        return state_pb2.RoomMessage.FromString(payload)
    except DecodeError:
        _log.warning("a stored message cannot be decoded; it is left out")
        return None
