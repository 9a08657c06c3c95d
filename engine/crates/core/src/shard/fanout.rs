//! Packets out: from each track that has new ones to everyone who receives it.

use std::time::Instant;

use super::Shard;
use crate::id::ShardIndex;
use crate::keys::TrackKey;
use crate::outbox::Outbox;
use crate::shard_message::ShardMessage;
use crate::transport::{FlushContext, send_datagram};

impl Shard {
    /// Fans out all that came in since the last call, subscriber by subscriber, so that one subscriber's packets are
    /// contiguous and leave as few runs.
    pub fn flush(&mut self, now: Instant, out: &mut impl Outbox) {
        self.set_now(now);
        for (dest, datagram) in self.farewells.drain(..) {
            send_datagram(dest, &datagram, &mut self.counters, out);
        }
        let tracks = std::mem::take(&mut self.dirty_tracks);
        for key in &tracks {
            self.mark_receivers(*key);
        }
        self.pass_to_shards(&tracks);
        for key in &tracks {
            self.pass_to_sinks(*key);
            self.pass_to_relays(*key);
        }
        self.flush_transports(out);
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
        self.flush_transports(out);
        self.flush_relays(out);
    }

    /// Tells each subscriber's transport which of its slots have something.
    fn mark_receivers(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get(key.index()) else { return };
        for subscriber in &track.subscribers {
            let Some(transport) = self.transports.get_mut(subscriber.transport.index()) else { continue };
            transport.tx.due.push(subscriber.slot);
            if !std::mem::replace(&mut transport.is_dirty, true) {
                self.dirty_transports.push(subscriber.transport);
            }
        }
    }

    fn flush_transports(&mut self, out: &mut impl Outbox) {
        let dirty = std::mem::take(&mut self.dirty_transports);
        let mut cx = FlushContext {
            now: self.now,
            tracks: &self.tracks,
            ready: &mut self.scratch.ready,
            keyframes: &mut self.scratch.keyframes,
            payload: &mut self.scratch.payload,
            counters: &mut self.counters,
        };
        for key in &dirty {
            let Some(transport) = self.transports.get_mut(key.index()) else { continue };
            transport.is_dirty = false;
            let path = transport.handshake.path();
            transport.tx.flush(path, &mut cx, out);
            transport.flush_data(self.now, cx.counters, out);
        }
        for key in dirty {
            self.arm_transport(key);
        }
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
