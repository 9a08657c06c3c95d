//! The life of tracks: made, muted, ended, changed.

use super::Shard;
use crate::command::Kind;
use crate::directory::TrackEntry;
use crate::error::Error;
use crate::event::{Event, Reply, TrackInfo};
use crate::id::{RoomId, TrackId};
use crate::keys::{TrackKey, TransportKey};
use crate::sdp::Encoding;
use crate::shard_message::ShardMessage;
use crate::track::{Origin, Track};

impl Shard {
    pub(super) fn find_track(&self, id: &TrackId) -> Result<TrackKey, Error> {
        self.track_ids.get(id).copied().ok_or_else(|| Error::TrackNotFound(id.to_string()))
    }

    /// Makes a track whose origin is here, and enters it into the directory.
    pub(super) fn add_track(&mut self, info: TrackInfo, room: RoomId, origin: Origin) -> Result<TrackKey, Error> {
        if self.tracks.len() >= self.config.limits.max_tracks {
            return Err(Error::LimitExceeded("tracks of this worker".into()));
        }
        let entry = TrackEntry { shard: self.config.index, room: room.clone(), info: info.clone() };
        if !self.config.directory.insert(entry) {
            return Err(Error::AlreadyExists(format!("track {}", info.track)));
        }
        Ok(self.insert_track(&info, room, origin))
    }

    pub(super) fn insert_track(&mut self, info: &TrackInfo, room: RoomId, origin: Origin) -> TrackKey {
        if info.kind == Kind::Audio {
            self.rooms.entry(room.clone()).or_default().audio_tracks += 1;
        }
        let track = Track::new(info, room, origin, self.config.limits.max_pending);
        let key = TrackKey::from(self.tracks.insert(track));
        self.track_ids.insert(info.track.clone(), key);
        key
    }

    /// Ends a track because its origin ended, and tells so.
    pub(super) fn end_track(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get(key.index()) else { return };
        if !matches!(track.origin, Origin::Shard { .. }) {
            self.events.push_back(Event::TrackEnded { track: track.id.clone() });
        }
        self.remove_track(key);
    }

    pub(super) fn unpublish_track(&mut self, id: &TrackId) {
        let Ok(key) = self.find_track(id) else { return };
        // A mirror ends with its last receiver or with its origin; it is not this shard's to end.
        if !matches!(self.tracks[key.index()].origin, Origin::Shard { .. }) {
            self.remove_track(key);
        }
    }

    /// Takes a track away from all its receivers and from its origin.
    pub(super) fn remove_track(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get_mut(key.index()) else { return };
        track.is_ending = true;
        let (subscribers, sinks) = (std::mem::take(&mut track.subscribers), std::mem::take(&mut track.sinks));
        let (exports, mirrors) = (std::mem::take(&mut track.exports), std::mem::take(&mut track.mirrors));
        let (listeners, heirs) = (std::mem::take(&mut track.listeners), std::mem::take(&mut track.heirs));
        let was_heard_by: Vec<TransportKey> = match listeners.is_empty() {
            true => Vec::new(),
            false => subscribers.iter().map(|s| s.transport).collect(),
        };
        for heir in heirs {
            self.clear_heir(heir);
        }
        for subscriber in subscribers {
            self.vacate_slot(subscriber);
        }
        for sink in sinks {
            self.remove_sink(sink);
        }
        for export in exports {
            self.tell_export_ended(export.relay, export.handle);
        }
        for mirror in mirrors {
            self.messages.push_back((mirror.shard, ShardMessage::TrackEnded { key: mirror.key }));
        }
        let Some(track) = self.tracks.try_remove(key.index()) else { return };
        self.track_ids.remove(&track.id);
        self.dirty_tracks.retain(|k| *k != key);
        self.leave_room(key, &track);
        self.forget_origin(key, &track);
        for listener in listeners {
            self.replace_heard(listener, key, was_heard_by.contains(&listener));
        }
    }

