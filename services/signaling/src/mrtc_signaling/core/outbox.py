"""The pushes of one connection: numbered, bounded, acknowledged, and coalesced where only the newest matters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mrtc.signaling.v1 import client_pb2

# Of these only the newest is of use: one that was not sent yet is replaced. (LayersWanted is per track.)
_NEWEST_WINS = frozenset({"slots_changed", "speakers_changed", "slots_needed"})


class SlowClientError(Exception):
    """The client does not take what it is sent; its connection must be closed. It may resume."""


MakeFrame = Callable[[], client_pb2.ServerFrame | None]


@dataclass(frozen=True, slots=True)
class _Deferred:
    """A push that is made when it is sent."""

    kind: str
    make: MakeFrame


@dataclass(slots=True)
class Outbox:
    """Frames that wait to be sent, and how many pushes the client has not acknowledged.

    Args:
        max_waiting: frames that may wait; a client that reads this slowly is closed, since each further frame would
            cost memory. Rooms of a thousand change less than that in the time that a TCP window recovers.
        max_unacked: pushes that may be sent and not acknowledged.
    """

    max_waiting: int = 1024
    max_unacked: int = 4096
    last_seq: int = 0
    acked_seq: int = 0
    _waiting: deque[client_pb2.ServerFrame | _Deferred] = field(default_factory=deque)
    _deferred: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self._waiting)

    def reply(self, frame: client_pb2.ServerFrame) -> None:
        """Queues a reply. Raises SlowClientError."""
        self._append(frame)

    def push(self, frame: client_pb2.ServerFrame) -> None:
        """Queues a push; its number is given when it is sent. Raises SlowClientError."""
        key = _coalescing_key(frame)
        if key is not None:
            for index, waiting in enumerate(self._waiting):
                if isinstance(waiting, _Deferred) or waiting.request_id:
                    continue
                if _coalescing_key(waiting) == key:
                    del self._waiting[index]
                    break
        self._append(frame)

    def push_newest(self, kind: str, make: MakeFrame) -> None:
        """Queues a push that is made when it is sent, so that it tells what is so then; one of a kind waits at most.

        `make` returns None if there is nothing to tell any more. Raises SlowClientError.
        """
        if kind not in self._deferred:
            self._append(_Deferred(kind, make))
            self._deferred.add(kind)

    def pop(self) -> client_pb2.ServerFrame | None:
        """The next frame to send, numbered if it is a push. Raises SlowClientError."""
        frame = self._next()
        if frame is not None and _is_push(frame):
            if self.last_seq - self.acked_seq >= self.max_unacked:
                raise SlowClientError(f"{self.max_unacked} pushes are not acknowledged")
            self.last_seq += 1
            frame.push_seq = self.last_seq
        return frame

    def ack(self, seq: int) -> None:
        """The client's application has been given all pushes up to `seq`.

        A number that was never sent is one of the connection before a resume, and says nothing about this one.
        """
        if seq <= self.last_seq:
            self.acked_seq = max(self.acked_seq, seq)

    def _next(self) -> client_pb2.ServerFrame | None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not isinstance(waiting, _Deferred):
                return waiting
            self._deferred.discard(waiting.kind)
            if (made := waiting.make()) is not None:
                return made
        return None

    def _append(self, frame: client_pb2.ServerFrame | _Deferred) -> None:
        if len(self._waiting) >= self.max_waiting:
            raise SlowClientError(f"{self.max_waiting} frames wait to be sent")
        self._waiting.append(frame)


_REPLIES = frozenset(
    {"error", "join", "resume", "negotiate", "publish", "done", "subscribe", "send_message", "pong"},
)


def _is_push(frame: client_pb2.ServerFrame) -> bool:
    return frame.WhichOneof("body") not in _REPLIES


def _coalescing_key(frame: client_pb2.ServerFrame) -> str | None:
    body = frame.WhichOneof("body")
    if body in _NEWEST_WINS:
        return body
    return f"layers_wanted:{frame.layers_wanted.track_id}" if body == "layers_wanted" else None
