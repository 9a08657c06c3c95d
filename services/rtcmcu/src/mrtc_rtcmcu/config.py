"""Every setting of rtcmcu."""

from __future__ import annotations

import ipaddress
from typing import ClassVar, Self

from mrtc_common.settings import Settings, setting
from pydantic import field_validator, model_validator


class McuSettings(Settings):
    """Settings of rtcmcu; see `Settings` for those that all services share."""

    service: ClassVar[str] = "rtcmcu"

    grpc_port: int = setting(7100, "Port of the gRPC server; 0: any free one.", ge=0, le=65535)
    http_port: int = setting(7101, "Port of /healthz, /readyz and /metrics; 0: any free one.", ge=0, le=65535)
    node_host: str = setting("127.0.0.1", "Name or address at which other services reach this node.", min_length=1)
    advertised_ips: list[str] = setting(["127.0.0.1"], "Addresses at which clients and nodes reach its media ports.")
    media_bind_ip: str = setting("0.0.0.0", "Address that the media sockets bind to.")  # noqa: S104
    udp_port: int = setting(7200, "UDP port of worker 0; worker n takes the n-th after it. 0: any.", ge=0, le=65535)
    tcp_port: int = setting(7200, "ICE-TCP port of worker 0, likewise. 0: any; -1: no ICE-TCP.", ge=-1, le=65535)
    workers: int = setting(0, "Worker threads of the engine; 0: one per usable core.", ge=0, le=256)
    pin_workers: bool = setting(False, "Bind each worker thread to a core.")
    tick_us: int = setting(
        2000,
        "Longest time a packet waits for its batch; twice that under load, sending included.",
        unit="us",
        ge=0,
        le=20_000,
    )
    media_dscp: int = setting(
        0, "DSCP of all media sent, 0 to 63; 34 (AF41) and 46 (EF) are usual. 0: none.", ge=0, le=63
    )
    max_transports: int = setting(2000, "Transports at once; further ones are refused.", ge=1, le=100_000)
    max_tracks_per_transport: int = setting(64, "Tracks that one transport may publish.", ge=1, le=1000)
    max_subscriptions_per_transport: int = setting(512, "Tracks that one transport may receive.", ge=1, le=10_000)
    relay_max_edges: int = setting(
        8,
        "Nodes to which each node sends a track that begins here; further ones take it from those. 0: all from here.",
        ge=0,
        le=1000,
    )
    max_egress_packets_per_s: float = setting(
        400_000.0, "Packets sent per second at which the node counts as full.", unit="1/s", ge=1
    )
    max_egress_bps: float = setting(
        8e9, "Bits sent per second at which the node counts as full: what its network card can do.", unit="bit/s", ge=1
    )
    capture_dir: str = setting("", "Folder for captures of packets in the clear; empty: captures are refused.")
    capture_max_bytes: int = setting(64 << 20, "Largest file of a capture.", unit="bytes", ge=4096, le=1 << 40)
    capture_max_s: float = setting(300.0, "Longest duration of a capture.", unit="s", gt=0, le=86400)
    drain_timeout_s: float = setting(
        300.0, "How long SIGTERM waits for clients to move away before they are cut off.", unit="s", ge=0, le=86400
    )
    drain_moves_per_s: float = setting(
        20.0, "Clients per second that are asked to move while the node drains.", unit="1/s", gt=0, le=1000
    )
    drain_spread_s: float = setting(
        20.0,
        "The clients of one room are asked one after the other, all within this time (or half of `drain_timeout_s`).",
        unit="s",
        ge=0,
        le=3600,
    )
    relief_above: float = setting(
        0.95,
        "A node whose load is this for `relief_after_s` asks clients to move to nodes below their watermark. 0: never.",
        ge=0,
        le=1,
    )
    relief_below: float = setting(0.85, "It asks until its load is below this.", gt=0, le=1)
    relief_after_s: float = setting(30.0, "See `relief_above`.", unit="s", ge=0, le=3600)
    orphan_grace_s: float = setting(
        60.0,
        "A transport that no session knows, by two answers so far apart, is closed.",
        unit="s",
        ge=0.2,
        le=3600,
    )

    @field_validator("advertised_ips")
    @classmethod
    def _ips_are_addresses(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("must have at least one address")
        for text in value:
            try:
                ipaddress.ip_address(text)
            except ValueError:
                raise ValueError(f"{text!r} is not an IP address") from None
        return value

    @model_validator(mode="after")
    def _relief_ends_below_where_it_begins(self) -> Self:
        if self.relief_above and self.relief_below > self.relief_above:
            raise ValueError("relief_below must not be above relief_above")
        return self
