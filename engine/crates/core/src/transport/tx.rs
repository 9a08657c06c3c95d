//! The sending half of a transport: its slots' packets, in budget and in runs, sealed into lent memory.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mrtc_rtp::header::FIXED_HEADER_LEN;
use mrtc_rtp::id::{ExtSeq, SeqNo, Ssrc};
use mrtc_rtp::rtcp::TransportCc;
use mrtc_rtp::srtp::Outbound;
use slab::Slab;

use super::lost_again::{LostAgain, SlotPacket};
use super::protect;
use super::seal::{Body, Head, OSN_LEN, abs_send_time, seal};
use crate::addr::Dest;
use crate::bandwidth::Bandwidth;
use crate::bwe::PacketClass;
use crate::capture::TransportTap;
use crate::command::Kind;
use crate::counters::Counters;
use crate::event::SlotContent;
use crate::fec::{Group, Worth};
use crate::keys::TrackKey;
use crate::outbox::Outbox;
use crate::repair::Copies;
use crate::rtp_rewriter::{Patch, Rewritten};
use crate::runs::{Segment, is_paddable, plan_run};
use crate::send_history::{Refusal, SendRecord};
use crate::slot::Slot;
use crate::slot_exts::SlotExtValues;
use crate::track::Track;

/// STUN and DTLS datagrams that wait for a flush. A handshake flight is a handful.
const MAX_CONTROL: usize = 64;
/// Sealed RTCP datagrams that wait for a flush.
const MAX_RTCP: usize = 64;
/// Retransmissions that wait for a flush.
const MAX_RESENDS: usize = 512;
/// Bytes of retransmissions that may be owed. Each byte of media earns one, so a client that asks for everything again
/// gets at most twice the traffic, and one at 40 % loss still gets what it lacks.
const MAX_RESEND_CREDIT: usize = 512 * 1024;
/// What a transport may ask for again before it was sent anything.
const START_RESEND_CREDIT: usize = 64 * 1024;
/// Packets of one flush that probe for bandwidth: a probe is spread over time anyway.
const MAX_PROBE_PACKETS: usize = 16;
/// No packet that is sent again is larger.
const MAX_PACKET: usize = 1_500;
/// Bytes of a packet of padding: RFC 3550 5.1 counts them in one octet.
const PADDING_LEN: usize = 255;

/// What an outgoing packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// For the first time.
    Media,
    /// The receiver asked for it again.
    Resend,
    /// Sound at heavy loss: again before it is asked for.
    Copy,
    /// Nobody asked: it probes for bandwidth.
    Probe,
}

/// A packet that was numbered and waits to be sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outgoing {
    class: Class,
    slot: u16,
    layer: u8,
    /// As in [`SendRecord`].
    earlier: u8,
    /// As sealed, without padding.
    size: u16,
    /// As in [`SendRecord`]; only of a packet that is sent again as it was.
    stamp: u32,
    track: TrackKey,
    source_seq: ExtSeq,
    rewritten: Rewritten,
}

/// What a flush of one transport needs of its shard.
pub(crate) struct FlushContext<'a> {
    pub(crate) now: Instant,
    pub(crate) tracks: &'a Slab<Track>,
    /// Reused from transport to transport.
    pub(crate) ready: &'a mut Vec<Outgoing>,
    /// Layers of which a key frame is needed.
    pub(crate) keyframes: &'a mut Vec<(TrackKey, u8)>,
    /// For payloads that are put together.
    pub(crate) payload: &'a mut Vec<u8>,
    pub(crate) counters: &'a mut Counters,
}

