"""Captures of packets, for operators: off unless a folder is set, one at a time, bounded in size and time, logged."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mrtc.media.v1 import media_service_pb2 as pb
from mrtc_common.engine_errors import engine_errors
from mrtc_common.errors import (
    BadRequestError,
    InternalError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
)
from mrtc_common.ids import new_id
from mrtc_common.log import get_logger
from mrtc_common.subjects import parse_room_key

from .config import McuSettings
from .ports import Engine

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Capture:
    id: str
    path: Path


class Captures:
    """The captures of one node."""

    def __init__(self, engine: Engine, settings: McuSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._last: _Capture | None = None

    async def start(self, request: pb.StartCaptureRequest) -> pb.StartCaptureResponse:
        """Begins one. Raises PermissionDeniedError, BadRequestError, LimitExceededError, InternalError."""
        settings = self._settings
        if not settings.capture_dir:
            raise PermissionDeniedError("captures are off at this node: set capture_dir")
        _check(request)
        capture = self._new()
        try:
            with engine_errors():
                await self._engine.start_capture(
                    path=str(capture.path),
                    room=request.room_key,
                    transport=request.transport_id,
                    is_headers_only=request.content == pb.CAPTURE_CONTENT_HEADERS,
                    max_bytes=min(request.max_bytes or settings.capture_max_bytes, settings.capture_max_bytes),
                    max_duration_s=_duration_s(request, settings),
                )
        except BlockingIOError:
            raise LimitExceededError("another capture is under way at this node") from None
        except OSError as error:
            raise InternalError(f"the file of the capture cannot be made: {error.strerror or error}") from error
        self._last = capture
        content = pb.CaptureContent.Name(request.content)
        _log.warning(
            "capture begins",
            capture=capture.id,
            path=str(capture.path),
            content=content,
            room=request.room_key,
            transport=request.transport_id,
        )
        return pb.StartCaptureResponse(capture_id=capture.id, path=str(capture.path))

    async def stop(self, capture_id: str) -> pb.StopCaptureResponse:
        """Ends one, also one that has ended by itself: it tells what became of it. Raises NotFoundError."""
        capture = self._last
        if capture is None or capture.id != capture_id:
            raise NotFoundError("there is no such capture")
        figures = await self._engine.stop_capture()
        if figures is None:
            raise NotFoundError("there is no such capture")
        packets, size, dropped, _ = figures
        _log.warning("capture ended", capture=capture_id, packets=packets, bytes=size, dropped=dropped)
        return pb.StopCaptureResponse(path=str(capture.path), packets=packets, bytes=size, dropped=dropped)

    def _new(self) -> _Capture:
        folder = Path(self._settings.capture_dir)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InternalError(f"capture_dir cannot be made: {error.strerror or error}") from error
        # A name that nobody can guess: the folder may be served by mistake.
        capture_id = new_id("cap")
        return _Capture(capture_id, folder / f"{capture_id}.pcapng")


def _duration_s(request: pb.StartCaptureRequest, settings: McuSettings) -> float:
    asked_s = request.max_duration_ms / 1000
    return min(asked_s or settings.capture_max_s, settings.capture_max_s)


def _check(request: pb.StartCaptureRequest) -> None:
    if bool(request.room_key) == bool(request.transport_id):
        raise BadRequestError("a capture is of a room or of a transport")
    if request.room_key:
        parse_room_key(request.room_key)
    if request.content not in (pb.CAPTURE_CONTENT_HEADERS, pb.CAPTURE_CONTENT_PACKETS):
        raise BadRequestError("content must be HEADERS or PACKETS")
