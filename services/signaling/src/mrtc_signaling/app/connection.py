"""One client connection as the use cases see it: frames go into a bounded outbox, a writer takes them out."""

from __future__ import annotations

import asyncio

from mrtc.common.v1 import common_pb2
from mrtc.signaling.v1 import client_pb2

from mrtc_signaling.core.outbox import MakeFrame, Outbox, SlowClientError


class Connection:
    """Takes frames without waiting. When the client is too slow it is closed and may resume.

    The writer of the entry point calls `next_frame` until it returns None, then closes the socket with `close_code`.
    """

    def __init__(self, outbox: Outbox | None = None) -> None:
        self._outbox = outbox or Outbox()
        self._wake = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.is_closed = False
        self.close_code = 1000
        self.close_reason = ""

    def reply(self, request_id: int, frame: client_pb2.ServerFrame) -> None:
        """Queues the reply to a request."""
        answer = client_pb2.ServerFrame()
        answer.CopyFrom(frame)
        answer.request_id = request_id
        self._queue(answer)

    def push(self, frame: client_pb2.ServerFrame) -> None:
        """Queues a push."""
        own = client_pb2.ServerFrame()
        own.CopyFrom(frame)
        self._queue(own)

    def push_newest(self, kind: str, make: MakeFrame) -> None:
        """Queues a push that is made when it is sent; see `Outbox.push_newest`."""
        if self.is_closed:
            return
        try:
            self._outbox.push_newest(kind, make)
        except SlowClientError as error:
            self._too_slow(error)
        self._wake.set()

    def ack(self, seq: int) -> None:
        """Takes the client's acknowledgement."""
        self._outbox.ack(seq)

    def close(
        self,
        reason: common_pb2.LeaveReason.ValueType = common_pb2.LEAVE_REASON_UNSPECIFIED,
        *,
        can_resume: bool = False,
        code: int = 1000,
        text: str = "",
    ) -> None:
        """Sends what waits and `Closing` (if there is a reason), then closes."""
        if self.is_closed:
            return
        if reason:
            closing = client_pb2.Closing(reason=reason, can_resume=can_resume)
            self._queue(client_pb2.ServerFrame(closing=closing))
        self._finish(code, text)

    async def wait_drained(self) -> None:
        """Waits until less than half of the outbox is taken; for long replays."""
        while not self.is_closed and len(self._outbox) >= self._outbox.max_waiting // 2:
            self._drained.clear()
            await self._drained.wait()

    async def next_frame(self) -> client_pb2.ServerFrame | None:
        """The next frame to send; None: nothing more will come, close."""
        while True:
            try:
                frame = self._outbox.pop()
            except SlowClientError as error:
                self._too_slow(error)
                return None
            if len(self._outbox) < self._outbox.max_waiting // 2:
                self._drained.set()
            if frame is not None or self.is_closed:
                return frame
            self._wake.clear()
            await self._wake.wait()

    def _queue(self, frame: client_pb2.ServerFrame) -> None:
        if self.is_closed:
            return
        try:
            if frame.request_id:
                self._outbox.reply(frame)
            else:
                self._outbox.push(frame)
        except SlowClientError as error:
            self._too_slow(error)
        self._wake.set()

    def _too_slow(self, error: SlowClientError) -> None:
        # 1013: try again later (IANA WebSocket close code registry).
        self._finish(1013, str(error))

    def _finish(self, code: int, text: str) -> None:
        if not self.is_closed:
            self.is_closed, self.close_code, self.close_reason = True, code, text
        self._wake.set()
        self._drained.set()
