//! The sending half of a transport: its slots' packets, in budget and in runs, sealed into lent memory.

mod choose;
mod emit;
mod holes;
mod near;
mod outgoing;
mod probing;
mod resends;

use std::collections::VecDeque;
use std::time::Instant;

use mrtc_rtp::id::Ssrc;
use mrtc_rtp::srtp::Outbound;
use slab::Slab;

use super::lost_again::{LostAgain, SlotPacket};
use crate::addr::Dest;
use crate::bandwidth::Bandwidth;
use crate::capture::TransportTap;
use crate::command::Kind;
use crate::counters::Counters;
use crate::event::SlotContent;
use crate::fec::Group;
use crate::keys::TrackKey;
use crate::outbox::Outbox;
use crate::repair::Copies;
use crate::slot::Slot;
use crate::track::{Subscriber, Track};

pub(super) use emit::stamp;
pub(crate) use outgoing::Outgoing;

/// STUN and DTLS datagrams that wait for a flush. A handshake flight is a handful.
const MAX_CONTROL: usize = 64;
/// Sealed RTCP datagrams that wait for a flush.
const MAX_RTCP: usize = 64;
/// What a transport may ask for again before it was sent anything.
const START_RESEND_CREDIT: usize = 64 * 1024;

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
    pub(crate) bandwidth: Bandwidth,
    /// Local time zero of the absolute send time.
    pub(super) epoch: Instant,
    srtp: Option<Outbound>,
    control: VecDeque<(Dest, Vec<u8>)>,
    rtcp: Vec<Vec<u8>>,
    resends: Vec<Outgoing>,
    copies: Copies<Outgoing>,
    lost_again: LostAgain,
    /// Asked for and not answered yet, see [`holes`].
    owed: Vec<SlotPacket>,
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
    /// Keys of a client that comes from another node and is not here yet: a key frame now would be over before it is.
    held: Option<Box<Outbound>>,
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
            bandwidth: Bandwidth::new(now, max_egress_bps),
            epoch,
            srtp: None,
            control: VecDeque::new(),
            rtcp: Vec::new(),
            resends: Vec::new(),
            copies: Copies::default(),
            lost_again: LostAgain::default(),
            owed: Vec::new(),
            repairs: Vec::new(),
            queue: VecDeque::new(),
            queue_bytes: 0,
            resend_credit: START_RESEND_CREDIT,
            transport_cc: 0,
            bytes: 0,
            packets: 0,
            dropped: Dropped::default(),
            tap: None,
            held: None,
        }
    }

    pub(crate) fn set_srtp(&mut self, srtp: Outbound) {
        self.srtp = Some(srtp);
    }

    /// Sends with it from `release` on.
    pub(super) fn hold(&mut self, srtp: Outbound) {
        self.held = Some(Box::new(srtp));
    }

    /// The client is here.
    pub(crate) fn release(&mut self) {
        if let Some(srtp) = self.held.take() {
            self.srtp = Some(*srtp);
        }
    }

    /// The index of the next RTCP packet. `None` if there are no keys, or not any more.
    pub(super) fn next_rtcp_index(&self) -> Option<u32> {
        self.srtp.as_ref().map(Outbound::rtcp_index)
    }

    /// Seals nothing more and drops what waits; what was numbered and not sent is taken back. Returns `next_rtcp_index`.
    pub(super) fn hand_over(&mut self) -> Option<u32> {
        let srtp = self.srtp.take()?;
        (0..self.slots.len()).for_each(|slot| self.forget_slot(slot));
        self.slots.iter_mut().for_each(|slot| slot.forwarder.take_back());
        self.rtcp.clear();
        Some(srtp.rtcp_index())
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
        !(self.control.is_empty() && self.rtcp.is_empty() && self.resends.is_empty() && self.owed.is_empty())
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
        let dropped = before - self.queue.len();
        self.dropped.slot_change += dropped as u64;
        if dropped > 0
            && let Some(slot) = self.slots.get_mut(usize::from(slot))
        {
            slot.forwarder.give_up();
        }
        self.queue_bytes = self.queue.iter().map(|o| usize::from(o.size)).sum();
    }

    /// Sends all that is due to the client; `due` names the slots whose tracks have packets.
    pub(crate) fn flush(
        &mut self,
        path: Option<Dest>,
        due: &[Subscriber],
        cx: &mut FlushContext<'_>,
        out: &mut impl Outbox,
    ) {
        for (dest, datagram) in self.control.drain(..) {
            send_datagram(dest, &datagram, cx.counters, out);
        }
        let dropped = std::mem::take(&mut self.dropped);
        cx.counters.drop_control_queue += dropped.control;
        cx.counters.drop_slot_change += dropped.slot_change;
        let (Some(path), true) = (path, self.is_ready()) else { return self.drop_due(due, cx) };
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
        self.gather(due, cx, srtp.rtp_overhead());
        let budget = self.admit_resends(cx);
        self.admit(budget, cx);
        self.send_ready(path, &srtp, cx, out);
        if !self.repairs.is_empty() {
            self.send_repairs(path, &srtp, cx, out);
        }
        if !self.owed.is_empty() {
            self.close_holes(path, &srtp, cx, out);
        }
        self.gather_probe(cx);
        self.send_ready(path, &srtp, cx, out);
        self.send_padding(path, &srtp, cx, out);
        self.srtp = Some(srtp);
    }
}

/// Sends one datagram that is neither media nor part of a run.
pub(crate) fn send_datagram(dest: Dest, datagram: &[u8], counters: &mut Counters, out: &mut impl Outbox) {
    out.reserve(datagram.len())[..datagram.len()].copy_from_slice(datagram);
    out.commit(dest, datagram.len(), datagram.len());
    counters.tx_runs += 1;
    counters.tx_control_datagrams += 1;
    counters.tx_bytes += datagram.len() as u64;
}
