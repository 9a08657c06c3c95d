"""Control orders and speakers on core NATS."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from mrtc.event.v1 import state_pb2
from mrtc_common import subjects
from mrtc_common.log import get_logger
from mrtc_common.nats import NatsLink

from mrtc_signaling.ports import Subscription

_log = get_logger(__name__)

M = TypeVar("M", bound=Message)


class NatsBus:
    """See `ports.Bus`."""

    def __init__(self, link: NatsLink) -> None:
        self._link = link

    async def on_control(self, session_id: str, handler: Callable[[state_pb2.SessionControl], None]) -> Subscription:
        """See the port."""
        return await self._subscribe(subjects.control_subject(session_id), state_pb2.SessionControl, handler)

    async def control(self, session_id: str, order: state_pb2.SessionControl) -> None:
        """See the port."""
        await self._link.publish(subjects.control_subject(session_id), order.SerializeToString())

    async def on_speakers(self, room_key: str, handler: Callable[[state_pb2.NodeSpeakers], None]) -> Subscription:
        """See the port."""
        return await self._subscribe(subjects.speakers_subject(room_key), state_pb2.NodeSpeakers, handler)

    async def _subscribe(self, subject: str, kind: type[M], handler: Callable[[M], None]) -> Subscription:
        async def on_message(_subject: str, payload: bytes) -> None:
            try:
                handler(kind.FromString(payload))
            except DecodeError:
                _log.warning("a message cannot be decoded; it is ignored", subject=subject)

        return await self._link.subscribe(subject, on_message)
