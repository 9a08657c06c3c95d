//! Which packets leave in a flush: the slots' forwarders number them, the budget admits them.

use mrtc_rtp::header::FIXED_HEADER_LEN;

use super::super::protect;
use super::outgoing::{Class, Outgoing};
use super::resends::{earlier_again, push_within};
use super::{FlushContext, TransportTx};
use crate::command::Kind;
use crate::keys::TrackKey;
use crate::packet::Packet;
use crate::slot::Slot;
use crate::track::{Subscriber, Track};

impl TransportTx {
    /// The client cannot be reached yet: what is due now will be too old when it can.
    pub(super) fn drop_due(&self, due: &[Subscriber], cx: &mut FlushContext<'_>) {
        for subscriber in due {
            let carried = self.slots.get(usize::from(subscriber.slot)).and_then(|s| s.carried.as_ref());
            let track = carried.and_then(|c| cx.tracks.get(c.track.index()));
            cx.counters.drop_not_connected += track.map_or(0, |t| t.pending.len() as u64);
        }
    }

    /// Lets each due slot's forwarder choose and number its packets.
    pub(super) fn gather(&mut self, due: &[Subscriber], cx: &mut FlushContext<'_>, overhead: usize) {
        for &Subscriber { slot: index, .. } in due {
            let Some(slot) = self.slots.get_mut(usize::from(index)) else { continue };
            let Some(key) = slot.carried.as_ref().map(|c| c.track) else { continue };
            let Some(track) = cx.tracks.get(key.index()) else { continue };
            slot.forwarder.set_live(track.live_mask(cx.now));
            // On a path that has become narrow they would hold up the smaller picture, with which nobody needs them.
            let mut has_waiting = self.queue.iter().any(|o| o.slot == index);
            let run_up = std::mem::take(&mut slot.run_up);
            track.each_due(run_up, cx.now, |packet| {
                if has_waiting && slot.forwarder.is_awaited(packet) {
                    has_waiting = false;
                    slot.forwarder.take_back();
                    let before = self.queue.len();
                    self.queue.retain(|o| o.slot != index);
                    self.queue_bytes = self.queue.iter().map(|o| usize::from(o.size)).sum();
                    cx.counters.drop_pacer += (before - self.queue.len()) as u64;
                }
                let Some(outgoing) = forward(slot, index, key, track, packet, overhead) else { return false };
                if slot.kind == Kind::Audio {
                    cx.ready.push(outgoing);
                    let takes_red = slot.carried.as_ref().is_some_and(|c| c.format.red_pt.is_some());
                    if slot.protection.level() > 0 && !takes_red {
                        let again = earlier_again(slot, index, &outgoing);
                        push_within(again, &mut self.resend_credit, cx.ready);
                    }
                } else {
                    self.queue_bytes += usize::from(outgoing.size);
                    self.queue.push_back(outgoing);
                }
                slot.forwarder.begins_with(&outgoing.rewritten)
            });
            if let Some(layer) = slot.forwarder.wants_keyframe() {
                cx.keyframes.push((key, layer));
            }
        }
    }

    /// Takes video from the queue as far as the budget goes; what grows beyond bounds is given up.
    pub(super) fn admit(&mut self, mut budget: usize, cx: &mut FlushContext<'_>) {
        while budget > 0
            && let Some(outgoing) = self.queue.pop_front()
        {
            budget = budget.saturating_sub(usize::from(outgoing.size));
            self.queue_bytes -= usize::from(outgoing.size);
            if let Some(slot) = self.slots.get_mut(usize::from(outgoing.slot)) {
                slot.forwarder.admit(outgoing.rewritten.seq);
            }
            cx.ready.push(outgoing);
        }
        if self.queue.is_empty() {
            self.bandwidth.on_queue_empty();
        }
        if self.queue_bytes <= self.bandwidth.max_queue_bytes() {
            return;
        }
        cx.counters.drop_pacer += self.queue.len() as u64;
        for outgoing in self.queue.drain(..) {
            if let Some(slot) = self.slots.get_mut(usize::from(outgoing.slot)) {
                slot.forwarder.give_up();
            }
        }
        self.queue_bytes = 0;
    }
}

/// Lets a slot's forwarder judge a packet of the track that it carries, and sizes what goes out.
fn forward(
    slot: &mut Slot,
    index: u16,
    key: TrackKey,
    track: &Track,
    packet: &Packet,
    overhead: usize,
) -> Option<Outgoing> {
    if packet.is_restart
        && let Some(history) = &mut slot.history
    {
        // The source's numbers begin anew: an old one must not find a new packet.
        history.forget_sources();
    }
    let rewritten = slot.forwarder.on_packet(key, track, packet)?;
    if packet.info.is_keyframe && packet.info.is_frame_start && packet.info.spatial == 0 {
        slot.decodable_from = rewritten.seq;
    }
    let exts = slot.exts().len(&slot.exts_of(&rewritten, packet));
    let own_size = FIXED_HEADER_LEN + exts + packet.payload().len() + overhead;
    let takes_red = slot.protection.level() > 0 && slot.carried.as_ref().is_some_and(|c| c.format.red_pt.is_some());
    let (earlier, added) = if takes_red { protect::plan(slot, track, packet, own_size) } else { (0, 0) };
    Some(Outgoing {
        class: Class::Media,
        slot: index,
        layer: packet.layer,
        earlier,
        size: (own_size + added) as u16,
        stamp: 0,
        track: key,
        source_seq: packet.seq,
        rewritten,
    })
}
