"""Ids derived from what the client chose, so that a repeated request on any instance means the same objects."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets

_DERIVED_LENGTH = 20  # 100 bits, as in mrtc_common.ids


def derived_id(prefix: str, *parts: str) -> str:
    """An id that depends on the parts alone."""
    digest = hashlib.sha256("\x00".join(parts).encode()).digest()
    return f"{prefix}_" + base64.b32hexencode(digest).decode().lower()[:_DERIVED_LENGTH]


def publication_id(session_id: str, cid: str) -> str:
    """The publication that a client of a session calls `cid`."""
    return derived_id("pb", session_id, cid)


def track_id(session_id: str, cid: str, index: int) -> str:
    """The track at `index` of what a client calls `cid`."""
    return derived_id("tr", session_id, cid, str(index))


def new_resume_token(session_id: str) -> str:
    """`<session id>.<secret>`: names its session, so that any instance finds the record."""
    return f"{session_id}.{secrets.token_urlsafe(24)}"


def hash_resume_token(token: str) -> bytes:
    """What the record keeps of it."""
    return hashlib.sha256(token.encode()).digest()


def is_resume_token(token: str, expected_hash: bytes) -> bool:
    """Constant-time comparison."""
    return hmac.compare_digest(hash_resume_token(token), expected_hash)


def session_of_resume_token(token: str) -> str:
    """The session id in a resume token; empty if it is none."""
    session_id, _, secret = token.partition(".")
    return session_id if secret and len(token) <= 128 else ""
