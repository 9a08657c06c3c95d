//! A track whose publisher moved comes as another one; slots go on with the former until the new one can be decoded.

use std::time::Duration;

use super::Shard;
use crate::allocator::Target;
use crate::command::Kind;
use crate::id::TrackId;
use crate::keys::{TrackKey, TransportKey};
use crate::slot::{Format, Heir, Slot};
use crate::track::{RunUp, Subscriber, Track};

/// A picture that is smaller than the one before is better than the end of the former, which comes soon.
const PATIENCE: Duration = Duration::from_millis(700);

impl Shard {
    /// Has a track wait for its turn on a slot that carries its former self.
    pub(super) fn set_heir(&mut self, key: TransportKey, slot: usize, id: &TrackId) {
        let subscriber = Subscriber { transport: key, slot: slot as u16 };
        let Some((track, format)) = self.sendable(key, slot, id) else { return };
        let entry = &mut self.transports[key.index()].tx.slots[slot];
        if entry.heir.is_some_and(|heir| heir.track == track && heir.format == format) {
            return;
        }
        self.clear_heir(subscriber);
        let entry = &mut self.transports[key.index()].tx.slots[slot];
        entry.heir = Some(Heir { track, format, since: self.now });
        let is_paused = entry.carried.as_ref().is_none_or(|c| c.target == Target::Paused);
        self.tracks[track.index()].heirs.push(subscriber);
        if is_paused {
            self.seat_heir(subscriber, RunUp::None);
            return;
        }
        self.update_wanted(track);
        let layer = self.awaited_layer(&self.tracks[track.index()], subscriber);
        self.request_keyframe(track, layer);
    }

    fn sendable(&mut self, key: TransportKey, slot: usize, id: &TrackId) -> Option<(TrackKey, Format)> {
        let track = self.acquire_track(id)?;
        let format = self.transports[key.index()].tx.slots[slot].format_of(self.tracks[track.index()].encoding());
        if format.is_none() {
            self.release_if_unused(track);
        }
        Some((track, format?))
    }

    /// Nothing waits for this slot any more.
    pub(super) fn clear_heir(&mut self, subscriber: Subscriber) {
        let transport = self.transports.get_mut(subscriber.transport.index());
        let slot = transport.and_then(|t| t.tx.slots.get_mut(usize::from(subscriber.slot)));
        let Some(heir) = slot.and_then(|s| s.heir.take()) else { return };
        if let Some(track) = self.tracks.get_mut(heir.track.index()) {
            track.heirs.retain(|s| *s != subscriber);
        }
        self.update_wanted(heir.track);
        self.release_if_unused(heir.track);
    }

    /// The track of a slot ended: its heir, if it has one, follows at once.
    pub(super) fn vacate_slot(&mut self, subscriber: Subscriber) {
        let heir = self.slot_of(subscriber).and_then(|slot| slot.heir);
        let track = heir.and_then(|heir| self.tracks.get(heir.track.index()));
        let begun = track.and_then(|track| track.newest_keyframe(self.awaited_layer(track, subscriber)));
        if !self.seat_heir(subscriber, begun.map_or(RunUp::None, RunUp::From)) {
            self.detach_slot(subscriber.transport, usize::from(subscriber.slot));
        }
    }

    /// Gives their slots to those who waited for what is now pending of a track: the rest of a key frame, or any sound.
    pub(super) fn seat_heirs(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get(key.index()).filter(|t| !t.heirs.is_empty()) else { return };
        let mut ready = Vec::new();
        let mut lacking = Vec::new();
        let is_lacking = |layer: &u8| track.newest_keyframe(*layer).is_none();
        for heir in &track.heirs {
            match self.readiness(track, *heir) {
                Some(run_up) => ready.push((*heir, run_up)),
                None => lacking.extend(Some(self.awaited_layer(track, *heir)).filter(is_lacking)),
            }
        }
        for (heir, run_up) in ready {
            self.seat_heir(heir, run_up);
        }
        for layer in lacking {
            self.request_keyframe(key, layer);
        }
    }

    /// What an heir would begin with now, if it can. A client that just connected sends its first key frame slowly, since
    /// it does not know its path yet: the former goes on until all of it is here.
    fn readiness(&self, track: &Track, subscriber: Subscriber) -> Option<RunUp> {
        if track.kind == Kind::Audio {
            return Some(RunUp::None);
        }
        let heir = self.slot_of(subscriber)?.heir?;
        let takes_any = self.now.saturating_duration_since(heir.since) >= PATIENCE;
        let awaited = self.awaited_layer(track, subscriber);
        let mut candidates = track.pending.iter().filter(|pending| pending.layer == awaited || takes_any);
        candidates.find_map(|pending| track.whole_keyframe(*pending)).map(RunUp::From)
    }

    /// The layer at which the slot goes over: the best that comes and is not larger than what the slot has now.
    fn awaited_layer(&self, track: &Track, subscriber: Subscriber) -> u8 {
        let most = match self.target_of(subscriber) {
            Some(Target::Layer { spatial, .. }) => spatial,
            _ => 0,
        };
        let live = track.live_mask(self.now);
        let is_live = |layer: &u8| live & 1 << layer != 0;
        let last = track.layers.len() as u8;
        (0..last.min(most + 1)).rev().find(is_live).or_else(|| (0..last).find(is_live)).unwrap_or(0)
    }

    /// Puts the heir of a slot in place of what it carries. False if it has none.
    fn seat_heir(&mut self, subscriber: Subscriber, run_up: RunUp) -> bool {
        let Subscriber { transport: key, slot } = subscriber;
        let slot = usize::from(slot);
        let Some(entry) = self.transports.get_mut(key.index()).and_then(|t| t.tx.slots.get_mut(slot)) else {
            return false;
        };
        let (Some(heir), Some(carried)) = (entry.heir.take(), &entry.carried) else { return false };
        let wanted = carried.wanted.clone();
        self.tracks[heir.track.index()].heirs.retain(|s| *s != subscriber);
        self.detach_slot(key, slot);
        self.attach_slot(key, slot, wanted, heir.track, heir.format);
        self.transports[key.index()].tx.slots[slot].run_up = run_up;
        self.allocate(key);
        self.arm_transport(key);
        true
    }

    /// The wanted tracks in whose place their former selves are sent, since they are not here yet.
    pub(super) fn sent_as_former(&self, key: TransportKey) -> Vec<TrackId> {
        let slots = self.transports[key.index()].tx.slots.iter();
        let is_former = |s: &Slot| {
            let carried = s.carried.as_ref().filter(|_| s.heir.is_none())?;
            let id = &self.tracks[carried.track.index()].id;
            carried.wanted.formers.contains(id).then(|| carried.wanted.track.clone())
        };
        slots.filter_map(is_former).collect()
    }
}
