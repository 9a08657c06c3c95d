"""Every setting of master."""

from __future__ import annotations

from typing import ClassVar

from mrtc_common.settings import Settings, setting


class MasterSettings(Settings):
    """Settings of master; see `Settings` for those that all services share."""

    service: ClassVar[str] = "master"

    grpc_port: int = setting(7000, "Port of the gRPC server; 0: any free one.", ge=0, le=65535)
    http_port: int = setting(7001, "Port of /healthz, /readyz, /metrics and /nodes; 0: any free one.", ge=0, le=65535)
    placement_watermark: float = setting(
        0.8, "A room stays on its nodes, and a node is filled, while its load is below this.", ge=0.1, le=1.0
    )
    placement_limit: float = setting(0.97, "A node whose load is at or above this gets nobody.", ge=0.1, le=1.0)
    scaling_target: float = setting(
        0.6,
        "Load that media nodes should have on average: autoscalers are told how many nodes that takes.",
        ge=0.1,
        le=1.0,
    )
    scaling_hold_s: float = setting(
        300.0, "How long fewer nodes must have been enough before fewer are asked for.", unit="s", ge=0, le=86400
    )
    orphan_grace_s: float = setting(
        2.0, "How long a participant may stay whose session has ended, before it is removed.", unit="s", ge=0, le=60
    )
    room_empty_timeout_s: float = setting(
        30.0, "After how long an empty room is closed whose record says nothing.", unit="s", ge=0, le=86400
    )
