//! Retransmissions that were lost too, as transport-wide feedback tells. They go again without being asked for: a
//! receiver's patience is short (libwebrtc asks ten times, str0m five times within 165 ms), a long round trip's is not.

use std::collections::VecDeque;

use mrtc_rtp::id::{ExtSeq, SeqNo};

/// Retransmissions of which no feedback told yet. More than go out in a round trip at any sensible loss.
const MAX_WAITING: usize = 512;

/// A packet of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotPacket {
    pub(crate) slot: u16,
    pub(crate) seq: ExtSeq,
}

/// See the module. Empty, and without cost, while nothing is sent again.
#[derive(Debug, Default)]
pub(crate) struct LostAgain {
    /// In order of their transport-wide numbers.
    waiting: VecDeque<(SeqNo, SlotPacket)>,
}

impl LostAgain {
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// A retransmission (or a copy of one) went out under this transport-wide number.
    pub(crate) fn on_sent(&mut self, number: SeqNo, packet: SlotPacket) {
        if self.waiting.len() == MAX_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((number, packet));
    }

    /// Takes a feedback's numbers in order, each with whether it was received, and adds to `lost` the packets of which
    /// no retransmission is on its way any more. What feedback passes over counts as lost: some clients begin each with
    /// the first packet that came.
    pub(crate) fn judge(&mut self, told: impl Iterator<Item = (SeqNo, bool)>, lost: &mut Vec<SlotPacket>) {
        for (number, is_received) in told {
            while let Some(&(sent, packet)) = self.waiting.front()
                && number.distance(sent) >= 0
            {
                self.waiting.pop_front();
                if sent == number && is_received {
                    self.waiting.retain(|(_, p)| *p != packet);
                    lost.retain(|p| *p != packet);
                } else if self.waiting.iter().all(|(_, p)| *p != packet) {
                    lost.push(packet);
                }
            }
        }
    }

    /// Forgets a slot's packets.
    pub(crate) fn forget_slot(&mut self, slot: u16) {
        self.waiting.retain(|(_, p)| p.slot != slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(seq: u64) -> SlotPacket {
        SlotPacket { slot: 1, seq: ExtSeq(seq) }
    }

    fn judge(lost_again: &mut LostAgain, told: &[(u16, bool)]) -> Vec<u64> {
        let mut lost = Vec::new();
        lost_again.judge(told.iter().map(|(n, r)| (SeqNo(*n), *r)), &mut lost);
        lost.iter().map(|p| p.seq.0).collect()
    }

    #[test]
    fn tells_what_did_not_come_over_the_wrap() {
        let mut lost_again = LostAgain::default();
        for (number, seq) in [(65_534u16, 10), (0, 11), (2, 12), (5, 13)] {
            lost_again.on_sent(SeqNo(number), packet(seq));
        }
        assert_eq!(judge(&mut lost_again, &[(65_533, true), (65_534, false), (65_535, true), (0, true)]), [10]);
        assert_eq!(judge(&mut lost_again, &[(3, true)]), [12], "passed over");
        assert_eq!(judge(&mut lost_again, &[(3, false), (4, true)]), [] as [u64; 0]);
        assert!(!lost_again.is_empty());
    }

    #[test]
    fn one_copy_that_came_is_enough() {
        let mut lost_again = LostAgain::default();
        lost_again.on_sent(SeqNo(1), packet(7));
        lost_again.on_sent(SeqNo(2), packet(7));
        lost_again.on_sent(SeqNo(3), packet(8));
        lost_again.on_sent(SeqNo(4), packet(8));
        assert_eq!(judge(&mut lost_again, &[(1, false), (2, true), (3, false)]), [] as [u64; 0]);
        assert_eq!(judge(&mut lost_again, &[(4, false)]), [8]);
    }

    #[test]
    fn is_bounded_and_forgets_a_slot() {
        let mut lost_again = LostAgain::default();
        (0..2_000u16).for_each(|n| lost_again.on_sent(SeqNo(n), packet(n.into())));
        assert_eq!(lost_again.waiting.len(), MAX_WAITING);
        lost_again.forget_slot(1);
        assert!(lost_again.is_empty());
    }
}
