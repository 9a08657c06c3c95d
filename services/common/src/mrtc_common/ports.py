"""Ports for children that are told theirs before they start, and whether anybody listens at one."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import secrets
import socket

# Below the range that the kernel gives to outgoing connections (32768 and up), which would take a port between our
# look and the child's bind.
PORT_RANGE = range(20_000, 32_000)

# What this process has given out already: the child that it was meant for may not have bound it yet.
_given: set[int] = set()


def free_port(ip: str = "127.0.0.1") -> int:
    """A TCP port of `ip` that is free and was never returned before by this process.

    At random, so that several processes side by side rarely collide.
    """
    while True:
        port = secrets.choice(PORT_RANGE)
        if port in _given:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
            probe.bind((ip, port))
            _given.add(port)
            return port


class Knock(enum.Enum):
    """What a TCP port answers."""

    OPEN = enum.auto()
    REFUSED = enum.auto()
    """Its machine is there, no process listens."""
    SILENT = enum.auto()
    """Nothing is heard: it may be that the machine is gone, or cannot be reached."""


async def knock(address: str, timeout_s: float = 0.5) -> Knock:
    """Asks whether anybody listens at `host:port`."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(timeout_s):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except ConnectionRefusedError:
        return Knock.REFUSED
    except (OSError, TimeoutError):
        return Knock.SILENT
    writer.close()
    return Knock.OPEN
