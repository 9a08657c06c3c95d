//! Runs of packets, sealed into lent memory, and the books on what was sent.

use std::time::Instant;

use mrtc_rtp::id::SeqNo;
use mrtc_rtp::srtp::Outbound;
use slab::Slab;

use super::super::lost_again::SlotPacket;
use super::super::protect;
use super::super::seal::{Body, Head, abs_send_time, seal};
use super::outgoing::{Class, Outgoing};
use super::{FlushContext, TransportTx};
use crate::addr::Dest;
use crate::bwe::PacketClass;
use crate::fec::Worth;
use crate::outbox::Outbox;
use crate::packet::Packet;
use crate::runs::{Segment, is_paddable, plan_run};
use crate::send_history::SendRecord;
use crate::slot_exts::SlotExtValues;
use crate::track::Track;

/// Bytes of retransmissions that may be owed. Each byte of media earns one, so a client that asks for everything again
/// gets at most twice the traffic, and one at 40 % loss still gets what it lacks.
const MAX_RESEND_CREDIT: usize = 512 * 1024;

/// A packet that was sealed.
struct Sealed {
    len: usize,
    /// Of it.
    padding: usize,
    /// Of it, without padding.
    payload_len: usize,
    /// As in [`SendRecord`].
    stamp: u32,
    transport_cc: Option<u16>,
}

impl TransportTx {
    /// Sends what is ready in as few runs as may be.
    pub(super) fn send_ready(&mut self, path: Dest, srtp: &Outbound, cx: &mut FlushContext<'_>, out: &mut impl Outbox) {
        let ready = std::mem::take(cx.ready);
        let mut rest = &ready[..];
        while !rest.is_empty() {
            let run = plan_run(rest.iter().map(|o| Segment {
                size: usize::from(o.size),
                is_paddable: self.slots[usize::from(o.slot)].is_paddable(),
            }));
            let (now_sent, later) = rest.split_at(run.count);
            rest = later;
            let buf = out.reserve(run.count * run.segment_size);
            let mut at = 0;
            for (index, outgoing) in now_sent.iter().enumerate() {
                let is_last = index + 1 == run.count;
                let padding = self.padding_of(outgoing, run.segment_size, is_last);
                at += self.send_one(srtp, outgoing, padding, &mut buf[at..], cx);
            }
            if at > 0 {
                if let Some(arrived_at) = oldest_arrival(now_sent, cx.tracks) {
                    out.note_arrival(arrived_at);
                }
                out.commit(path, at, run.segment_size);
                cx.counters.tx_runs += 1;
            }
        }
        *cx.ready = ready;
    }

    /// Fills a packet up to the run's segment size; the last one may stay short.
    fn padding_of(&self, outgoing: &Outgoing, segment_size: usize, is_last: bool) -> usize {
        let size = usize::from(outgoing.size);
        let may_pad = self.slots[usize::from(outgoing.slot)].is_paddable() && is_paddable(size, segment_size);
        if !may_pad && is_last { 0 } else { segment_size - size }
    }

    /// Seals one packet to the front of `buf`, enters it and returns its length; zero if its track has let it go.
    fn send_one(
        &mut self,
        srtp: &Outbound,
        out: &Outgoing,
        padding: usize,
        buf: &mut [u8],
        cx: &mut FlushContext<'_>,
    ) -> usize {
        let track = cx.tracks.get(out.track.index());
        let Some(source) = track.and_then(|t| Some((t, t.packet(out.layer, out.source_seq)?.as_ref()))) else {
            cx.counters.drop_evicted += 1;
            return 0;
        };
        let Some(sealed) = self.seal(srtp, out, source, padding, buf, cx) else { return 0 };
        match out.class {
            Class::Media => self.note_media(out, source.1, &sealed, cx),
            Class::Resend => self.note_resend(out, sealed.transport_cc, cx),
            Class::Copy => cx.counters.tx_audio_copies += 1,
            Class::Probe => {}
        }
        let class = if out.class == Class::Probe { PacketClass::Padding } else { PacketClass::Media };
        self.note_sent(sealed.len, sealed.transport_cc, class, cx);
        sealed.len
    }

