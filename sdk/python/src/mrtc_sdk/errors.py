"""What can go wrong, as a tree."""

from __future__ import annotations

from mrtc.common.v1 import common_pb2


class MrtcError(Exception):
    """Root of all errors of this package."""


class RequestFailed(MrtcError):
    """The server refused a request.

    Attributes:
        code: one of `mrtc.common.v1.ErrorCode`.
        retry_after_ms: when a retry makes sense; None: never.
    """

    def __init__(self, code: common_pb2.ErrorCode.ValueType, message: str, retry_after_ms: int | None) -> None:
        super().__init__(f"{common_pb2.ErrorCode.Name(code).removeprefix('ERROR_CODE_').lower()}: {message}")
        self.code = code
        self.retry_after_ms = retry_after_ms


class ConnectionLost(MrtcError):
    """The session could not be resumed; join anew. `str()` says why."""
