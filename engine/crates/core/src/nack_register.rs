//! Receive side of one stream: gaps and their NACKs, and the figures of a receiver report.
//!
//! One per RTP stream (SSRC) that we receive. A gap is asked for after a moment's patience with reordering, again each
//! round trip or so, and given up after some tries. Everything is bounded, whatever the sender does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mrtc_rtp::id::{ExtSeq, SeqNo};

/// A gap this young may still be reordering. Wired and mobile paths reorder within a few ms.
const REORDER_WAIT: Duration = Duration::from_millis(10);
/// ... but not if so many newer packets came already.
const REORDER_PACKETS: u64 = 8;
/// Least time between two requests of one packet.
const MIN_RETRY: Duration = Duration::from_millis(20);
/// Used while the round trip is unknown.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
/// A packet is asked for at most so often: where both ways lose 40 %, one in 1,300 is still missing after it ...
const MAX_TRIES: u8 = 16;
/// ... and for so long: later it would be of no use to any receiver ...
const MAX_AGE: Duration = Duration::from_millis(1000);
/// ... or for so many round trips on a long path, where receivers wait longer too.
const MAX_AGE_RTTS: u32 = 5;
/// The same for sound: receivers' jitter buffers wait half a second at most, and a recording's 400 ms.
const MAX_SOUND_AGE: Duration = Duration::from_millis(500);
/// A sender that was not asked whether it answers NACK counts as deaf to it after so many packets that it did not send
/// again.
const DEAF_AFTER: u64 = 64;
/// Packets missing at a time; as in libwebrtc a larger hole is not repaired but jumped (a key frame is asked for).
const MAX_MISSING: usize = 256;
/// A jump by more than this is a restarted sequence, not loss.
const MAX_JUMP: u64 = 2048;
/// Sequence numbers of which duplicates are recognised, below the highest.
const SEEN_WINDOW: u64 = 128;

/// How a packet fits into its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Newer than all before.
    New,
    /// Fills a gap: late, or retransmitted.
    Recovered,
    /// Was here before, or is too old to know.
    Duplicate,
    /// The sequence jumped so far that it counts as a new one; gaps are forgotten and a key frame is of use.
    Reset,
}

/// The figures of a report block (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceptionFigures {
    /// Share lost since the last report, of 256.
    pub fraction_lost: u8,
    /// Lost in all, as on the wire limited to 24 bits signed.
    pub cumulative_lost: i32,
    /// Highest extended sequence number: low 32 bits.
    pub highest_seq: u32,
    /// In timestamp units.
    pub jitter: u32,
}

#[derive(Clone, Copy, Debug)]
struct Missing {
    seq: u64,
    since: Instant,
    asked_at: Option<Instant>,
    tries: u8,
    /// Of the packet before the gap.
    mark: u64,
}

impl Missing {
    fn is_due(&self, now: Instant, highest: u64, rtt: Duration) -> bool {
        match self.asked_at {
            None => now >= self.since + REORDER_WAIT || highest - self.seq >= REORDER_PACKETS,
            Some(asked_at) => now >= asked_at + retry_interval(rtt, self.tries),
        }
    }
}

/// A little over a round trip, so that an answer that is on its way is not asked for again. Later tries wait longer if
/// the round trip is short: a path that is full needs time more than requests.
fn retry_interval(rtt: Duration, tries: u8) -> Duration {
    (rtt + rtt / 8).max(MIN_RETRY * u32::from(tries.div_ceil(4)))
}

/// The gaps and figures of one received stream.
#[derive(Debug)]
pub struct NackRegister {
    clock_rate: u32,
    is_nack_on: bool,
    /// Of sound: it is not certain that the sender answers.
    is_nack_tried: bool,
    first: u64,
    highest: Option<u64>,
    /// Bit `i`: `highest - i` was received.
    seen: u128,
    /// Of those seen: which came inside another packet only.
    restored_bits: u128,
    missing: VecDeque<Missing>,
    received: u64,
    recovered: u64,
    restored: u64,
    given_up: u64,
    /// As of the last [`NackRegister::take_hopeless`].
    given_up_before: u64,
    expected_before_reset: u64,
    expected_at_report: u64,
    received_at_report: u64,
    jitter: f64,
    transit: Option<(Instant, u32)>,
    mark: u64,
}

