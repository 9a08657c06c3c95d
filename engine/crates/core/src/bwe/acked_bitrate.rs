//! What arrives per second at the receiver: a Bayesian estimate over short windows, as in libwebrtc's
//! `BitrateEstimator`.

/// The first estimate is taken over this.
const INITIAL_WINDOW_US: i64 = 500_000;
/// Later ones over this.
const WINDOW_US: i64 = 150_000;
/// A window with less is a weak witness of a low rate: the sender may just have had nothing to send.
const SMALL_SAMPLE_BYTES: u64 = 2_000;
const UNCERTAINTY: f64 = 10.0;
const SMALL_SAMPLE_UNCERTAINTY: f64 = 25.0;
const FLOOR_BPS: f64 = 40_000.0;

/// See the module.
#[derive(Debug)]
pub(super) struct AckedBitrate {
    estimate_bps: Option<f64>,
    variance: f64,
    sum_bytes: u64,
    window_us: i64,
    last_us: Option<i64>,
}

impl AckedBitrate {
    pub fn new() -> Self {
        Self { estimate_bps: None, variance: 50.0, sum_bytes: 0, window_us: 0, last_us: None }
    }

    pub fn bps(&self) -> Option<f64> {
        self.estimate_bps
    }

    /// A packet of `size` bytes arrived at `arrived_us`, in order of arrival.
    pub fn add(&mut self, arrived_us: i64, size: u16) {
        let window = if self.estimate_bps.is_none() { INITIAL_WINDOW_US } else { WINDOW_US };
        let sample = self.take_window(arrived_us, window);
        self.sum_bytes += u64::from(size);
        let Some((sample_bps, is_small)) = sample else { return };
        let Some(estimate) = self.estimate_bps else {
            self.estimate_bps = Some(sample_bps);
            return;
        };
        let scale = if is_small && sample_bps < estimate { SMALL_SAMPLE_UNCERTAINTY } else { UNCERTAINTY };
        let sample_variance = (scale * (estimate - sample_bps).abs() / estimate).powi(2);
        let predicted = self.variance + 5.0;
        let weighted = (sample_variance * estimate + predicted * sample_bps) / (sample_variance + predicted);
        self.estimate_bps = Some(weighted.max(FLOOR_BPS));
        self.variance = sample_variance * predicted / (sample_variance + predicted);
    }

    /// Rate of the window that ended before `arrived_us`, and whether it is a small sample.
    fn take_window(&mut self, arrived_us: i64, window: i64) -> Option<(f64, bool)> {
        let last = self.last_us.replace(arrived_us)?;
        if arrived_us < last {
            self.sum_bytes = 0;
            self.window_us = 0;
            return None;
        }
        self.window_us += arrived_us - last;
        if arrived_us - last >= window {
            // Nothing for a whole window: start afresh rather than average over the pause.
            self.sum_bytes = 0;
            self.window_us %= window;
        }
        if self.window_us < window {
            return None;
        }
        let sum = std::mem::take(&mut self.sum_bytes);
        self.window_us -= window;
        Some((sum as f64 * 8e6 / window as f64, sum < SMALL_SAMPLE_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(acked: &mut AckedBitrate, from_us: i64, to_us: i64, bps: f64) {
        let step = (1000.0 * 8e6 / bps) as i64;
        let mut at = from_us;
        while at < to_us {
            acked.add(at, 1000);
            at += step;
        }
    }

    #[test]
    fn follows_the_rate_within_a_second() {
        let mut acked = AckedBitrate::new();
        feed(&mut acked, 0, 1_000_000, 1e6);
        let first = acked.bps().expect("known");
        assert!((0.9e6..1.1e6).contains(&first), "{first}");
        feed(&mut acked, 1_000_000, 2_500_000, 3e6);
        let second = acked.bps().expect("known");
        assert!((2.5e6..3.2e6).contains(&second), "{second}");
    }

    #[test]
    fn a_pause_does_not_count_as_a_low_rate() {
        let mut acked = AckedBitrate::new();
        feed(&mut acked, 0, 1_000_000, 1e6);
        feed(&mut acked, 5_000_000, 5_100_000, 1e6);
        let bps = acked.bps().expect("known");
        assert!(bps > 0.85e6, "{bps}");
    }
}
