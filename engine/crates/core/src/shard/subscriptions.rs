//! Which slot of a client carries which track, and which layer of it.

use std::collections::HashSet;

use super::Shard;
use crate::allocator::{Demand, Target};
use crate::command::{Kind, Subscription};
use crate::error::Error;
use crate::event::{Reply, SlotsReply};
use crate::id::{RoomId, TrackId, TransportId};
use crate::keys::{TrackKey, TransportKey};
use crate::sdp::Encoding;
use crate::slot::{Format, Slot};
use crate::track::{RunUp, Subscriber};

/// How a wanted track can be sent.
enum Placement {
    /// In this slot, by this track (the first name or an alternative).
    Slot {
        slot: usize,
        track: TrackKey,
        format: Format,
    },
    Unplaced,
    NoCommonCodec,
    Missing,
}

impl Shard {
    /// Sets the whole list of tracks that a transport receives. A track that stays keeps its slot. Of sound only the
    /// loudest `audio_top_n` have slots, if that is not zero.
    pub(super) fn set_subscriptions(
        &mut self,
        id: &TransportId,
        mut wanted: Vec<Subscription>,
        audio_top_n: usize,
    ) -> Result<Reply, Error> {
        let key = self.find_transport(id)?;
        let limit = self.config.limits.max_subscriptions;
        if wanted.len() > limit {
            return Err(Error::LimitExceeded(format!("{limit} subscriptions")));
        }
        let mut names = HashSet::new();
        if let Some(twice) = wanted.iter().find(|s| !names.insert(s.track.clone())) {
            return Err(Error::BadRequest(format!("track {} is listed twice", twice.track)));
        }
        let mut reply = SlotsReply::default();
        let before = self.transports[key.index()].tx.carried();
        let is_staged = |s: &mut Subscription| audio_top_n > 0 && s.kind == Kind::Audio;
        // What is paused has no place: who is heard takes one from others.
        let staged = wanted.extract_if(.., is_staged).filter(|s| !s.is_paused).collect();
        self.set_listening(key, audio_top_n, staged, &mut reply);
        let fresh = self.keep_slots(key, wanted);
        for subscription in fresh {
            let track = subscription.track.clone();
            match self.place(key, &subscription) {
                Placement::Slot { slot, track, format } => self.attach_slot(key, slot, subscription, track, format),
                Placement::Unplaced => reply.unplaced.push(track),
                Placement::NoCommonCodec => reply.no_common_codec.push(track),
                Placement::Missing => reply.missing.push(track),
            }
        }
        self.seat(key);
        reply.unplaced.extend(self.unseated(key));
        reply.missing.extend(self.sent_as_former(key));
        let transport = &mut self.transports[key.index()];
        reply.slots = transport.tx.carried();
        transport.slots_version += u64::from(reply.slots != before);
        reply.version = transport.slots_version;
        self.allocate(key);
        self.request_carried_keyframes(key);
        self.arm_transport(key);
        Ok(Reply::Slots(reply))
    }

    /// Updates the slots whose track is still wanted, frees the others; returns what has no slot yet.
    fn keep_slots(&mut self, key: TransportKey, wanted: Vec<Subscription>) -> Vec<Subscription> {
        let mut fresh = wanted;
        for slot in 0..self.transports[key.index()].tx.slots.len() {
            let Some(carried) = &self.transports[key.index()].tx.slots[slot].carried else { continue };
            if self.listens(key, carried.track) {
                continue;
            }
            let sent = self.tracks[carried.track.index()].id.clone();
            let is_same = |s: &Subscription| s.kind == carried.wanted.kind && names(s, &carried.wanted.track);
            let position = fresh.iter().position(is_same);
            let best = position.and_then(|at| self.best_source(key, slot, &fresh[at]));
            match (position, best) {
                (Some(at), Some(best)) if best == sent || fresh[at].formers.contains(&sent) => {
                    let subscription = fresh.remove(at);
                    if let Some(carried) = &mut self.transports[key.index()].tx.slots[slot].carried {
                        carried.wanted = subscription;
                    }
                    match best == sent {
                        true => self.clear_heir(Subscriber { transport: key, slot: slot as u16 }),
                        false => self.set_heir(key, slot, &best),
                    }
                }
                _ => self.detach_slot(key, slot),
            }
        }
        fresh
    }