impl NackRegister {
    /// Of a stream with this RTP clock; `is_nack_on`: NACK was negotiated, else only the figures are kept.
    pub fn new(clock_rate: u32, is_nack_on: bool) -> Self {
        Self {
            clock_rate,
            is_nack_on,
            is_nack_tried: false,
            first: 0,
            highest: None,
            seen: 0,
            restored_bits: 0,
            missing: VecDeque::new(),
            received: 0,
            recovered: 0,
            restored: 0,
            given_up: 0,
            given_up_before: 0,
            mark: 0,
            expected_before_reset: 0,
            expected_at_report: 0,
            received_at_report: 0,
            jitter: 0.0,
            transit: None,
        }
    }

    /// Of a stream of sound. NACK is always tried: browsers answer it although they do not offer it.
    pub fn for_sound(clock_rate: u32) -> Self {
        Self { is_nack_tried: true, ..Self::new(clock_rate, true) }
    }

    /// A packet of the stream came, original or recovered from RTX.
    pub fn on_packet(&mut self, seq: ExtSeq, timestamp: u32, now: Instant) -> Arrival {
        let Some(highest) = self.highest else {
            self.start(seq.0, timestamp, now);
            return Arrival::New;
        };
        if seq.0 > highest + MAX_JUMP {
            self.expected_before_reset += highest - self.first + 1;
            self.missing.clear();
            self.start(seq.0, timestamp, now);
            return Arrival::Reset;
        }
        if seq.0 <= highest {
            return self.take_old(seq.0, highest);
        }
        self.note_gap(highest + 1, seq.0, now);
        let step = (seq.0 - highest).min(u64::from(u32::MAX)) as u32;
        self.seen = self.seen.checked_shl(step).unwrap_or(0) | 1;
        self.restored_bits = self.restored_bits.checked_shl(step).unwrap_or(0);
        self.highest = Some(seq.0);
        self.received += 1;
        self.take_jitter(timestamp, now);
        Arrival::New
    }

    fn start(&mut self, seq: u64, timestamp: u32, now: Instant) {
        self.first = seq;
        self.highest = Some(seq);
        self.seen = 1;
        self.restored_bits = 0;
        self.received += 1;
        self.transit = Some((now, timestamp));
    }

    fn take_old(&mut self, seq: u64, highest: u64) -> Arrival {
        let back = highest - seq;
        if back >= SEEN_WINDOW {
            // Too old for the bit map; the list of gaps still knows it if it was asked for.
            let Some(index) = self.missing.iter().position(|m| m.seq == seq) else { return Arrival::Duplicate };
            self.missing.remove(index);
        } else if self.seen & (1 << back) != 0 {
            // Restored before: nobody needs it any more, but it was not lost.
            self.received += u64::from(self.restored_bits & (1 << back) != 0);
            self.restored_bits &= !(1 << back);
            return Arrival::Duplicate;
        } else {
            self.seen |= 1 << back;
            if let Ok(index) = self.missing.binary_search_by_key(&seq, |m| m.seq) {
                self.missing.remove(index);
            }
        }
        self.first = self.first.min(seq);
        self.received += 1;
        self.recovered += 1;
        Arrival::Recovered
    }

    /// A packet's content came inside a later packet. True if it lacked. For the reports it stays lost.
    pub fn restore(&mut self, seq: ExtSeq) -> bool {
        let Some(back) = self.highest.and_then(|highest| highest.checked_sub(seq.0)) else { return false };
        if seq.0 < self.first || back >= SEEN_WINDOW || self.seen & (1 << back) != 0 {
            return false;
        }
        self.seen |= 1 << back;
        self.restored_bits |= 1 << back;
        self.restored += 1;
        if let Ok(index) = self.missing.binary_search_by_key(&seq.0, |m| m.seq) {
            self.missing.remove(index);
        }
        true
    }

    fn note_gap(&mut self, from: u64, to: u64, now: Instant) {
        if !self.is_nack_on {
            return;
        }
        for seq in from..to {
            if self.missing.len() == MAX_MISSING {
                self.missing.pop_front();
                self.given_up += 1;
            }
            self.missing.push_back(Missing { seq, since: now, asked_at: None, tries: 0, mark: self.mark });
        }
    }

