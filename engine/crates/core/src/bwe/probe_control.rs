//! When to probe, and how fast (libwebrtc's `ProbeController`, with str0m's remedy for stagnation).
//!
//! A fresh subscriber is probed at 3 and 6 times the start rate and on while that succeeds; later when demand grows,
//! when little is sent, after a large drop, and at times while demand is unmet. Never while the queue grows.

use super::Probe;

/// First probes, as multiples of the start rate.
const INITIAL_SCALES: [f64; 2] = [3.0, 6.0];
/// After a success: on with this multiple of the estimate ...
const FURTHER_SCALE: f64 = 2.0;
/// ... where a success is an estimate of at least this share of the rate probed.
const SUCCESS_SHARE: f64 = 0.7;
/// While loss keeps the rate down but it grows.
const LOSS_LIMITED_SCALE: f64 = 1.5;
/// Probing goes no further than this multiple of what could be used: room for a burst.
const MAX_OVER_DESIRED: f64 = 1.5;
/// How long a probe is. 15 ms in libwebrtc; ours are paced by ticks of 2 ms and need some more for the same precision.
const PROBE_S: f64 = 0.020;
const MIN_PACKETS: usize = 5;
/// No other probe before the feedback of the last one, or this.
const RESULT_TIMEOUT_US: i64 = 1_000_000;
/// Probes of one series follow each other at least this far apart, so that the queue of one does not blur the next.
const SERIES_GAP_US: i64 = 100_000;
/// While demand is unmet: first wait, doubled by each probe without success. A probe at 1 Mbit/s is 2.5 kB, so that
/// even the shortest period costs less than 1 %.
const PERIOD_US: i64 = 3_000_000;
const MAX_PERIOD_US: i64 = 6_000_000;
/// A fall below this share within the last feedback is a large drop ...
const DROP_SHARE: f64 = 0.66;
/// ... which is checked by a probe for so long, since a short hiccup is no lasting loss of capacity.
const DROP_CHECK_US: i64 = 5_000_000;
const DROP_PROBE_SHARE: f64 = 0.85;
const DROP_PROBE_GAP_US: i64 = 2_000_000;

/// What the controller looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProbeInput {
    pub estimate_bps: f64,
    /// What could be used in all; nothing is probed while it is below the estimate.
    pub desired_bps: f64,
    pub max_bps: f64,
    pub is_overusing: bool,
    pub is_loss_limited: bool,
    /// Little is sent, now or until some seconds ago.
    pub was_application_limited: bool,
}

#[derive(Clone, Copy, Debug)]
struct Drop {
    before_bps: f64,
    at_us: i64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct ProbeControl {
    next_cluster: u8,
    /// Rates still to be probed of the first series.
    pending: Option<f64>,
    is_started: bool,
    last_us: i64,
    last_bps: f64,
    is_awaiting: bool,
    /// The last probe was as fast as makes sense.
    is_furthest: bool,
    desired_bps: f64,
    estimate_bps: f64,
    drop: Option<Drop>,
    period_us: i64,
}

impl ProbeControl {
    pub fn new() -> Self {
        Self {
            next_cluster: 1,
            pending: None,
            is_started: false,
            last_us: i64::MIN / 2,
            last_bps: 0.0,
            is_awaiting: false,
            is_furthest: false,
            desired_bps: 0.0,
            estimate_bps: 0.0,
            drop: None,
            period_us: PERIOD_US,
        }
    }

    /// A probe's feedback gave a result.
    pub fn on_result(&mut self, bps: f64) {
        if bps >= self.last_bps * SUCCESS_SHARE {
            self.period_us = PERIOD_US;
        }
    }

