"""The two encodings of the client protocol: binary protobuf and its JSON mapping."""

from __future__ import annotations

from typing import Protocol

from google.protobuf import json_format
from google.protobuf.message import DecodeError
from mrtc.signaling.v1 import client_pb2
from mrtc_common.errors import BadRequestError

PROTO = "mrtc.v1.proto"
JSON = "mrtc.v1.json"
# A frame nests at most: frame, publish, publication, track, layer.
_MAX_JSON_DEPTH = 16


class Codec(Protocol):
    """Turns frames into WebSocket messages and back."""

    def decode(self, message: str | bytes) -> client_pb2.ClientFrame:
        """Raises BadRequestError."""
        ...

    def encode(self, frame: client_pb2.ServerFrame) -> str | bytes:
        """Never fails."""
        ...


class ProtoCodec:
    """One binary message, one frame."""

    def decode(self, message: str | bytes) -> client_pb2.ClientFrame:
        """See Codec."""
        if isinstance(message, str):
            raise BadRequestError(f"subprotocol {PROTO} takes binary messages")
        try:
            return client_pb2.ClientFrame.FromString(message)
        except DecodeError:
            raise BadRequestError("not a ClientFrame in protobuf") from None

    def encode(self, frame: client_pb2.ServerFrame) -> bytes:
        """See Codec."""
        return frame.SerializeToString()


class JsonCodec:
    """One text message, one frame in the JSON mapping of protobuf. Unknown fields are left out, as in protobuf."""

    def decode(self, message: str | bytes) -> client_pb2.ClientFrame:
        """See Codec."""
        if isinstance(message, bytes):
            raise BadRequestError(f"subprotocol {JSON} takes text messages")
        frame = client_pb2.ClientFrame()
        if not message.lstrip().startswith("{"):  # the parser takes some other values for an empty frame
            raise BadRequestError("a frame is a JSON object")
        try:
            json_format.Parse(message, frame, ignore_unknown_fields=True, max_recursion_depth=_MAX_JSON_DEPTH)
        except (json_format.ParseError, RecursionError, ValueError):
            # The parser's own words may quote what was sent, a token for example.
            raise BadRequestError("not a ClientFrame in the JSON mapping of protobuf") from None
        return frame

    def encode(self, frame: client_pb2.ServerFrame) -> str:
        """See Codec."""
        return json_format.MessageToJson(frame, indent=None, ensure_ascii=False)


def choose(offered: list[str]) -> tuple[str | None, Codec] | None:
    """The subprotocol to accept and its codec; None if the client speaks none of ours.

    A client that offers none (a shell tool) gets JSON.
    """
    if PROTO in offered:
        return PROTO, ProtoCodec()
    if JSON in offered:
        return JSON, JsonCodec()
    return None if offered else (None, JsonCodec())
