from collections.abc import AsyncIterator

import pytest_asyncio
from mrtc_common.testing import NatsServer
from mrtc_common.testing.fixtures import *  # noqa: F403

from services.rtcmcu.tests.running_node import Node, StartNode, starting_nodes


@pytest_asyncio.fixture
async def start_node(nats_server: NatsServer) -> AsyncIterator[StartNode]:
    async with starting_nodes(nats_server.url) as start:
        yield start


@pytest_asyncio.fixture
async def node(start_node: StartNode) -> Node:
    return await start_node()
