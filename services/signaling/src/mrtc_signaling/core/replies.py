"""Remembers replies, so that a repeated request is answered again and not done again."""

from __future__ import annotations

from collections import OrderedDict

from mrtc.signaling.v1 import client_pb2

# A client has at most as many requests in flight when its connection is lost (see the connection's queue bound).
MAX_KEPT = 128


class ReplyCache:
    """The newest replies of a session.

    A session that was resumed on another instance starts with an empty cache: there, requests are idempotent by what
    they do (ids derived from the client's cid, messages de-duplicated by the stream), so doing one again is harmless.
    """

    def __init__(self) -> None:
        self._replies: OrderedDict[int, client_pb2.ServerFrame] = OrderedDict()
        self.last_request_id = 0

    def get(self, request_id: int) -> client_pb2.ServerFrame | None:
        """The reply that was given to this request."""
        return self._replies.get(request_id)

    def put(self, request_id: int, reply: client_pb2.ServerFrame) -> None:
        """Keeps a reply. Errors that invite a retry are not kept: the retry shall be done."""
        self.last_request_id = max(self.last_request_id, request_id)
        if reply.WhichOneof("body") == "error" and reply.error.HasField("retry_after_ms"):
            return
        self._replies[request_id] = reply
        while len(self._replies) > MAX_KEPT:
            self._replies.popitem(last=False)
