//! Bit rate and frame rate of a layer.

use std::time::{Duration, Instant};

/// One figure is of so long at least.
const WINDOW: Duration = Duration::from_millis(500);
/// Windows of which the median counts, so that up to two with a key frame (or a scene that costs more) do not look like a
/// layer that no longer fits. While nothing comes there are no windows: of a paused layer the rate is remembered.
const WINDOWS: usize = 5;
/// Temporal layers that are told apart.
pub(crate) const TEMPORALS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    bytes: [u64; TEMPORALS],
    frames: u32,
}

/// Counts bytes by temporal layer, and frames.
#[derive(Debug)]
pub(crate) struct LayerMeter {
    began_at: Option<Instant>,
    running: Sums,
    /// Bit/s of the last full windows, in a ring; `full` of them there were in all.
    windows: [[u64; TEMPORALS]; WINDOWS],
    full: usize,
    /// Their medians.
    bps: [u64; TEMPORALS],
    /// Frames/s of the last one.
    fps: u8,
    /// Highest temporal layer seen, plus one.
    temporals: u8,
}

impl LayerMeter {
    pub(crate) fn new() -> Self {
        let windows = [[0; TEMPORALS]; WINDOWS];
        Self { began_at: None, running: Sums::default(), windows, full: 0, bps: [0; TEMPORALS], fps: 0, temporals: 1 }
    }

    /// A packet of `bytes` came; `is_frame_end`: it is the last one of its frame.
    pub(crate) fn on_packet(&mut self, now: Instant, temporal: u8, bytes: usize, is_frame_end: bool) {
        self.roll(now);
        let temporal = usize::from(temporal).min(TEMPORALS - 1);
        self.temporals = self.temporals.max(temporal as u8 + 1);
        self.running.bytes[temporal] += bytes as u64;
        self.running.frames += u32::from(is_frame_end);
    }

    fn roll(&mut self, now: Instant) {
        let began_at = *self.began_at.get_or_insert(now);
        let elapsed = now.saturating_duration_since(began_at);
        if elapsed < WINDOW {
            return;
        }
        let seconds = elapsed.as_secs_f64();
        let mut bytes = 0;
        let window = &mut self.windows[self.full % WINDOWS];
        self.full += 1;
        for (sum, bps) in self.running.bytes.iter().zip(window) {
            bytes += sum;
            *bps = (bytes as f64 * 8.0 / seconds) as u64;
        }
        self.bps = self.medians();
        self.fps = (f64::from(self.running.frames) / seconds).round().min(255.0) as u8;
        self.running = Sums::default();
        self.began_at = Some(now);
    }

    fn medians(&self) -> [u64; TEMPORALS] {
        let count = self.full.min(WINDOWS);
        let mut medians = [0; TEMPORALS];
        for (temporal, median) in medians.iter_mut().enumerate() {
            let mut known: [u64; WINDOWS] = self.windows.map(|window| window[temporal]);
            known[..count].sort_unstable();
            // Of two the lower: the first one has the key frame with which a layer begins.
            *median = known[(count - 1) / 2];
        }
        medians
    }

    /// Bit/s up to each temporal layer, lower ones included; zero before the first window is full.
    pub(crate) fn bps(&self) -> [u64; TEMPORALS] {
        self.bps
    }

    pub(crate) fn fps(&self) -> u8 {
        self.fps
    }

    pub(crate) fn temporals(&self) -> u8 {
        self.temporals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames of 8 kB, 25 of them a second, but for some; the rates seen after each second.
    fn seconds(count: u64, size: impl Fn(u64) -> usize) -> Vec<u64> {
        let start = Instant::now();
        let mut meter = LayerMeter::new();
        let mut seen = Vec::new();
        for n in 0..=count * 25 {
            meter.on_packet(start + Duration::from_millis(n * 40), 0, size(n), true);
            if n > 0 && n % 25 == 0 {
                seen.push(meter.bps()[0] / 1_000);
            }
        }
        seen
    }

    #[test]
    fn key_frames_are_no_larger_rate() {
        let seen = seconds(10, |n| if n % 50 == 0 { 80_000 } else { 8_000 });
        assert!(seen[1..].iter().all(|kbps| (1_500..1_700).contains(kbps)), "{seen:?}");
    }

    #[test]
    fn a_key_frame_just_before_a_pause_is_not_what_is_remembered() {
        let seen = seconds(4, |n| if n >= 90 { 24_000 } else { 8_000 });
        assert_eq!(seen.last(), Some(&1_600), "{seen:?}");
    }

    #[test]
    fn a_larger_rate_is_seen_within_two_seconds() {
        let seen = seconds(8, |n| if n < 100 { 4_000 } else { 8_000 });
        assert_eq!((seen[3], seen[5]), (800, 1_600), "{seen:?}");
    }

    #[test]
    fn higher_temporal_layers_include_lower_ones() {
        let start = Instant::now();
        let mut meter = LayerMeter::new();
        for n in 0..60u64 {
            let now = start + Duration::from_millis(n * 33);
            meter.on_packet(now, (n % 2) as u8, 1_000, true);
        }
        let bps = meter.bps();
        assert!((110_000..135_000).contains(&bps[0]), "{bps:?}");
        assert!((225_000..265_000).contains(&bps[1]), "{bps:?}");
        assert_eq!((bps[3], meter.temporals()), (bps[1], 2));
        assert!((29..=31).contains(&meter.fps()));
    }
}