    /// A track has gone that a transport listened to: its place goes to somebody else.
    fn replace_heard(&mut self, listener: TransportKey, track: TrackKey, was_heard: bool) {
        let Some(transport) = self.transports.get_mut(listener.index()) else { return };
        let Some(listening) = &mut transport.listening else { return };
        listening.forget(track);
        if self.seat(listener) || was_heard {
            self.tell_slots(listener);
        }
    }

    fn forget_origin(&mut self, key: TrackKey, track: &Track) {
        match track.origin {
            Origin::Transport { transport: transport_key, .. } => {
                if let Some(transport) = self.transports.get_mut(transport_key.index()) {
                    transport.rx.streams.unpublish(key);
                }
                self.settle_caps(transport_key);
            }
            Origin::Relay { relay, handle } => {
                if let Some(relay) = self.relays.get_mut(relay.index()) {
                    relay.imports.remove(&handle);
                }
                self.forget_formers(key);
            }
            Origin::Source => drop(self.sources.remove(&key)),
            Origin::Shard { shard, mirror } => {
                self.mirrors.remove(&mirror);
                let message = ShardMessage::Unmirror { track: track.id.clone(), key: mirror };
                self.messages.push_back((shard, message));
                return;
            }
        }
        self.config.directory.remove(&track.id);
    }

    fn leave_room(&mut self, key: TrackKey, track: &Track) {
        if track.kind != Kind::Audio {
            return;
        }
        let Some(room) = self.rooms.get_mut(&track.room) else { return };
        room.speakers.remove(key);
        room.audio_tracks -= 1;
        if room.is_unused() {
            self.rooms.remove(&track.room);
        }
    }

    pub(super) fn set_track_cap(&mut self, id: &TrackId, max_bps: Option<u64>) -> Result<Reply, Error> {
        let key = self.find_track(id)?;
        let track = &mut self.tracks[key.index()];
        let Origin::Transport { transport, .. } = track.origin else {
            return Err(Error::BadRequest(format!("track {id} is of no client")));
        };
        track.max_bps = max_bps;
        self.settle_caps(transport);
        Ok(Reply::Done)
    }

    pub(super) fn set_track_muted(&mut self, id: &TrackId, is_muted: bool) -> Result<Reply, Error> {
        let key = self.find_track(id)?;
        let track = &mut self.tracks[key.index()];
        track.set_muted(is_muted);
        if let Some(room) = self.rooms.get_mut(&track.room) {
            room.speakers.set_muted(key, is_muted);
        }
        self.poll_keyframes(key);
        Ok(Reply::Done)
    }

    /// The first packet of a track came, or the first in another codec.
    pub(super) fn note_codec(&mut self, key: TrackKey, encoding: Encoding) {
        let track = &mut self.tracks[key.index()];
        let is_changed = track.encoding() != encoding;
        if track.has_started && !is_changed {
            return;
        }
        track.has_started = true;
        track.set_encoding(encoding);
        let codec = encoding.codec;
        let id = track.id.clone();
        if is_changed {
            self.config.directory.update(&id, |info| (info.codec, info.variant) = (codec, encoding.variant));
            for mirror in self.tracks[key.index()].mirrors.clone() {
                self.messages.push_back((mirror.shard, ShardMessage::CodecChanged { key: mirror.key, encoding }));
            }
            self.reattach_receivers(key);
        }
        self.events.push_back(Event::TrackStarted { track: id, codec });
    }

    /// Lets every receiver begin anew: the codec changed.
    pub(super) fn reattach_receivers(&mut self, key: TrackKey) {
        for subscriber in self.tracks[key.index()].subscribers.clone() {
            self.reattach_slot(subscriber.transport, usize::from(subscriber.slot));
        }
        self.restart_sinks(key);
    }

    /// Removes a mirror that nobody receives.
    pub(super) fn release_if_unused(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get(key.index()) else { return };
        if matches!(track.origin, Origin::Shard { .. }) && !track.has_receivers() && !track.is_ending {
            self.remove_track(key);
        }
    }
}
