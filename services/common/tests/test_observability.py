"""Logs, metrics and health over HTTP."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import structlog
from mrtc_common.health import Health, health_app
from mrtc_common.http import HttpServer
from mrtc_common.load import CpuMeter, cpu_limit_cores
from mrtc_common.log import bound, configure_logging, get_logger
from mrtc_common.metrics import Metrics


class _Lines:
    """What was logged."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def getvalue(self) -> str:
        return self._capsys.readouterr().err


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[_Lines]:
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield _Lines(capsys)
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_a_line_is_json_with_bound_ids_and_without_secrets(lines: _Lines) -> None:
    configure_logging("demo", node="n1")
    with bound(room="r", session="s"):
        get_logger("x").info("joined", resume_token="abc", nested={"password": "p", "name": "ann"}, count=2)
    line = json.loads(lines.getvalue())
    assert (line["event"], line["service"], line["node"], line["room"], line["session"]) == (
        "joined",
        "demo",
        "n1",
        "r",
        "s",
    )
    assert line["resume_token"] == line["nested"]["password"] == "[redacted]"
    assert line["nested"]["name"] == "ann"
    assert line["timestamp"].endswith("Z")


def test_lines_of_libraries_have_the_same_form(lines: _Lines) -> None:
    configure_logging("demo")
    logging.getLogger("library").warning("hm %d", 1)
    line = json.loads(lines.getvalue())
    assert (line["event"], line["level"], line["service"]) == ("hm 1", "warning", "demo")


def test_an_exception_is_one_json_line(lines: _Lines) -> None:
    configure_logging("demo")
    try:
        raise ValueError("x")
    except ValueError:
        get_logger("x").exception("failed")
    assert json.loads(lines.getvalue())["exception"][0]["exc_type"] == "ValueError"


def test_text_is_for_people(lines: _Lines) -> None:
    configure_logging("demo", log_format="text", level="warning")
    get_logger("x").info("not shown")
    get_logger("x").warning("shown", room="r")
    text = lines.getvalue()
    assert "not shown" not in text
    assert "shown" in text
    assert "room=r" in text


def test_metrics_have_the_services_name_and_no_unbounded_labels() -> None:
    metrics = Metrics("demo")
    metrics.counter("things_total", "Things.", ["result"]).labels("ok").inc()
    assert b'mrtc_demo_things_total{result="ok"} 1.0' in metrics.render()
    with pytest.raises(ValueError, match="labels"):
        metrics.gauge("rooms_count", "Rooms.", ["room"])
    with pytest.raises(ValueError, match="_total"):
        metrics.counter("things", "Things.")
    with pytest.raises(ValueError, match="metric name"):
        metrics.gauge("Bad-Name", "Bad.")


async def test_health_over_http_tells_what_is_missing() -> None:
    health = Health()
    server = HttpServer(health_app(health, Metrics("demo")))
    await server.start("127.0.0.1", 0)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert (await client.get("/readyz")).status_code == 200
        health.set("nats", False, "NATS is not connected")
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()["missing"]) == (503, {"nats": "NATS is not connected"})
        assert (await client.get("/healthz")).status_code == 200
        health.set_live(False, "the engine ended")
        assert (await client.get("/healthz")).status_code == 503
        assert "process_cpu_seconds_total" in (await client.get("/metrics")).text
        assert (await client.get("/docs")).status_code == 404
    await server.aclose()


async def test_a_taken_port_is_a_clear_error() -> None:
    first = HttpServer(health_app(Health(), Metrics("demo")))
    await first.start("127.0.0.1", 0)
    with pytest.raises(OSError, match="HTTP cannot listen"):
        await HttpServer(health_app(Health(), Metrics("demo"))).start("127.0.0.1", first.port)
    await first.aclose()


def test_cgroup_limits_are_known(tmp_path: Path) -> None:
    everything = cpu_limit_cores(tmp_path)
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpu_limit_cores(tmp_path) == everything
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("50000\n")
    assert cpu_limit_cores(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_limit_cores(tmp_path) == 0.5
    (tmp_path / "cpu.max").write_text("25000 100000\n")
    assert cpu_limit_cores(tmp_path) == 0.25


def test_cpu_use_is_measured() -> None:
    meter = CpuMeter()
    assert meter.cores() == 0.0
    assert CpuMeter(include_children=True).cores() == 0.0
