//! Tracks that cross from shard to shard of the process: packets are shared by reference.

use std::sync::Arc;
use std::time::Instant;

use super::Shard;
use super::ingress::count_taken;
use crate::id::{ShardIndex, TrackId};
use crate::keys::TrackKey;
use crate::packet::Packet;
use crate::shard_message::{MirrorKey, ShardMessage};
use crate::track::{MirrorOut, Origin, Taken};

impl Shard {
    /// Takes a message of another shard of the process.
    pub fn handle_shard_message(&mut self, now: Instant, from: ShardIndex, message: ShardMessage) {
        self.set_now(now);
        match message {
            ShardMessage::Mirror { track, key } => self.add_mirror(from, &track, key),
            ShardMessage::Unmirror { track, key } => self.drop_mirror(&track, key, from),
            ShardMessage::KeyframeRequest { track, layer } => {
                if let Ok(key) = self.find_track(&track) {
                    self.request_keyframe(key, layer);
                }
            }
            ShardMessage::LayersWanted { track, key, mask } => self.set_mirror_mask(from, &track, key, mask),
            ShardMessage::Packets(packets) => {
                for (mirror, packet) in packets {
                    self.take_mirrored(mirror, packet);
                }
            }
            ShardMessage::SenderReport { key, layer, map } => {
                if let Some(track) = self.mirrors.get(&key) {
                    self.set_sender_report(*track, layer, map);
                }
            }
            ShardMessage::CodecChanged { key, encoding } => {
                if let Some(track) = self.mirrors.get(&key).copied() {
                    self.tracks[track.index()].set_encoding(encoding);
                    self.reattach_receivers(track);
                }
            }
            ShardMessage::Data(message) => self.deliver_data(&message),
            ShardMessage::DataRoom { room, has_members } => self.note_data_peer(from, room, has_members),
            ShardMessage::TrackEnded { key } => {
                if let Some(track) = self.mirrors.get(&key).copied() {
                    self.end_track(track);
                }
            }
        }
    }

    /// Begins to mirror a track of another shard; `None` if no shard has it.
    pub(super) fn mirror_track(&mut self, id: &TrackId) -> Option<TrackKey> {
        let entry = self.config.directory.get(id)?;
        if entry.shard == self.config.index || self.tracks.len() >= self.config.limits.max_tracks {
            return None;
        }
        let mirror = MirrorKey(self.next_mirror);
        self.next_mirror += 1;
        let origin = Origin::Shard { shard: entry.shard, mirror };
        let key = self.insert_track(&entry.info, entry.room, origin);
        self.mirrors.insert(mirror, key);
        self.messages.push_back((entry.shard, ShardMessage::Mirror { track: id.clone(), key: mirror }));
        Some(key)
    }

    fn add_mirror(&mut self, shard: ShardIndex, id: &TrackId, key: MirrorKey) {
        let Ok(track_key) = self.find_track(id) else {
            // It ended while the message was under way.
            self.messages.push_back((shard, ShardMessage::TrackEnded { key }));
            return;
        };
        let track = &mut self.tracks[track_key.index()];
        track.mirrors.push(MirrorOut { shard, key, mask: track.full_mask() });
        for (layer, map) in track.layers.iter().enumerate().filter_map(|(n, l)| Some((n as u8, l.sender_report?))) {
            self.messages.push_back((shard, ShardMessage::SenderReport { key, layer, map }));
        }
        self.update_wanted(track_key);
    }

    fn drop_mirror(&mut self, id: &TrackId, key: MirrorKey, from: ShardIndex) {
        let Ok(track) = self.find_track(id) else { return };
        self.tracks[track.index()].mirrors.retain(|m| (m.shard, m.key) != (from, key));
        self.update_wanted(track);
    }

    fn set_mirror_mask(&mut self, from: ShardIndex, id: &TrackId, key: MirrorKey, mask: u8) {
        let Ok(track) = self.find_track(id) else { return };
        let mirrors = &mut self.tracks[track.index()].mirrors;
        if let Some(mirror) = mirrors.iter_mut().find(|m| (m.shard, m.key) == (from, key)) {
            mirror.mask = mask;
        }
        self.update_wanted(track);
    }

    fn take_mirrored(&mut self, mirror: MirrorKey, packet: Arc<Packet>) {
        let Some(key) = self.mirrors.get(&mirror).copied() else {
            self.counters.drop_shard_message += 1;
            return;
        };
        self.note_level(key, packet.audio_level, packet.info.is_silence);
        let track = &mut self.tracks[key.index()];
        if packet.info.is_keyframe && packet.info.is_frame_start {
            track.keyframes.on_keyframe(usize::from(packet.layer));
        }
        let taken = track.take_shared(self.now, packet);
        count_taken(taken, &mut self.counters);
        if taken == Taken::Pending {
            self.mark_track(key);
        }
    }
}
