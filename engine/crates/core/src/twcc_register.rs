//! Receive side of transport-wide congestion control: which packets came when, and the feedback about them.
//!
//! One per transport that sends to us (draft-holmer-rmcat-transport-wide-cc-extensions-01). Reported packets are kept
//! for a while, so that one that comes late is reported with all after it again; senders take the repetition.

use std::ops::Range;
use std::time::{Duration, Instant};

use mrtc_rtp::id::{ExtSeq, SeqNo, Ssrc};
use mrtc_rtp::rtcp::twcc::{TICK_US, TransportCcBuilder};
use mrtc_rtp::seq::SeqExtender;

use crate::inherent_loss::InherentLoss;

/// Packets that are remembered, unreported and reported together. At 100 ms of feedback interval it lasts for 20,000
/// packets/s; beyond that the oldest go unreported.
const WINDOW: usize = 2048;
/// Longest feedback in bytes: it shares a datagram with receiver reports.
const MAX_FEEDBACK_BYTES: usize = 1000;
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
/// Not received, and nothing is told of it.
const UNTOLD: u64 = u64::MAX;

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
    /// After this one it is not settled what is told of losses.
    settled: u64,
    inherent: InherentLoss,
    /// What nothing was told of, at most. From the first number on, up to where all is complete.
    untold: u32,
    untold_from: u64,
    complete_to: u64,
    has_news: bool,
    last_feedback_at: Instant,
    feedback_count: u8,
    builder: TransportCcBuilder,
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
            settled: 0,
            untold: 0,
            untold_from: 0,
            complete_to: 0,
            inherent: InherentLoss::new(now),
            has_news: false,
            last_feedback_at: now,
            feedback_count: 0,
            builder: TransportCcBuilder::new(SeqNo(0), 0, MAX_FEEDBACK_BYTES),
        }
    }

    /// Tells all losses, as a browser does that receives.
    #[cfg(test)]
    pub fn telling_all(mut self) -> Self {
        self.inherent = InherentLoss::new(self.epoch + Duration::from_secs(1_000_000));
        self
    }

    /// A packet with the transport-wide number `seq` came; the number, extended.
    pub fn on_packet(&mut self, seq: SeqNo, now: Instant) -> ExtSeq {
        let ext = self.extender.extend(seq);
        self.take(ext.0, now);
        ext
    }

    fn take(&mut self, ext: u64, now: Instant) {
        if self.arrivals.is_empty() {
            self.arrivals = vec![NEVER; WINDOW];
        }
        if self.end == 0 {
            self.base = ext;
            self.end = ext;
            self.settled = ext;
        }
        if ext >= self.end {
            self.advance(ext);
        } else if ext + MAX_LATE < self.base || ext + WINDOW as u64 <= self.end {
            return;
        }
        let slot = &mut self.arrivals[ext as usize % WINDOW];
        if arrival_of(*slot).is_some() {
            return;
        }
        self.untold -= u32::from(*slot == UNTOLD);
        *slot = now.saturating_duration_since(self.epoch).as_micros() as u64 + 1;
        self.base = self.base.min(ext);
        self.has_news = true;
    }

    /// Moves the end past `ext` and forgets what falls out of the window.
    fn advance(&mut self, ext: u64) {
        if ext - self.end >= WINDOW as u64 {
            self.arrivals.fill(NEVER);
            self.untold = 0;
            self.base = ext;
        } else {
            for seq in self.end..=ext {
                let entry = std::mem::replace(&mut self.arrivals[seq as usize % WINDOW], NEVER);
                self.untold -= u32::from(entry == UNTOLD);
            }
        }
        self.end = ext + 1;
        self.base = self.base.max(self.end.saturating_sub(WINDOW as u64));
    }

    fn arrival(&self, seq: u64) -> Option<u64> {
        arrival_of(self.arrivals[seq as usize % WINDOW])
    }

    /// Appends the next RTCP feedback packet to `out` if one is due; call again until false.
    ///
    /// `sender` is our SSRC, `media` any of the transport's streams.
    pub fn write_feedback(&mut self, now: Instant, sender: Ssrc, media: Ssrc, out: &mut Vec<u8>) -> bool {
        if self.next_timeout().is_none_or(|at| now < at) {
            return false;
        }
        self.settle(now);
        if self.fill_with_complete(now) {
            self.write(sender, media, out);
            return true;
        }
        let Some(first) = self.first_to_tell() else {
            self.has_news = false;
            return false;
        };
        self.base = self.fill_builder(first);
        self.write(sender, media, out);
        self.has_news = (self.base..self.end).any(|seq| self.arrival(seq).is_some());
        if !self.has_news {
            self.last_feedback_at = now;
        }
        true
    }

    fn write(&mut self, sender: Ssrc, media: Ssrc, out: &mut Vec<u8>) {
        self.builder.write(out, sender, media, self.feedback_count);
        self.feedback_count = self.feedback_count.wrapping_add(1);
    }

    /// Settles which of the new gaps are told. Of others no feedback says anything: one ends before it, and the next
    /// begins after it. To tell them as received would be simpler, but libwebrtc then forgets the packets and could not
    /// send them again.
    fn settle(&mut self, now: Instant) {
        self.inherent.review(now);
        self.settled = self.settled.max(self.end.saturating_sub(WINDOW as u64));
        let mut before = self.settled;
        for seq in self.settled + 1..self.end {
            if self.arrival(seq).is_none() {
                continue;
            }
            let gap = before + 1..seq;
            if !gap.is_empty() && !self.inherent.is_told(gap.end - gap.start) {
                self.keep_back(gap);
            }
            self.inherent.on_received();
            before = seq;
        }
        // The highest received: where the next gap begins.
        self.settled = self.settled.max(self.end.saturating_sub(1));
    }

    fn keep_back(&mut self, gap: Range<u64>) {
        if self.untold == 0 {
            self.untold_from = gap.start;
        }
        self.untold += (gap.end - gap.start) as u32;
        gap.for_each(|lost| self.arrivals[lost as usize % WINDOW] = UNTOLD);
    }

    /// True if lost packets were kept back.
    pub fn has_untold(&self) -> bool {
        self.untold > 0
    }

    /// All media up to this number is here or was given up: what was kept back of it is told as received.
    pub fn take_complete(&mut self, number: u64) {
        self.complete_to = number;
    }

    /// Puts what is complete by now into the builder, as far as it follows on each other without a loss that was told;
    /// false if there is none.
    fn fill_with_complete(&mut self, now: Instant) -> bool {
        self.untold_from = self.untold_from.max(self.end.saturating_sub(WINDOW as u64));
        let ticks = now.saturating_duration_since(self.epoch).as_micros() as i64 / TICK_US;
        let mut is_begun = false;
        while self.untold > 0 && self.untold_from < self.complete_to {
            let seq = self.untold_from;
            let is_lost = self.arrivals[seq as usize % WINDOW] == NEVER;
            if is_begun && is_lost {
                break;
            }
            if self.is_untold(seq) {
                if !is_begun {
                    self.builder.begin(SeqNo(seq as u16), ticks);
                } else if !self.builder.push(SeqNo(seq as u16), ticks) {
                    break;
                }
                is_begun = true;
                self.untold -= 1;
                self.arrivals[seq as usize % WINDOW] = (ticks * TICK_US) as u64 + 1;
            }
            self.untold_from += 1;
        }
        is_begun
    }

    fn is_untold(&self, seq: u64) -> bool {
        self.arrivals[seq as usize % WINDOW] == UNTOLD
    }

    /// A feedback begins with a received packet. If the next one is missing, the one before is told again, so that the
    /// loss is told as well.
    fn first_to_tell(&self) -> Option<u64> {
        let received = (self.base..self.end).find(|&seq| self.arrival(seq).is_some())?;
        let before = self.base.wrapping_sub(1);
        let is_loss_at_border = received > self.base
            && received - self.base <= MAX_LATE
            && !self.is_untold(self.base)
            && before + WINDOW as u64 > self.end
            && self.arrival(before).is_some();
        Some(if is_loss_at_border { before } else { received })
    }

    /// Puts arrivals from `first` on into the builder until it is full; where to go on.
    fn fill_builder(&mut self, first: u64) -> u64 {
        let ticks = |us: u64| us as i64 / TICK_US;
        let mut next = first;
        for seq in first..self.end {
            let Some(us) = self.arrival(seq) else { continue };
            if seq == first {
                self.builder.begin(SeqNo(seq as u16), ticks(us));
            } else if self.is_untold(seq - 1) || !self.builder.push(SeqNo(seq as u16), ticks(us)) {
                break;
            }
            next = seq + 1;
        }
        next
    }

    /// When feedback is due; `None` while there is nothing to tell.
    pub fn next_timeout(&self) -> Option<Instant> {
        let interval = if self.end - self.base >= EARLY_COUNT { MIN_INTERVAL } else { INTERVAL };
        self.has_news.then(|| self.last_feedback_at + interval)
    }
}

