//! What receivers want of a track's origin: key frames, and which layers.

use std::time::Duration;

use super::Shard;
use crate::allocator::{MAX_SPATIAL, Target};
use crate::command::Kind;
use crate::event::Event;
use crate::keys::{TrackKey, TransportKey};
use crate::shard_message::ShardMessage;
use crate::track::{Origin, Track, UNWANTED_DELAY, all_layers};

impl Shard {
    /// A receiver needs a key frame of a layer. Asked for at once, unless it was lately.
    pub(super) fn request_keyframe(&mut self, key: TrackKey, layer: u8) {
        let Some(track) = self.tracks.get_mut(key.index()) else { return };
        if track.kind == Kind::Audio || track.is_muted {
            return;
        }
        track.keyframes.request(usize::from(layer));
        self.poll_keyframes(key);
    }

    /// Sends the requests of a track that are due.
    pub(super) fn poll_keyframes(&mut self, key: TrackKey) {
        let rtt = self.rtt_to_origin(key);
        while let Some(track) = self.tracks.get_mut(key.index())
            && let Some(layer) = track.keyframes.poll(self.now, rtt)
        {
            self.counters.tx_keyframe_requests += 1;
            self.send_keyframe_request(key, layer as u8);
        }
        self.arm_track(key);
    }

    /// Asks for key frames of what a client sent and we gave up to get: nothing else helps those who decode it.
    pub(super) fn request_hopeless_keyframes(&mut self, key: TransportKey) {
        let streams = &mut self.transports[key.index()].rx.streams.list;
        let hopeless = streams.iter_mut().filter_map(|s| Some((s.track?, s.layer, s.register.take_hopeless())));
        for (track, layer, _) in hopeless.filter(|(.., is_hopeless)| *is_hopeless).collect::<Vec<_>>() {
            if self.tracks.get(track.index()).is_some_and(|t| t.has_receivers()) {
                self.request_keyframe(track, layer);
            }
        }
    }

    pub(super) fn rtt_to_origin(&self, key: TrackKey) -> Duration {
        let Some(track) = self.tracks.get(key.index()) else { return Duration::ZERO };
        match track.origin {
            Origin::Transport { transport, .. } => {
                let transport = self.transports.get(transport.index());
                transport.and_then(|t| t.known_rtt()).unwrap_or_default()
            }
            Origin::Relay { relay, .. } => self.relays.get(relay.index()).map_or(Duration::ZERO, |r| r.rtt()),
            Origin::Source | Origin::Shard { .. } => Duration::ZERO,
        }
    }

    fn send_keyframe_request(&mut self, key: TrackKey, layer: u8) {
        let track = &self.tracks[key.index()];
        match track.origin {
            Origin::Transport { transport, line } => {
                let Some(entry) = self.transports.get_mut(transport.index()) else { return };
                // A layer that never sent a packet has no stream to ask; its first packets are a key frame anyway.
                if let Some(stream) = entry.rx.streams.of_layer(line, layer)
                    && entry.send_keyframe_request(stream)
                {
                    self.mark_transport(transport);
                }
            }
            Origin::Relay { relay, handle } => self.relay_keyframe_request(relay, handle, layer),
            Origin::Source => self.events.push_back(Event::KeyframeRequested { track: track.id.clone() }),
            Origin::Shard { shard, .. } => {
                let message = ShardMessage::KeyframeRequest { track: track.id.clone(), layer };
                self.messages.push_back((shard, message));
            }
        }
    }

    /// Asks for the key frames that a transport's slots wait for.
    pub(super) fn request_carried_keyframes(&mut self, key: TransportKey) {
        let tx = &self.transports[key.index()].tx;
        if !tx.is_ready() {
            // A key frame now would be over before the client can take it; it is asked for when it is connected.
            return;
        }
        let slots = &tx.slots;
        let waiting = slots.iter().filter_map(|s| Some((s.carried.as_ref()?.track, s.forwarder.wants_keyframe()?)));
        for (track, layer) in waiting.collect::<Vec<_>>() {
            self.request_keyframe(track, layer);
        }
    }

    /// Asks again for the key frames of what a client sends: until now nothing could be sent to it.
    pub(super) fn repeat_keyframe_requests(&mut self, key: TransportKey) {
        let streams = &self.transports[key.index()].rx.streams.list;
        let mut tracks: Vec<TrackKey> = streams.iter().filter_map(|stream| stream.track).collect();
        tracks.dedup();
        for track in tracks {
            if let Some(entry) = self.tracks.get_mut(track.index()) {
                entry.keyframes.forget_sent();
            }
            self.poll_keyframes(track);
        }
    }

