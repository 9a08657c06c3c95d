"""The arrows of ARCHITECTURE.md: who may import whom."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("signaling", "master", "rtcmcu", "rtcrecorder", "rtcvod")


def imports_of(path: Path) -> Iterator[str]:
    """Absolute module names that a Python file imports."""
    package = ".".join(path.relative_to(next(p for p in path.parents if p.name == "src")).with_suffix("").parts[:-1])
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            yield ".".join([*base, node.module or ""]).rstrip(".")


def files_of(service: str, folder: str = "") -> list[Path]:
    """Source files of a service, or of one of its folders."""
    return sorted((ROOT / "services" / service / "src" / f"mrtc_{service}" / folder).rglob("*.py"))


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_imports_another(service: str) -> None:
    """Services share the protos and mrtc_common only."""
    others = tuple(f"mrtc_{other}" for other in (*SERVICES, "sdk", "embedded") if other != service)
    for path in files_of(service):
        wrong = [name for name in imports_of(path) if name.split(".")[0] in others]
        assert not wrong, f"{path}: {wrong}"


def test_common_knows_no_service() -> None:
    """Arrows point from services to common, never back."""
    for path in files_of("common"):
        wrong = [name for name in imports_of(path) if name.split(".")[0] in {f"mrtc_{s}" for s in SERVICES}]
        assert not wrong, f"{path}: {wrong}"


@pytest.mark.parametrize("service", SERVICES)
def test_a_core_is_pure(service: str) -> None:
    """A service's core knows neither its adapters and entry points nor the network."""
    package = f"mrtc_{service}"
    outside = ("nats", "grpc", "fastapi", "uvicorn", "httpx", "sqlalchemy", "websockets", "mrtc_engine")
    for path in files_of(service, "core"):
        for name in imports_of(path):
            assert name.split(".")[0] not in outside, f"{path}: {name}"
            assert not name.startswith((f"{package}.adapters", f"{package}.entrypoints", f"{package}.bootstrap")), (
                f"{path}: {name}"
            )


def test_engine_crates_point_one_way() -> None:
    """python → net → core → rtp; netem is for tests only."""
    allowed = {"rtp": set(), "core": {"rtp"}, "net": {"core", "rtp"}, "python": {"net", "core"}, "netem": set()}
    for crate, may in allowed.items():
        manifest = tomllib.loads((ROOT / "engine" / "crates" / crate / "Cargo.toml").read_text())
        ours = {name.removeprefix("mrtc-") for name in manifest["dependencies"] if name.startswith("mrtc-")}
        assert ours <= may, f"{crate} depends on {ours - may}"