    /// The probe to begin now, if any.
    pub fn poll(&mut self, input: &ProbeInput, now_us: i64) -> Option<Probe> {
        self.note_drop(input, now_us);
        let limit = (input.desired_bps * MAX_OVER_DESIRED).min(input.max_bps);
        let wanted = self.wanted_bps(input, limit, now_us);
        self.desired_bps = input.desired_bps;
        let wanted = wanted?;
        let bps = wanted.min(limit);
        // A probe that could not raise the estimate noticeably only costs.
        (bps > input.estimate_bps * 1.1).then(|| {
            self.is_furthest = wanted >= limit;
            self.begin(bps, now_us)
        })
    }

    fn wanted_bps(&mut self, input: &ProbeInput, limit: f64, now_us: i64) -> Option<f64> {
        if !self.is_started {
            return self.start(input);
        }
        if input.is_overusing || now_us - self.last_us < SERIES_GAP_US {
            return None;
        }
        if let Some(bps) = self.pending.take() {
            return Some(bps);
        }
        let further = input.estimate_bps * if input.is_loss_limited { LOSS_LIMITED_SCALE } else { FURTHER_SCALE };
        if self.is_awaiting {
            let is_success = input.estimate_bps >= self.last_bps * SUCCESS_SHARE;
            if !is_success && now_us - self.last_us < RESULT_TIMEOUT_US {
                return None;
            }
            self.is_awaiting = false;
            if is_success && !self.is_furthest {
                return Some(further);
            }
        }
        self.grown_demand(input)
            .or_else(|| self.after_drop(input, now_us))
            .or_else(|| self.periodic(input, limit, further, now_us))
    }

    /// The first series: as soon as something can be sent and is wanted.
    fn start(&mut self, input: &ProbeInput) -> Option<f64> {
        if input.desired_bps <= 0.0 {
            return None;
        }
        self.is_started = true;
        self.pending = Some(input.estimate_bps * INITIAL_SCALES[1]);
        Some(input.estimate_bps * INITIAL_SCALES[0])
    }

    /// More is wanted than before, and more than the estimate.
    fn grown_demand(&self, input: &ProbeInput) -> Option<f64> {
        let is_grown = input.desired_bps > self.desired_bps * 1.05 && input.desired_bps > input.estimate_bps;
        is_grown.then(|| input.desired_bps.min(input.estimate_bps * FURTHER_SCALE))
    }

    fn note_drop(&mut self, input: &ProbeInput, now_us: i64) {
        if input.estimate_bps < self.estimate_bps * DROP_SHARE {
            self.drop = Some(Drop { before_bps: self.estimate_bps, at_us: now_us });
        }
        self.estimate_bps = input.estimate_bps;
    }

    fn after_drop(&mut self, input: &ProbeInput, now_us: i64) -> Option<f64> {
        let drop = self.drop?;
        if now_us - drop.at_us > DROP_CHECK_US {
            self.drop = None;
            return None;
        }
        let is_due = input.was_application_limited && now_us - self.last_us >= DROP_PROBE_GAP_US;
        let target = drop.before_bps * DROP_PROBE_SHARE;
        (is_due && target > input.estimate_bps).then_some(target)
    }

    /// Demand is unmet: growth by what arrives ends at 1.5 times of that, which may be short of the next layer.
    fn periodic(&mut self, input: &ProbeInput, limit: f64, further: f64, now_us: i64) -> Option<f64> {
        if input.estimate_bps >= limit / MAX_OVER_DESIRED || now_us - self.last_us < self.period_us {
            return None;
        }
        self.period_us = (self.period_us * 2).min(MAX_PERIOD_US);
        Some(further)
    }

