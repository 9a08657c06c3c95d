"""Control orders and speakers on core NATS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from mrtc.event.v1 import state_pb2
from mrtc_common import subjects
from mrtc_common.log import get_logger
from mrtc_common.nats import NatsLink

from mrtc_signaling.ports import Subscription

_log = get_logger(__name__)

# Whoever is asked asks its media node in turn.
_HTTP_TIMEOUT_S = 5.0

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

    async def on_http(
        self,
        instance_id: str,
        handler: Callable[[state_pb2.HttpResourceRequest], Awaitable[state_pb2.HttpResourceResponse]],
    ) -> Subscription:
        """See the port."""

        async def answer(payload: bytes) -> bytes:
            try:
                request = state_pb2.HttpResourceRequest.FromString(payload)
            except DecodeError:
                _log.warning("a request of another instance cannot be decoded; it is refused")
                return state_pb2.HttpResourceResponse(status=400, code="bad_request").SerializeToString()
            return (await handler(request)).SerializeToString()

        await self._link.wait_ready()
        return await self._link.answer(subjects.http_subject(instance_id), answer)

    async def http(
        self, instance_id: str, request: state_pb2.HttpResourceRequest
    ) -> state_pb2.HttpResourceResponse | None:
        """See the port."""
        subject = subjects.http_subject(instance_id)
        answer = await self._link.ask(subject, request.SerializeToString(), timeout_s=_HTTP_TIMEOUT_S)
        return None if answer is None else state_pb2.HttpResourceResponse.FromString(answer)

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
