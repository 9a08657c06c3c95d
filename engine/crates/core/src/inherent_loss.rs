//! Loss that a publisher's path has at any rate, and how much of it transport-wide feedback keeps to itself.
//!
//! libwebrtc lowers its rate for as long as a tenth or more is lost: at 40 % of random loss its picture ends with 30 kbit/s
//! and two frames a second, though everything lost is fetched again. A sender that is told of loss slows down within
//! a second. What is still lost after two is not caused by its rate, and to tell it on and on only ends the picture.
//!
//! So the least loss of the last seconds counts as inherent, and of it only [`TOLD`] is told; of the other lost packets
//! feedback says nothing. Loss beyond it, which a full path adds, is told whole, and a queue shows as ever, by the times of
//! arrival.

use std::time::{Duration, Instant};

/// What is told of inherent loss: libwebrtc takes so much for inherent by itself.
const TOLD: f32 = 0.05;
/// Loss is measured over this time ...
const WINDOW: Duration = Duration::from_millis(600);
/// ... and so many packets at least: fewer scatter too much.
const MIN_PACKETS: u32 = 30;
/// The least of so many windows counts: longer than senders need to slow down, shorter than libwebrtc remembers.
const WINDOWS: usize = 3;
/// The least of a few random figures lies about as much below their mean; in standard deviations.
const SCATTER: f32 = 1.3;
/// More is no path that a call can stand on.
const MAX_INHERENT: f32 = 0.5;
/// Most that is saved up, in packets: a burst is told.
const MAX_CREDIT: f32 = 6.0;

/// See the module. One per transport that sends to us.
#[derive(Debug)]
pub(crate) struct InherentLoss {
    since: Instant,
    packets: u32,
    lost: u32,
    /// Loss of the last windows, as high as chance allows.
    recent: [f32; WINDOWS],
    /// Lost packets that may be kept back, in fractions of one.
    credit: f32,
}

impl InherentLoss {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, packets: 0, lost: 0, recent: [0.0; WINDOWS], credit: 0.0 }
    }

    /// Share of packets that are lost at any rate, 0 to 1.
    fn share(&self) -> f32 {
        self.recent.iter().copied().fold(MAX_INHERENT, f32::min)
    }

    /// Closes the window if it is long enough; to be called once in a while.
    pub(crate) fn review(&mut self, now: Instant) {
        if now < self.since + WINDOW || self.packets < MIN_PACKETS {
            return;
        }
        let packets = self.packets as f32;
        let loss = self.lost as f32 / packets;
        self.recent.rotate_right(1);
        self.recent[0] = loss + SCATTER * (loss * (1.0 - loss) / packets).sqrt();
        (self.since, self.packets, self.lost) = (now, 0, 0);
    }

    /// A packet came.
    pub(crate) fn on_received(&mut self) {
        self.packets += 1;
        self.earn(1.0);
    }

    /// So many packets are missing in a row. False if nothing is told of them.
    pub(crate) fn is_told(&mut self, count: u64) -> bool {
        let count = count.min(u64::from(u16::MAX)) as u32;
        self.packets += count;
        self.lost += count;
        self.earn(count as f32);
        let is_told = self.credit < count as f32;
        if !is_told {
            self.credit -= count as f32;
        }
        is_told
    }

    fn earn(&mut self, packets: f32) {
        self.credit = (self.credit + packets * (self.share() - TOLD).max(0.0)).min(MAX_CREDIT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends 100 packets a second, of which `loss(second)` are lost at random; share told by second.
    fn told(seconds: u32, loss: impl Fn(u32) -> f64) -> Vec<f64> {
        let start = Instant::now();
        let mut inherent = InherentLoss::new(start);
        let mut random = mrtc_netem::Rng::new(5);
        let second = |second: u32| {
            let mut told = 0;
            for n in 0..100 {
                inherent.review(start + Duration::from_secs(second.into()) + Duration::from_millis(10 * n));
                if random.unit() < loss(second) {
                    told += u32::from(inherent.is_told(1));
                } else {
                    inherent.on_received();
                }
            }
            f64::from(told) / 100.0
        };
        (0..seconds).map(second).collect()
    }

    fn mean(shares: &[f64]) -> f64 {
        shares.iter().sum::<f64>() / shares.len() as f64
    }

    #[test]
    fn loss_that_stays_is_hardly_told() {
        for loss in [0.1, 0.2, 0.4] {
            let told = told(30, |_| loss);
            assert!(mean(&told[..3]) > 0.6 * loss, "at first it is told: {told:?}");
            assert!(mean(&told[6..]) < 0.09, "{loss}: {told:?}");
            assert!(mean(&told[6..]) > 0.02, "{loss}: {told:?}");
        }
    }

    #[test]
    fn a_little_loss_is_told_as_it_is() {
        assert!(mean(&told(30, |_| 0.04)) > 0.03);
    }

    #[test]
    fn loss_that_ends_when_the_sender_slows_down_is_told_whole() {
        // A full path: half is lost for two seconds, until the sender is slower, and again when it tries more.
        let loss = |second: u32| if second % 6 < 2 { 0.5 } else { 0.0 };
        let told = told(60, loss);
        assert!((0.14..0.19).contains(&mean(&told)), "{told:?}");
    }

    #[test]
    fn a_full_path_shows_through_inherent_loss() {
        let told = told(20, |second| if second < 15 { 0.2 } else { 0.5 });
        assert!(mean(&told[15..17]) > 0.25, "{told:?}");
    }
}