    /// The track that would be sent for a subscription on a slot: the first that exists and that the client decodes.
    fn best_source(&self, key: TransportKey, slot: usize, subscription: &Subscription) -> Option<TrackId> {
        let transport = &self.transports[key.index()];
        let slot = &transport.tx.slots[slot];
        candidates(subscription)
            .find(|id| self.encoding_of(id, &transport.room).is_some_and(|e| slot.format_of(e).is_some()))
            .cloned()
    }

    /// How a track of this room is encoded that some shard of the process has.
    fn encoding_of(&self, id: &TrackId, room: &RoomId) -> Option<Encoding> {
        if let Some(key) = self.track_ids.get(id) {
            let track = &self.tracks[key.index()];
            return (track.room == *room).then(|| track.encoding());
        }
        let entry = self.config.directory.get(id)?;
        (entry.room == *room).then(|| entry.info.encoding())
    }

    /// The track that can be sent for a subscription to sound, on some slot. The error: true if there is one, but in no
    /// codec of the client's.
    pub(super) fn find_source(&self, key: TransportKey, subscription: &Subscription) -> Result<TrackId, bool> {
        let transport = &self.transports[key.index()];
        let slots = || transport.tx.slots.iter().filter(|s| s.kind == subscription.kind);
        let has_slots = slots().next().is_some();
        let mut exists = false;
        for id in candidates(subscription) {
            let Some(encoding) = self.encoding_of(id, &transport.room) else { continue };
            exists = true;
            if !has_slots || slots().any(|s| s.format_of(encoding).is_some()) {
                return Ok(id.clone());
            }
        }
        Err(exists)
    }

    fn place(&mut self, key: TransportKey, subscription: &Subscription) -> Placement {
        let transport = &self.transports[key.index()];
        let slots = || transport.tx.slots.iter().enumerate().filter(|(_, s)| s.kind == subscription.kind);
        let (mut exists, mut is_decodable) = (false, false);
        let mut found = None;
        for id in candidates(subscription) {
            let Some(encoding) = self.encoding_of(id, &transport.room) else { continue };
            exists = true;
            is_decodable |= slots().any(|(_, s)| s.format_of(encoding).is_some());
            let mut free = slots().filter(|(_, s)| s.carried.is_none());
            if let Some((slot, format)) = free.find_map(|(index, s)| Some((index, s.format_of(encoding)?))) {
                found = Some((id.clone(), slot, format));
                break;
            }
        }
        let Some((id, slot, format)) = found else {
            return match (exists, is_decodable) {
                (false, _) => Placement::Missing,
                (true, false) if slots().next().is_some() => Placement::NoCommonCodec,
                _ => Placement::Unplaced,
            };
        };
        match self.acquire_track(&id) {
            Some(track) => Placement::Slot { slot, track, format },
            None => Placement::Missing,
        }
    }

    pub(super) fn slot_of(&self, subscriber: Subscriber) -> Option<&Slot> {
        self.transports.get(subscriber.transport.index())?.tx.slots.get(usize::from(subscriber.slot))
    }

    /// What a slot may receive of the track that it carries.
    pub(super) fn target_of(&self, subscriber: Subscriber) -> Option<Target> {
        self.slot_of(subscriber)?.carried.as_ref().map(|carried| carried.target)
    }

    pub(super) fn attach_slot(
        &mut self,
        key: TransportKey,
        slot: usize,
        wanted: Subscription,
        track_key: TrackKey,
        format: Format,
    ) {
        let now = self.now;
        let track = &mut self.tracks[track_key.index()];
        let transport = &mut self.transports[key.index()];
        transport.tx.slots[slot].attach(now, wanted, track_key, track, format);
        track.subscribers.push(Subscriber { transport: key, slot: slot as u16 });
    }

