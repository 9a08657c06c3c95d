//! What a client's path to us takes, by the times at which its packets left and came: for clients that are told by REMB since
//! they have no transport-wide feedback (draft-alvestrand-rmcat-remb; draft-ietf-rmcat-gcc-02 with the estimator at the
//! receiver).

use std::time::{Duration, Instant};

use super::acked_bitrate::AckedBitrate;
use super::arrival_groups::ArrivalGroups;
use super::rate_control::RateControl;
use super::sent_packets::Acked;
use super::trendline::{Trendline, Usage};

/// The first estimate is at least this: what encoders begin with, so that nobody is told to send less before it is known
/// that the path takes less.
const START_BPS: f64 = 600_000.0;
/// ... and so much more than what comes.
const START_OVER_INCOMING: f64 = 1.5;
const MIN_BPS: f64 = 30_000.0;
/// A rate that fell below this share of what was told is told at once.
const FELL: f64 = 0.97;
/// abs-send-time counts seconds with 18 bits behind the point, modulo 64.
const TICKS_PER_S: i64 = 1 << 18;
/// Bits of abs-send-time.
const TIME_BITS: u32 = 24;
/// A stream that paused for longer is taken up afresh: within it the send time may have come round.
const MAX_PAUSE: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub(crate) struct ReceiveSideBwe {
    epoch: Instant,
    /// Newest send time on the wire, and when that packet left by the client's clock, in microseconds.
    newest: Option<(u32, i64)>,
    arrived_at: Instant,
    incoming: AckedBitrate,
    groups: ArrivalGroups,
    trendline: Trendline,
    rate: Option<RateControl>,
    told_bps: f64,
}

