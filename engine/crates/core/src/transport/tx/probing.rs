//! Probes for bandwidth: recent packets again, or padding.

use mrtc_rtp::header::FIXED_HEADER_LEN;
use mrtc_rtp::srtp::Outbound;

use super::super::seal::{Body, Head, OSN_LEN, seal};
use super::emit::stamp;
use super::outgoing::{Class, Outgoing};
use super::{FlushContext, TransportTx};
use crate::addr::Dest;
use crate::bwe::PacketClass;
use crate::command::Kind;
use crate::outbox::Outbox;
use crate::rtp_rewriter::Patch;
use crate::slot::Slot;
use crate::slot_exts::SlotExtValues;

/// Packets of one flush that probe for bandwidth: a probe is spread over time anyway.
const MAX_PROBE_PACKETS: usize = 16;
/// Bytes of a packet of padding: RFC 3550 5.1 counts them in one octet.
const PADDING_LEN: usize = 255;

impl TransportTx {
    /// Repeats recent packets as far as a running probe asks for.
    pub(super) fn gather_probe(&mut self, cx: &mut FlushContext<'_>) {
        cx.ready.clear();
        let mut budget = self.bandwidth.padding_budget(cx.now);
        if budget == 0 {
            return;
        }
        for (index, slot) in self.slots.iter().enumerate() {
            let (Some(history), Some(carried)) = (&slot.history, &slot.carried) else { continue };
            if slot.kind != Kind::Video || carried.format.rtx_pt.is_none() {
                continue;
            }
            for record in history.recent(MAX_PROBE_PACKETS) {
                if budget == 0 || cx.ready.len() == MAX_PROBE_PACKETS {
                    return;
                }
                budget = budget.saturating_sub(usize::from(record.size) + OSN_LEN);
                cx.ready.push(Outgoing::again(Class::Probe, index as u16, carried.track, true, record));
            }
        }
    }

    /// What a probe still lacks, as packets of padding: on a retransmission stream, or, of a client that takes none,
    /// between two pictures.
    pub(super) fn send_padding(
        &mut self,
        path: Dest,
        srtp: &Outbound,
        cx: &mut FlushContext<'_>,
        out: &mut impl Outbox,
    ) {
        for _ in 0..MAX_PROBE_PACKETS {
            if self.bandwidth.padding_budget(cx.now) < PADDING_LEN || !self.queue.is_empty() {
                return;
            }
            let Some((head, slot)) = self.slots.iter_mut().find_map(|slot| Some((padding_head(slot)?, slot))) else {
                return;
            };
            let transport_cc = slot.has_transport_cc().then_some(self.transport_cc);
            let values = SlotExtValues { stamp: stamp(transport_cc, cx.now, self.epoch), ..slot.exts_of_padding() };
            let exts = slot.exts();
            let body = Body { exts, values, osn: None, payload: &[], patch: Patch::None, padding: PADDING_LEN };
            let size = FIXED_HEADER_LEN + exts.len(&body.values) + PADDING_LEN + srtp.rtp_overhead();
            let len = seal(srtp, &head, &body, self.tap.as_deref(), out.reserve(size));
            out.commit(path, len, len);
            cx.counters.tx_padding_packets += 1;
            cx.counters.tx_runs += 1;
            self.note_sent(len, transport_cc, PacketClass::Padding, cx);
        }
    }
}

/// Number and stream of a packet of padding, if a slot can carry one now.
fn padding_head(slot: &mut Slot) -> Option<Head> {
    let (pt, ssrc, seq) = match slot.rtx() {
        Some((ssrc, pt)) => (pt, ssrc, slot.next_rtx_seq()),
        None if slot.kind == Kind::Video && slot.is_between_pictures => {
            (slot.carried.as_ref()?.format.pt, slot.source.ssrc, slot.forwarder.pad())
        }
        None => return None,
    };
    Some(Head { pt, ssrc, seq, timestamp: slot.forwarder.newest_timestamp(), marker: false })
}
