//! Packets out: from each track that has new ones to everyone who receives it.

use std::time::Instant;

use slab::Slab;

use super::{MIN_SLEEP, Shard, TimerKey};
use crate::id::ShardIndex;
use crate::keys::TrackKey;
use crate::outbox::Outbox;
use crate::prefetch::Prefetch;
use crate::shard_message::ShardMessage;
use crate::track::Subscriber;
use crate::transport::{FlushContext, Transport, send_datagram};

/// How many transports ahead memory is asked for: first a transport itself, then what it points to, then what that points
/// to. Far enough that it is there in time, near enough that it is still there.
const AHEAD_STRUCT: usize = 9;
const AHEAD_BEHIND: usize = 6;
const AHEAD_SLOT: usize = 3;
/// Packets whose records are asked for.
const MAX_AHEAD_PACKETS: usize = 12;
/// Of a transport that has something, though none of its slots.
const NO_SLOT: u16 = u16::MAX;

impl Shard {
    /// Fans out all that came in since the last call, subscriber by subscriber, so that one subscriber's packets are
    /// contiguous and leave as few runs.
    pub fn flush(&mut self, now: Instant, out: &mut impl Outbox) {
        self.set_now(now);
        for (dest, datagram) in self.farewells.drain(..) {
            send_datagram(dest, &datagram, &mut self.counters, out);
        }
        let tracks = self.take_due_tracks();
        for key in &tracks {
            self.seat_heirs(*key);
        }
        self.pass_to_shards(&tracks);
        for key in &tracks {
            self.pass_to_sinks(*key);
            self.pass_to_relays(*key);
        }
        self.flush_transports(&tracks, out);
        self.flush_relays(out);
        for key in &tracks {
            if let Some(track) = self.tracks.get_mut(key.index()) {
                track.pending.clear();
                track.is_dirty = false;
            }
        }
        // What receivers want goes upstream at once: it is sent in this flush too.
        let mut wanted = std::mem::take(&mut self.scratch.keyframes);
        for (track, layer) in wanted.drain(..) {
            self.request_keyframe(track, layer);
        }
        self.scratch.keyframes = wanted;
        self.flush_transports(&[], out);
        self.flush_relays(out);
    }

    /// The tracks that have something, but for pictures whose rest is on its way.
    fn take_due_tracks(&mut self) -> Vec<TrackKey> {
        let mut due = std::mem::take(&mut self.dirty_tracks);
        self.held_until = None;
        due.retain(|key| {
            let until = self.tracks.get(key.index()).and_then(|track| track.held_until(self.now));
            if until.is_some() {
                self.held_until = self.held_until.into_iter().chain(until).min();
                self.dirty_tracks.push(*key);
            }
            until.is_none()
        });
        due
    }

    /// Who has something: the slots that receive these tracks, and transports with something else; by transport.
    fn take_due(&mut self, tracks: &[TrackKey]) -> Vec<Subscriber> {
        let mut due = std::mem::take(&mut self.scratch.due);
        due.clear();
        for track in tracks.iter().filter_map(|key| self.tracks.get(key.index())) {
            due.extend_from_slice(&track.subscribers);
        }
        due.extend(self.dirty_transports.drain(..).map(|transport| Subscriber { transport, slot: NO_SLOT }));
        if !due.is_sorted_by_key(|d| d.transport) {
            // Stable: of one transport the tracks go in the order in which they had something.
            due.sort_by_key(|d| d.transport);
        }
        due
    }

    fn flush_transports(&mut self, tracks: &[TrackKey], out: &mut impl Outbox) {
        let due = self.take_due(tracks);
        let pending = |key: &TrackKey| self.tracks.get(key.index()).map_or(0, |track| track.pending.len());
        let packets = tracks.iter().map(pending).max().unwrap_or(0).min(MAX_AHEAD_PACKETS) as u16;
        let mut cx = FlushContext {
            now: self.now,
            tracks: &self.tracks,
            ready: &mut self.scratch.ready,
            keyframes: &mut self.scratch.keyframes,
            payload: &mut self.scratch.payload,
            counters: &mut self.counters,
        };
        let mut done = 0;
        while let Some(first) = due.get(done) {
            let count = due[done..].iter().take_while(|d| d.transport == first.transport).count();
            for at in done..done + count {
                prefetch_ahead(&self.transports, &due[at..], packets, out);
            }
            let slots = &due[done..done + count];
            done += count;
            let Some(transport) = self.transports.get_mut(first.transport.index()) else { continue };
            transport.is_dirty = false;
            let path = transport.handshake.path();
            transport.tx.flush(path, slots, &mut cx, out);
            transport.flush_data(self.now, cx.counters, out);
            if let Some(at) = transport.next_timeout_of_sending(self.now) {
                let key = TimerKey::Transport(first.transport);
                self.timers.set(&mut transport.alarm, key, at.max(self.now + MIN_SLEEP));
            }
        }
        self.scratch.due = due;
    }

    /// One message per shard that mirrors some of the tracks.
    fn pass_to_shards(&mut self, tracks: &[TrackKey]) {
        for shard in 0..self.config.shard_count {
            let shard = ShardIndex(shard);
            let mut packets = Vec::new();
            for track in tracks.iter().filter_map(|key| self.tracks.get(key.index())) {
                for mirror in track.mirrors.iter().filter(|m| m.shard == shard) {
                    let wanted = track.pending.iter().filter(|p| mirror.mask & 1 << p.layer != 0);
                    let shared = wanted.filter_map(|p| track.packet(p.layer, p.seq));
                    packets.extend(shared.map(|packet| (mirror.key, packet.clone())));
                }
            }
            if !packets.is_empty() {
                self.counters.tx_shard_packets += packets.len() as u64;
                self.messages.push_back((shard, ShardMessage::Packets(packets)));
            }
        }
    }
}

/// Asks for the memory of those whose turn comes soon. `due` begins with the one whose turn is now.
fn prefetch_ahead(transports: &Slab<Box<Transport>>, due: &[Subscriber], packets: u16, cache: &impl Prefetch) {
    let ahead = |count: usize| due.get(count).and_then(|d| Some((transports.get(d.transport.index())?, d.slot)));
    if let Some((transport, _)) = ahead(AHEAD_STRUCT) {
        transport.prefetch_flush(cache);
    }
    if let Some((transport, slot)) = ahead(AHEAD_BEHIND) {
        transport.tx.prefetch_behind(slot, packets, cache);
    }
    if let Some((transport, slot)) = ahead(AHEAD_SLOT) {
        transport.tx.prefetch_slot(slot, packets, cache);
    }
}
