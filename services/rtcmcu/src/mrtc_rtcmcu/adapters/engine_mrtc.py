"""The real engine, by the settings of rtcmcu."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mrtc_rtcmcu.config import McuSettings
from mrtc_rtcmcu.ports import Engine


@dataclass(frozen=True, slots=True)
class EngineKit:
    """What makes an engine, and its subscription values."""

    start: Callable[[McuSettings], Engine]
    make_subscription: Callable[..., Any]


def real_engine_kit() -> EngineKit:
    """`mrtc_engine`; imported late, so that tests with an engine of their own need no wheel."""
    from mrtc_engine import Subscription

    return EngineKit(start_engine, Subscription)


def start_engine(settings: McuSettings) -> Engine:
    """Binds the media ports and starts the workers. Raises OSError if a port is taken."""
    from mrtc_engine import AsyncEngine, EngineConfig

    config = EngineConfig(
        advertised_ips=settings.advertised_ips,
        bind_ip=settings.media_bind_ip,
        udp_port=settings.udp_port,
        tcp_port=settings.tcp_port,
        workers=settings.workers,
        max_transports=settings.max_transports,
        tick_us=settings.tick_us,
        media_dscp=settings.media_dscp,
        pin_workers=settings.pin_workers,
        log_filter=settings.log_level,
    )
    engine: Engine = AsyncEngine(config)
    return engine