    fn begin(&mut self, bps: f64, now_us: i64) -> Probe {
        let cluster = self.next_cluster;
        self.next_cluster = cluster.checked_add(1).unwrap_or(1);
        self.last_us = now_us;
        self.last_bps = bps;
        self.is_awaiting = true;
        Probe { cluster, bps: bps as u64, min_bytes: (bps * PROBE_S / 8.0) as usize, min_packets: MIN_PACKETS }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(estimate_bps: f64, desired_bps: f64) -> ProbeInput {
        ProbeInput {
            estimate_bps,
            desired_bps,
            max_bps: 1e7,
            is_overusing: false,
            is_loss_limited: false,
            was_application_limited: false,
        }
    }

    #[test]
    fn a_fresh_subscriber_is_probed_at_three_and_six_times() {
        let mut control = ProbeControl::new();
        assert_eq!(control.poll(&input(3e5, 0.0), 0), None);
        assert_eq!(control.poll(&input(3e5, 3e6), 0).expect("probe").bps, 900_000);
        assert_eq!(control.poll(&input(3e5, 3e6), 50_000), None);
        let second = control.poll(&input(3e5, 3e6), 100_000).expect("probe");
        assert_eq!((second.bps, second.cluster), (1_800_000, 2));
    }

    #[test]
    fn goes_on_while_it_succeeds_and_stops_at_the_demand() {
        let mut control = ProbeControl::new();
        control.poll(&input(3e5, 2e6), 0);
        control.poll(&input(3e5, 2e6), 100_000);
        let third = control.poll(&input(1.7e6, 2e6), 300_000).expect("probe");
        assert_eq!(third.bps, 3_000_000);
        assert_eq!(control.poll(&input(3e6, 2e6), 500_000), None);
        assert_eq!(control.poll(&input(3e6, 2e6), 60_000_000), None);
    }

    #[test]
    fn a_probe_at_the_demand_is_not_followed_by_another_one() {
        let mut control = ProbeControl::new();
        control.poll(&input(3e5, 1.4e6), 0);
        control.poll(&input(3e5, 1.4e6), 100_000);
        assert_eq!(control.poll(&input(1.3e6, 1.4e6), 300_000).expect("probe").bps, 2_100_000);
        // The path takes 1.75 Mbit/s and no more: to be told so ten times a second would fill it.
        assert!((4..30).all(|tenth| control.poll(&input(1.75e6, 1.4e6), tenth * 100_000).is_none()));
    }

    #[test]
    fn unmet_demand_is_probed_each_six_seconds() {
        let mut control = ProbeControl::new();
        let input = input(5e5, 3e6);
        let times: Vec<i64> = (0..120).map(|s| s * 1_000_000).filter(|&t| control.poll(&input, t).is_some()).collect();
        assert_eq!(
            times.iter().map(|t| t / 1_000_000).collect::<Vec<_>>(),
            [0, 1, 4, 10, 16, 22, 28, 34, 40, 46, 52, 58, 64, 70, 76, 82, 88, 94, 100, 106, 112, 118]
        );
    }

    #[test]
    fn grown_demand_is_probed_at_once() {
        let mut control = ProbeControl::new();
        control.poll(&input(1e6, 5e5), 0);
        assert_eq!(control.poll(&input(1e6, 5e5), 2_000_000), None);
        assert_eq!(control.poll(&input(1e6, 2.5e6), 4_000_000).expect("probe").bps, 2_000_000);
    }

    #[test]
    fn a_large_drop_is_checked() {
        let mut control = ProbeControl::new();
        let mut now = ProbeInput { was_application_limited: true, ..input(2e6, 2e6) };
        control.poll(&now, 0);
        control.poll(&now, 3_000_000);
        now.estimate_bps = 5e5;
        assert_eq!(control.poll(&now, 10_000_000).expect("probe").bps, 1_700_000);
    }

    #[test]
    fn never_while_the_queue_grows() {
        let mut control = ProbeControl::new();
        control.poll(&input(3e5, 3e6), 0);
        let congested = ProbeInput { is_overusing: true, ..input(3e5, 3e6) };
        assert!((1..100).all(|s| control.poll(&congested, s * 1_000_000).is_none()));
    }

    #[test]
    fn clusters_are_never_zero() {
        let mut control = ProbeControl::new();
        for i in 0..600 {
            assert_ne!(control.begin(1e6, i).cluster, 0);
        }
    }
}
