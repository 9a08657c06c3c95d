"""What can go wrong with a recording. `RecorderError` is the root; `code` is stable and goes into logs and records."""

from __future__ import annotations

from typing import ClassVar


class RecorderError(Exception):
    """Root of the recorder's errors."""

    code: ClassVar[str] = "recorder_error"


class UndecodableError(RecorderError):
    """Bytes that should be a key frame are none."""

    code = "undecodable"
