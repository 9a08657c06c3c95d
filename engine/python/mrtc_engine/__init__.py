"""The media engine: transports, tracks, relays, sinks and sources in worker threads, driven from asyncio.

`AsyncEngine` is the way in. The extension module behind it is private.
"""

from ._engine import (
    EngineBusy,
    EngineClosed,
    EngineConfig,
    Event,
    Line,
    Reply,
    SinkFrame,
    SourceFrame,
    Subscription,
)
from .aio import AsyncEngine, EngineError

__all__ = [
    "AsyncEngine",
    "EngineBusy",
    "EngineClosed",
    "EngineConfig",
    "EngineError",
    "Event",
    "Line",
    "Reply",
    "SinkFrame",
    "SourceFrame",
    "Subscription",
]
