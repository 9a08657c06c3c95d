"""The closed tree of errors: one class per `ErrorCode`, each with its gRPC and HTTP status.

docs/errors.md explains each code to people; a test keeps that table equal to this file.
"""

from __future__ import annotations

from typing import ClassVar

import grpc
from mrtc.common.v1 import common_pb2

_PREFIX = "ERROR_CODE_"


class MrtcError(Exception):
    """A failure that a caller is told: a stable code, a message that is never secret, and when to retry.

    Args:
        message: for people; must hold no secret.
        retry_after_ms: a retry after that many milliseconds may succeed; None: do not retry.
    """

    code: ClassVar[common_pb2.ErrorCode.ValueType] = common_pb2.ERROR_CODE_INTERNAL
    grpc_status: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    http_status: ClassVar[int] = 500
    default_message: ClassVar[str] = "internal error"

    def __init__(self, message: str = "", *, retry_after_ms: int | None = None) -> None:
        self.message = message or self.default_message
        self.retry_after_ms = retry_after_ms
        super().__init__(self.message)

    @classmethod
    def code_name(cls) -> str:
        """The code as it stands in trailers, problem documents and logs, for example `room_not_found`."""
        return common_pb2.ErrorCode.Name(cls.code).removeprefix(_PREFIX).lower()

    def to_proto_fields(self) -> dict[str, object]:
        """`code`, `message` and, if set, `retry_after_ms`: keyword arguments of signaling's `Error` message."""
        fields: dict[str, object] = {"code": self.code, "message": self.message}
        if self.retry_after_ms is not None:
            fields["retry_after_ms"] = self.retry_after_ms
        return fields


class BadRequestError(MrtcError):
    """The request cannot be decoded, or a field is missing, malformed or out of range."""

    code = common_pb2.ERROR_CODE_BAD_REQUEST
    grpc_status = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 400
    default_message = "bad request"


class UnauthenticatedError(MrtcError):
    """No credentials, or credentials that do not verify."""

    code = common_pb2.ERROR_CODE_UNAUTHENTICATED
    grpc_status = grpc.StatusCode.UNAUTHENTICATED
    http_status = 401
    default_message = "credentials are missing or do not verify"


class TokenExpiredError(MrtcError):
    """The credentials verify but have expired."""

    code = common_pb2.ERROR_CODE_TOKEN_EXPIRED
    grpc_status = grpc.StatusCode.UNAUTHENTICATED
    http_status = 401
    default_message = "the token has expired"


class PermissionDeniedError(MrtcError):
    """The credentials do not permit this room, app or action."""

    code = common_pb2.ERROR_CODE_PERMISSION_DENIED
    grpc_status = grpc.StatusCode.PERMISSION_DENIED
    http_status = 403
    default_message = "not permitted"


class RoomNotFoundError(MrtcError):
    """No such room."""

    code = common_pb2.ERROR_CODE_ROOM_NOT_FOUND
    grpc_status = grpc.StatusCode.NOT_FOUND
    http_status = 404
    default_message = "no such room"


class ParticipantNotFoundError(MrtcError):
    """No such participant."""

    code = common_pb2.ERROR_CODE_PARTICIPANT_NOT_FOUND
    grpc_status = grpc.StatusCode.NOT_FOUND
    http_status = 404
    default_message = "no such participant"


class PublicationNotFoundError(MrtcError):
    """No such publication or track."""

    code = common_pb2.ERROR_CODE_PUBLICATION_NOT_FOUND
    grpc_status = grpc.StatusCode.NOT_FOUND
    http_status = 404
    default_message = "no such publication or track"


class SessionNotFoundError(MrtcError):
    """No such session, or its grace time is over: join anew."""

    code = common_pb2.ERROR_CODE_SESSION_NOT_FOUND
    grpc_status = grpc.StatusCode.NOT_FOUND
    http_status = 404
    default_message = "no such session; join anew"


class TransportNotFoundError(MrtcError):
    """No such transport."""

    code = common_pb2.ERROR_CODE_TRANSPORT_NOT_FOUND
    grpc_status = grpc.StatusCode.NOT_FOUND
    http_status = 404
    default_message = "no such transport"


class NotFoundError(MrtcError):
    """No such job, recording, vod, node or file."""

    code = common_pb2.ERROR_CODE_NOT_FOUND
    grpc_status = grpc.StatusCode.NOT_FOUND
    http_status = 404
    default_message = "not found"


class AlreadyExistsError(MrtcError):
    """The object exists already with other properties."""

    code = common_pb2.ERROR_CODE_ALREADY_EXISTS
    grpc_status = grpc.StatusCode.ALREADY_EXISTS
    http_status = 409
    default_message = "exists already"


