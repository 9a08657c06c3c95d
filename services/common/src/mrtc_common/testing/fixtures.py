"""Pytest fixtures; use them by `from mrtc_common.testing.fixtures import *` in a conftest."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from mrtc_common.nats import NatsLink, NatsOptions

from .nats_server import NatsServer

__all__ = ["nats_link", "nats_server"]


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server of the test's own."""
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest_asyncio.fixture
async def nats_link(nats_server: NatsServer) -> AsyncIterator[NatsLink]:
    """A ready link to the test's nats-server."""
    async with NatsLink(NatsOptions(urls=(nats_server.url,)), name="test") as link:
        await link.wait_ready(10)
        yield link
