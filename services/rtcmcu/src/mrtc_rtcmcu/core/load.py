"""How full the node is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mrtc.node.v1.master_service_pb2 import NodeLoad


@dataclass(frozen=True, slots=True)
class LoadLimits:
    """What counts as full."""

    max_transports: int
    max_egress_packets_per_s: float
    max_egress_bps: float
    cpu_cores: float


def node_load(
    limits: LoadLimits,
    smooth: Callable[[float], float] = lambda busy: busy,
    *,
    cpu_cores: float,
    egress_packets_per_s: float,
    egress_bps: float,
    ingress_bps: float,
    transports: int,
    rooms: int,
) -> NodeLoad:
    """The report: the largest part against its limit is the load.

    Args:
        smooth: of what is measured over time; what is counted is shown as it is.
    """
    busy = max(
        cpu_cores / limits.cpu_cores,
        egress_packets_per_s / limits.max_egress_packets_per_s,
        egress_bps / limits.max_egress_bps,
    )
    return NodeLoad(
        load=min(1.0, max(smooth(min(1.0, busy)), transports / limits.max_transports)),
        cpu_cores=cpu_cores,
        cpu_limit_cores=limits.cpu_cores,
        egress_packets_per_s=egress_packets_per_s,
        egress_bps=egress_bps,
        ingress_bps=ingress_bps,
        transports=transports,
        rooms=rooms,
        max_transports=limits.max_transports,
    )
