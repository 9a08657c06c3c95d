"""An engine for each test, and aiortc peers on it."""

from collections.abc import AsyncIterator

import pytest
from mrtc_engine import AsyncEngine

from . import peers


@pytest.fixture
async def engine() -> AsyncIterator[AsyncEngine]:
    async with AsyncEngine(peers.config(workers=2)) as engine:
        yield engine