    /// Frees a slot. Its stream goes on with the next track that it carries.
    pub(super) fn detach_slot(&mut self, key: TransportKey, slot: usize) {
        self.clear_heir(Subscriber { transport: key, slot: slot as u16 });
        let Some(transport) = self.transports.get_mut(key.index()) else { return };
        let Some(carried) = transport.tx.slots.get_mut(slot).and_then(|s| s.detach()) else { return };
        transport.tx.forget_slot(slot);
        let subscriber = Subscriber { transport: key, slot: slot as u16 };
        if let Some(track) = self.tracks.get_mut(carried.track.index()) {
            track.subscribers.retain(|s| *s != subscriber);
        }
        self.update_wanted(carried.track);
        self.release_if_unused(carried.track);
    }

    /// The codec of a slot's track changed: goes on with it if the client can decode it.
    pub(super) fn reattach_slot(&mut self, key: TransportKey, slot: usize) {
        let entry = &self.transports[key.index()].tx.slots[slot];
        let Some((track, wanted)) = entry.carried.as_ref().map(|c| (c.track, c.wanted.clone())) else { return };
        let format = entry.format_of(self.tracks[track.index()].encoding());
        let Some(format) = format else {
            self.detach_slot(key, slot);
            return;
        };
        let now = self.now;
        let transport = &mut self.transports[key.index()];
        transport.tx.forget_slot(slot);
        transport.tx.slots[slot].attach(now, wanted, track, &self.tracks[track.index()], format);
        self.allocate(key);
    }

    /// The local place of a track; one of another shard is mirrored from now on.
    pub(super) fn acquire_track(&mut self, id: &TrackId) -> Option<TrackKey> {
        match self.track_ids.get(id) {
            Some(key) => Some(*key),
            None => self.mirror_track(id),
        }
    }

    /// Shares a transport's bandwidth among its slots and lets through what fits.
    pub(super) fn allocate(&mut self, key: TransportKey) {
        let now = self.now;
        let Some(transport) = self.transports.get_mut(key.index()) else { return };
        let mut demands = Vec::with_capacity(transport.tx.slots.len());
        for (index, slot) in transport.tx.slots.iter().enumerate() {
            let Some(carried) = &slot.carried else { continue };
            let track = &self.tracks[carried.track.index()];
            let (layer_count, layers) = track.layer_infos(now);
            let speakers = self.rooms.get(&track.room).map(|r| &r.speakers);
            demands.push(Demand {
                key: index as u32,
                kind: slot.kind,
                priority: carried.wanted.priority,
                is_speaker: speakers.is_some_and(|s| s.is_speaker(carried.track)),
                is_paused: carried.wanted.is_paused,
                max_height: carried.wanted.max_height,
                max_fps: carried.wanted.max_fps,
                layers,
                layer_count,
            });
        }
        let repair_cost = transport.tx.repair_cost();
        let targets = transport.tx.bandwidth.allocate(now, &demands, repair_cost).targets.clone();
        for (demand, target) in demands.iter().zip(targets) {
            self.apply_target(key, demand.key as usize, target);
        }
    }

    fn apply_target(&mut self, key: TransportKey, slot: usize, target: Target) {
        let tx = &mut self.transports[key.index()].tx;
        let is_ready = tx.is_ready();
        let entry = &mut tx.slots[slot];
        if !entry.set_target(target) {
            return;
        }
        // A run-up begins with one; the flush that sends it sees whether it was enough.
        let wanted = entry.forwarder.wants_keyframe().filter(|_| entry.run_up == RunUp::None);
        let Some(track) = entry.carried.as_ref().map(|c| c.track) else { return };
        self.update_wanted(track);
        if let Some(layer) = wanted.filter(|_| is_ready) {
            self.request_keyframe(track, layer);
        }
    }
}

/// A subscription's track, then its alternatives, then what they were before they moved.
fn candidates(subscription: &Subscription) -> impl Iterator<Item = &TrackId> {
    std::iter::once(&subscription.track).chain(&subscription.alternatives).chain(&subscription.formers)
}

/// True if a slot with a track wanted by this name is the subscription's.
fn names(subscription: &Subscription, track: &TrackId) -> bool {
    subscription.track == *track || subscription.formers.contains(track)
}
