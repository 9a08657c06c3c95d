//! Do we send less than we may ("application limited region")? Then what arrives says nothing about the path, and only
//! probes can find out that it takes more (libwebrtc's `AlrDetector`).

/// We are limited by the application when less than this share of the estimate is sent for a while.
const USED_SHARE: f64 = 0.65;
/// The budget of unused bytes is counted over this.
const WINDOW_S: f64 = 0.5;
/// Share of the budget left unused at which the state begins and ends.
const START_LEVEL: f64 = 0.80;
const STOP_LEVEL: f64 = 0.50;

/// See the module. Media is added up and judged at each feedback or timeout, not per packet.
#[derive(Debug)]
pub(super) struct AlrDetector {
    unused_bytes: f64,
    sent_bytes: f64,
    updated_us: i64,
    since_us: Option<i64>,
    stopped_us: Option<i64>,
}

impl AlrDetector {
    pub fn new() -> Self {
        Self { unused_bytes: 0.0, sent_bytes: 0.0, updated_us: 0, since_us: None, stopped_us: None }
    }

    pub fn on_sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as f64;
    }

    pub fn is_limited(&self) -> bool {
        self.since_us.is_some()
    }

    /// Limited now, or until less than `us` ago.
    pub fn was_limited_within(&self, us: i64, now_us: i64) -> bool {
        self.is_limited() || self.stopped_us.is_some_and(|at| now_us - at < us)
    }

    pub fn update(&mut self, estimate_bps: f64, now_us: i64) {
        let elapsed_s = ((now_us - self.updated_us) as f64 / 1e6).clamp(0.0, WINDOW_S);
        self.updated_us = now_us;
        let rate = estimate_bps * USED_SHARE / 8.0;
        let window = rate * WINDOW_S;
        let sent = std::mem::take(&mut self.sent_bytes);
        self.unused_bytes = (self.unused_bytes + rate * elapsed_s - sent).clamp(-window, window);
        let level = if window > 0.0 { self.unused_bytes / window } else { 0.0 };
        if self.since_us.is_none() && level > START_LEVEL {
            self.since_us = Some(now_us);
        } else if self.since_us.is_some() && level < STOP_LEVEL {
            self.since_us = None;
            self.stopped_us = Some(now_us);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(alr: &mut AlrDetector, from_ms: i64, to_ms: i64, bps: f64) {
        for ms in (from_ms..to_ms).step_by(50) {
            alr.on_sent((bps / 8.0 * 0.05) as usize);
            alr.update(1e6, ms * 1000);
        }
    }

    #[test]
    fn a_sender_of_a_third_of_the_estimate_is_limited() {
        let mut alr = AlrDetector::new();
        run(&mut alr, 0, 2000, 3e5);
        assert!(alr.is_limited());
        run(&mut alr, 2000, 4000, 1e6);
        assert!(!alr.is_limited());
        assert!(alr.was_limited_within(3_000_000, 4_000_000));
        assert!(!alr.was_limited_within(1_000, 4_000_000));
    }

    #[test]
    fn a_sender_of_most_of_the_estimate_is_not() {
        let mut alr = AlrDetector::new();
        run(&mut alr, 0, 10_000, 8e5);
        assert!(!alr.is_limited());
    }
}
