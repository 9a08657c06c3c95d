"""What relays need of the engine, and the small values they share."""

from __future__ import annotations

import ipaddress
import secrets
from dataclasses import dataclass
from typing import Any, Protocol

from mrtc.common.v1 import common_pb2

from .errors import BadRequestError

KEY_BYTES = 16
SALT_BYTES = 12


class RelayEngine(Protocol):
    """The part of `mrtc_engine.AsyncEngine` that relays use."""

    def relay_address(self, relay: str) -> str:
        """The `ip:port` at which the engine serves this relay."""
        ...

    async def open_relay(
        self, *, relay: str, remote: str, tx_key: bytes, tx_salt: bytes, rx_key: bytes, rx_salt: bytes
    ) -> Any:
        """Opens or re-keys."""
        ...

    async def close_relay(self, *, relay: str) -> Any:
        """Ends it and what came over it."""
        ...

    async def export_track(self, *, relay: str, track: str, handle: int) -> Any:
        """Returns kind, codec, rids."""
        ...

    async def unexport_track(self, *, relay: str, track: str) -> Any:
        """Stops."""
        ...

    async def import_track(self, *, relay: str, track: str, room: str, handle: int, codec: str, rids: list[str]) -> Any:
        """Returns kind, codec, rids."""
        ...

    async def export_data(self, *, relay: str, room: str, handle: int) -> Any:
        """Lets a room's data messages flow out."""
        ...

    async def import_data(self, *, relay: str, room: str, handle: int) -> Any:
        """Takes a room's data messages."""
        ...

    async def stop_data(self, *, relay: str, room: str) -> Any:
        """Stops either."""
        ...

    async def move_import(self, *, relay: str, track: str, handle: int) -> Any:
        """Takes an imported track over another relay of the same address; what the former brings is taken too."""
        ...

    async def unpublish_track(self, *, track: str) -> Any:
        """Ends a track."""
        ...


@dataclass(frozen=True, slots=True)
class RelayKey:
    """AES-128-GCM key and salt of one direction."""

    key: bytes
    salt: bytes

    @classmethod
    def generate(cls) -> RelayKey:
        """A fresh one; a key is never used twice."""
        return cls(secrets.token_bytes(KEY_BYTES), secrets.token_bytes(SALT_BYTES))

    @classmethod
    def checked(cls, key: bytes, salt: bytes) -> RelayKey:
        """One that came from the other node. Raises BadRequestError."""
        if len(key) != KEY_BYTES or len(salt) != SALT_BYTES:
            raise BadRequestError(f"a relay key has {KEY_BYTES} bytes and its salt {SALT_BYTES}")
        return cls(key, salt)

    def __repr__(self) -> str:
        return "RelayKey(..)"


@dataclass(frozen=True, slots=True)
class RelayedTrack:
    """A track that came over a relay."""

    track_id: str
    kind: str
    codec: str
    rids: tuple[str, ...] = ()


def checked_address(address: str) -> str:
    """An `ip:port` to which media may be sent. Raises BadRequestError."""
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        number = int(port)
    except ValueError:
        raise BadRequestError("a relay address must be ip:port or [ip]:port") from None
    if ip.is_multicast or ip.is_unspecified or not 1 <= number <= 65535:
        raise BadRequestError("a relay address must be a unicast address and a port")
    return address


_KINDS = {"audio": common_pb2.TRACK_KIND_AUDIO, "video": common_pb2.TRACK_KIND_VIDEO}


def track_to_proto(info: Any) -> common_pb2.Track:
    """A track of the engine as protos write it."""
    return common_pb2.Track(
        id=info.track,
        kind=_KINDS.get(info.kind, common_pb2.TRACK_KIND_UNSPECIFIED),
        codec=info.codec,
        layers=[common_pb2.Layer(rid=rid) for rid in info.rids],
    )


def kind_name(kind: int) -> str:
    """`audio` or `video`. Raises BadRequestError."""
    for name, number in _KINDS.items():
        if number == kind:
            return name
    raise BadRequestError("a track's kind must be audio or video")
