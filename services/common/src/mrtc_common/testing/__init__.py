"""Help for tests: a real nats-server, free ports, and waiting on conditions instead of sleeping."""

from .nats_server import NatsServer
from .waiting import wait_until

__all__ = ["NatsServer", "wait_until"]
