"""The documents tell the truth about the code: files that they name exist, and every metric is explained."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

import pytest
from mrtc_common.metrics import Metrics
from mrtc_master.figures import MasterFigures
from mrtc_rtcmcu.figures import McuFigures
from mrtc_signaling.metrics import SignalingMetrics

ROOT = Path(__file__).resolve().parents[2]
NOT_OURS = {".git", ".venv", ".cache", "node_modules", "target", "gen", "var", "dist", "dist-demo", "__pycache__"}
# Made by a run, a file of another project, WebSocket subprotocols.
NOT_FILES = {"var/secrets.json", "var/suite.json", "doc/allocation.md", "mrtc.v1.json", "mrtc.v1.proto"}
FILE_NAME = re.compile(r"`([\w./*<>-]+\.(?:py|pyi|rs|ts|toml|yaml|proto|md|sh|json|binpb))`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@cache
def our_files() -> tuple[str, ...]:
    """Every file of the repository, relative to its root."""
    found: list[str] = []
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS]
        found += [(Path(folder) / name).relative_to(ROOT).as_posix() for name in names]
    return tuple(found)


def documents() -> list[str]:
    """Every Markdown file of ours."""
    return sorted(name for name in our_files() if name.endswith(".md"))


def is_there(name: str) -> bool:
    """True if a file's path is this, or ends so: pages shorten paths to what their text says already."""
    return any(file == name or file.endswith("/" + name) for file in our_files())


@pytest.mark.parametrize("document", documents())
def test_files_that_are_named_exist(document: str) -> None:
    """A name with a placeholder or a wildcard is a pattern, not a file."""
    named = FILE_NAME.findall((ROOT / document).read_text())
    plain = {name for name in named if not set("*<>") & set(name)} - NOT_FILES
    missing = sorted(name for name in plain if not is_there(name.removeprefix("./")))
    assert not missing, f"{document} names {missing}"


@pytest.mark.parametrize("document", documents())
def test_links_lead_somewhere(document: str) -> None:
    """Links between pages are relative."""
    path = ROOT / document
    missing = [link for link in LINK.findall(path.read_text()) if not (path.parent / link).exists()]
    assert not missing, f"{document} links to {missing}"


def metric_names() -> set[str]:
    """Every metric of every service, by the names that Prometheus sees."""
    master, rtcmcu = Metrics("master"), Metrics("rtcmcu")
    MasterFigures(master)
    McuFigures(rtcmcu)
    names = set()
    for metrics in (master, rtcmcu, SignalingMetrics().metrics):
        for family in metrics.registry.collect():
            names.add(family.name + ("_total" if family.type == "counter" else ""))
    names = {name for name in names if "_process_" not in name}
    made = re.compile(r"\.(?:counter|gauge|histogram)\(\s*\"(\w+)\"")
    frame = made.findall((ROOT / "services/common/src/mrtc_common/job_node.py").read_text())
    for service in ("rtcrecorder", "rtcvod"):
        for path in (ROOT / "services" / service / "src").rglob("*.py"):
            names |= {f"mrtc_{service}_{name}" for name in (*frame, *made.findall(path.read_text()))}
    return names


def engine_counters() -> set[str]:
    """Names of the engine's counters, from both crates."""
    core = (ROOT / "engine/crates/core/src/counters.rs").read_text().partition("counters! {")[2]
    net = (ROOT / "engine/crates/net/src/counters.rs").read_text()
    return {*re.findall(r"^    (\w+),$", core, re.M), *re.findall(r"^\s+\(\"(\w+)\", self\.\w+\)", net, re.M)}


def test_every_metric_is_explained() -> None:
    """docs/metrics.md has every metric of the code, and none besides."""
    text = (ROOT / "docs/metrics.md").read_text()
    explained = set(re.findall(r"`(mrtc_(?!rtcmcu_engine_)[a-z]+_\w+)`", text))
    assert explained == metric_names()


def test_every_engine_counter_is_explained() -> None:
    """Drops are a metric of their own, by reason."""
    text = (ROOT / "docs/metrics.md").read_text()
    counters = engine_counters()
    assert len(counters) > 40
    drops = {name.removeprefix("drop_") for name in counters if name.startswith("drop_")} | {"events", "frames"}
    others = {name for name in counters if not name.startswith("drop_")}
    assert set(re.findall(r"^\| `mrtc_rtcmcu_engine_(\w+)_total` \| (?:1|us|bytes) ", text, re.M)) == others
    table = text.partition("| reason of ")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == drops
