"""The metrics of rtcmcu: its own, and every counter of the engine's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mrtc_common.metrics import Metrics
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

_DROP = "drop_"
# Not a counter: its sum over the workers is the gauge `mrtc_rtcmcu_transports_count`.
_LEVEL = "transports"


class McuFigures:
    """Named as in docs/metrics.md."""

    def __init__(self, metrics: Metrics) -> None:
        self.transports = metrics.gauge("transports_count", "Transports that are open.")
        self.rooms = metrics.gauge("rooms_count", "Rooms with a transport here.")
        self.relays = metrics.gauge("relays_count", "Relays to and from other nodes.")
        self.watchers = metrics.gauge("watchers_count", "Streams of events that are read.")
        self.load = metrics.gauge("load_ratio", "0 (idle) to 1 (full).")
        self.calls = metrics.counter("calls_total", "gRPC calls by result.", ["call", "result"])
        self.call_seconds = metrics.histogram("call_seconds", "Duration of gRPC calls.", ["call"])
        self.transports_closed = metrics.counter("transports_closed_total", "Transports by why they ended.", ["reason"])


class EngineCollector(Collector):
    """Every engine counter as `mrtc_rtcmcu_engine_<name>_total`, drops as one metric by reason."""

    def __init__(self, counters: Callable[[], Sequence[dict[str, int]]]) -> None:
        self._counters = counters

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Nothing in advance: the engine decides the names."""
        return ()

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Reads the engine."""
        drops = CounterMetricFamily(
            "mrtc_rtcmcu_engine_drops", "Dropped by the engine, by reason.", labels=["worker", "reason"]
        )
        families: dict[str, CounterMetricFamily] = {}
        for worker, counters in enumerate(self._counters()):
            for name, value in counters.items():
                if name.startswith(_DROP):
                    drops.add_metric([str(worker), name.removeprefix(_DROP)], value)
                    continue
                if name == _LEVEL:
                    continue
                if name not in families:
                    families[name] = CounterMetricFamily(
                        f"mrtc_rtcmcu_engine_{name}", f"Engine counter {name}.", labels=["worker"]
                    )
                families[name].add_metric([str(worker)], value)
        yield from families.values()
        yield drops
