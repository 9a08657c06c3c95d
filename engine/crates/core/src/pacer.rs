//! How many bytes a subscriber may be sent at this flush: a token bucket for media, and the schedule of probes.
//!
//! It spaces nothing by itself and holds no packets. Media passes at once while it stays below [`PACING_FACTOR`] times
//! the estimate and within a burst; what does not fit stays in the track's ring until a later flush. So a frame goes
//! out as one run of segments (which is what makes GSO pay), and a key frame is spread over some ticks.

use std::time::{Duration, Instant};

use crate::bwe::Probe;

/// Media may go out this much faster than the estimate; as in libwebrtc's pacer. Less adds delay to each frame, more
/// fills the queue of the bottleneck.
pub const PACING_FACTOR: f64 = 2.5;
/// While the queue of the bottleneck is to drain: what waits there delays all that follows, and what finds it full is lost.
const DRAIN_FACTOR: f64 = 1.1;
const DRAIN_BURST_BYTES: f64 = 3_000.0;
/// The same over the floor: room for key frames.
const FLOOR_FACTOR: f64 = 2.0;
/// What may go at once, as time at the pacing rate.
const BURST: Duration = Duration::from_millis(40);
/// Least burst in bytes: a run of ten full packets, a usual frame of a 720p layer.
const MIN_BURST_BYTES: f64 = 12_000.0;
/// Media that would wait longer than this is given up by the caller, see [`Pacer::max_queue_bytes`].
const MAX_QUEUE: Duration = Duration::from_millis(500);
/// Probe padding is due this often: fine enough for a stable rate, coarse enough not to wake the worker per packet.
const PROBE_TICK: Duration = Duration::from_millis(2);
/// A probe that could not be sent within this time is given up.
const MAX_PROBE_TIME: Duration = Duration::from_millis(500);

/// The send budget of one subscriber.
#[derive(Debug)]
pub struct Pacer {
    estimate_bps: u64,
    floor_bps: u64,
    is_draining: bool,
    /// What waited here while the bottleneck's queue drained has not gone yet.
    is_catching_up: bool,
    tokens: f64,
    filled_at: Instant,
    probe: Option<ActiveProbe>,
}

#[derive(Debug)]
struct ActiveProbe {
    probe: Probe,
    started_at: Instant,
    sent_bytes: usize,
    sent_packets: usize,
}

impl ActiveProbe {
    fn is_complete(&self) -> bool {
        self.sent_bytes >= self.probe.min_bytes && self.sent_packets >= self.probe.min_packets
    }

    /// Bytes that should have gone by `now` to hold the probe's rate. The first tick's worth goes at once.
    fn due_bytes(&self, now: Instant) -> usize {
        let elapsed = now.saturating_duration_since(self.started_at) + PROBE_TICK;
        (self.probe.bps as f64 / 8.0 * elapsed.as_secs_f64()) as usize
    }
}

impl Pacer {
    /// A full bucket at `estimate_bps`.
    pub fn new(estimate_bps: u64, now: Instant) -> Self {
        let mut pacer = Self {
            estimate_bps,
            floor_bps: 0,
            is_draining: false,
            is_catching_up: false,
            tokens: 0.0,
            filled_at: now,
            probe: None,
        };
        pacer.tokens = pacer.burst_bytes();
        pacer
    }

    /// Follows the estimate of [`SendSideBwe`](crate::bwe::SendSideBwe).
    pub fn set_estimate(&mut self, bps: u64) {
        self.estimate_bps = bps;
        self.tokens = self.tokens.min(self.burst_bytes());
    }

    /// Lets through what the allocator decided to send, also if it is more than the pace. For clients that give no
    /// feedback: their estimate is a cautious guess, and to hold back by a guess would break a picture that may well fit.
    /// Zero: the estimate alone decides.
    pub fn set_floor(&mut self, allocated_bps: u64) {
        self.floor_bps = allocated_bps;
    }

    /// The bottleneck's queue grew and has not emptied yet: no bursts until it has.
    ///
    /// What waits here meanwhile goes no quicker afterwards: at once it would fill that queue again.
    pub fn set_draining(&mut self, is_draining: bool) {
        self.is_catching_up |= self.is_draining && !is_draining;
        self.is_draining = is_draining;
        self.tokens = self.tokens.min(self.burst_bytes());
    }

