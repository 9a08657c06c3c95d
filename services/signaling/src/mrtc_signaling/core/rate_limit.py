"""Limits how often something may happen, allowing bursts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TokenBucket:
    """`rate` per second on average, up to `burst` at once."""

    rate: float
    burst: float
    _level: float = -1.0
    _at: float = 0.0

    def take(self, now: float, cost: float = 1.0) -> bool:
        """Takes one; False if there is none at the moment."""
        if self._level < 0:
            self._level = self.burst
        else:
            self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        if self._level < cost:
            return False
        self._level -= cost
        return True

    def wait_ms(self, cost: float = 1.0) -> int:
        """Milliseconds after which `take` will succeed, counted from the last `take`."""
        return max(1, round((cost - self._level) / self.rate * 1000))
