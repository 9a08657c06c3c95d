"""Arrows are imports: core knows nothing, app knows ports, entry points know app, bootstrap knows all."""

from __future__ import annotations

import ast
from pathlib import Path

import mrtc_signaling
import pytest

ROOT = Path(mrtc_signaling.__file__).parent
PERMITTED = {
    "core": {"core"},
    "app": {"app", "core", "ports", "webhook_ports", "metrics"},
    "adapters": {"adapters", "core", "ports", "config"},
    "entrypoints": {"entrypoints", "app", "core", "errors", "ports", "config", "metrics"},
}
IO_LIBRARIES = {"asyncio", "nats", "grpc", "fastapi", "sqlalchemy", "socket", "os", "time"}


def imports_of(path: Path) -> set[str]:
    """Full names of what a module imports."""
    names: set[str] = set()
    package = ("mrtc_signaling", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module or "") if part)
            names |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("layer", sorted(PERMITTED))
def test_layers_import_downwards_only(layer: str) -> None:
    """A layer imports itself and what is below it."""
    for path in (ROOT / layer).rglob("*.py"):
        for name in imports_of(path):
            parts = name.split(".")
            if parts[0] == "mrtc_signaling" and len(parts) > 2:
                assert parts[1] in PERMITTED[layer], f"{path.name} imports {name}"


def test_core_does_no_io() -> None:
    """No clock, loop, socket or store inside."""
    for path in (ROOT / "core").rglob("*.py"):
        found = {name.split(".")[0] for name in imports_of(path)} & IO_LIBRARIES
        assert not found, f"{path.name} imports {found}"
