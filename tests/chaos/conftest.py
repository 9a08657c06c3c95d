"""What the tests share that kill processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.suite import RunningSuite, running_suite


@pytest.fixture(scope="session")
def victims(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """A suite of its own, whose processes may die; each test leaves all of them running."""
    data: Path = tmp_path_factory.mktemp("victims")
    with running_suite(data, signalings=2, recorders=2, vods=2, mcu_workers=1, drain_timeout_s=30.0) as running:
        yield running
