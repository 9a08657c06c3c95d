"""Which STUN and TURN servers a client is given, with credentials of its own that expire."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field

from mrtc.signaling.v1 import client_pb2


@dataclass(frozen=True, slots=True)
class TurnSecret:
    """TURN servers that share a secret with us (coturn: `use-auth-secret`, `static-auth-secret`).

    Attributes:
        urls: `turn:` and `turns:` URLs.
        secret: known to us and to the TURN servers only.
        ttl_s: how long a credential lets allocations begin or be prolonged.
    """

    urls: tuple[str, ...]
    secret: str = field(repr=False)
    ttl_s: int = 86_400

    def server(self, user: str, now_s: int) -> client_pb2.IceServer:
        """Credentials of one client: draft-uberti-behave-turn-rest-00 section 2.2, as coturn checks them."""
        username = f"{now_s + self.ttl_s}:{user}"
        digest = hmac.new(self.secret.encode(), username.encode(), hashlib.sha1).digest()
        return client_pb2.IceServer(urls=self.urls, username=username, credential=base64.b64encode(digest).decode())


@dataclass(frozen=True, slots=True)
class IceServers:
    """What is handed out: the same to everybody, and what is made for one client.

    Attributes:
        fixed: given to all as they are.
        turn: TURN servers with credentials per client; None: there are none.
    """

    fixed: tuple[client_pb2.IceServer, ...] = ()
    turn: TurnSecret | None = None

    def of(self, user: str, now_ms: int) -> list[client_pb2.IceServer]:
        """For one client.

        Args:
            user: an opaque id; the TURN servers log it.
            now_ms: Unix time.
        """
        made = [] if self.turn is None else [self.turn.server(user, now_ms // 1000)]
        return [*self.fixed, *made]