/// The sending half.
#[derive(Debug)]
pub(crate) struct TransportTx {
    pub(crate) slots: Vec<Slot>,
    /// Slots whose tracks have packets in this flush.
    pub(crate) due: Vec<u16>,
    pub(crate) bandwidth: Bandwidth,
    /// Local time zero of the absolute send time.
    pub(super) epoch: Instant,
    srtp: Option<Outbound>,
    control: VecDeque<(Dest, Vec<u8>)>,
    rtcp: Vec<Vec<u8>>,
    resends: Vec<Outgoing>,
    copies: Copies<Outgoing>,
    lost_again: LostAgain,
    /// Groups of slots that are complete and have no repair packets yet.
    pub(super) repairs: Vec<(u16, Group)>,
    queue: VecDeque<Outgoing>,
    queue_bytes: usize,
    resend_credit: usize,
    pub(super) transport_cc: u16,
    pub(crate) bytes: u64,
    pub(crate) packets: u64,
    /// What was dropped since the last flush, where nobody counts.
    dropped: Dropped,
    /// Set while packets are copied for a capture.
    pub(crate) tap: Option<Box<TransportTap>>,
}

/// Drops between two flushes.
#[derive(Clone, Copy, Debug, Default)]
struct Dropped {
    control: u64,
    slot_change: u64,
}

impl TransportTx {
    pub(crate) fn new(now: Instant, epoch: Instant, max_egress_bps: Option<u64>) -> Self {
        Self {
            slots: Vec::new(),
            due: Vec::new(),
            bandwidth: Bandwidth::new(now, max_egress_bps),
            epoch,
            srtp: None,
            control: VecDeque::new(),
            rtcp: Vec::new(),
            resends: Vec::new(),
            copies: Copies::default(),
            lost_again: LostAgain::default(),
            repairs: Vec::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            resend_credit: START_RESEND_CREDIT,
            transport_cc: 0,
            bytes: 0,
            packets: 0,
            dropped: Dropped::default(),
            tap: None,
        }
    }

    pub(crate) fn set_srtp(&mut self, srtp: Outbound) {
        self.srtp = Some(srtp);
    }

    /// True once media can be sent.
    pub(crate) fn is_ready(&self) -> bool {
        self.srtp.is_some()
    }

    /// Queues a STUN or DTLS datagram.
    pub(crate) fn push_control(&mut self, dest: Dest, bytes: Vec<u8>) {
        if self.control.len() < MAX_CONTROL {
            self.control.push_back((dest, bytes));
        } else {
            self.dropped.control += 1;
        }
    }

    /// What waits of STUN and DTLS, when the transport ends.
    pub(crate) fn take_control(&mut self) -> Vec<(Dest, Vec<u8>)> {
        self.control.drain(..).collect()
    }

    /// Seals and queues a compound RTCP packet.
    pub(crate) fn push_rtcp(&mut self, mut plain: Vec<u8>) {
        let has_room = self.rtcp.len() < MAX_RTCP;
        let copy = self.tap.as_ref().map(|_| plain.clone());
        let is_sealed = self.srtp.as_mut().is_some_and(|srtp| has_room && srtp.seal_rtcp(&mut plain).is_ok());
        if is_sealed {
            self.rtcp.push(plain);
            if let (Some(tap), Some(copy)) = (&mut self.tap, copy) {
                tap.queued_rtcp(copy);
            }
        } else {
            self.dropped.control += 1;
        }
    }

    /// True if something waits that no track's packets will bring along.
    pub(crate) fn has_waiting(&self) -> bool {
        !(self.control.is_empty() && self.rtcp.is_empty() && self.resends.is_empty())
    }

