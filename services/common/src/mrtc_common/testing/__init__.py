"""Help for tests: a real nats-server, free ports, and waiting on conditions instead of sleeping."""

from .nats_server import NatsServer
from .waiting import free_port, wait_until

__all__ = ["NatsServer", "free_port", "wait_until"]