impl ReceiveSideBwe {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            newest: None,
            arrived_at: now,
            incoming: AckedBitrate::new(),
            groups: ArrivalGroups::default(),
            trendline: Trendline::new(),
            rate: None,
            told_bps: 0.0,
        }
    }

    /// A packet of `size` bytes came that left at `send_time` (abs-send-time of its header). `rtt`: to the client.
    pub(crate) fn on_packet(&mut self, now: Instant, send_time: u32, size: usize, rtt: Duration) {
        if now.saturating_duration_since(self.arrived_at) > MAX_PAUSE {
            self.newest = None;
            self.groups = ArrivalGroups::default();
        }
        self.arrived_at = now;
        let now_us = now.saturating_duration_since(self.epoch).as_micros() as i64;
        let size = u16::try_from(size).unwrap_or(u16::MAX);
        let packet = Acked { sent_us: self.sent_us(send_time), arrived_us: now_us, size, cluster: 0 };
        self.incoming.add(now_us, size);
        let Some(delta) = self.groups.add(&packet) else { return };
        self.trendline.add(delta);
        let Some(incoming) = self.incoming.bps() else { return };
        let start = || RateControl::new((incoming * START_OVER_INCOMING).max(START_BPS), MIN_BPS);
        let rate = self.rate.get_or_insert_with(start);
        rate.update(self.trendline.usage(), Some(incoming), false, rtt.as_secs_f64() * 1e3, now_us);
    }

    /// When a packet left on a clock without end.
    fn sent_us(&mut self, send_time: u32) -> i64 {
        let (ticks, us) = match self.newest {
            None => (0, 0),
            Some((newest, us)) => {
                // The nearer way round.
                let ahead = send_time.wrapping_sub(newest) << (32 - TIME_BITS);
                (i64::from(ahead as i32 >> (32 - TIME_BITS)), us)
            }
        };
        let sent_us = us + ticks * 1_000_000 / TICKS_PER_S;
        if ticks > 0 || self.newest.is_none() {
            self.newest = Some((send_time, sent_us));
        }
        sent_us
    }

    /// What the path takes, in bit/s, once that is known; to be told now.
    pub(crate) fn take_estimate(&mut self) -> Option<u64> {
        self.told_bps = self.estimate_bps()?;
        Some(self.told_bps as u64)
    }

    /// True if the path takes clearly less than was told.
    pub(crate) fn has_fallen(&self) -> bool {
        self.told_bps > 0.0
            && self.trendline.usage() == Usage::Overuse
            && self.estimate_bps().is_some_and(|bps| bps < self.told_bps * FELL)
    }

    fn estimate_bps(&self) -> Option<f64> {
        self.rate.as_ref().map(RateControl::estimate_bps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);
    const PACKET: usize = 1_000;

    /// A sender of whatever it is told, and at most `wish_bps`, behind a queue that lets `path_bps` through.
    struct Call {
        now: Instant,
        bwe: ReceiveSideBwe,
        told_bps: u64,
        sent_s: f64,
        free_at_s: f64,
        longest_queue_s: f64,
    }

    impl Call {
        fn new() -> Self {
            let now = Instant::now();
            let bwe = ReceiveSideBwe::new(now);
            // Close to where the clock comes round.
            Self { now, bwe, told_bps: 500_000, sent_s: 60.0, free_at_s: 0.0, longest_queue_s: 0.0 }
        }

        fn run(&mut self, seconds: f64, wish_bps: u64, path_bps: u64) {
            let until = self.sent_s + seconds;
            let mut tell_at = self.sent_s + 1.0;
            self.longest_queue_s = 0.0;
            while self.sent_s < until {
                let bps = self.told_bps.clamp(50_000, wish_bps) as f64;
                self.sent_s += PACKET as f64 * 8.0 / bps;
                self.free_at_s = self.free_at_s.max(self.sent_s) + PACKET as f64 * 8.0 / path_bps as f64;
                self.longest_queue_s = self.longest_queue_s.max(self.free_at_s - self.sent_s);
                let ticks = (self.sent_s * TICKS_PER_S as f64) as u64;
                let at = self.now + Duration::from_secs_f64(self.free_at_s - 60.0);
                self.bwe.on_packet(at, (ticks & 0xff_ffff) as u32, PACKET, RTT);
                if self.sent_s >= tell_at || self.bwe.has_fallen() {
                    self.told_bps = self.bwe.take_estimate().unwrap_or(self.told_bps);
                    tell_at = self.sent_s + 1.0;
                }
            }
        }
    }

    #[test]
    fn a_wide_path_is_found_step_by_step() {
        let mut call = Call::new();
        call.run(30.0, 2_000_000, 10_000_000);
        assert!(call.told_bps > 2_000_000, "{}", call.told_bps);
    }

    #[test]
    fn a_narrow_path_is_not_exceeded_for_long() {
        let mut call = Call::new();
        call.run(20.0, 3_000_000, 800_000);
        call.run(20.0, 3_000_000, 800_000);
        assert!((400_000..900_000).contains(&call.told_bps), "{}", call.told_bps);
        assert!(call.longest_queue_s < 0.5, "{}", call.longest_queue_s);
    }

    #[test]
    fn a_path_that_narrows_is_seen_and_found_again() {
        let mut call = Call::new();
        call.run(20.0, 1_500_000, 5_000_000);
        call.run(5.0, 1_500_000, 400_000);
        call.run(15.0, 1_500_000, 400_000);
        assert!((200_000..450_000).contains(&call.told_bps), "{}", call.told_bps);
        call.run(40.0, 1_500_000, 5_000_000);
        assert!(call.told_bps > 1_000_000, "{}", call.told_bps);
    }

    #[test]
    fn who_sends_little_is_not_told_to_send_less() {
        let mut call = Call::new();
        call.run(60.0, 100_000, 5_000_000);
        assert!(call.told_bps >= 500_000, "{}", call.told_bps);
    }

    #[test]
    fn send_times_that_come_round_or_make_no_sense_break_nothing() {
        let start = Instant::now();
        let mut bwe = ReceiveSideBwe::new(start);
        for n in 0..2_000u32 {
            let time = n.wrapping_mul(0x9e37_79b9) & 0xff_ffff;
            bwe.on_packet(start + Duration::from_millis(u64::from(n)), time, PACKET, RTT);
            assert!(bwe.take_estimate().is_none_or(|bps| bps >= MIN_BPS as u64));
        }
    }
}
