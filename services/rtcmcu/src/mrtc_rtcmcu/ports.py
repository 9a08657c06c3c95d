"""What rtcmcu needs: the engine, which `mrtc_engine.AsyncEngine` fulfils, and an answer to whose a transport is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Literal, Protocol

from mrtc_common.relay import RelayEngine

from .core.transports import TransportState

Purpose = Literal["meet", "go_on", "checkpoint"]
"""What a transport's state is for, as in `AsyncEngine.export_transport`."""


class Owners(Protocol):
    """The records of those for whom transports are made."""

    async def know(self, transport: TransportState) -> bool:
        """False: its participant is gone, or has another transport. Raises UnavailableError if that cannot be told."""
        ...


class Engine(RelayEngine, Protocol):
    """Coroutines raise `EngineError` with a stable code."""

    @property
    def events(self) -> AsyncIterator[Any]:
        """Everything that happens, for one consumer."""
        ...

    async def create_transport(
        self,
        *,
        transport: str,
        room: str,
        offer: str,
        max_egress_bps: int = 0,
        max_ingress_bps: int = 0,
        max_track_bps: int = 0,
    ) -> Any:
        """Returns `answer` and `lines`."""
        ...

    async def set_caps(
        self, *, transport: str, max_egress_bps: int = 0, max_ingress_bps: int = 0, max_track_bps: int = 0
    ) -> Any:
        """What a transport is sent and sends at most; 0: no limit."""
        ...

    async def set_track_cap(self, *, track: str, max_bps: int) -> Any:
        """What a client's track sends at most; 0: no cap of its own."""
        ...

    async def negotiate(self, *, transport: str, offer: str) -> Any:
        """Returns `answer` and `lines`."""
        ...

    async def export_transport(self, *, transport: str, purpose: Purpose, key: bytes) -> bytes:
        """A transport's sealed state, for another node."""
        ...

    async def import_transport(
        self,
        *,
        transport: str,
        room: str,
        offer: str,
        state: bytes,
        key: bytes,
        max_egress_bps: int = 0,
        max_ingress_bps: int = 0,
        max_track_bps: int = 0,
    ) -> Any:
        """Goes on with a transport of another node; returns as `create_transport`."""
        ...

    async def complete_transport(self, *, transport: str, state: bytes, key: bytes) -> None:
        """Goes on with a transport that was imported with a state that was not final."""
        ...

    async def close_transport(self, *, transport: str) -> Any:
        """Ends a transport."""
        ...

    async def set_data_access(self, *, transport: str, identity: str, can_publish: bool) -> Any:
        """Says who a transport's client is on data channels."""
        ...

    async def publish_track(self, *, track: str, transport: str, mid: str) -> Any:
        """Returns kind, codec, rids."""
        ...

    async def set_track_muted(self, *, track: str, is_muted: bool) -> Any:
        """Mutes or unmutes."""
        ...

    async def set_subscriptions(self, *, transport: str, subscriptions: list[Any], audio_top_n: int = 0) -> Any:
        """Returns slots, unplaced, no_common_codec, missing."""
        ...

    async def stats(self, *, transports: list[str] | None = None) -> Any:
        """Decoded JSON."""
        ...

    async def dump_room(self, *, room: str) -> Any:
        """Decoded JSON."""
        ...

    async def start_capture(
        self,
        *,
        path: str,
        room: str = "",
        transport: str = "",
        is_headers_only: bool = True,
        max_bytes: int,
        max_duration_s: float,
    ) -> None:
        """Begins to write packets to a new file. Raises BlockingIOError while another one is under way, OSError."""
        ...

    async def stop_capture(self) -> tuple[int, int, int, bool] | None:
        """Packets, bytes, dropped, is it running; None: there never was one."""
        ...

    def counters(self) -> Sequence[dict[str, int]]:
        """Per worker."""
        ...

    async def aclose(self) -> None:
        """Ends it."""
        ...

    def local_addresses(self) -> Sequence[tuple[str, str]]:
        """(`udp` or `tcp`, `ip:port`)."""
        ...
