//! What a slot sent lately, by reference: enough to find a packet in its layer's ring and build it anew.

use std::time::{Duration, Instant};

use mrtc_rtp::id::{ExtSeq, SeqNo};

use crate::prefetch::Prefetch;
use crate::rtp_rewriter::Rewritten;

/// One packet that was sent. Holds no payload.
#[derive(Clone, Copy, Debug)]
pub struct SendRecord {
    /// How it was rewritten.
    pub rewritten: Rewritten,
    /// Its number in the layer's ring.
    pub source_seq: ExtSeq,
    /// Bytes as sealed, without padding.
    pub size: u16,
    /// Transport-wide number or absolute send time that it carried. A packet that is sent again under its own number
    /// must be the same to the bit, since it is sealed with the same nonce.
    pub stamp: u32,
    /// Its layer.
    pub layer: u8,
    /// How many packets directly before it travelled inside it (RED).
    pub earlier: u8,
    /// Times it was sent again.
    pub resends: u8,
    /// Newer packets were sent before: it came late itself.
    is_late: bool,
    /// Of what the slot carried before: it cannot be built anew.
    is_foreign: bool,
    /// When it was sent last, in milliseconds since the history was made.
    sent_ms: u32,
}

impl SendRecord {
    /// Of a packet that is sent for the first time; [`SendHistory::insert`] enters the time.
    pub fn new(layer: u8, source_seq: ExtSeq, rewritten: Rewritten, size: u16, stamp: u32) -> Self {
        Self {
            rewritten,
            source_seq,
            size,
            stamp,
            layer,
            earlier: 0,
            resends: 0,
            is_late: false,
            is_foreign: false,
            sent_ms: 0,
        }
    }

    /// The same with packets inside.
    pub fn with_earlier(self, earlier: u8) -> Self {
        Self { earlier, ..self }
    }
}

/// The ring of one slot. Its memory follows the rate of what is sent: it grows while a record would be overwritten that
/// may still be asked for.
#[derive(Debug)]
pub struct SendHistory {
    records: Vec<Option<SendRecord>>,
    max_len: usize,
    made_at: Instant,
    newest: Option<ExtSeq>,
}

/// For how long after it was sent a packet is not sent again: a request that comes sooner crossed it.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A packet that was sent again before.
    again: Duration,
    /// One that came late itself, so that its receiver has asked for it already.
    late: Duration,
}

impl Patience {
    /// Of a receiver at this distance. `is_told`: its feedback will tell if a late packet is lost.
    ///
    /// Nearly the round trip: the receiver's own measure may be the shorter one, and what it asks for too early is refused for
    /// a whole round more. Where feedback tells there is no such risk, and requests that a timer held up have crossed as well.
    pub fn of(rtt: Duration, is_told: bool) -> Self {
        let again = rtt * 3 / 4;
        Self { again, late: if is_told { rtt * 3 / 2 } else { again } }
    }

    /// For what is known to be lost.
    pub const NONE: Self = Self { again: Duration::ZERO, late: Duration::ZERO };
}

/// Why a retransmission is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Never sent, or forgotten.
    Unknown,
    /// There is no room for it now.
    NoRoom,
    /// Sent less than a round trip ago: the request crossed it.
    TooSoon,
    /// Sent again as often as makes sense.
    TooOften,
}

/// Records at first: of sound, or of a small picture.
const INITIAL_LEN: usize = 128;
/// A record this young is worth growing for: clients ask for a packet within about a second (libwebrtc).
const KEEP_MS: u32 = 1_000;
/// A packet is asked for and sent again at most this often: libwebrtc asks ten times.
const MAX_RESENDS: u8 = 10;
/// Packets that may still be asked for when their source is gone; as far away a neighbour's timestamp is of use.
const NEAR: u64 = 128;

impl SendHistory {
    /// An empty ring that grows to `max_len` records at most; a power of two.
    pub fn new(max_len: usize, now: Instant) -> Self {
        debug_assert!(max_len.is_power_of_two());
        Self { records: vec![None; INITIAL_LEN.min(max_len)], max_len, made_at: now, newest: None }
    }

    fn index(&self, seq: ExtSeq) -> usize {
        seq.0 as usize & (self.records.len() - 1)
    }

    /// The next `count` packets are entered soon.
    pub fn prefetch_next(&self, count: u16, cache: &impl Prefetch) {
        if let Some(newest) = self.newest {
            (1..=u64::from(count)).for_each(|n| cache.prefetch(&self.records[self.index(ExtSeq(newest.0 + n))]));
        }
    }

