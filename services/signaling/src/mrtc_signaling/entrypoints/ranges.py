"""Byte ranges of HTTP (RFC 9110 section 14): one range, as video elements ask for."""

from __future__ import annotations

import re

_RANGE_RE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """(first byte, byte after the last) of the wanted range; None: none, several, malformed or outside."""
    match = _RANGE_RE.fullmatch(header.strip())
    if match is None or size == 0:
        return None
    first, last = match.groups()
    if not first:
        suffix = int(last) if last else 0
        return (max(0, size - suffix), size) if suffix else None
    start = int(first)
    end = min(int(last), size - 1) + 1 if last else size
    return (start, end) if start < size and start < end else None


def content_range(start: int, end: int, size: int) -> str:
    """Value of `Content-Range`."""
    return f"bytes {start}-{end - 1}/{size}"