    /// RFC 3550 appendix A.8, for packets in order only: late and retransmitted ones say nothing about the path.
    fn take_jitter(&mut self, timestamp: u32, now: Instant) {
        if let Some((last_at, last_timestamp)) = self.transit {
            let arrival = now.saturating_duration_since(last_at).as_secs_f64() * f64::from(self.clock_rate);
            let sent = f64::from(timestamp.wrapping_sub(last_timestamp) as i32);
            self.jitter += ((arrival - sent).abs() - self.jitter) / 16.0;
        }
        self.transit = Some((now, timestamp));
    }

    /// Sequence numbers to ask for now, oldest first; each counts as asked. `rtt` is that to the sender, if known.
    pub fn poll_nacks(&mut self, now: Instant, rtt: Option<Duration>) -> impl Iterator<Item = SeqNo> + '_ {
        let rtt = rtt.unwrap_or(DEFAULT_RTT);
        let highest = self.highest.unwrap_or(0);
        self.drop_hopeless(now, rtt);
        self.missing.iter_mut().filter_map(move |m| {
            if !m.is_due(now, highest, rtt) {
                return None;
            }
            m.asked_at = Some(now);
            m.tries += 1;
            Some(ExtSeq(m.seq).seq_no())
        })
    }

    fn drop_hopeless(&mut self, now: Instant, rtt: Duration) {
        let before = self.missing.len();
        // Of sound no longer: nobody waits for it, however long the path is.
        let max_age = if self.is_nack_tried { MAX_SOUND_AGE } else { MAX_AGE.max(rtt * MAX_AGE_RTTS) };
        self.missing.retain(|m| m.tries < MAX_TRIES && now < m.since + max_age);
        self.given_up += (before - self.missing.len()) as u64;
        if self.is_nack_tried && self.recovered == 0 && self.given_up >= DEAF_AFTER {
            self.is_nack_on = false;
            self.missing.clear();
        }
    }

    /// True if packets were given up since the last call: only a key frame helps those who need them. Never of sound.
    pub fn take_hopeless(&mut self) -> bool {
        std::mem::replace(&mut self.given_up_before, self.given_up) != self.given_up && !self.is_nack_tried
    }

    /// True if `poll_nacks` may have something soon. Polling each 5 to 20 ms while true is enough.
    pub fn has_missing(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Forgets the gaps: a key frame made them useless, or nobody wants the stream.
    pub fn clear_missing(&mut self) {
        self.missing.clear();
    }

    /// Notes where the newest packet lies in an order of all streams; grows.
    pub fn note_mark(&mut self, mark: u64) {
        self.mark = mark;
    }

    /// All packets up to this mark are here or were given up.
    pub fn complete_to(&self) -> u64 {
        self.missing.front().map_or(self.mark, |m| m.mark)
    }

    /// Figures since the last call, for a receiver report; `None` before the first packet.
    pub fn report(&mut self) -> Option<ReceptionFigures> {
        let highest = self.highest?;
        let expected = self.expected_before_reset + highest - self.first + 1;
        let expected_now = expected.saturating_sub(self.expected_at_report);
        let received_now = self.received - self.received_at_report;
        self.expected_at_report = expected;
        self.received_at_report = self.received;
        let lost_now = expected_now.saturating_sub(received_now);
        let lost = expected as i64 - self.received as i64;
        Some(ReceptionFigures {
            fraction_lost: (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_seq: highest as u32,
            jitter: self.jitter as u32,
        })
    }

    /// Packets received, recovered ones included.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Packets that came late or by retransmission.
    pub fn recovered(&self) -> u64 {
        self.recovered
    }

    /// Packets whose content came inside a later one.
    pub fn restored(&self) -> u64 {
        self.restored
    }

    /// Packets that were missing and are no longer asked for.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }

    /// Interarrival jitter as a time.
    pub fn jitter(&self) -> Duration {
        Duration::from_secs_f64(self.jitter / f64::from(self.clock_rate.max(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RTT: Option<Duration> = Some(Duration::from_millis(40));

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn register_with(seqs: &[u64], now: Instant) -> NackRegister {
        let mut register = NackRegister::new(90_000, true);
        for &seq in seqs {
            register.on_packet(ExtSeq(seq), 0, now);
        }
        register
    }

    fn nacks(register: &mut NackRegister, now: Instant) -> Vec<u16> {
        register.poll_nacks(now, RTT).map(|s| s.0).collect()
    }

    #[test]
    fn asks_for_a_gap_after_the_reorder_wait() {
        let start = Instant::now();
        let mut register = register_with(&[100, 103], start);
        assert_eq!(nacks(&mut register, start + ms(9)), [] as [u16; 0]);
        assert_eq!(nacks(&mut register, start + ms(10)), [101, 102]);
        assert_eq!(nacks(&mut register, start + ms(54)), [] as [u16; 0]);
        assert_eq!(nacks(&mut register, start + ms(55)), [101, 102]);
    }

    #[test]
    fn many_newer_packets_end_the_patience() {
        let start = Instant::now();
        let mut register = register_with(&[100, 102, 103, 104, 105, 106, 107, 108, 109], start);
        assert_eq!(nacks(&mut register, start), [101]);
    }

    #[test]
    fn a_recovered_packet_is_no_longer_asked_for() {
        let start = Instant::now();
        let mut register = register_with(&[100, 103], start);
        assert_eq!(register.on_packet(ExtSeq(101), 0, start + ms(5)), Arrival::Recovered);
        assert_eq!(register.on_packet(ExtSeq(101), 0, start + ms(5)), Arrival::Duplicate);
        assert_eq!(nacks(&mut register, start + ms(10)), [102]);
        assert_eq!((register.received(), register.recovered()), (3, 1));
    }

    #[test]
    fn gives_up_by_tries_and_age() {
        let start = Instant::now();
        let mut register = register_with(&[100, 102], start);
        let asked = (0..3000).filter(|&t| !nacks(&mut register, start + ms(t)).is_empty()).count();
        assert_eq!(asked, usize::from(MAX_TRIES));
        assert!(!register.has_missing());
        assert_eq!(register.given_up(), 1);
        assert!(register.take_hopeless() && !register.take_hopeless());
    }

    #[test]
    fn asks_for_several_round_trips_of_a_long_path() {
        let start = Instant::now();
        let mut register = register_with(&[100, 102], start);
        let rtt = Some(ms(400));
        let asked = (0..5000).filter(|&t| register.poll_nacks(start + ms(t), rtt).count() > 0).count();
        assert_eq!(asked, 5);
    }

    #[test]
    fn tells_how_far_nothing_is_missing() {
        let start = Instant::now();
        let mut register = NackRegister::new(90_000, true);
        for (seq, mark) in [(100, 7), (101, 8), (104, 15), (106, 20)] {
            register.on_packet(ExtSeq(seq), 0, start);
            register.note_mark(mark);
        }
        assert_eq!(register.complete_to(), 8);
        register.on_packet(ExtSeq(102), 0, start);
        assert_eq!(register.complete_to(), 8);
        register.restore(ExtSeq(103));
        assert_eq!(register.complete_to(), 15);
        register.on_packet(ExtSeq(105), 0, start);
        assert_eq!(register.complete_to(), 20);
    }

    #[test]
    fn a_jump_resets() {
        let start = Instant::now();
        let mut register = register_with(&[100, 102], start);
        assert_eq!(register.on_packet(ExtSeq(60_000), 0, start), Arrival::Reset);
        assert!(!register.has_missing());
        assert_eq!(register.on_packet(ExtSeq(60_001), 0, start), Arrival::New);
    }

    #[test]
    fn missing_packets_are_bounded() {
        let start = Instant::now();
        let mut register = register_with(&[100, 2000], start);
        assert_eq!(nacks(&mut register, start + ms(20)).len(), MAX_MISSING);
    }

    #[test]
    fn wraps_on_the_wire_only() {
        let start = Instant::now();
        let mut register = register_with(&[0x1_fffe, 0x2_0001], start);
        assert_eq!(nacks(&mut register, start + ms(20)), [0xffff, 0]);
    }

    #[test]
    fn reports_loss_since_the_last_report() {
        let start = Instant::now();
        let mut register = register_with(&[1, 2, 4, 5], start);
        let first = register.report().expect("started");
        assert_eq!((first.fraction_lost, first.cumulative_lost, first.highest_seq), (51, 1, 5));
        for seq in 6..16 {
            register.on_packet(ExtSeq(seq), 0, start);
        }
        let second = register.report().expect("started");
        assert_eq!((second.fraction_lost, second.cumulative_lost), (0, 1));
        assert_eq!(NackRegister::new(90_000, true).report(), None);
    }

    #[test]
    fn jitter_follows_rfc_3550() {
        let start = Instant::now();
        let mut register = NackRegister::new(90_000, true);
        for i in 0..200u64 {
            let late = if i % 2 == 0 { 0 } else { 10 };
            register.on_packet(ExtSeq(i), (i * 1800) as u32, start + ms(i * 20 + late));
        }
        let jitter = register.jitter().as_millis();
        assert!((9..=10).contains(&jitter), "{jitter}");
    }

    #[test]
    fn without_nack_only_figures() {
        let start = Instant::now();
        let mut register = NackRegister::new(48_000, false);
        register.on_packet(ExtSeq(1), 0, start);
        register.on_packet(ExtSeq(5), 0, start);
        assert!(!register.has_missing());
        assert_eq!(register.report().expect("started").cumulative_lost, 3);
    }

    #[test]
    fn what_was_restored_is_not_asked_for_but_counts_as_lost() {
        let start = Instant::now();
        let mut register = register_with(&[1, 2, 5], start);
        assert!(register.restore(ExtSeq(4)));
        assert!(!register.restore(ExtSeq(4)) && !register.restore(ExtSeq(2)) && !register.restore(ExtSeq(6)));
        assert!(!register.restore(ExtSeq(0)), "before the first");
        assert_eq!(nacks(&mut register, start + ms(20)), [3]);
        assert_eq!(register.report().expect("started").cumulative_lost, 2);
        assert_eq!(register.on_packet(ExtSeq(4), 0, start), Arrival::Duplicate);
        assert_eq!(register.on_packet(ExtSeq(4), 0, start), Arrival::Duplicate);
        assert_eq!(register.report().expect("started").cumulative_lost, 1);
        assert_eq!((register.restored(), register.recovered()), (1, 0));
    }

    #[test]
    fn sound_is_asked_for_only_while_it_can_be_played() {
        let start = Instant::now();
        let mut register = NackRegister::for_sound(48_000);
        register.on_packet(ExtSeq(1), 0, start);
        register.on_packet(ExtSeq(3), 0, start);
        assert_eq!(nacks(&mut register, start + ms(20)), [2]);
        assert_eq!(nacks(&mut register, start + ms(500)), [] as [u16; 0]);
        assert!(!register.has_missing());
    }

    #[test]
    fn a_sender_that_never_answers_is_no_longer_asked() {
        let start = Instant::now();
        let mut register = NackRegister::for_sound(48_000);
        let mut asked = 0;
        for n in 0..1_000u64 {
            let now = start + ms(n * 20);
            register.on_packet(ExtSeq(n * 2), 0, now);
            asked += usize::from(!nacks(&mut register, now).is_empty());
        }
        assert!(asked < 100, "{asked}");
        assert!(!register.has_missing());
    }

    proptest! {
        #[test]
        fn never_asks_for_what_came(seqs in prop::collection::vec(1000u64..1200, 1..200)) {
            let start = Instant::now();
            let mut register = register_with(&seqs, start);
            for seq in register.poll_nacks(start + ms(100), RTT) {
                prop_assert!(!seqs.contains(&u64::from(seq.0)));
            }
        }

        #[test]
        fn any_input_keeps_the_bounds(seqs in prop::collection::vec(any::<u32>(), 1..300)) {
            let start = Instant::now();
            let mut register = NackRegister::new(90_000, true);
            for (i, seq) in seqs.iter().enumerate() {
                let now = start + ms(i as u64);
                register.on_packet(ExtSeq(u64::from(*seq)), *seq, now);
                prop_assert!(register.poll_nacks(now, RTT).count() <= MAX_MISSING);
                register.report();
            }
        }
    }
}
