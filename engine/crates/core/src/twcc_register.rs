//! Receive side of transport-wide congestion control: which packets came when, and the feedback about them.
//!
//! One per transport that sends to us (draft-holmer-rmcat-transport-wide-cc-extensions-01). Reported packets are kept
//! for a while, so that one that comes late is reported with all after it again; senders take the repetition.

use std::time::{Duration, Instant};

use mrtc_rtp::id::SeqNo;
use mrtc_rtp::seq::SeqExtender;

/// Packets that are remembered, unreported and reported together. At 100 ms of feedback interval it lasts for 20,000
/// packets/s; beyond that the oldest go unreported.
const WINDOW: usize = 2048;
/// Packets covered by one feedback, so that it fits a datagram also with all deltas large.
const MAX_PER_FEEDBACK: u64 = 512;
/// How far back a late packet may reopen what was reported.
const MAX_LATE: u64 = 256;
/// Feedback is sent this often while packets come. Chromium's own is 50 to 250 ms by bandwidth.
const INTERVAL: Duration = Duration::from_millis(100);
/// ... and earlier when so many packets wait: at high rates the estimator reacts sooner, at about the same cost.
const EARLY_COUNT: u64 = 48;
/// But never sooner than this.
const MIN_INTERVAL: Duration = Duration::from_millis(50);

/// Not received.
const NEVER: u64 = 0;

/// Arrivals of one transport.
#[derive(Debug)]
pub struct TwccRegister {
    epoch: Instant,
    extender: SeqExtender,
    /// Arrival in microseconds since the epoch, plus 1; index is the extended sequence number modulo the window.
    arrivals: Vec<u64>,
    /// First extended number of the next feedback.
    base: u64,
    /// One past the highest received.
    end: u64,
    has_news: bool,
    last_feedback_at: Instant,
    feedback_count: u8,
}

/// What one feedback packet says.
#[derive(Debug)]
pub struct TwccFeedback<'a> {
    register: &'a TwccRegister,
    base: u64,
    end: u64,
    /// Counts feedback packets, wraps.
    pub feedback_count: u8,
}

impl TwccFeedback<'_> {
    /// Of the first packet told about. At least one of the packets is a received one.
    pub fn base_seq(&self) -> SeqNo {
        SeqNo(self.base as u16)
    }

    /// Number of packets told about, lost and received, at most 512.
    pub fn len(&self) -> usize {
        (self.end - self.base) as usize
    }

    /// Never true.
    pub fn is_empty(&self) -> bool {
        self.end == self.base
    }

    /// Sequence number and arrival in microseconds since the register's creation; `None`: not received.
    pub fn packets(&self) -> impl Iterator<Item = (SeqNo, Option<u64>)> + '_ {
        (self.base..self.end).map(|seq| (SeqNo(seq as u16), self.register.arrival(seq)))
    }
}

impl TwccRegister {
    /// Nothing received; arrivals are counted from `now` on. The window is allocated with the first packet.
    pub fn new(now: Instant) -> Self {
        Self {
            epoch: now,
            extender: SeqExtender::new(),
            arrivals: Vec::new(),
            base: 0,
            end: 0,
            has_news: false,
            last_feedback_at: now,
            feedback_count: 0,
        }
    }

    /// A packet with the transport-wide number `seq` came.
    pub fn on_packet(&mut self, seq: SeqNo, now: Instant) {
        if self.arrivals.is_empty() {
            self.arrivals = vec![NEVER; WINDOW];
        }
        let ext = self.extender.extend(seq).0;
        if self.end == 0 {
            self.base = ext;
            self.end = ext;
        }
        if ext >= self.end {
            self.advance(ext);
        } else if ext + MAX_LATE < self.base || ext + WINDOW as u64 <= self.end {
            return;
        }
        let slot = &mut self.arrivals[ext as usize % WINDOW];
        if *slot != NEVER {
            return;
        }
        *slot = now.saturating_duration_since(self.epoch).as_micros() as u64 + 1;
        self.base = self.base.min(ext);
        self.has_news = true;
    }

    /// Moves the end past `ext` and forgets what falls out of the window.
    fn advance(&mut self, ext: u64) {
        if ext - self.end >= WINDOW as u64 {
            self.arrivals.fill(NEVER);
            self.base = ext;
        } else {
            for seq in self.end..=ext {
                self.arrivals[seq as usize % WINDOW] = NEVER;
            }
        }
        self.end = ext + 1;
        self.base = self.base.max(self.end.saturating_sub(WINDOW as u64));
    }

    fn arrival(&self, seq: u64) -> Option<u64> {
        self.arrivals[seq as usize % WINDOW].checked_sub(1)
    }

