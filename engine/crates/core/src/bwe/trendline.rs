//! Does the queue at the bottleneck grow? Slope of the one-way delay over the last groups, against a threshold that
//! adapts to the noise of the path (libwebrtc's `TrendlineEstimator`, draft-ietf-rmcat-gcc-02 section 5.4).

use super::arrival_groups::GroupDelta;

/// Groups that the line is fitted through.
const WINDOW: usize = 20;
const SMOOTHING: f64 = 0.9;
const GAIN: f64 = 4.0;
const MAX_DELTAS: u32 = 60;
const INITIAL_THRESHOLD_MS: f64 = 12.5;
const MIN_THRESHOLD_MS: f64 = 6.0;
const MAX_THRESHOLD_MS: f64 = 600.0;
/// The slope must stay above the threshold this long.
const OVERUSE_TIME_MS: f64 = 10.0;
/// The threshold does not follow jumps larger than this: they are sudden drops of capacity, not noise.
const MAX_ADAPT_OFFSET_MS: f64 = 15.0;
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;

/// What the queue does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Usage {
    Normal,
    Overuse,
    Underuse,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Trendline {
    /// (arrival, smoothed delay) in ms, in order of arrival; a ring once full.
    points: [(f64, f64); WINDOW],
    point_count: usize,
    next: usize,
    first_arrived_ms: Option<f64>,
    deltas: u32,
    accumulated_ms: f64,
    smoothed_ms: f64,
    threshold_ms: f64,
    previous_trend: f64,
    overusing_ms: Option<f64>,
    overuse_count: u32,
    adapted_at_ms: Option<f64>,
    usage: Usage,
}

impl Trendline {
    pub fn new() -> Self {
        Self {
            points: [(0.0, 0.0); WINDOW],
            point_count: 0,
            next: 0,
            first_arrived_ms: None,
            deltas: 0,
            accumulated_ms: 0.0,
            smoothed_ms: 0.0,
            threshold_ms: INITIAL_THRESHOLD_MS,
            previous_trend: 0.0,
            overusing_ms: None,
            overuse_count: 0,
            adapted_at_ms: None,
            usage: Usage::Normal,
        }
    }

    pub fn usage(&self) -> Usage {
        self.usage
    }

    pub fn add(&mut self, delta: GroupDelta) {
        let first = *self.first_arrived_ms.get_or_insert(delta.arrived_ms);
        self.deltas = (self.deltas + 1).min(MAX_DELTAS);
        self.accumulated_ms += delta.arrival_ms - delta.send_ms;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.accumulated_ms;
        self.points[self.next] = (delta.arrived_ms - first, self.smoothed_ms);
        self.next = (self.next + 1) % WINDOW;
        self.point_count = (self.point_count + 1).min(WINDOW);
        let trend = self.slope().unwrap_or(self.previous_trend);
        self.detect(trend, delta);
    }

    /// Least squares; `None` until the window is full or if all arrived at once.
    fn slope(&self) -> Option<f64> {
        if self.point_count < WINDOW {
            return None;
        }
        let n = WINDOW as f64;
        let (sum_x, sum_y) = self.points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
        let (mean_x, mean_y) = (sum_x / n, sum_y / n);
        let (num, den) = self.points.iter().fold((0.0, 0.0), |(num, den), p| {
            let dx = p.0 - mean_x;
            (num + dx * (p.1 - mean_y), den + dx * dx)
        });
        (den != 0.0).then(|| num / den)
    }

    fn detect(&mut self, trend: f64, delta: GroupDelta) {
        if self.deltas < 2 {
            return;
        }
        let modified = f64::from(self.deltas) * trend * GAIN;
        if modified > self.threshold_ms {
            // At the first sight of it, half of the time since the last group counts.
            let overusing = self.overusing_ms.map_or(delta.send_ms / 2.0, |ms| ms + delta.send_ms);
            self.overusing_ms = Some(overusing);
            self.overuse_count += 1;
            if overusing > OVERUSE_TIME_MS && self.overuse_count > 1 && trend >= self.previous_trend {
                self.overusing_ms = Some(0.0);
                self.overuse_count = 0;
                self.usage = Usage::Overuse;
            }
        } else {
            self.overusing_ms = None;
            self.overuse_count = 0;
            self.usage = if modified < -self.threshold_ms { Usage::Underuse } else { Usage::Normal };
        }
        self.previous_trend = trend;
        self.adapt_threshold(modified, delta.arrived_ms);
    }

    fn adapt_threshold(&mut self, modified: f64, arrived_ms: f64) {
        let last = self.adapted_at_ms.replace(arrived_ms).unwrap_or(arrived_ms);
        let magnitude = modified.abs();
        if magnitude > self.threshold_ms + MAX_ADAPT_OFFSET_MS {
            return;
        }
        let gain = if magnitude < self.threshold_ms { THRESHOLD_DOWN } else { THRESHOLD_UP };
        let elapsed = (arrived_ms - last).clamp(0.0, 100.0);
        self.threshold_ms += gain * (magnitude - self.threshold_ms) * elapsed;
        self.threshold_ms = self.threshold_ms.clamp(MIN_THRESHOLD_MS, MAX_THRESHOLD_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds groups 20 ms apart, each `extra` ms later than the one before.
    fn feed(trendline: &mut Trendline, from: u32, count: u32, extra: impl Fn(u32) -> f64) -> Vec<Usage> {
        let mut arrived_ms = f64::from(from) * 20.0;
        let mut seen = Vec::new();
        for i in 0..count {
            let arrival_ms = 20.0 + extra(i);
            arrived_ms += arrival_ms;
            trendline.add(GroupDelta { send_ms: 20.0, arrival_ms, arrived_ms });
            seen.push(trendline.usage());
        }
        seen
    }

    #[test]
    fn a_steady_path_is_normal() {
        let seen = feed(&mut Trendline::new(), 0, 200, |_| 0.0);
        assert!(seen.iter().all(|u| *u == Usage::Normal));
    }

    #[test]
    fn jitter_without_trend_is_normal() {
        let seen = feed(&mut Trendline::new(), 0, 500, |i| if i % 2 == 0 { 4.0 } else { -4.0 });
        assert!(seen.iter().all(|u| *u == Usage::Normal));
    }

    #[test]
    fn a_growing_queue_is_overuse_within_half_a_second() {
        let mut trendline = Trendline::new();
        feed(&mut trendline, 0, 60, |_| 0.0);
        let seen = feed(&mut trendline, 60, 25, |_| 5.0);
        assert!(seen.contains(&Usage::Overuse));
    }

    #[test]
    fn a_draining_queue_is_underuse() {
        let mut trendline = Trendline::new();
        feed(&mut trendline, 0, 60, |_| 0.0);
        feed(&mut trendline, 60, 40, |_| 5.0);
        let seen = feed(&mut trendline, 110, 40, |_| -5.0);
        assert_eq!(seen.last(), Some(&Usage::Underuse));
    }
}
