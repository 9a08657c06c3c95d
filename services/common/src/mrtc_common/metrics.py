"""Prometheus metrics named `mrtc_<service>_<noun>_<unit>`; no room or participant ever becomes a label."""

from __future__ import annotations

import re
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

_NAME_RE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_FORBIDDEN_LABELS = {"room", "participant", "identity", "session", "track", "publication"}
DURATION_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one process, in a registry of its own so that several services can live in one test process."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        ProcessCollector(namespace=f"mrtc_{service}", registry=self.registry)

    def counter(self, name: str, doc: str, labels: Sequence[str] = ()) -> Counter:
        """A counter; `name` ends in `_total`."""
        if not name.endswith("_total"):
            raise ValueError(f"a counter's name ends in _total: {name}")
        return Counter(self._name(name, labels), doc, labels, registry=self.registry)

    def gauge(self, name: str, doc: str, labels: Sequence[str] = ()) -> Gauge:
        """A gauge."""
        return Gauge(self._name(name, labels), doc, labels, registry=self.registry)

    def histogram(
        self, name: str, doc: str, labels: Sequence[str] = (), buckets: Sequence[float] = DURATION_BUCKETS_S
    ) -> Histogram:
        """A histogram, by default of durations in seconds."""
        return Histogram(self._name(name, labels), doc, labels, registry=self.registry, buckets=tuple(buckets))

    def render(self) -> bytes:
        """The text that `/metrics` answers."""
        return generate_latest(self.registry)

    def _name(self, name: str, labels: Sequence[str]) -> str:
        if not _NAME_RE.fullmatch(name):
            raise ValueError(f"not a metric name: {name}")
        if bad := _FORBIDDEN_LABELS.intersection(labels):
            raise ValueError(f"labels without bound are not allowed: {sorted(bad)}")
        return f"mrtc_{self.service}_{name}"
