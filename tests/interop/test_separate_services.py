"""The five services are really separate: each starts alone, says what it lacks, and joins when that comes."""

from __future__ import annotations

from pathlib import Path

import pytest
from mrtc_embedded.suite import SuiteOptions

from tests.support.suite import RunningSuite
from tests.support.waiting import wait_for

pytestmark = pytest.mark.integration

SERVICES = ("master", "rtcmcu-1", "rtcrecorder", "rtcvod", "signaling-1")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_alone_lives_says_what_it_lacks_and_joins(tmp_path: Path, name: str) -> None:
    """Without NATS a service is alive and not ready, naming what is missing; with it, it becomes ready."""
    suite = RunningSuite(SuiteOptions(data_dir=tmp_path, mcus=1))
    try:
        suite.start_process(name)
        wait_for(lambda: suite.is_alive(name), what=f"{name} to live")
        status, body = suite.readiness(name)
        assert status == 503
        assert "nats" in str(body).lower()
        suite.restart("nats")
        if name == "signaling-1":
            wait_for(lambda: "master" in str(suite.readiness(name)[1]).lower(), what="signaling to miss the master")
            suite.restart("master")
            suite.restart("rtcmcu-1")
        wait_for(lambda: suite.readiness(name)[0] == 200, what=f"{name} to be ready")
    finally:
        suite.close()
