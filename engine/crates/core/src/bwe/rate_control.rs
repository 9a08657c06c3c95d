//! Turns the state of the queue into a rate: up by a share (or, near a known limit, by a packet per round trip), down to
//! a share of what arrives (libwebrtc's `AimdRateControl`, draft-ietf-rmcat-gcc-02 section 5.5).

use super::trendline::Usage;

/// On overuse, this share of what arrives: the rest lets the queue drain.
pub(super) const BETA: f64 = 0.85;
/// Growth per second while no limit is known.
const GROWTH_PER_S: f64 = 1.08;
/// The estimate does not grow beyond this multiple of what arrives: more is not proven.
const MAX_OVER_ACKED: f64 = 1.5;
const MAX_OVER_ACKED_OFFSET_BPS: f64 = 10_000.0;
/// Least growth per second near a limit.
const MIN_ADDITIVE_BPS_PER_S: f64 = 4_000.0;
const PACKET_BITS: f64 = 1200.0 * 8.0;
const FRAMES_PER_S: f64 = 30.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Hold,
    Increase,
}

/// Where overuse began lately: mean and spread of what arrived then (libwebrtc's `LinkCapacityEstimator`).
#[derive(Debug, Default)]
struct KnownLimit {
    kbps: Option<f64>,
    deviation: f64,
}

impl KnownLimit {
    fn take(&mut self, bps: f64, weight: f64) {
        let sample = bps / 1e3;
        let mean = self.kbps.map_or(sample, |kbps| (1.0 - weight) * kbps + weight * sample);
        self.kbps = Some(mean);
        let error = mean - sample;
        let deviation = (1.0 - weight) * self.deviation + weight * error * error / mean.max(1.0);
        self.deviation = deviation.clamp(0.4, 2.5);
    }

    /// Bounds of three standard deviations, in bit/s.
    fn range(&self) -> Option<(f64, f64)> {
        let kbps = self.kbps?;
        let spread = 3.0 * (self.deviation * kbps).sqrt();
        Some(((kbps - spread).max(0.0) * 1e3, (kbps + spread) * 1e3))
    }
}

/// See the module. Times are microseconds since the estimator began.
#[derive(Debug)]
pub(super) struct RateControl {
    state: State,
    estimate_bps: f64,
    min_bps: f64,
    limit: KnownLimit,
    changed_us: i64,
}

impl RateControl {
    pub fn new(start_bps: f64, min_bps: f64) -> Self {
        Self { state: State::Increase, estimate_bps: start_bps, min_bps, limit: KnownLimit::default(), changed_us: 0 }
    }

    pub fn estimate_bps(&self) -> f64 {
        self.estimate_bps
    }

    /// A probe was answered: take its rate as it is.
    pub fn set_probed(&mut self, bps: f64, now_us: i64) {
        self.limit.take(bps, 0.5);
        self.set(bps, now_us);
    }

    /// Something outside (silence, a cap) changed the estimate.
    pub fn set(&mut self, bps: f64, now_us: i64) {
        self.estimate_bps = bps.max(self.min_bps);
        self.changed_us = now_us;
    }

    /// Takes the state of the queue and the rate that arrives. `is_application_limited`: we send less than we may, so
    /// that what arrives proves nothing and the estimate does not grow.
    pub fn update(
        &mut self,
        usage: Usage,
        acked_bps: Option<f64>,
        is_application_limited: bool,
        rtt_ms: f64,
        now_us: i64,
    ) {
        match usage {
            Usage::Overuse => self.maybe_decrease(acked_bps, rtt_ms, now_us),
            Usage::Underuse => self.state = State::Hold,
            Usage::Normal if self.state == State::Hold => {
                self.state = State::Increase;
                self.changed_us = now_us;
            }
            Usage::Normal if is_application_limited => self.changed_us = now_us,
            Usage::Normal => self.increase(acked_bps, rtt_ms, now_us),
        }
    }

    fn maybe_decrease(&mut self, acked_bps: Option<f64>, rtt_ms: f64, now_us: i64) {
        let elapsed_ms = (now_us - self.changed_us) as f64 / 1e3;
        let Some(acked) = acked_bps else {
            // Overuse before anything is known of the path: half of it, at most once per round trip and a bit.
            if elapsed_ms > rtt_ms + 200.0 {
                self.set(self.estimate_bps / 2.0, now_us);
            }
            return;
        };
        let is_time = elapsed_ms >= rtt_ms.clamp(10.0, 200.0) || acked < self.estimate_bps / 2.0;
        if !is_time {
            return;
        }
        self.decrease(acked, now_us);
    }