class BadOfferError(MrtcError):
    """The SDP offer cannot be answered; the message says which line and why."""

    code = common_pb2.ERROR_CODE_BAD_OFFER
    grpc_status = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 422
    default_message = "the offer cannot be answered"


class NoCommonCodecError(MrtcError):
    """No codec that the publisher sends can be received by the subscriber."""

    code = common_pb2.ERROR_CODE_NO_COMMON_CODEC
    grpc_status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 422
    default_message = "publisher and subscriber have no codec in common"


class LimitExceededError(MrtcError):
    """A limit of the app, room, participant or connection is reached."""

    code = common_pb2.ERROR_CODE_LIMIT_EXCEEDED
    grpc_status = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 429
    default_message = "a limit is reached"


class TooLargeError(MrtcError):
    """A message or body is larger than allowed."""

    code = common_pb2.ERROR_CODE_TOO_LARGE
    grpc_status = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 413
    default_message = "too large"


class NoCapacityError(MrtcError):
    """Nothing has room at the moment."""

    code = common_pb2.ERROR_CODE_NO_CAPACITY
    grpc_status = grpc.StatusCode.RESOURCE_EXHAUSTED
    http_status = 503
    default_message = "no node has room at the moment"


class UnavailableError(MrtcError):
    """A part of the suite cannot be reached at the moment."""

    code = common_pb2.ERROR_CODE_UNAVAILABLE
    grpc_status = grpc.StatusCode.UNAVAILABLE
    http_status = 503
    default_message = "temporarily unavailable"

    def __init__(self, message: str = "", *, retry_after_ms: int | None = 1000) -> None:
        super().__init__(message, retry_after_ms=retry_after_ms)


class FailedPreconditionError(MrtcError):
    """The request came out of order, for example before join."""

    code = common_pb2.ERROR_CODE_FAILED_PRECONDITION
    grpc_status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409
    default_message = "not possible in this state"


class UnsupportedVersionError(MrtcError):
    """The client speaks a protocol version that is no longer or not yet served."""

    code = common_pb2.ERROR_CODE_UNSUPPORTED_VERSION
    grpc_status = grpc.StatusCode.UNIMPLEMENTED
    http_status = 400
    default_message = "this protocol version is not served"


class BadMediaError(MrtcError):
    """The media cannot be read or played."""

    code = common_pb2.ERROR_CODE_BAD_MEDIA
    grpc_status = grpc.StatusCode.INVALID_ARGUMENT
    http_status = 415
    default_message = "the media cannot be read or played"


class MediaEncryptedError(MrtcError):
    """The media is end-to-end encrypted, so the server cannot do this with it."""

    code = common_pb2.ERROR_CODE_MEDIA_ENCRYPTED
    grpc_status = grpc.StatusCode.FAILED_PRECONDITION
    http_status = 409
    default_message = "the media is end-to-end encrypted"


class InternalError(MrtcError):
    """A fault of ours; the log has the details under the same request id."""


ALL_ERRORS: tuple[type[MrtcError], ...] = (
    BadRequestError,
    UnauthenticatedError,
    TokenExpiredError,
    PermissionDeniedError,
    RoomNotFoundError,
    ParticipantNotFoundError,
    PublicationNotFoundError,
    SessionNotFoundError,
    TransportNotFoundError,
    NotFoundError,
    AlreadyExistsError,
    BadOfferError,
    NoCommonCodecError,
    LimitExceededError,
    TooLargeError,
    NoCapacityError,
    UnavailableError,
    FailedPreconditionError,
    UnsupportedVersionError,
    BadMediaError,
    InternalError,
    MediaEncryptedError,
)

_BY_NAME = {error.code_name(): error for error in ALL_ERRORS}
_BY_CODE: dict[int, type[MrtcError]] = {error.code: error for error in ALL_ERRORS}

# Codes of the engine (core's error.rs) that are named otherwise than ours.
_ENGINE_CODES: dict[str, type[MrtcError]] = {
    "track_not_found": PublicationNotFoundError,
    "relay_not_found": NotFoundError,
    "sink_not_found": NotFoundError,
    "busy": UnavailableError,
    "closed": UnavailableError,
}


def error_by_name(name: str, message: str = "", retry_after_ms: int | None = None) -> MrtcError:
    """The error with this code name, also if the name is the engine's; an unknown name gives `InternalError`."""
    error = _BY_NAME.get(name) or _ENGINE_CODES.get(name) or InternalError
    if retry_after_ms is None:
        return error(message)
    return error(message, retry_after_ms=retry_after_ms)


def error_by_code(code: int, message: str = "") -> MrtcError:
    """The error with this `ErrorCode` number; an unknown one gives `InternalError`."""
    return _BY_CODE.get(code, InternalError)(message)