    /// Nothing waits here any more, or what is lost does not come from a full queue.
    pub fn end_catching_up(&mut self) {
        self.is_catching_up = false;
    }

    fn is_gentle(&self) -> bool {
        self.is_draining || self.is_catching_up
    }

    fn rate_bytes_per_s(&self) -> f64 {
        let pace = self.estimate_bps as f64 * if self.is_gentle() { DRAIN_FACTOR } else { PACING_FACTOR };
        pace.max(self.floor_bps as f64 * FLOOR_FACTOR) / 8.0
    }

    fn burst_bytes(&self) -> f64 {
        let least = if self.is_gentle() { DRAIN_BURST_BYTES } else { MIN_BURST_BYTES };
        (self.rate_bytes_per_s() * BURST.as_secs_f64()).max(least)
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.tokens = (self.tokens + elapsed * self.rate_bytes_per_s()).min(self.burst_bytes());
    }

    /// Bytes of video that may go now. Audio and RTCP are never held back, only charged by [`Pacer::on_sent`].
    ///
    /// Ask once per flush; a packet may be sent while what it leaves is above zero, also if it overdraws.
    pub fn budget(&mut self, now: Instant) -> usize {
        self.fill(now);
        // A probe is best made of media that waits: without padding, and the queue is rid of it.
        let probe = self.probe.as_ref().map_or(0, |p| p.due_bytes(now).saturating_sub(p.sent_bytes));
        (self.tokens.max(0.0) as usize).max(probe)
    }

    /// Charges what was sent, of whatever kind. Debt is bounded to one burst so that audio cannot starve video.
    pub fn on_sent(&mut self, bytes: usize) {
        self.tokens = (self.tokens - bytes as f64).max(-self.burst_bytes());
    }

    /// When the bucket has room again; `None` if it has now.
    pub fn next_media_at(&self) -> Option<Instant> {
        if self.tokens > 0.0 {
            return None;
        }
        let wait = (1.0 - self.tokens) / self.rate_bytes_per_s().max(1.0);
        Some(self.filled_at + Duration::from_secs_f64(wait.min(1.0)))
    }

    /// More than this must not wait for one subscriber: drop the oldest and ask for a key frame.
    pub fn max_queue_bytes(&self) -> usize {
        let bps = self.estimate_bps.max(self.floor_bps) as f64;
        (bps / 8.0 * MAX_QUEUE.as_secs_f64()).max(MIN_BURST_BYTES * 4.0) as usize
    }

    /// Begins a probe; one that is under way is replaced.
    pub fn start_probe(&mut self, probe: Probe, now: Instant) {
        self.probe = Some(ActiveProbe { probe, started_at: now, sent_bytes: 0, sent_packets: 0 });
    }

    /// The cluster that packets sent now belong to; pass it to `SendSideBwe::on_packet_sent`.
    pub fn cluster(&self) -> Option<u8> {
        self.probe.as_ref().map(|p| p.probe.cluster)
    }

    /// Bytes of padding (or RTX of recent packets) to send now to hold the probe's rate; zero if none is due.
    ///
    /// Call after media of this flush went out: media counts towards the probe.
    pub fn padding_budget(&mut self, now: Instant) -> usize {
        let Some(active) = &self.probe else { return 0 };
        if active.is_complete() || now.saturating_duration_since(active.started_at) > MAX_PROBE_TIME {
            self.probe = None;
            return 0;
        }
        active.due_bytes(now).saturating_sub(active.sent_bytes)
    }

    /// Counts a packet of any kind towards the running probe. Ends the probe when it has all it needs.
    pub fn on_probe_packet(&mut self, bytes: usize) {
        let Some(active) = &mut self.probe else { return };
        active.sent_bytes += bytes;
        active.sent_packets += 1;
        if active.is_complete() {
            self.probe = None;
        }
    }