/// The time in an entry, if it is one.
fn arrival_of(entry: u64) -> Option<u64> {
    entry.checked_sub(1).filter(|_| entry != UNTOLD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mrtc_rtp::rtcp::{self, Rtcp};
    use proptest::prelude::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// Parses one feedback: sequence numbers and arrivals in microseconds.
    fn parse(bytes: &[u8]) -> Vec<(u16, Option<i64>)> {
        let Some(Ok(Rtcp::TransportCc(feedback))) = rtcp::parse(bytes).next() else { panic!("no feedback") };
        crate::bwe::packets_of(&feedback).map(|p| (p.seq, p.arrived_at_us)).collect()
    }

    fn told_each(register: &mut TwccRegister, now: Instant) -> Vec<Vec<(u16, Option<i64>)>> {
        let mut all = Vec::new();
        let mut out = Vec::new();
        while register.write_feedback(now, Ssrc(1), Ssrc(2), &mut out) {
            all.push(parse(&out));
            out.clear();
        }
        all
    }

    fn told(register: &mut TwccRegister, now: Instant) -> Vec<(u16, Option<i64>)> {
        told_each(register, now).concat()
    }

    #[test]
    fn tells_arrivals_and_gaps_after_the_interval() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        register.on_packet(SeqNo(10), start + ms(1));
        register.on_packet(SeqNo(12), start + ms(3));
        assert!(told(&mut register, start + ms(99)).is_empty());
        assert_eq!(told(&mut register, start + ms(100)), [(10, Some(1000)), (11, None), (12, Some(3000))]);
        assert!(told(&mut register, start + ms(500)).is_empty());
        assert_eq!(register.next_timeout(), None);
    }

    #[test]
    fn loss_at_the_border_is_told_with_the_next_arrival() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        register.on_packet(SeqNo(1), start);
        told(&mut register, start + ms(100));
        register.on_packet(SeqNo(4), start + ms(110));
        assert_eq!(told(&mut register, start + ms(200)), [(1, Some(0)), (2, None), (3, None), (4, Some(110_000))]);
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
        assert!(told(&mut register, start + ms(49)).is_empty());
        let each = told_each(&mut register, start + ms(50));
        assert!(each.len() > 1);
        assert_eq!(each.concat().len(), 1200);
    }

    #[test]
    fn a_pause_that_no_delta_can_tell_begins_another_feedback() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        register.on_packet(SeqNo(1), start);
        register.on_packet(SeqNo(2), start + ms(20_000));
        let each = told_each(&mut register, start + ms(20_000));
        assert_eq!(each, [vec![(1, Some(0))], vec![(2, Some(20_000_000))]]);
    }

    #[test]
    fn duplicates_keep_the_first_arrival() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        register.on_packet(SeqNo(7), start + ms(1));
        register.on_packet(SeqNo(7), start + ms(9));
        assert_eq!(told(&mut register, start + ms(100)), [(7, Some(1000))]);
    }

    /// Half of the packets are lost; what each of some later seconds tells as lost, as a share.
    fn told_lost(half: impl Fn(u64) -> bool) -> Vec<f64> {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        let mut shares = Vec::new();
        for second in 0..20u64 {
            let mut feedback = Vec::new();
            for n in second * 100..(second + 1) * 100 {
                let now = start + ms(n * 10);
                if !half(n) {
                    register.on_packet(SeqNo(n as u16), now);
                }
                feedback.extend(told(&mut register, now));
            }
            let lost = feedback.iter().filter(|(_, at)| at.is_none()).count();
            shares.push(lost as f64 / feedback.len() as f64);
        }
        shares
    }

    #[test]
    fn loss_that_stays_is_told_at_first_and_hardly_later() {
        let shares = told_lost(|n| n % 5 == 2);
        assert!(shares[..2].iter().all(|s| *s > 0.15), "{shares:?}");
        assert!(shares[6..].iter().all(|s| *s < 0.08), "{shares:?}");
    }

    #[test]
    fn an_outage_is_told() {
        let shares = told_lost(|n| n > 1_000 && n % 100 < 40);
        assert!(shares[15] > 0.3, "{shares:?}");
    }

    #[test]
    fn nothing_is_told_as_received_that_was_not() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        let is_lost = |n: u16| n % 4 == 1;
        let mut feedback = Vec::new();
        for n in 0..3_000u16 {
            let now = start + ms(u64::from(n) * 10);
            if !is_lost(n) {
                register.on_packet(SeqNo(n), now);
            }
            feedback.extend(told(&mut register, now));
        }
        assert!(feedback.iter().all(|(n, at)| at.is_some() != is_lost(*n)));
        let untold = (0..2_990).filter(|n| !feedback.iter().any(|(told, _)| told == n)).count();
        assert!(untold > 300, "{untold}");
    }

    #[test]
    fn what_was_fetched_again_is_told_once_as_received() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        let mut feedback = Vec::new();
        for n in 0..4_000u64 {
            let now = start + ms(n * 10);
            if n % 4 != 1 {
                let newest = register.on_packet(SeqNo(n as u16), now);
                register.take_complete(newest.0.saturating_sub(60));
            }
            feedback.extend(told(&mut register, now));
        }
        let received = |n: u64| feedback.iter().filter(|(told, at)| u64::from(*told) == n && at.is_some()).count();
        let lost = |n: u64| feedback.iter().any(|(told, at)| u64::from(*told) == n && at.is_none());
        let again: Vec<u64> = (600..3_900).filter(|n| n % 4 == 1 && received(*n) > 0).collect();
        assert!(again.len() > 600, "{}", again.len());
        assert!(again.iter().all(|n| received(*n) == 1 && !lost(*n)), "{again:?}");
        assert!((0..3_900).filter(|n| n % 4 != 1).all(|n| received(n) > 0));
    }

    #[test]
    fn a_packet_that_comes_late_after_all_is_told() {
        let start = Instant::now();
        let mut register = TwccRegister::new(start);
        for n in 0..1_000u16 {
            if n % 4 != 1 {
                register.on_packet(SeqNo(n), start + ms(u64::from(n) * 10));
            }
            told(&mut register, start + ms(u64::from(n) * 10));
        }
        let end = start + ms(10_100);
        told(&mut register, end);
        (0..10).map(|n| 961 + n * 4).for_each(|n| {
            register.on_packet(SeqNo(n), end);
        });
        let late: Vec<u16> =
            told(&mut register, end + ms(100)).iter().filter(|(_, at)| at.is_some()).map(|t| t.0).collect();
        assert!((0..10).all(|n| late.contains(&(961 + n * 4))), "{late:?}");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_told_once_in_order(seqs in prop::collection::vec(any::<u16>(), 1..300)) {
            let start = Instant::now();
            let mut register = TwccRegister::new(start);
            for (i, seq) in seqs.iter().enumerate() {
                register.on_packet(SeqNo(*seq), start + ms(i as u64));
            }
            let each = told_each(&mut register, start + ms(1000));
            for feedback in &each {
                prop_assert!(feedback[0].1.is_some());
                let numbers: Vec<u16> = feedback.iter().map(|f| f.0.wrapping_sub(feedback[0].0)).collect();
                prop_assert!(numbers.is_sorted());
            }
            prop_assert!(!each.is_empty() && each.len() <= WINDOW);
            prop_assert_eq!(register.next_timeout(), None);
        }
    }
}
