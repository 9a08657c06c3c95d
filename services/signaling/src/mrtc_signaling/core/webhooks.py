"""Webhooks: what they are, how a request is signed (Standard Webhooks 1.0), when a failed one is tried again."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit

from mrtc_common.errors import BadRequestError

from .app_events import EVENT_TYPES

MAX_PER_APP = 16
MAX_URL_BYTES = 2048
TEST_EVENT = "webhook.test"

_SECRET_PREFIX = "whsec_"  # noqa: S105 - the prefix of the standard
# Of clocks of different machines: what happened just before a webhook was made may be told to it.
_CLOCK_SLACK_MS = 5_000
_FIRST_RETRY_MS, _LAST_RETRY_MS = 1_000, 300_000
_RETRY_SPREAD = 0.2
LONGEST_RETRY_MS = round(_LAST_RETRY_MS * (1 + _RETRY_SPREAD))
"""What waits for longer waits because the clock was set back."""
_HOST_RE = re.compile(r"[A-Za-z0-9._:-]+")


class DeliveryState(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far the log of events was taken over.

    Attributes:
        stream: which log: one that was made anew counts from 1 again.
        sequence: the last write that was taken.
    """

    stream: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver of an app's events.

    Attributes:
        events: types it wants; empty: all.
    """

    id: str
    app_id: str
    url: str
    events: tuple[str, ...]
    is_enabled: bool
    created_at_ms: int

    def wants(self, event: RenderedEvent) -> bool:
        """True if the event goes there: of a type it wants, and not from before it was made."""
        is_new = event.at_ms >= self.created_at_ms - _CLOCK_SLACK_MS
        return is_new and self.is_enabled and (not self.events or event.type in self.events)


@dataclass(frozen=True, slots=True)
class RenderedEvent:
    """An event as its receivers get it; `body` is JSON."""

    id: str
    type: str
    app_id: str
    room: str
    at_ms: int
    body: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one receiver."""

    id: int
    webhook_id: str
    event_id: str
    event_type: str
    room: str
    state: DeliveryState
    attempts: int
    created_at_ms: int
    next_attempt_at_ms: int
    delivered_at_ms: int
    last_status: int
    last_error: str


@dataclass(frozen=True, slots=True)
class DueDelivery:
    """A delivery to be tried now, with all that it takes."""

    id: int
    webhook_id: str
    room: str
    url: str
    secret: str
    event_id: str
    body: str
    attempts: int
    retry_until_ms: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver said. `status` 0: nothing, `error` says why."""

    status: int = 0
    error: str = ""

    @property
    def is_ok(self) -> bool:
        """True if it has taken the event."""
        return 200 <= self.status < 300


def check_url(url: str) -> str:
    """The URL of a receiver as it may be stored. Raises BadRequestError.

    Where it leads is checked at every delivery, since names change their meaning.
    """
    if len(url.encode("utf-8", "surrogatepass")) > MAX_URL_BYTES:
        raise BadRequestError(f"a webhook's URL has at most {MAX_URL_BYTES} bytes")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise BadRequestError("the webhook's URL cannot be read") from None
    if parts.scheme not in ("http", "https") or not host or not _HOST_RE.fullmatch(host):
        raise BadRequestError("a webhook's URL begins with http:// or https:// and names a host")
    if parts.username is not None or parts.fragment:
        raise BadRequestError("a webhook's URL has neither user nor fragment; requests are signed instead")
    if not url.isascii() or any(c.isspace() or not c.isprintable() for c in url):
        raise BadRequestError("a webhook's URL is printable ASCII without spaces")
    return url


def check_events(events: Sequence[str]) -> tuple[str, ...]:
    """The types as they may be stored. Raises BadRequestError."""
    unknown = sorted(set(events) - set(EVENT_TYPES))
    if unknown:
        raise BadRequestError(f"no such event type: {', '.join(unknown)[:200]}; there are {', '.join(EVENT_TYPES)}")
    return tuple(sorted(set(events)))


def secret_text(secret: bytes) -> str:
    """A signing secret as receivers are given it: `whsec_` and base64."""
    return _SECRET_PREFIX + base64.b64encode(secret).decode()


def sign(secret: str, event_id: str, timestamp_s: int, body: str) -> dict[str, str]:
    """The headers of a signed request (Standard Webhooks 1.0: HMAC-SHA-256 over id, timestamp and body)."""
    key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX))
    digest = hmac.new(key, f"{event_id}.{timestamp_s}.{body}".encode(), hashlib.sha256).digest()
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(timestamp_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def retry_delay_ms(attempts: int) -> int:
    """How long to wait after so many failed attempts: doubled each time up to five minutes, a fifth of it by chance."""
    whole = min(_LAST_RETRY_MS, _FIRST_RETRY_MS << min(max(attempts - 1, 0), 20))
    return round(whole * random.uniform(1 - _RETRY_SPREAD, 1 + _RETRY_SPREAD))  # noqa: S311 - spreads load, protects nothing
