//! What was sent under which transport-wide number, until feedback tells what became of it.

use super::PacketFeedback;
use crate::prefetch::Prefetch;

/// Records kept at first: 2.4 s of a 720p layer.
const INITIAL_LEN: usize = 512;
/// Records kept at most: 1.6 s at 5,000 packets/s (50 Mbit/s). Feedback for older ones is ignored.
const MAX_LEN: usize = 8192;
/// A record this young that is still in flight is worth growing for.
const FEEDBACK_TIMEOUT_US: i64 = 1_500_000;
/// Of a line of the processor's cache.
const RECORDS_PER_LINE: usize = 64 / size_of::<Record>();
/// The reference time of feedback has 24 bits of 64 ms.
const CLOCK_MODULUS_US: i64 = (1 << 24) * 64_000;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    InFlight,
    ReportedLost,
    Received,
}

#[derive(Clone, Copy, Debug, Default)]
struct Record {
    sent_us: i64,
    seq: u16,
    size: u16,
    cluster: u8,
    state: State,
}

/// A packet that the receiver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Acked {
    /// On our clock.
    pub sent_us: i64,
    /// On the receiver's clock, unwrapped.
    pub arrived_us: i64,
    pub size: u16,
    /// Probe cluster, 0 if none.
    pub cluster: u8,
}

/// Sums over one feedback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct FeedbackSums {
    pub received: u32,
    pub lost: u32,
    pub received_bytes: u64,
    pub lost_bytes: u64,
    /// Told as lost before, and received after all.
    pub recovered: u32,
}

/// Ring of send records, by sequence number. Empty until the first packet.
#[derive(Debug, Default)]
pub(super) struct SentPackets {
    records: Vec<Record>,
    last_arrival_us: Option<i64>,
}

impl SentPackets {
    /// The `count` records from `seq` on are used soon.
    pub fn prefetch(&self, seq: u16, count: u16, cache: &impl Prefetch) {
        if self.records.is_empty() {
            return;
        }
        for at in (0..count).step_by(RECORDS_PER_LINE) {
            cache.prefetch(&self.records[usize::from(seq.wrapping_add(at)) % self.records.len()]);
        }
    }

    pub fn record(&mut self, seq: u16, size: usize, cluster: u8, sent_us: i64) {
        if self.records.is_empty() {
            self.records = vec![Record::default(); INITIAL_LEN];
        }
        let old = self.records[usize::from(seq) % self.records.len()];
        let is_needed = old.state == State::InFlight && sent_us - old.sent_us < FEEDBACK_TIMEOUT_US;
        if is_needed && self.records.len() < MAX_LEN {
            self.grow();
        }
        let index = usize::from(seq) % self.records.len();
        let size = size.min(usize::from(u16::MAX)) as u16;
        self.records[index] = Record { sent_us, seq, size, cluster, state: State::InFlight };
    }

    fn grow(&mut self) {
        let mut grown = vec![Record::default(); self.records.len() * 2];
        for record in self.records.iter().filter(|r| r.state != State::Free) {
            let index = usize::from(record.seq) % grown.len();
            grown[index] = *record;
        }
        self.records = grown;
    }

    /// Matches feedback with the records. What was received goes to `acked`, sorted by arrival.
    pub fn resolve(&mut self, feedback: impl Iterator<Item = PacketFeedback>, acked: &mut Vec<Acked>) -> FeedbackSums {
        let mut sums = FeedbackSums::default();
        acked.clear();
        if self.records.is_empty() {
            return sums;
        }
        for packet in feedback {
            let index = usize::from(packet.seq) % self.records.len();
            let record = &mut self.records[index];
            if record.seq != packet.seq || matches!(record.state, State::Free | State::Received) {
                continue;
            }
            let Some(arrived_at_us) = packet.arrived_at_us else {
                if record.state == State::InFlight {
                    record.state = State::ReportedLost;
                    sums.lost += 1;
                    sums.lost_bytes += u64::from(record.size);
                }
                continue;
            };
            sums.recovered += u32::from(record.state == State::ReportedLost);
            record.state = State::Received;
            sums.received += 1;
            sums.received_bytes += u64::from(record.size);
            let Record { sent_us, size, cluster, .. } = *record;
            let arrived_us = unwrap_clock(&mut self.last_arrival_us, arrived_at_us);
            acked.push(Acked { sent_us, arrived_us, size, cluster });
        }
        if !acked.is_sorted_by_key(|a| a.arrived_us) {
            acked.sort_by_key(|a| a.arrived_us);
        }
        sums
    }
}