    fn ms(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.made_at).as_millis() as u32
    }

    /// Enters a packet that is sent now. True if it is late: newer ones were sent before.
    pub fn insert(&mut self, now: Instant, record: SendRecord) -> bool {
        let seq = record.rewritten.seq;
        let sent_ms = self.ms(now);
        while self.records.len() < self.max_len && self.is_needed(self.index(seq), seq, sent_ms) {
            self.grow();
        }
        let index = self.index(seq);
        let is_newest = self.newest.is_none_or(|newest| seq > newest);
        self.records[index] = Some(SendRecord { sent_ms, is_late: !is_newest, ..record });
        if is_newest {
            self.newest = Some(seq);
        }
        !is_newest
    }

    /// True if the record at `index` is of another packet that may still be asked for.
    fn is_needed(&self, index: usize, seq: ExtSeq, now_ms: u32) -> bool {
        let other = self.records[index].filter(|r| r.rewritten.seq != seq);
        other.is_some_and(|r| now_ms.saturating_sub(r.sent_ms) < KEEP_MS)
    }

    fn grow(&mut self) {
        let len = self.records.len() * 2;
        let records = std::mem::replace(&mut self.records, vec![None; len]);
        for record in records.into_iter().flatten() {
            let index = self.index(record.rewritten.seq);
            self.records[index] = Some(record);
        }
    }

    /// The packet that a receiver asks for, if it may be sent again now; then it counts as sent again.
    pub fn claim_resend(&mut self, now: Instant, seq: SeqNo, patience: Patience) -> Result<SendRecord, Refusal> {
        let now_ms = self.ms(now);
        let newest = self.newest.ok_or(Refusal::Unknown)?;
        let behind = newest.seq_no().distance(seq);
        let seq = u64::try_from(behind).ok().and_then(|b| newest.0.checked_sub(b)).ok_or(Refusal::Unknown)?;
        let index = self.index(ExtSeq(seq));
        let is_it = |r: &&mut SendRecord| r.rewritten.seq.0 == seq && !r.is_foreign;
        let record = self.records[index].as_mut().filter(is_it).ok_or(Refusal::Unknown)?;
        if record.resends >= MAX_RESENDS {
            return Err(Refusal::TooOften);
        }
        // The first request may come at once: the packet was lost, not slow.
        let patience = match (record.resends, record.is_late) {
            (0, false) => Duration::ZERO,
            (0, true) => patience.late,
            _ => patience.again,
        };
        if u128::from(now_ms - record.sent_ms.min(now_ms)) < patience.as_millis() {
            return Err(Refusal::TooSoon);
        }
        record.resends += 1;
        record.sent_ms = now_ms;
        Ok(*record)
    }

    /// A packet by its number on the slot, if it can be sent again.
    pub fn get(&self, seq: ExtSeq) -> Option<&SendRecord> {
        self.sent(seq).filter(|r| !r.is_foreign)
    }

    fn sent(&self, seq: ExtSeq) -> Option<&SendRecord> {
        self.records[self.index(seq)].as_ref().filter(|r| r.rewritten.seq == seq)
    }

    /// The timestamp of the packet nearest before a number that is not known, or else after it.
    pub fn timestamp_near(&self, seq: ExtSeq) -> Option<u32> {
        let before = (1..=NEAR).map_while(|n| seq.0.checked_sub(n));
        let after = (1..=NEAR).map(|n| seq.0 + n);
        let known = before.chain(after).find_map(|n| self.sent(ExtSeq(n)));
        known.map(|record| record.rewritten.timestamp)
    }

    /// What is still known of the packets from `first` to `last`.
    pub fn range(&self, first: ExtSeq, last: ExtSeq) -> impl Iterator<Item = &SendRecord> {
        (first.0..=last.0).filter_map(|n| self.get(ExtSeq(n)))
    }

    /// The packets sent last, newest first, for probes that repeat them.
    pub fn recent(&self, count: usize) -> impl Iterator<Item = &SendRecord> {
        let newest = self.newest.map_or(0, |n| n.0);
        let numbers = (newest.saturating_sub(count as u64)..=newest).rev();
        numbers.filter_map(|n| self.get(ExtSeq(n)))
    }

    /// The slot carries another track, or the same in another form: what was sent so far cannot be sent again. That it was
    /// sent, and when in the stream, stays known of the packets that may still be asked for.
    pub fn forget_sources(&mut self) {
        let newest = self.newest.map_or(0, |n| n.0);
        let records = std::mem::replace(&mut self.records, vec![None; INITIAL_LEN.min(self.max_len)]);
        let askable = |r: &SendRecord| r.rewritten.seq.0 + NEAR > newest;
        for record in records.into_iter().flatten().filter(askable) {
            let index = self.index(record.rewritten.seq);
            self.records[index] = Some(SendRecord { is_foreign: true, ..record });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);
    const PATIENCE: Patience = Patience { again: RTT, late: RTT };

    fn sent(n: u64) -> Rewritten {
        Rewritten { seq: ExtSeq(n), timestamp: 0, patch: crate::rtp_rewriter::Patch::None, marker: false }
    }

    fn history(now: Instant, range: std::ops::Range<u64>) -> SendHistory {
        let mut history = SendHistory::new(64, now);
        for n in range {
            history.insert(now, SendRecord::new(0, ExtSeq(n + 500), sent(n), 1_000, 0));
        }
        history
    }

    #[test]
    fn finds_a_packet_over_the_wrap() {
        let now = Instant::now();
        let mut history = history(now, 65_530..65_540);
        let record = history.claim_resend(now, SeqNo(65_533), PATIENCE).expect("kept");
        assert_eq!(record.source_seq, ExtSeq(66_033));
        let record = history.claim_resend(now, SeqNo(1), PATIENCE).expect("kept");
        assert_eq!(record.source_seq, ExtSeq(65_537 + 500));
    }

    #[test]
    fn refuses_what_was_never_sent_or_is_forgotten() {
        let now = Instant::now();
        let mut history = history(now, 100..300);
        for seq in [99, 200, 300, 5_000] {
            assert_eq!(history.claim_resend(now, SeqNo(seq), PATIENCE).err(), Some(Refusal::Unknown));
        }
    }

    #[test]
    fn what_another_source_sent_is_known_and_not_sent_again() {
        let now = Instant::now();
        let mut history = history(now, 100..200);
        history.forget_sources();
        assert_eq!(history.claim_resend(now, SeqNo(190), PATIENCE).err(), Some(Refusal::Unknown));
        assert!(history.get(ExtSeq(190)).is_none() && history.recent(16).next().is_none());
        let rewritten = Rewritten { timestamp: 77, ..sent(202) };
        history.insert(now, SendRecord::new(0, ExtSeq(9), rewritten, 1_000, 0));
        assert_eq!(history.timestamp_near(ExtSeq(200)), Some(0), "of the one before");
        assert_eq!(history.timestamp_near(ExtSeq(204)), Some(77));
        assert_eq!(history.timestamp_near(ExtSeq(5)), None);
        assert!(history.claim_resend(now, SeqNo(202), PATIENCE).is_ok());
    }

    #[test]
    fn memory_follows_the_rate() {
        let start = Instant::now();
        for (per_second, expected) in [(50, 128), (210, 256), (900, 1024), (5_000, 1024)] {
            let mut history = SendHistory::new(1024, start);
            for n in 0..3 * per_second {
                let now = start + Duration::from_secs(1) * n / per_second;
                history.insert(now, SendRecord::new(0, ExtSeq(n.into()), sent(n.into()), 1_000, 0));
            }
            assert_eq!(history.records.len(), expected, "{per_second}/s");
            let newest = 3 * per_second - 1;
            let kept =
                (newest - per_second.min(1023)..=newest).filter(|n| history.get(ExtSeq(u64::from(*n))).is_some());
            assert_eq!(kept.count() as u32, per_second.min(1023) + 1, "{per_second}/s");
        }
    }

    #[test]
    fn a_late_packet_is_not_repeated_at_once() {
        let start = Instant::now();
        let mut history = history(start, 10..15);
        history.insert(start, SendRecord::new(0, ExtSeq(516), sent(16), 1_000, 0));
        history.insert(start, SendRecord::new(0, ExtSeq(515), sent(15), 1_000, 0));
        let untold = Patience::of(RTT, false);
        assert_eq!(history.claim_resend(start, SeqNo(15), untold).err(), Some(Refusal::TooSoon));
        let told = Patience::of(RTT, true);
        assert_eq!(history.claim_resend(start + RTT, SeqNo(15), told).err(), Some(Refusal::TooSoon));
        assert!(history.claim_resend(start + RTT, SeqNo(15), untold).is_ok());
        assert!(history.claim_resend(start + RTT * 2, SeqNo(15), told).is_ok());
    }

    #[test]
    fn repeats_once_a_round_trip_and_not_for_ever() {
        let start = Instant::now();
        let mut history = history(start, 10..20);
        assert!(history.claim_resend(start, SeqNo(15), PATIENCE).is_ok());
        assert_eq!(history.claim_resend(start, SeqNo(15), PATIENCE).err(), Some(Refusal::TooSoon));
        for n in 1..10u32 {
            assert!(history.claim_resend(start + RTT * n, SeqNo(15), PATIENCE).is_ok());
        }
        assert_eq!(history.claim_resend(start + RTT * 11, SeqNo(15), PATIENCE).err(), Some(Refusal::TooOften));
    }
}