    /// The next feedback if one is due. Call again until `None`.
    pub fn poll_feedback(&mut self, now: Instant) -> Option<TwccFeedback<'_>> {
        if now < self.next_timeout()? {
            return None;
        }
        let Some(first) = (self.base..self.end).find(|&seq| self.arrival(seq).is_some()) else {
            self.has_news = false;
            return None;
        };
        // What was lost before the first received one is told too, but no longer than leaves room for received ones.
        let base = self.base.max(first.saturating_sub(MAX_PER_FEEDBACK / 2));
        let limit = self.end.min(base + MAX_PER_FEEDBACK);
        let end = (base..limit).rev().find(|&seq| self.arrival(seq).is_some()).map_or(limit, |seq| seq + 1);
        self.base = end;
        let is_done = end == self.end;
        self.has_news = !is_done;
        if is_done {
            self.last_feedback_at = now;
        }
        let feedback_count = self.feedback_count;
        self.feedback_count = feedback_count.wrapping_add(1);
        Some(TwccFeedback { register: self, base, end, feedback_count })
    }

    /// When feedback is due; `None` while there is nothing to tell.
    pub fn next_timeout(&self) -> Option<Instant> {
        let interval = if self.end - self.base >= EARLY_COUNT { MIN_INTERVAL } else { INTERVAL };
        self.has_news.then(|| self.last_feedback_at + interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn told(register: &mut TwccRegister, now: Instant) -> Vec<(u16, Option<u64>)> {
        let mut all = Vec::new();
        while let Some(feedback) = register.poll_feedback(now) {
            all.extend(feedback.packets().map(|(seq, at)| (seq.0, at)));
        }
        all
    }

    #[test]
    fn tells_arrivals_and_gaps_after_the_interval() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        register.on_packet(SeqNo(10), start + ms(1));
        register.on_packet(SeqNo(12), start + ms(3));
        assert!(register.poll_feedback(start + ms(99)).is_none());
        assert_eq!(told(&mut register, start + ms(100)), [(10, Some(1000)), (11, None), (12, Some(3000))]);
        assert!(register.poll_feedback(start + ms(500)).is_none());
        assert_eq!(register.next_timeout(), None);
    }

    #[test]
    fn loss_at_the_border_is_told_with_the_next_arrival() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        register.on_packet(SeqNo(1), start);
        told(&mut register, start + ms(100));
        register.on_packet(SeqNo(4), start + ms(110));
        assert_eq!(told(&mut register, start + ms(200)), [(2, None), (3, None), (4, Some(110_000))]);
    }

    #[test]
    fn a_late_packet_reopens_what_was_told() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        for seq in [1, 2, 4] {
            register.on_packet(SeqNo(seq), start + ms(u64::from(seq)));
        }
        told(&mut register, start + ms(100));
        register.on_packet(SeqNo(3), start + ms(120));
        assert_eq!(told(&mut register, start + ms(200)), [(3, Some(120_000)), (4, Some(4_000))]);
    }

    #[test]
    fn goes_on_over_the_wrap() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        for seq in [65_534, 65_535, 0, 1] {
            register.on_packet(SeqNo(seq), start);
        }
        let seqs: Vec<u16> = told(&mut register, start + ms(100)).into_iter().map(|(s, _)| s).collect();
        assert_eq!(seqs, [65_534, 65_535, 0, 1]);
    }

    #[test]
    fn many_packets_make_it_earlier_and_split() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        for seq in 0..1200 {
            register.on_packet(SeqNo(seq), start + ms(1));
        }
        let mut lengths = Vec::new();
        while let Some(feedback) = register.poll_feedback(start + ms(50)) {
            lengths.push(feedback.len());
        }
        assert_eq!(lengths, [512, 512, 176]);
    }

    #[test]
    fn duplicates_keep_the_first_arrival() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        register.on_packet(SeqNo(7), start + ms(1));
        register.on_packet(SeqNo(7), start + ms(9));
        assert_eq!(told(&mut register, start + ms(100)), [(7, Some(1000))]);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_told_once_in_order(seqs in prop::collection::vec(any::<u16>(), 1..300)) {
            let start = Instant::now();
            let mut register = TwccRegister::new(start);
            for (i, seq) in seqs.iter().enumerate() {
                register.on_packet(SeqNo(*seq), start + ms(i as u64));
            }
            let mut feedbacks = 0;
            while let Some(feedback) = register.poll_feedback(start + ms(1000)) {
                prop_assert!(!feedback.is_empty() && feedback.len() <= 512);
                prop_assert_eq!(feedback.packets().next().map(|p| p.0), Some(feedback.base_seq()));
                prop_assert!(feedback.packets().any(|p| p.1.is_some()));
                feedbacks += 1;
                prop_assert!(feedbacks <= WINDOW);
            }
            prop_assert!(feedbacks > 0);
        }
    }
}
