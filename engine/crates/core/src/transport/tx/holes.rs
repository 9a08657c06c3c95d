//! Numbers that a client asks for and cannot get: of packets that were lost on their way here or are of another source
//! than what its slot carries now. Once a key frame has made such a packet useless it is answered by an empty one, and no
//! hole is left. A browser does without, but aiortc waits for each number until 512 newer ones have come: 16 s.
//!
//! Only on a retransmission stream: under the media's own number something else might have been sealed.

use mrtc_rtp::header::FIXED_HEADER_LEN;
use mrtc_rtp::id::{ExtSeq, SeqNo};
use mrtc_rtp::srtp::Outbound;

use super::super::lost_again::SlotPacket;
use super::super::seal::{Body, Head, OSN_LEN, seal};
use super::emit::stamp;
use super::{FlushContext, TransportTx};
use crate::addr::Dest;
use crate::bwe::PacketClass;
use crate::command::Kind;
use crate::outbox::Outbox;
use crate::rtp_rewriter::Patch;
use crate::send_history::Refusal;
use crate::slot::Slot;
use crate::slot_exts::SlotExtValues;

/// Numbers that are remembered; later ones may be asked for again.
const MAX_OWED: usize = 512;
/// How far behind the newest number a client may ask.
const MAX_BEHIND: u64 = 1024;

/// What becomes of a number that is owed.
enum Fate {
    /// It may still come, or its room may.
    Open,
    /// It was sent meanwhile, or nobody waits for it.
    Settled,
    /// It can be sent again after all.
    Again,
    /// An empty packet ends the waiting.
    Empty(Head),
}

/// Remembers a number. False if there is no room for it.
pub(super) fn note(owed: &mut Vec<SlotPacket>, packet: SlotPacket) -> bool {
    let has_room = owed.len() < MAX_OWED;
    if has_room && !owed.contains(&packet) {
        owed.push(packet);
    }
    has_room
}

impl TransportTx {
    /// Remembers that a client asked for a number that cannot be sent now. False if there is no such number, or no room.
    pub(super) fn owe(&mut self, index: usize, seq: SeqNo) -> bool {
        let slot = &self.slots[index];
        let newest = slot.forwarder.rewriter().newest_seq();
        let behind = u64::try_from(newest.seq_no().distance(seq)).ok().filter(|behind| *behind <= MAX_BEHIND);
        let number = behind.and_then(|behind| newest.0.checked_sub(behind)).map(ExtSeq);
        let Some(seq) =
            number.filter(|n| slot.kind == Kind::Video && slot.source.rtx.is_some() && *n >= slot.first_seq())
        else {
            return false;
        };
        note(&mut self.owed, SlotPacket { slot: index as u16, seq })
    }

    /// Answers what is owed and can be answered now.
    pub(super) fn close_holes(
        &mut self,
        path: Dest,
        srtp: &Outbound,
        cx: &mut FlushContext<'_>,
        out: &mut impl Outbox,
    ) {
        let mut owed = std::mem::take(&mut self.owed);
        owed.retain(|hole| match fate(self.slots.get_mut(usize::from(hole.slot)), hole.seq, self.resend_credit) {
            Fate::Open => true,
            Fate::Settled => false,
            Fate::Again => {
                let patience = self.patience(hole.slot.into());
                let answer = self.resend_one(cx.now, hole.slot.into(), hole.seq.seq_no(), patience, cx.counters);
                matches!(answer, Err(Refusal::NoRoom))
            }
            Fate::Empty(head) => {
                self.send_empty(hole, &head, path, srtp, cx, out);
                false
            }
        });
        self.owed = owed;
    }

    fn send_empty(
        &mut self,
        hole: &SlotPacket,
        head: &Head,
        path: Dest,
        srtp: &Outbound,
        cx: &mut FlushContext<'_>,
        out: &mut impl Outbox,
    ) {
        let slot = &self.slots[usize::from(hole.slot)];
        let transport_cc = slot.has_transport_cc().then_some(self.transport_cc);
        let values = SlotExtValues { stamp: stamp(transport_cc, cx.now, self.epoch), ..slot.exts_of_padding() };
        let exts = slot.exts();
        let osn = Some(hole.seq.seq_no());
        let body = Body { exts, values, osn, payload: &[], patch: Patch::None, padding: 0 };
        let size = FIXED_HEADER_LEN + exts.len(&body.values) + OSN_LEN + srtp.rtp_overhead();
        let len = seal(srtp, head, &body, self.tap.as_deref(), out.reserve(size));
        out.commit(path, len, len);
        self.resend_credit = self.resend_credit.saturating_sub(len);
        cx.counters.tx_closed_holes += 1;
        cx.counters.tx_runs += 1;
        self.note_sent(len, transport_cc, PacketClass::Media, cx);
    }
}

fn fate(slot: Option<&mut Slot>, seq: ExtSeq, credit: usize) -> Fate {
    let Some(slot) = slot else { return Fate::Settled };
    let Some((ssrc, pt)) = slot.rtx() else { return Fate::Open };
    let rewriter = slot.forwarder.rewriter();
    let useless_before = rewriter.begins_at().max(slot.decodable_from);
    if slot.history.as_ref().is_some_and(|h| h.get(seq).is_some()) && seq >= slot.decodable_from {
        return Fate::Again;
    }
    if seq >= useless_before || credit == 0 {
        return Fate::Open;
    }
    // As its neighbours: a timestamp of its own would make a picture of it.
    let Some(timestamp) = slot.history.as_ref().and_then(|h| h.timestamp_near(seq)) else { return Fate::Settled };
    Fate::Empty(Head { pt, ssrc, seq: slot.next_rtx_seq(), timestamp, marker: false })
}
