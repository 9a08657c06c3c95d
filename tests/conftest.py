"""Fixtures of all tests above unit level."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.suite import RunningSuite, print_logs, running_suite


@pytest.fixture(scope="session")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSuite]:
    """One embedded suite for all tests that do not break it: two rtcmcu nodes, two signaling instances."""
    with running_suite(tmp_path_factory.mktemp("suite"), signalings=2, mcu_workers=1, captures=True) as running:
        yield running


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Adds the ends of the processes' logs to the report of a failed test."""
    report = yield
    if report.when == "call" and report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, RunningSuite):
                print_logs(value.data_dir)
    return report
