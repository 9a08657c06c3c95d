"""How failures reach HTTP clients: RFC 9457 problem documents. The error tree itself is `mrtc_common.errors`."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from mrtc_common.errors import MrtcError

PROBLEM_JSON = "application/problem+json"


def problem(
    status: int, code: str, detail: str, *, retry_after_ms: int | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """A problem document with our stable `code`."""
    # RFC 9457 section 4.2.1: with about:blank the title is that of the status.
    title = HTTPStatus(status).phrase
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    all_headers = dict(headers or {})
    if retry_after_ms is not None:
        body["retry_after_ms"] = retry_after_ms
        all_headers["Retry-After"] = str(max(1, math.ceil(retry_after_ms / 1000)))
    if status == 401:
        all_headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(body, status_code=status, headers=all_headers, media_type=PROBLEM_JSON)


def problem_of(error: MrtcError) -> JSONResponse:
    """The problem document of an error."""
    return problem(error.http_status, error.code_name(), error.message, retry_after_ms=error.retry_after_ms)
