//! What is sent again: answers to NACKs, what feedback tells as lost, and copies at heavy loss.

use std::time::Instant;

use mrtc_rtp::id::{ExtSeq, SeqNo};
use mrtc_rtp::rtcp::TransportCc;

use super::holes;
use super::outgoing::{Class, Outgoing};
use super::{FlushContext, TransportTx};
use crate::command::Kind;
use crate::counters::Counters;
use crate::repair;
use crate::send_history::{Patience, Refusal};
use crate::slot::Slot;
use crate::transport::lost_again::SlotPacket;

/// Retransmissions that wait for a flush.
const MAX_RESENDS: usize = 512;
/// No packet that is sent again is larger.
const MAX_PACKET: usize = 1_500;

impl TransportTx {
    /// Answers a NACK: what can be sent again waits for the next flush.
    pub(crate) fn resend(
        &mut self,
        now: Instant,
        slot: usize,
        lost: impl Iterator<Item = SeqNo>,
        counters: &mut Counters,
    ) {
        let patience = self.patience(slot);
        for seq in lost {
            self.slots[slot].figures.nacks += 1;
            match self.resend_one(now, slot, seq, patience, counters) {
                Ok(()) => {}
                Err(Refusal::Unknown | Refusal::NoRoom) if self.owe(slot, seq) => {}
                // Too old, or asked for a moment ago.
                Err(_) => counters.drop_retransmission += 1,
            }
        }
    }

    /// How long a slot's receiver has to wait between a packet and another of it.
    pub(super) fn patience(&self, slot: usize) -> Patience {
        Patience::of(self.bandwidth.rtt(), self.slots[slot].has_transport_cc())
    }

    /// Takes transport-wide feedback: for the estimate, and for the retransmissions that were lost too. A slot that
    /// cannot be given what it lacks is returned: only a key frame helps.
    pub(crate) fn on_transport_cc(
        &mut self,
        now: Instant,
        feedback: &TransportCc<'_>,
        counters: &mut Counters,
    ) -> Option<usize> {
        self.bandwidth.on_transport_cc(now, feedback);
        if self.lost_again.is_empty() {
            return None;
        }
        let mut lost = Vec::new();
        self.lost_again.judge(feedback.statuses().map(|(seq, delta)| (seq, delta.is_some())), &mut lost);
        let mut hopeless = None;
        for packet in lost {
            let slot = usize::from(packet.slot);
            if packet.seq < self.slots[slot].decodable_from {
                continue;
            }
            // No wait: that it was lost is known.
            match self.resend_one(now, slot, packet.seq.seq_no(), Patience::NONE, counters) {
                Ok(()) => counters.tx_unasked_retransmissions += 1,
                Err(Refusal::TooSoon | Refusal::NoRoom) => {}
                Err(_) => {
                    counters.drop_retransmission += 1;
                    hopeless = (self.slots[slot].kind == Kind::Video).then_some(slot).or(hopeless);
                }
            }
        }
        hopeless
    }

    /// Lets one packet wait for the next flush, and copies of it where the path loses much.
    pub(super) fn resend_one(
        &mut self,
        now: Instant,
        slot: usize,
        seq: SeqNo,
        patience: Patience,
        counters: &mut Counters,
    ) -> Result<(), Refusal> {
        if self.resends.len() >= MAX_RESENDS || self.resend_credit < MAX_PACKET {
            return Err(Refusal::NoRoom);
        }
        let entry = &mut self.slots[slot];
        let (Some(history), Some(carried)) = (&mut entry.history, &entry.carried) else { return Err(Refusal::Unknown) };
        let record = history.claim_resend(now, seq, patience)?;
        self.resend_credit -= usize::from(record.size);
        let has_rtx = carried.format.rtx_pt.is_some();
        let outgoing = Outgoing::again(Class::Resend, slot as u16, carried.track, has_rtx, &record);
        self.resends.push(outgoing);
        if record.resends == 1 {
            entry.protection.note_asked();
            entry.loss.on_asked();
        }
        entry.loss.update(entry.figures.packets);
        let copies = entry.loss.copies(self.bandwidth.spare_share(), self.bandwidth.rtt());
        // Nobody would tell that it was lost too, and some clients (aiortc) ask once only.
        let is_alone = entry.kind == Kind::Video && !entry.has_transport_cc();
        if is_alone && copies < 2 {
            self.copies.add_late(now, record.size, &mut self.resend_credit, outgoing);
        }
        counters.tx_doubled_retransmissions +=
            self.copies.add(now, copies, record.size, &mut self.resend_credit, outgoing);
        Ok(())
    }

    /// Takes retransmissions as far as the budget goes, and returns what is left of it. While room is short, what a key
    /// frame has made useless goes without its content: after a fall, the packets lost of the old layer would keep the new
    /// one out.
    pub(super) fn admit_resends(&mut self, cx: &mut FlushContext<'_>) -> usize {
        let mut budget = self.bandwidth.media_budget(cx.now);
        let is_full = self.bandwidth.is_draining();
        let Self { resends, slots, owed, .. } = self;
        resends.retain(|resend| {
            let slot = &slots[usize::from(resend.slot)];
            let is_video = slot.kind == Kind::Video;
            let is_short = is_full || slot.loss.share() > repair::LITTLE_LOSS;
            if is_video && is_short && resend.rewritten.seq < slot.decodable_from {
                let is_noted = holes::note(owed, SlotPacket { slot: resend.slot, seq: resend.rewritten.seq });
                cx.counters.drop_retransmission += u64::from(!is_noted);
                return false;
            }
            if is_video && budget == 0 {
                return true;
            }
            budget = budget.saturating_sub(usize::from(resend.size));
            cx.ready.push(*resend);
            false
        });
        budget
    }
}

/// The packets before one of sound, to be sent again with it, oldest first.
pub(super) fn earlier_again(slot: &Slot, index: u16, newest: &Outgoing) -> impl Iterator<Item = Outgoing> {
    let before = move |back: u8| {
        let seq = newest.rewritten.seq.0.checked_sub(back.into())?;
        let record = slot.history.as_ref()?.get(ExtSeq(seq))?;
        Some(Outgoing::again(Class::Copy, index, newest.track, slot.rtx().is_some(), record))
    };
    (1..=slot.protection.level()).rev().filter_map(before)
}

/// Takes what the credit for unbidden and repeated packets allows.
pub(super) fn push_within(copies: impl Iterator<Item = Outgoing>, credit: &mut usize, ready: &mut Vec<Outgoing>) {
    for copy in copies {
        let Some(rest) = credit.checked_sub(copy.size.into()) else { return };
        *credit = rest;
        ready.push(copy);
    }
}