    /// Works out which layers of a track have receivers, and tells its origin: more at once, less after a while.
    pub(super) fn update_wanted(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get(key.index()).filter(|t| !t.is_ending) else { return };
        let mask = self.wanted_mask(track);
        let now = self.now;
        let track = &mut self.tracks[key.index()];
        if mask == track.told_mask {
            track.unwanted_since = None;
            return;
        }
        let is_more = mask & !track.told_mask != 0;
        let since = *track.unwanted_since.get_or_insert(now);
        if is_more || now.saturating_duration_since(since) >= UNWANTED_DELAY {
            track.unwanted_since = None;
            let fresh = mask & !track.told_mask;
            track.told_mask = mask;
            self.tell_wanted(key, mask, fresh);
        }
        self.arm_track(key);
    }

    fn wanted_mask(&self, track: &Track) -> u8 {
        let full = track.full_mask();
        if let Some(seen) = track.own_spatials() {
            return self.wanted_spatials(track, seen);
        }
        if track.layers.len() == 1 {
            return if track.is_wanted() { full } else { 0 };
        }
        let mut mask = if track.sinks.is_empty() { 0 } else { 1 << (track.layers.len() - 1) };
        for subscriber in &track.subscribers {
            let Some(slot) = self.slot_of(*subscriber) else { continue };
            if let Some(Target::Layer { spatial, .. }) = slot.carried.as_ref().map(|c| c.target) {
                // Until the switch the present layer goes on.
                mask |= 1 << spatial | slot.forwarder.current().map_or(0, |layer| 1 << layer);
            }
        }
        for heir in &track.heirs {
            if let Some(Target::Layer { spatial, .. }) = self.target_of(*heir) {
                // What of it comes first is not known yet.
                mask |= all_layers(usize::from(spatial) + 1);
            }
        }
        mask |= track.exports.iter().fold(0, |mask, export| mask | export.mask);
        mask |= track.mirrors.iter().fold(0, |mask, mirror| mask | mirror.mask);
        mask & full
    }

    /// The same of layers inside one encoding: a bit for each that is of use, the lower ones always with the higher. All bits
    /// if somebody has use for all that were `seen`, since more may come.
    fn wanted_spatials(&self, track: &Track, seen: usize) -> u8 {
        let all = all_layers(MAX_SPATIAL);
        let is_out = |mask: u8| mask != 0;
        let goes_out = track.exports.iter().any(|e| is_out(e.mask)) || track.mirrors.iter().any(|m| is_out(m.mask));
        if goes_out || !track.sinks.is_empty() {
            return all;
        }
        let mut count = 0;
        for receiver in track.subscribers.iter().chain(&track.heirs) {
            let Some(Target::Layer { spatial, .. }) = self.target_of(*receiver) else { continue };
            // Layers that it gives up are not sent from the next picture on, long before the publisher is told.
            count = count.max(usize::from(spatial) + 1);
        }
        if count >= seen { all } else { all_layers(count) }
    }

    fn tell_wanted(&mut self, key: TrackKey, mask: u8, fresh: u8) {
        let track = &self.tracks[key.index()];
        match track.origin {
            Origin::Transport { .. } => {
                if track.own_spatials().is_some_and(|seen| seen > 1) {
                    let rids = if mask == 0 { Vec::new() } else { vec![String::new()] };
                    let count = mask.count_ones() as u8;
                    let spatial_layers = if usize::from(count) == MAX_SPATIAL { 0 } else { count };
                    self.events.push_back(Event::LayersWanted { track: track.id.clone(), rids, spatial_layers });
                } else if !track.rids.is_empty() {
                    let wanted = track.rids.iter().enumerate().filter(|(index, _)| mask & 1 << index != 0);
                    let rids = wanted.map(|(_, rid)| rid.to_string()).collect();
                    self.events.push_back(Event::LayersWanted { track: track.id.clone(), rids, spatial_layers: 0 });
                }
            }
            Origin::Relay { relay, handle } => self.relay_layers_wanted(relay, handle, mask, fresh),
            Origin::Shard { shard, mirror } => {
                let message = ShardMessage::LayersWanted { track: track.id.clone(), key: mirror, mask };
                self.messages.push_back((shard, message));
            }
            Origin::Source => {}
        }
    }
}
