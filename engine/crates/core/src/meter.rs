//! Bit rate and frame rate of a layer, over the last half second to second.

use std::time::{Duration, Instant};

/// Rates are read over one to two of these: long enough for a steady figure, short enough that a layer that starts or
/// stops is seen in time.
const WINDOW: Duration = Duration::from_millis(500);
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
    /// Bit/s and frames/s of the last full window.
    bps: [u64; TEMPORALS],
    fps: u8,
    /// Highest temporal layer seen, plus one.
    temporals: u8,
}

impl LayerMeter {
    pub(crate) fn new() -> Self {
        Self { began_at: None, running: Sums::default(), bps: [0; TEMPORALS], fps: 0, temporals: 1 }
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
        for (sum, bps) in self.running.bytes.iter().zip(&mut self.bps) {
            bytes += sum;
            *bps = (bytes as f64 * 8.0 / seconds) as u64;
        }
        self.fps = (f64::from(self.running.frames) / seconds).round().min(255.0) as u8;
        self.running = Sums::default();
        self.began_at = Some(now);
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
