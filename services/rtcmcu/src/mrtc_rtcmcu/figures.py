"""The metrics of rtcmcu: its own, and every counter of the engine's workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mrtc_common.metrics import Metrics
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_DROP = "drop_"
# Not a counter: its sum over the workers is the gauge `mrtc_rtcmcu_transports_count`.
_LEVEL = "transports"
_DELAY_BUCKET = "tx_delay_us_le_"
_DELAY_SUM = "tx_delay_us_sum"


class McuFigures:
    """Named as in docs/metrics.md."""

    def __init__(self, metrics: Metrics) -> None:
        self.transports = metrics.gauge("transports_count", "Transports that are open.")
        self.rooms = metrics.gauge("rooms_count", "Rooms with a transport here.")
        self.relays = metrics.gauge("relays_count", "Relays to and from other nodes.")
        self.passed_on = metrics.gauge("tracks_passed_on_count", "Tracks of other nodes that some node has from here.")
        self.watchers = metrics.gauge("watchers_count", "Streams of events that are read.")
        self.load = metrics.gauge("load_ratio", "0 (idle) to 1 (full).")
        self.relief_asked = metrics.counter(
            "relief_asked_total", "Clients that were asked to move since the node was too full."
        )
        self.calls = metrics.counter("calls_total", "gRPC calls by result.", ["call", "result"])
        self.call_seconds = metrics.histogram("call_seconds", "Duration of gRPC calls.", ["call"])
        self.transports_closed = metrics.counter("transports_closed_total", "Transports by why they ended.", ["reason"])


class EngineCollector(Collector):
    """Engine counters as `mrtc_rtcmcu_engine_<name>_total`; drops are one metric by reason, delays a histogram."""

    def __init__(self, counters: Callable[[], Sequence[dict[str, int]]]) -> None:
        self._counters = counters

    def describe(self) -> Iterable[CounterMetricFamily]:
        """Nothing in advance: the engine decides the names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Reads the engine."""
        drops = CounterMetricFamily(
            "mrtc_rtcmcu_engine_drops", "Dropped by the engine, by reason.", labels=["worker", "reason"]
        )
        delays = HistogramMetricFamily(
            "mrtc_rtcmcu_engine_tx_delay_seconds", "From a packet's arrival to its sending.", labels=["worker"]
        )
        families: dict[str, CounterMetricFamily] = {}
        for worker, counters in enumerate(self._counters()):
            _add_delays(delays, worker, counters)
            for name, value in counters.items():
                if name.startswith(_DROP):
                    drops.add_metric([str(worker), name.removeprefix(_DROP)], value)
                    continue
                if name in (_LEVEL, _DELAY_SUM) or name.startswith(_DELAY_BUCKET):
                    continue
                if name not in families:
                    families[name] = CounterMetricFamily(
                        f"mrtc_rtcmcu_engine_{name}", f"Engine counter {name}.", labels=["worker"]
                    )
                families[name].add_metric([str(worker)], value)
        yield from families.values()
        yield drops
        yield delays


def _add_delays(family: HistogramMetricFamily, worker: int, counters: dict[str, int]) -> None:
    """The engine counts each packet in one bucket; Prometheus wants every bucket to hold the smaller ones."""
    named = {name.removeprefix(_DELAY_BUCKET): value for name, value in counters.items() if _DELAY_BUCKET in name}
    count = 0
    buckets: list[tuple[str, float]] = []
    for bound in sorted(named, key=float):
        count += named[bound]
        buckets.append(("+Inf" if bound == "inf" else str(int(bound) / 1e6), count))
    if buckets:
        family.add_metric([str(worker)], buckets, counters.get(_DELAY_SUM, 0) / 1e6)