    /// When something waits for budget or a probe goes on.
    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let is_waiting = !(self.queue.is_empty() && self.resends.is_empty());
        let media = is_waiting.then(|| self.bandwidth.next_media_at().unwrap_or(now));
        [media, self.bandwidth.next_probe_at(now), self.copies.next_at()].into_iter().flatten().min()
    }

    /// Bytes that SRTP adds to a packet; zero before there are keys.
    pub(crate) fn rtp_overhead(&self) -> usize {
        self.srtp.as_ref().map_or(0, Outbound::rtp_overhead)
    }

    /// Bytes of pictures that wait for budget.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.queue_bytes
    }

    /// What repair of the pictures takes beside them, as a share of them.
    pub(crate) fn repair_cost(&self) -> f64 {
        let pictures = self.slots.iter().filter(|s| s.kind == Kind::Video && s.carried.is_some());
        pictures.map(|s| s.loss.cost()).fold(0.0, f64::max)
    }

    /// What the slots carry.
    pub(crate) fn carried(&self) -> Vec<SlotContent> {
        let track = |s: &Slot| s.carried.as_ref().map(|c| c.wanted.track.clone());
        self.slots.iter().map(|s| (s.mid.to_string(), s.kind, track(s))).collect()
    }

    /// How many earlier packets of sound the path has room for beside the pictures, which it has half of: with each the
    /// sound takes about once more what it takes anyway. Without pictures as many as may be.
    pub(crate) fn most_protection(&self) -> u8 {
        const SOUND_BPS: u64 = 40_000;
        let is_carried = |kind: Kind| self.slots.iter().filter(move |s| s.kind == kind && s.carried.is_some()).count();
        if is_carried(Kind::Video) == 0 {
            return u8::MAX;
        }
        let sounds = is_carried(Kind::Audio).max(1) as u64;
        (self.bandwidth.estimate_bps() / 2 / SOUND_BPS / sounds).clamp(1, u64::from(u8::MAX)) as u8
    }

    pub(crate) fn slot_of(&self, ssrc: Ssrc) -> Option<usize> {
        self.slots.iter().position(|s| s.is_of(ssrc))
    }

    /// Drops what waits of a slot: its track changes.
    pub(crate) fn forget_slot(&mut self, slot: usize) {
        let slot = slot as u16;
        self.resends.retain(|o| o.slot != slot);
        self.copies.retain(|o| o.slot != slot);
        self.lost_again.forget_slot(slot);
        self.repairs.retain(|(s, _)| *s != slot);
        let before = self.queue.len();
        self.queue.retain(|o| o.slot != slot);
        self.dropped.slot_change += (before - self.queue.len()) as u64;
        self.queue_bytes = self.queue.iter().map(|o| usize::from(o.size)).sum();
    }

    /// Answers a NACK: what can be sent again waits for the next flush.
    pub(crate) fn resend(
        &mut self,
        now: Instant,
        slot: usize,
        lost: impl Iterator<Item = SeqNo>,
        counters: &mut Counters,
    ) {
        let rtt = self.bandwidth.rtt();
        for seq in lost {
            self.slots[slot].figures.nacks += 1;
            // Too old, asked for a moment ago, or over what may be owed.
            if self.resend_one(now, slot, seq, rtt, counters).is_err() {
                counters.drop_retransmission += 1;
            }
        }
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
            match self.resend_one(now, slot, packet.seq.seq_no(), Duration::ZERO, counters) {
                Ok(()) => counters.tx_unasked_retransmissions += 1,
                Err(Refusal::TooSoon) => {}
                Err(_) => {
                    counters.drop_retransmission += 1;
                    hopeless = (self.slots[slot].kind == Kind::Video).then_some(slot).or(hopeless);
                }
            }
        }
        hopeless
    }

    /// Lets one packet wait for the next flush, and copies of it where the path loses much.
    fn resend_one(
        &mut self,
        now: Instant,
        slot: usize,
        seq: SeqNo,
        patience: Duration,
        counters: &mut Counters,
    ) -> Result<(), Refusal> {
        if self.resends.len() >= MAX_RESENDS || self.resend_credit < MAX_PACKET {
            // As if it had been asked for a moment ago: it may be asked for again.
            return Err(Refusal::TooSoon);
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
        counters.tx_doubled_retransmissions +=
            self.copies.add(now, copies, record.size, &mut self.resend_credit, outgoing);
        Ok(())
    }

    /// Sends all that is due to the client.
    pub(crate) fn flush(&mut self, path: Option<Dest>, cx: &mut FlushContext<'_>, out: &mut impl Outbox) {
        for (dest, datagram) in self.control.drain(..) {
            send_datagram(dest, &datagram, cx.counters, out);
        }
        let dropped = std::mem::take(&mut self.dropped);
        cx.counters.drop_control_queue += dropped.control;
        cx.counters.drop_slot_change += dropped.slot_change;
        let (Some(path), true) = (path, self.is_ready()) else { return self.drop_due(cx) };
        let Some(srtp) = self.srtp.take() else { return };
        if let Some(tap) = &mut self.tap {
            tap.begin_flush(cx.now, path);
        }
        for datagram in self.rtcp.drain(..) {
            self.bytes += datagram.len() as u64;
            send_datagram(path, &datagram, cx.counters, out);
        }
        cx.ready.clear();
        cx.ready.extend(std::iter::from_fn(|| self.copies.pop(cx.now)));
        self.gather(cx, srtp.rtp_overhead());
        let budget = self.admit_resends(cx);
        self.admit(budget, cx);
        self.send_ready(path, &srtp, cx, out);
        if !self.repairs.is_empty() {
            self.send_repairs(path, &srtp, cx, out);
        }
        self.gather_probe(cx);
        self.send_ready(path, &srtp, cx, out);
        self.send_padding(path, &srtp, cx, out);
        self.srtp = Some(srtp);
    }

    /// The client cannot be reached yet: what is due now will be too old when it can.
    fn drop_due(&mut self, cx: &mut FlushContext<'_>) {
        for slot in self.due.drain(..) {
            let carried = self.slots.get(usize::from(slot)).and_then(|s| s.carried.as_ref());
            let track = carried.and_then(|c| cx.tracks.get(c.track.index()));
            cx.counters.drop_not_connected += track.map_or(0, |t| t.pending.len() as u64);
        }
    }

    /// Lets each due slot's forwarder choose and number its packets.
    fn gather(&mut self, cx: &mut FlushContext<'_>, overhead: usize) {
        for index in self.due.drain(..) {
            let Some(slot) = self.slots.get_mut(usize::from(index)) else { continue };
            let Some(carried) = &slot.carried else { continue };
            let key = carried.track;
            let Some(track) = cx.tracks.get(key.index()) else { continue };
            slot.forwarder.set_live(track.live_mask(cx.now));
            let earlier = std::mem::take(&mut slot.takes_run_up).then(|| track.run_up(cx.now));
            for pending in earlier.into_iter().flatten().chain(track.pending.iter().copied()) {
                let Some(packet) = track.packet(pending.layer, pending.seq) else { continue };
                if packet.is_restart
                    && let Some(history) = &mut slot.history
                {
                    // The source's numbers begin anew: an old one must not find a new packet.
                    history.clear();
                }
                let Some(rewritten) = slot.forwarder.on_packet(key, track, packet) else { continue };
                if packet.info.is_keyframe && packet.info.is_frame_start && packet.info.spatial == 0 {
                    slot.decodable_from = rewritten.seq;
                }
                let exts = slot.exts().len(&slot.exts_of(&rewritten, packet));
                let mut size = FIXED_HEADER_LEN + exts + packet.payload().len() + overhead;
                let mut earlier = 0;
                if slot.protection.level() > 0 && carried.format.red_pt.is_some() {
                    let added;
                    (earlier, added) = protect::plan(slot, track, packet, size);
                    size += added;
                }
                let outgoing = Outgoing {
                    class: Class::Media,
                    slot: index,
                    layer: packet.layer,
                    earlier,
                    size: size as u16,
                    stamp: 0,
                    track: key,
                    source_seq: packet.seq,
                    rewritten,
                };
                if slot.kind == Kind::Audio {
                    cx.ready.push(outgoing);
                    if slot.protection.level() > 0 && carried.format.red_pt.is_none() {
                        let again = earlier_again(slot, index, &outgoing);
                        push_within(again, &mut self.resend_credit, cx.ready);
                    }
                } else {
                    self.queue_bytes += size;
                    self.queue.push_back(outgoing);
                }
            }
            if let Some(layer) = slot.forwarder.wants_keyframe() {
                cx.keyframes.push((key, layer));
            }
        }
    }

    /// Takes retransmissions as far as the budget goes, and returns what is left of it. What a key frame has made
    /// useless is dropped: after a fall of the path, the packets lost of the old layer would keep the new one out.
    fn admit_resends(&mut self, cx: &mut FlushContext<'_>) -> usize {
        let mut budget = self.bandwidth.media_budget(cx.now);
        let Self { resends, slots, .. } = self;
        resends.retain(|resend| {
            let slot = &slots[usize::from(resend.slot)];
            let is_video = slot.kind == Kind::Video;
            if is_video && resend.rewritten.seq < slot.decodable_from {
                cx.counters.drop_retransmission += 1;
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

    /// Takes video from the queue as far as the budget goes; what grows beyond bounds is given up.
    fn admit(&mut self, mut budget: usize, cx: &mut FlushContext<'_>) {
        while budget > 0
            && let Some(outgoing) = self.queue.pop_front()
        {
            budget = budget.saturating_sub(usize::from(outgoing.size));
            self.queue_bytes -= usize::from(outgoing.size);
            cx.ready.push(outgoing);
        }
        if self.queue_bytes <= self.bandwidth.max_queue_bytes() {
            return;
        }
        cx.counters.drop_pacer += self.queue.len() as u64;
        for outgoing in self.queue.drain(..) {
            if let Some(slot) = self.slots.get_mut(usize::from(outgoing.slot)) {
                slot.forwarder.restart();
            }
        }
        self.queue_bytes = 0;
    }

    /// Repeats recent packets as far as a running probe asks for.
    fn gather_probe(&mut self, cx: &mut FlushContext<'_>) {
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
    fn send_padding(&mut self, path: Dest, srtp: &Outbound, cx: &mut FlushContext<'_>, out: &mut impl Outbox) {
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

    fn send_ready(&mut self, path: Dest, srtp: &Outbound, cx: &mut FlushContext<'_>, out: &mut impl Outbox) {
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
                at += self.seal(srtp, outgoing, padding, &mut buf[at..], cx);
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

    /// Seals one packet to the front of `buf` and returns its length; zero if its track has let it go.
    fn seal(
        &mut self,
        srtp: &Outbound,
        out: &Outgoing,
        padding: usize,
        buf: &mut [u8],
        cx: &mut FlushContext<'_>,
    ) -> usize {
        let track = cx.tracks.get(out.track.index());
        let Some(packet) = track.and_then(|t| t.packet(out.layer, out.source_seq)) else {
            cx.counters.drop_evicted += 1;
            return 0;
        };
        let slot = &mut self.slots[usize::from(out.slot)];
        let Some(format) = slot.carried.as_ref().map(|c| c.format) else { return 0 };
        let rtx = if out.class == Class::Media { None } else { slot.rtx() };
        let is_as_it_was = out.class != Class::Media && rtx.is_none();
        let transport_cc = (slot.has_transport_cc() && !is_as_it_was).then_some(self.transport_cc);
        let stamp = if is_as_it_was { out.stamp } else { stamp(transport_cc, cx.now, self.epoch) };
        let rewritten = &out.rewritten;
        let (pt, ssrc, seq) = match rtx {
            Some((ssrc, pt)) => (pt, ssrc, slot.next_rtx_seq()),
            None => (format.pt, slot.source.ssrc, rewritten.seq),
        };
        let (pt, payload) = match (format.red_pt.filter(|_| out.earlier > 0), track) {
            (Some(red_pt), Some(track)) => {
                if !protect::write(track, packet, out.earlier, format.pt, cx.payload) {
                    return 0;
                }
                cx.counters.tx_red_packets += 1;
                (red_pt, &cx.payload[..])
            }
            _ => (pt, packet.payload()),
        };
        let values = SlotExtValues { stamp, ..slot.exts_of(rewritten, packet) };
        let head = Head { pt, ssrc, seq, timestamp: rewritten.timestamp, marker: rewritten.marker };
        let osn = rtx.map(|_| rewritten.seq.seq_no());
        let body = Body { exts: slot.exts(), values, osn, payload, patch: rewritten.patch, padding };
        let len = seal(srtp, &head, &body, self.tap.as_deref(), buf);
        if out.class == Class::Media {
            let size = (len - padding) as u16;
            let record = SendRecord::new(out.layer, out.source_seq, *rewritten, size, stamp).with_earlier(out.earlier);
            let payload_len = payload.len();
            let is_late = slot.note_sent(cx.now, record, payload_len);
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
            }
        } else if out.class == Class::Resend {
            slot.figures.retransmissions += 1;
            cx.counters.tx_retransmissions += 1;
            if let Some(number) = transport_cc {
                self.lost_again.on_sent(SeqNo(number), SlotPacket { slot: out.slot, seq: rewritten.seq });
            }
        } else if out.class == Class::Copy {
            cx.counters.tx_audio_copies += 1;
        }
        let class = if out.class == Class::Probe { PacketClass::Padding } else { PacketClass::Media };
        if out.class == Class::Media {
            self.resend_credit = (self.resend_credit + len).min(MAX_RESEND_CREDIT);
        }
        self.note_sent(len, transport_cc, class, cx);
        len
    }

    pub(super) fn note_sent(
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

impl Outgoing {
    fn again(class: Class, slot: u16, track: TrackKey, has_rtx: bool, record: &SendRecord) -> Self {
        Self {
            class,
            slot,
            layer: record.layer,
            earlier: record.earlier,
            size: record.size + if has_rtx { OSN_LEN as u16 } else { 0 },
            stamp: record.stamp,
            track,
            source_seq: record.source_seq,
            rewritten: record.rewritten,
        }
    }
}

/// When the first packet of a run came that is sent for the first time; a run's packets come in order.
fn oldest_arrival(run: &[Outgoing], tracks: &Slab<Track>) -> Option<Instant> {
    let first = run.iter().find(|o| o.class == Class::Media)?;
    let packet = tracks.get(first.track.index())?.packet(first.layer, first.source_seq)?;
    Some(packet.arrived_at)
}

/// The packets before one of sound, to be sent again with it, oldest first.
fn earlier_again(slot: &Slot, index: u16, newest: &Outgoing) -> impl Iterator<Item = Outgoing> {
    let before = move |back: u8| {
        let seq = newest.rewritten.seq.0.checked_sub(back.into())?;
        let record = slot.history.as_ref()?.get(ExtSeq(seq))?;
        Some(Outgoing::again(Class::Copy, index, newest.track, slot.rtx().is_some(), record))
    };
    (1..=slot.protection.level()).rev().filter_map(before)
}

/// Takes what the credit for unbidden and repeated packets allows.
fn push_within(copies: impl Iterator<Item = Outgoing>, credit: &mut usize, ready: &mut Vec<Outgoing>) {
    for copy in copies {
        let Some(rest) = credit.checked_sub(copy.size.into()) else { return };
        *credit = rest;
        ready.push(copy);
    }
}

/// What a packet carries to tell its sending: its transport-wide number, or when it goes.
pub(super) fn stamp(transport_cc: Option<u16>, now: Instant, epoch: Instant) -> u32 {
    transport_cc.map_or_else(|| abs_send_time(now.saturating_duration_since(epoch)), u32::from)
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

/// Sends one datagram that is neither media nor part of a run.
pub(crate) fn send_datagram(dest: Dest, datagram: &[u8], counters: &mut Counters, out: &mut impl Outbox) {
    out.reserve(datagram.len())[..datagram.len()].copy_from_slice(datagram);
    out.commit(dest, datagram.len(), datagram.len());
    counters.tx_runs += 1;
    counters.tx_control_datagrams += 1;
    counters.tx_bytes += datagram.len() as u64;
}