    /// When padding is due next, if a probe runs.
    pub fn next_probe_at(&self, now: Instant) -> Option<Instant> {
        self.probe.as_ref().map(|_| now + PROBE_TICK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn probe(bps: u64, min_bytes: usize) -> Probe {
        Probe { cluster: 1, bps, min_bytes, min_packets: 5 }
    }

    #[test]
    fn a_usual_frame_passes_at_once() {
        let now = Instant::now();
        let mut pacer = Pacer::new(1_000_000, now);
        assert!(pacer.budget(now) >= 12_000);
        pacer.on_sent(8_000);
        assert!(pacer.budget(now) >= 4_000);
    }

    #[test]
    fn the_long_run_rate_is_the_pacing_rate() {
        let start = Instant::now();
        let mut pacer = Pacer::new(800_000, start);
        let mut sent = 0;
        for t in 0..10_000 {
            let mut budget = pacer.budget(start + ms(t)) as i64;
            while budget > 0 {
                pacer.on_sent(1_000);
                sent += 1_000;
                budget -= 1_000;
            }
        }
        let expected = 800_000.0 * PACING_FACTOR / 8.0 * 10.0;
        assert!((sent as f64 / expected - 1.0).abs() < 0.03, "{sent} of {expected}");
    }

    #[test]
    fn the_floor_passes_whatever_the_estimate() {
        let start = Instant::now();
        let mut pacer = Pacer::new(300_000, start);
        pacer.set_floor(4_000_000);
        let held_back = (0..300).filter(|frame| {
            let budget = pacer.budget(start + ms(frame * 33));
            pacer.on_sent(16_500);
            budget == 0
        });
        assert_eq!(held_back.count(), 0);
    }

    #[test]
    fn an_overdrawn_bucket_says_when_it_has_room() {
        let now = Instant::now();
        let mut pacer = Pacer::new(1_000_000, now);
        assert_eq!(pacer.next_media_at(), None);
        let budget = pacer.budget(now);
        pacer.on_sent(budget + 3_125);
        let at = pacer.next_media_at().expect("overdrawn");
        assert!(pacer.budget(at - ms(2)) == 0);
        assert!(pacer.budget(at + ms(1)) > 0);
    }

    #[test]
    fn debt_is_bounded() {
        let now = Instant::now();
        let mut pacer = Pacer::new(100_000, now);
        pacer.on_sent(1_000_000_000);
        assert!(pacer.next_media_at().expect("in debt") <= now + Duration::from_secs(1));
    }

    #[test]
    fn what_waited_while_a_queue_drained_goes_no_quicker_afterwards() {
        let start = Instant::now();
        let mut pacer = Pacer::new(800_000, start);
        let sent_within = |pacer: &mut Pacer, from_ms: u64| {
            let mut sent = 0;
            for t in from_ms..from_ms + 1_000 {
                if pacer.budget(start + ms(t)) > 0 {
                    pacer.on_sent(1_000);
                    sent += 1_000;
                }
            }
            sent
        };
        pacer.set_draining(true);
        sent_within(&mut pacer, 0);
        pacer.set_draining(false);
        let caught_up = sent_within(&mut pacer, 1_000);
        assert!((100_000..=115_000).contains(&caught_up), "{caught_up}");
        pacer.end_catching_up();
        let usual = sent_within(&mut pacer, 2_000);
        assert!(usual >= 240_000, "{usual}");
    }

    #[test]
    fn a_probe_is_spread_over_its_time_and_ends() {
        let start = Instant::now();
        let mut pacer = Pacer::new(300_000, start);
        pacer.start_probe(probe(2_000_000, 6_000), start);
        assert_eq!(pacer.cluster(), Some(1));
        let mut sent_at = Vec::new();
        for t in (0..100).step_by(2) {
            while pacer.padding_budget(start + ms(t)) >= 200 {
                pacer.on_probe_packet(1_000);
                sent_at.push(t);
            }
        }
        assert_eq!(sent_at.len(), 6);
        let last = *sent_at.last().expect("sent");
        assert!((16..=24).contains(&last), "{sent_at:?}");
        assert_eq!(pacer.cluster(), None);
        assert_eq!(pacer.next_probe_at(start), None);
    }

    #[test]
    fn media_replaces_padding_of_a_probe() {
        let start = Instant::now();
        let mut pacer = Pacer::new(300_000, start);
        pacer.start_probe(probe(1_000_000, 6_000), start);
        for _ in 0..5 {
            pacer.on_probe_packet(1_200);
        }
        assert_eq!(pacer.padding_budget(start + ms(40)), 0);
    }

    #[test]
    fn a_probe_that_cannot_be_sent_is_given_up() {
        let start = Instant::now();
        let mut pacer = Pacer::new(300_000, start);
        pacer.start_probe(probe(1_000_000, 6_000), start);
        assert_eq!(pacer.padding_budget(start + ms(501)), 0);
        assert_eq!(pacer.cluster(), None);
    }
}
