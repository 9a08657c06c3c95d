"""The table after the JSON lines: each profile against the other servers under the same load."""

from __future__ import annotations

from typing import Any

from tests.bench.profiles import ANCHORS, BARS, Anchor

_BARS_HEAD = ("profile", "figure", "at most", "measured", "met")
_HEAD = ("profile", "server", "us/packet", "times ours", "KiB/subscriber")


def table(lines: list[dict[str, Any]]) -> str:
    """Markdown; of `joins` the cost is CPU milliseconds a join. Profiles without an anchor are left out."""
    rows = [_HEAD, tuple("---" for _ in _HEAD)]
    for line in lines:
        anchors = ANCHORS.get(line["profile"], ())
        cost = line.get("process_cpu_ms_per_join" if line["profile"] == "joins" else "cpu_us_per_packet")
        if anchors and cost:
            rows.append((line["profile"], "**ours**", f"{cost:.2f}", "1", f"{line.get('kib_per_subscriber', 0):.0f}"))
            rows += [_row(anchor, cost) for anchor in anchors]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) if len(rows) > 2 else ""


def bars(lines: list[dict[str, Any]]) -> str:
    """Markdown: what is asked of the engine, and what was measured."""
    rows = [_BARS_HEAD, tuple("---" for _ in _BARS_HEAD)]
    for bar in BARS:
        values = [bar.measured(line) for line in lines if line["profile"] == bar.profile]
        for value in (v for v in values if v is not None):
            field = bar.field if bar.index is None else f"{bar.field} [{bar.index}]"
            rows.append((bar.profile, field, f"{bar.limit:g}", f"{value:g}", "yes" if value <= bar.limit else "**no**"))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) if len(rows) > 2 else ""


def _row(anchor: Anchor, ours: float) -> tuple[str, ...]:
    cost = anchor.cpu_us_per_packet
    memory = "" if anchor.kib_per_subscriber is None else f"{anchor.kib_per_subscriber:.0f}"
    return ("", anchor.server, f"{cost:.1f}", f"{cost / ours:.1f}", memory)
