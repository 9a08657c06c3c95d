"""Maps one track's RTP time to the capture timeline that all tracks share."""

from __future__ import annotations

# Sound that runs 5 % fast or slow for a moment is not heard as a fault, and half a second of error is gone in ten.
_SLEW_PER_US = 0.05
# A larger error is a fact (first sender report, sender's restart), not jitter: follow it at once.
_JUMP_US = 300_000
# Share of the observed error that one frame corrects; averages arrival jitter over some ten frames.
_GAIN = 0.1


class MediaClock:
    """Smooths capture times.

    RTP time is exact from frame to frame but starts anywhere and drifts; capture time is common to all tracks but
    jitters with arrival until the sender's first report and moves when it comes. The result follows the first in the
    short run and the second in the long run, and never goes back.

    Args:
        clock_rate: RTP clock rate in Hz.
    """

    def __init__(self, clock_rate: int) -> None:
        self._clock_rate = clock_rate
        self._offset_us: float | None = None
        self._last_rtp_us = 0
        self._last_us: int | None = None

    def map(self, rtp_time: int, captured_at_us: int) -> int:
        """Capture time of a frame in Unix microseconds; strictly later than that of the frame before."""
        rtp_us = rtp_time * 1_000_000 // self._clock_rate
        observed = captured_at_us - rtp_us
        if self._offset_us is None or abs(observed - self._offset_us) > _JUMP_US:
            self._offset_us = float(observed)
        else:
            self._follow(observed, elapsed_us=max(0, rtp_us - self._last_rtp_us))
        self._last_rtp_us = rtp_us
        mapped = round(rtp_us + self._offset_us)
        if self._last_us is not None:
            mapped = max(mapped, self._last_us + 1)
        self._last_us = mapped
        return mapped

    def _follow(self, observed: int, elapsed_us: int) -> None:
        assert self._offset_us is not None
        limit = elapsed_us * _SLEW_PER_US
        error = (observed - self._offset_us) * _GAIN
        self._offset_us += max(-limit, min(limit, error))
