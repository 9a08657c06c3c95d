"""What is measured: the load of each profile, and what other servers cost under the same load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Shape = Literal["fan-out", "meeting", "joins", "storm", "simulcast", "loss", "idle", "flood"]


@dataclass(frozen=True)
class Profile:
    """One load.

    Attributes:
        name: as in the JSON line.
        subscribers: that receive each publisher; of a meeting, its participants, who receive all others.
        kind: what publishers send.
        shape: how it is laid out; decides which load generator runs it.
        publishers: of them.
        extra: participants that come at once (`storm`), trials (`joins`), percent of the datagrams that each
            subscriber loses (`loss`), datagrams a second that strangers send to the port of media (`flood`).
        workers: of the engine. With more than one, rtcmcu has every core.
    """

    name: str
    subscribers: int
    kind: Literal["video", "audio"] = "video"
    shape: Shape = "fan-out"
    publishers: int = 1
    extra: int = 0
    workers: int = 1

    @property
    def is_sfuload(self) -> bool:
        """True if `sfuload` can run it."""
        return self.shape in ("fan-out", "meeting", "joins")

    @property
    def receivers(self) -> int:
        """Flows that must deliver something."""
        return self.publishers * (self.subscribers - 1) if self.shape == "meeting" else self.subscribers


PROFILES = (
    Profile("video-1x50", 50),
    Profile("video-1x100", 100),
    Profile("video-1x200", 200),
    Profile("video-1x300", 300),
    Profile("meeting-8x8", 8, shape="meeting", publishers=8),
    Profile("meeting-16x16", 16, shape="meeting", publishers=16),
    Profile("audio-1x400", 400, kind="audio"),
    Profile("joins", 20, shape="joins", extra=60),
    Profile("join-storm", 20, shape="storm", extra=200),
    Profile("simulcast-1x100", 100, shape="simulcast"),
    Profile("loss-1x50", 50, shape="loss", extra=5),
    Profile("idle-200", 200, shape="idle"),
    Profile("flood-1x20", 20, shape="flood", extra=50_000),
    Profile("workers-1x200", 200, workers=2),
)


@dataclass(frozen=True)
class Bar:
    """What is asked of the engine.

    Attributes:
        profile: under which load.
        field: of its line.
        limit: at most so much.
        index: which one of a field of several figures.
    """

    profile: str
    field: str
    limit: float
    index: int | None = None

    def measured(self, line: dict[str, Any]) -> float | None:
        """The figure, if the line has it."""
        value = line.get(self.field)
        return value if value is None or self.index is None else value[self.index]


# What a packet cost plain pion (`pionfloor`) on the machine on which the limits below were set: a machine that is
# faster or slower is so for both.
PION = {"video-1x200": 12.6, "meeting-16x16": 11.4, "audio-1x400": 25.4}
_NODE_DELAY = "node_delay_ms_p50_p95_p99"
BARS = (
    Bar("video-1x200", "cpu_us_per_packet", 2.4),
    Bar("meeting-16x16", "cpu_us_per_packet", 2.0),
    Bar("audio-1x400", "cpu_us_per_packet", 4.0),
    Bar("video-1x200", "share_of_pion", round(2.4 / PION["video-1x200"], 3)),
    Bar("meeting-16x16", "share_of_pion", round(2.0 / PION["meeting-16x16"], 3)),
    Bar("audio-1x400", "share_of_pion", round(4.0 / PION["audio-1x400"], 3)),
    Bar("video-1x200", _NODE_DELAY, 5.0, index=1),
    Bar("meeting-16x16", _NODE_DELAY, 5.0, index=1),
    Bar("audio-1x400", _NODE_DELAY, 5.0, index=1),
    Bar("video-1x200", "kib_per_subscriber", 80),
    Bar("idle-200", "kib_per_idle_participant", 64),
    Bar("idle-200", "cpu_ms_per_join", 1.5),
    Bar("join-storm", "storm_s", 3.0),
    Bar("join-storm", "storm_loss_of_others", 0.0),
)


@dataclass(frozen=True)
class Anchor:
    """Another server under the same load, on the same kind of machine.

    Attributes:
        server: its name.
        cpu_us_per_packet: user and system time per packet received; of `joins`, CPU milliseconds a join.
        kib_per_subscriber: of memory, where it was measured.
    """

    server: str
    cpu_us_per_packet: float
    kib_per_subscriber: float | None = None


# One run a row, 20 s after 3 s, server on core 0: 2 vCPU of an AMD EPYC, Linux 6.18, loopback. The versions and the
# set-up of each server are in docs/performance.md.
ANCHORS: dict[str, tuple[Anchor, ...]] = {
    "video-1x50": (Anchor("SRS", 7.9), Anchor("PulseBeam", 14.8)),
    "video-1x100": (
        Anchor("SRS", 7.8),
        Anchor("MediaMTX", 12.4, 4161),
        Anchor("PulseBeam", 12.7),
        Anchor("ion-sfu", 13.0, 407),
        Anchor("Janus", 15.2, 550),
    ),
    "video-1x200": (
        Anchor("SRS", 7.4, 493),
        Anchor("PulseBeam", 11.5, 917),
        Anchor("MediaMTX", 11.6, 4161),
        Anchor("ion-sfu", 12.0, 395),
        Anchor("Janus", 13.3, 550),
    ),
    "video-1x300": (
        Anchor("SRS", 6.8),
        Anchor("ion-sfu", 11.1, 385),
        Anchor("MediaMTX", 11.3, 4233),
        Anchor("Janus", 14.6, 572),
    ),
    "meeting-8x8": (
        Anchor("Janus", 14.6, 2960),
        Anchor("ion-sfu", 15.4, 1712),
        Anchor("MediaMTX", 20.4, 29407),
    ),
    "meeting-16x16": (
        Anchor("ion-sfu", 8.4, 1998),
        Anchor("Janus", 10.3, 6096),
        Anchor("MediaMTX", 11.2, 60029),
    ),
    "audio-1x400": (
        Anchor("ion-sfu", 20.4, 349),
        Anchor("MediaMTX", 20.5, 345),
        Anchor("Janus", 31.2, 150),
    ),
    "joins": (Anchor("MediaMTX", 2.3), Anchor("ion-sfu", 5.8), Anchor("Janus", 7.2)),
}
