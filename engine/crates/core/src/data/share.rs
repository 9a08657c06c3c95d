//! The share of a subscriber's bandwidth that data may use while it is sent media too.
//!
//! SCTP has a congestion control of its own, which fills the bottleneck's queue before it yields. So beside media data is
//! held to what the estimate leaves over, and to a tenth of it at least, so that it never stands still.

use std::time::{Duration, Instant};

/// Least part of the estimate.
const LEAST_SHARE: f64 = 0.1;
/// Least rate: some messages must pass on the worst of paths.
const LEAST_BPS: f64 = 64_000.0;
/// What may go at once, as time at the rate.
const BURST: Duration = Duration::from_millis(50);
/// Least burst in bytes: a few datagrams.
const LEAST_BURST: f64 = 4_800.0;
/// The rate of data is read over this time.
const WINDOW: Duration = Duration::from_millis(500);

/// A bucket that fills at the share's rate, and a meter of what was used of it.
#[derive(Debug)]
pub(super) struct Share {
    tokens: f64,
    filled_at: Instant,
    began_at: Instant,
    sent_bytes: u64,
    used_bps: u64,
}

impl Share {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: LEAST_BURST, filled_at: now, began_at: now, sent_bytes: 0, used_bps: 0 }
    }

    /// Refills; true if something may be sent. `free_bps` is what media leaves of `estimate_bps`.
    pub(super) fn has_room(&mut self, now: Instant, estimate_bps: u64, free_bps: u64) -> bool {
        let rate = (free_bps as f64).max(estimate_bps as f64 * LEAST_SHARE).max(LEAST_BPS) / 8.0;
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        let burst = (rate * BURST.as_secs_f64()).max(LEAST_BURST);
        self.tokens = (self.tokens + elapsed * rate).min(burst);
        self.tokens > 0.0
    }

    /// True if a datagram may follow the one before.
    pub(super) fn is_left(&self) -> bool {
        self.tokens > 0.0
    }

    /// Charges a datagram.
    pub(super) fn take(&mut self, now: Instant, bytes: usize) {
        self.tokens -= bytes as f64;
        self.roll(now);
        self.sent_bytes += bytes as u64;
    }

    /// What data used lately, in bit/s: media has so much less.
    pub(super) fn used_bps(&mut self, now: Instant) -> u64 {
        self.roll(now);
        self.used_bps
    }

    fn roll(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began_at);
        if elapsed >= WINDOW {
            self.used_bps = (self.sent_bytes as f64 * 8.0 / elapsed.as_secs_f64()) as u64;
            (self.sent_bytes, self.began_at) = (0, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_run_rate_is_what_media_leaves() {
        let start = Instant::now();
        let mut share = Share::new(start);
        let mut sent = 0;
        for ms in 0..10_000 {
            let now = start + Duration::from_millis(ms);
            let mut has_room = share.has_room(now, 2_000_000, 500_000);
            while has_room {
                share.take(now, 1_200);
                sent += 1_200;
                has_room = share.is_left();
            }
        }
        let bps = sent as f64 * 8.0 / 10.0;
        assert!((bps / 500_000.0 - 1.0).abs() < 0.03, "{bps}");
        let used = share.used_bps(start + Duration::from_secs(10));
        assert!((450_000..550_000).contains(&used), "{used}");
    }
}