    fn seal(
        &mut self,
        srtp: &Outbound,
        out: &Outgoing,
        (track, packet): (&Track, &Packet),
        padding: usize,
        buf: &mut [u8],
        cx: &mut FlushContext<'_>,
    ) -> Option<Sealed> {
        let slot = &mut self.slots[usize::from(out.slot)];
        let format = slot.carried.as_ref()?.format;
        let rtx = if out.class == Class::Media { None } else { slot.rtx() };
        let is_as_it_was = out.class != Class::Media && rtx.is_none();
        let transport_cc = (slot.has_transport_cc() && !is_as_it_was).then_some(self.transport_cc);
        let stamp = if is_as_it_was { out.stamp } else { stamp(transport_cc, cx.now, self.epoch) };
        let rewritten = &out.rewritten;
        let (pt, ssrc, seq) = match rtx {
            Some((ssrc, pt)) => (pt, ssrc, slot.next_rtx_seq()),
            None => (format.pt, slot.source.ssrc, rewritten.seq),
        };
        let (pt, payload) = match format.red_pt.filter(|_| out.earlier > 0) {
            Some(red_pt) => {
                if !protect::write(track, packet, out.earlier, format.pt, cx.payload) {
                    return None;
                }
                cx.counters.tx_red_packets += 1;
                (red_pt, &cx.payload[..])
            }
            None => (pt, packet.payload()),
        };
        let values = SlotExtValues { stamp, ..slot.exts_of(rewritten, packet) };
        let head = Head { pt, ssrc, seq, timestamp: rewritten.timestamp, marker: rewritten.marker };
        let osn = rtx.map(|_| rewritten.seq.seq_no());
        let body = Body { exts: slot.exts(), values, osn, payload, patch: rewritten.patch, padding };
        let len = seal(srtp, &head, &body, self.tap.as_deref(), buf);
        Some(Sealed { len, padding, payload_len: payload.len(), stamp, transport_cc })
    }

    /// Remembers a packet that was sent for the first time.
    fn note_media(&mut self, out: &Outgoing, packet: &Packet, sealed: &Sealed, cx: &mut FlushContext<'_>) {
        let slot = &mut self.slots[usize::from(out.slot)];
        let rewritten = &out.rewritten;
        let size = (sealed.len - sealed.padding) as u16;
        let record =
            SendRecord::new(out.layer, out.source_seq, *rewritten, size, sealed.stamp).with_earlier(out.earlier);
        let is_late = slot.note_sent(cx.now, record, sealed.payload_len);
        if let Some(fec) = &mut slot.fec
            && !is_late
            && let Some(group) = fec.on_sent(rewritten.seq, rewritten.marker, Worth::of(&packet.info))
        {
            self.repairs.push((out.slot, group));
        }
        if is_late {
            // Its receiver waits for it as for a retransmission.
            let again = Outgoing::again(Class::Resend, out.slot, out.track, slot.rtx().is_some(), &record);
            let copies = slot.loss.copies(self.bandwidth.spare_share(), self.bandwidth.rtt());
            cx.counters.tx_doubled_retransmissions +=
                self.copies.add(cx.now, copies, size, &mut self.resend_credit, again);
            self.note_repair(out, sealed.transport_cc);
        }
        self.resend_credit = (self.resend_credit + sealed.len).min(MAX_RESEND_CREDIT);
    }

    fn note_resend(&mut self, out: &Outgoing, transport_cc: Option<u16>, cx: &mut FlushContext<'_>) {
        self.slots[usize::from(out.slot)].figures.retransmissions += 1;
        cx.counters.tx_retransmissions += 1;
        self.note_repair(out, transport_cc);
    }

    /// If feedback tells that it was lost too, it goes again.
    fn note_repair(&mut self, out: &Outgoing, transport_cc: Option<u16>) {
        if let Some(number) = transport_cc {
            self.lost_again.on_sent(SeqNo(number), SlotPacket { slot: out.slot, seq: out.rewritten.seq });
        }
    }

    /// Counts a packet of RTP of whatever kind, and uses up its transport-wide number.
    pub(in crate::transport) fn note_sent(
        &mut self,
        len: usize,
        transport_cc: Option<u16>,
        class: PacketClass,
        cx: &mut FlushContext<'_>,
    ) {
        if transport_cc.is_some() {
            self.transport_cc = self.transport_cc.wrapping_add(1);
        }
        self.bandwidth.on_packet_sent(cx.now, transport_cc, len, class);
        self.bytes += len as u64;
        self.packets += 1;
        cx.counters.tx_rtp_packets += 1;
        cx.counters.tx_bytes += len as u64;
    }
}

/// When the first packet of a run came that is sent for the first time; a run's packets come in order.
fn oldest_arrival(run: &[Outgoing], tracks: &Slab<Track>) -> Option<Instant> {
    let first = run.iter().find(|o| o.class == Class::Media)?;
    let packet = tracks.get(first.track.index())?.packet(first.layer, first.source_seq)?;
    Some(packet.arrived_at)
}

/// What a packet carries to tell its sending: its transport-wide number, or when it goes.
pub(in crate::transport) fn stamp(transport_cc: Option<u16>, now: Instant, epoch: Instant) -> u32 {
    transport_cc.map_or_else(|| abs_send_time(now.saturating_duration_since(epoch)), u32::from)
}
