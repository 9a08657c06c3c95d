//! Builds repair packets (FlexFEC) from what a slot sent: its packets are written anew from the layers' rings.

use mrtc_rtp::header::FIXED_HEADER_LEN;
use mrtc_rtp::srtp::Outbound;
use slab::Slab;

use super::seal::{Body, Head, seal, write};
use super::tx::{FlushContext, TransportTx, stamp};
use crate::addr::Dest;
use crate::bwe::PacketClass;
use crate::fec::{FecSender, Group};
use crate::outbox::Outbox;
use crate::rtp_rewriter::Patch;
use crate::slot::Slot;
use crate::slot_exts::SlotExtValues;
use crate::track::Track;

/// A repair is longer than the longest packet that it covers. Without SRTP, UDP and IP; a path of 1,500 bytes passes it.
const MAX_LEN: usize = 1_400;

impl TransportTx {
    /// Sends the repair packets of the groups that are complete.
    pub(super) fn send_repairs(
        &mut self,
        path: Dest,
        srtp: &Outbound,
        cx: &mut FlushContext<'_>,
        out: &mut impl Outbox,
    ) {
        for (index, group) in std::mem::take(&mut self.repairs) {
            let slot = &mut self.slots[usize::from(index)];
            let (Some(mut fec), Some((ssrc, pt))) = (slot.fec.take(), slot.fec_stream()) else { continue };
            for at in 0..sum_up(&mut fec, slot, cx.tracks, group) {
                let slot = &mut self.slots[usize::from(index)];
                fec.scratch.clear();
                fec.sums[at].write(slot.source.ssrc, group.first.seq_no(), &mut fec.scratch);
                let seq = slot.next_fec_seq();
                let head = Head { pt, ssrc, seq, timestamp: slot.forwarder.newest_timestamp(), marker: false };
                let transport_cc = slot.has_transport_cc().then_some(self.transport_cc);
                let values = SlotExtValues { stamp: stamp(transport_cc, cx.now, self.epoch), ..slot.exts_of_padding() };
                let exts = slot.exts();
                let body = Body { exts, values, osn: None, payload: &fec.scratch, patch: Patch::None, padding: 0 };
                let size = FIXED_HEADER_LEN + exts.len(&body.values) + fec.scratch.len() + srtp.rtp_overhead();
                let len = seal(srtp, &head, &body, self.tap.as_deref(), out.reserve(size));
                out.commit(path, len, len);
                cx.counters.tx_repair_packets += 1;
                cx.counters.tx_runs += 1;
                self.note_sent(len, transport_cc, PacketClass::Media, cx);
            }
            self.slots[usize::from(index)].fec = Some(fec);
        }
    }
}

/// Sums up a group; returns how many repairs it got: none if too little of it is left, or if they would be too long.
fn sum_up(fec: &mut FecSender, slot: &Slot, tracks: &Slab<Track>, group: Group) -> usize {
    let (Some(history), Some(carried)) = (&slot.history, &slot.carried) else { return 0 };
    let Some(track) = tracks.get(carried.track.index()) else { return 0 };
    fec.records.clear();
    fec.records.extend(history.range(group.first, group.last));
    let repairs = group.repairs.min(fec.records.len());
    if repairs == 0 {
        return 0;
    }
    fec.begin(repairs);
    let records = std::mem::take(&mut fec.records);
    for (index, record) in records.iter().enumerate() {
        let Some(packet) = track.packet(record.layer, record.source_seq) else { continue };
        let rewritten = &record.rewritten;
        let head = Head {
            pt: carried.format.pt,
            ssrc: slot.source.ssrc,
            seq: rewritten.seq,
            timestamp: rewritten.timestamp,
            marker: rewritten.marker,
        };
        // What tells of the sending counts as zeros: see `mrtc_rtp::flexfec`.
        let values = SlotExtValues { stamp: 0, ..slot.exts_of(rewritten, packet) };
        let exts = slot.exts();
        let body = Body { exts, values, osn: None, payload: packet.payload(), patch: rewritten.patch, padding: 0 };
        fec.scratch.resize(FIXED_HEADER_LEN + exts.len(&body.values) + packet.payload().len(), 0);
        write(&head, &body, &mut fec.scratch);
        fec.add(index, (rewritten.seq.0 - group.first.0) as usize, repairs);
    }
    fec.records = records;
    let header = FIXED_HEADER_LEN + slot.exts().len(&slot.exts_of_padding());
    let is_short = fec.sums[..repairs].iter().all(|sum| header + sum.len() <= MAX_LEN);
    if is_short { repairs } else { 0 }
}
