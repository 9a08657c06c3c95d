"""The instances of this service, by the keys that they write again and again."""

from __future__ import annotations

from mrtc_common.clock import Clock
from mrtc_common.nats import NatsLink
from mrtc_common.presence import PresenceWatch


class NatsPeers:
    """See `ports.Peers`."""

    def __init__(self, link: NatsLink, watch: PresenceWatch, clock: Clock) -> None:
        self._link = link
        self._watch = watch
        self._clock = clock
        self._epoch = 0
        self._known_from = 0.0

    def present(self) -> frozenset[str] | None:
        """See the port. After an absence of NATS the others need time to be heard again."""
        now = self._clock.monotonic()
        if not self._link.is_ready or self._link.epoch != self._epoch:
            self._epoch = self._link.epoch
            self._known_from = now + self._watch.silent_s
        return self._watch.present() if now >= self._known_from else None