/// Nearest to the last arrival, over wraps of the feedback's clock.
fn unwrap_clock(last: &mut Option<i64>, raw: i64) -> i64 {
    let unwrapped = match *last {
        None => raw,
        Some(last) => {
            let ahead = (raw - last).rem_euclid(CLOCK_MODULUS_US);
            let distance = if ahead > CLOCK_MODULUS_US / 2 { ahead - CLOCK_MODULUS_US } else { ahead };
            last + distance
        }
    };
    *last = Some(unwrapped);
    unwrapped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(seq: u16, arrived_at_us: i64) -> PacketFeedback {
        PacketFeedback { seq, arrived_at_us: Some(arrived_at_us) }
    }

    fn lost(seq: u16) -> PacketFeedback {
        PacketFeedback { seq, arrived_at_us: None }
    }

    #[test]
    fn matches_feedback_over_the_wrap_and_sorts_by_arrival() {
        let mut sent = SentPackets::default();
        for (i, seq) in [65_534u16, 65_535, 0, 1].into_iter().enumerate() {
            sent.record(seq, 1000, 0, i as i64 * 1000);
        }
        let mut acked = Vec::new();
        let feedback = [got(65_534, 50), got(65_535, 90), got(0, 70), lost(1)];
        let sums = sent.resolve(feedback.into_iter(), &mut acked);
        assert_eq!((sums.received, sums.lost, sums.received_bytes), (3, 1, 3000));
        assert_eq!(acked.iter().map(|a| a.arrived_us).collect::<Vec<_>>(), [50, 70, 90]);
    }

    #[test]
    fn tells_each_packet_once_and_takes_back_a_loss() {
        let mut sent = SentPackets::default();
        sent.record(1, 100, 0, 0);
        let mut acked = Vec::new();
        assert_eq!(sent.resolve([lost(1), lost(1)].into_iter(), &mut acked).lost, 1);
        let sums = sent.resolve([got(1, 5)].into_iter(), &mut acked);
        assert_eq!((sums.received, sums.recovered), (1, 1));
        assert_eq!(sent.resolve([got(1, 5)].into_iter(), &mut acked), FeedbackSums::default());
    }

    #[test]
    fn foreign_numbers_are_ignored() {
        let mut sent = SentPackets::default();
        let mut acked = Vec::new();
        assert_eq!(sent.resolve([got(9, 5)].into_iter(), &mut acked), FeedbackSums::default());
        sent.record(1, 100, 0, 0);
        assert_eq!(sent.resolve([got(513, 5), lost(9)].into_iter(), &mut acked), FeedbackSums::default());
    }

    #[test]
    fn grows_while_much_is_in_flight_and_not_beyond_the_limit() {
        let mut sent = SentPackets::default();
        for seq in 0..=u16::MAX {
            sent.record(seq, 100, 0, 0);
        }
        assert_eq!(sent.records.len(), MAX_LEN);
        let mut idle = SentPackets::default();
        for seq in 0..=u16::MAX {
            idle.record(seq, 100, 0, i64::from(seq) * 4_000);
        }
        assert_eq!(idle.records.len(), INITIAL_LEN);
    }

    #[test]
    fn the_feedback_clock_unwraps() {
        let mut last = None;
        assert_eq!(unwrap_clock(&mut last, CLOCK_MODULUS_US - 1000), CLOCK_MODULUS_US - 1000);
        assert_eq!(unwrap_clock(&mut last, 2000), CLOCK_MODULUS_US + 2000);
        assert_eq!(unwrap_clock(&mut last, CLOCK_MODULUS_US - 500), CLOCK_MODULUS_US - 500);
    }
}