    fn decrease(&mut self, acked: f64, now_us: i64) {
        let mut decreased = BETA * acked;
        if decreased > self.estimate_bps {
            // More arrives than we thought possible, so the estimate was low: fall to the known limit at most.
            decreased = self.limit.kbps.map_or(self.estimate_bps, |kbps| BETA * kbps * 1e3);
        }
        if self.limit.range().is_some_and(|(low, _)| acked < low) {
            self.limit = KnownLimit::default();
        }
        self.limit.take(acked, 0.05);
        self.state = State::Hold;
        self.set(decreased.min(self.estimate_bps), now_us);
    }

    fn increase(&mut self, acked_bps: Option<f64>, rtt_ms: f64, now_us: i64) {
        let elapsed_s = ((now_us - self.changed_us) as f64 / 1e6).clamp(0.0, 1.0);
        self.changed_us = now_us;
        let Some(acked) = acked_bps else { return };
        if self.limit.range().is_some_and(|(_, high)| acked > high) {
            self.limit = KnownLimit::default();
        }
        let cap = acked * MAX_OVER_ACKED + MAX_OVER_ACKED_OFFSET_BPS;
        if self.estimate_bps >= cap {
            return;
        }
        let grown = match self.limit.kbps {
            Some(_) => self.estimate_bps + self.additive_bps_per_s(rtt_ms) * elapsed_s,
            None => (self.estimate_bps * GROWTH_PER_S.powf(elapsed_s)).max(self.estimate_bps + 1000.0 * elapsed_s),
        };
        self.set(grown.min(cap), now_us);
    }

    /// One packet more per response time.
    fn additive_bps_per_s(&self, rtt_ms: f64) -> f64 {
        let frame_bits = self.estimate_bps / FRAMES_PER_S;
        let packet_bits = frame_bits / (frame_bits / PACKET_BITS).ceil().max(1.0);
        let response_s = (rtt_ms + 100.0) / 1e3;
        (packet_bits / response_s).max(MIN_ADDITIVE_BPS_PER_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: f64 = 50.0;

    fn run(control: &mut RateControl, usage: Usage, acked: f64, from_ms: i64, to_ms: i64) {
        for ms in (from_ms..to_ms).step_by(50) {
            control.update(usage, Some(acked), false, RTT, ms * 1000);
        }
    }

    #[test]
    fn grows_by_eight_percent_a_second_at_first() {
        let mut control = RateControl::new(1e6, 1e4);
        run(&mut control, Usage::Normal, 1e6, 0, 1050);
        assert!((1.07e6..1.09e6).contains(&control.estimate_bps()), "{}", control.estimate_bps());
    }

    #[test]
    fn does_not_outgrow_what_arrives() {
        let mut control = RateControl::new(1e6, 1e4);
        run(&mut control, Usage::Normal, 1e6, 0, 60_000);
        assert!((1.49e6..1.52e6).contains(&control.estimate_bps()), "{}", control.estimate_bps());
    }

    #[test]
    fn overuse_falls_below_what_arrives_once_per_round_trip() {
        let mut control = RateControl::new(2e6, 1e4);
        control.update(Usage::Overuse, Some(1.9e6), false, RTT, 1_000_000);
        let after = control.estimate_bps();
        assert!((after - 1.615e6).abs() < 1.0);
        control.update(Usage::Overuse, Some(1.9e6), false, RTT, 1_020_000);
        assert_eq!(control.estimate_bps(), after);
    }

    #[test]
    fn grows_slowly_near_a_known_limit_and_fast_beyond_it() {
        let mut control = RateControl::new(2e6, 1e4);
        control.update(Usage::Overuse, Some(2e6), false, RTT, 1_000_000);
        let fallen = control.estimate_bps();
        run(&mut control, Usage::Normal, 1.9e6, 1100, 2100);
        let slow = control.estimate_bps() - fallen;
        assert!(slow > 20e3 && slow < 100e3, "{slow}");
        run(&mut control, Usage::Normal, 4e6, 2100, 4100);
        assert!(control.estimate_bps() > fallen * 1.15);
    }

    #[test]
    fn an_application_limited_sender_keeps_its_estimate() {
        let mut control = RateControl::new(1e6, 1e4);
        for ms in (0..10_000).step_by(50) {
            control.update(Usage::Normal, Some(9e5), true, RTT, ms * 1000);
        }
        assert_eq!(control.estimate_bps(), 1e6);
    }

    #[test]
    fn never_below_the_floor() {
        let mut control = RateControl::new(1e6, 5e4);
        run(&mut control, Usage::Overuse, 1e3, 0, 5000);
        assert_eq!(control.estimate_bps(), 5e4);
    }
}
