//! Of many tracks of sound only the loudest are heard: which of them a transport's slots carry.
//!
//! A room with such listeners keeps its tracks in the order in which they deserve to be heard (`active_speaker.rs`); each
//! listener has the first few of those that it wants in its slots.

use super::Shard;
use crate::command::{Kind, Subscription};
use crate::event::{Event, SlotsReply};
use crate::id::RoomId;
use crate::keys::{TrackKey, TransportKey};
use crate::track::{RunUp, Track};

/// What a transport hears that wants the loudest only.
#[derive(Debug)]
pub(crate) struct Listening {
    /// So many at a time.
    top_n: usize,
    /// Of these, in the order in which they were wanted.
    wanted: Vec<(TrackKey, Subscription)>,
}

impl Listening {
    /// True if the track is one of those among whom the loudest are chosen.
    pub(crate) fn wants(&self, track: TrackKey) -> bool {
        self.wanted.iter().any(|(key, _)| *key == track)
    }

    pub(crate) fn forget(&mut self, track: TrackKey) {
        self.wanted.retain(|(key, _)| *key != track);
    }

    /// The tracks to be heard now.
    fn heard(&self, order: &[TrackKey], places: usize) -> Vec<TrackKey> {
        let count = self.top_n.min(places).min(self.wanted.len());
        let mut heard: Vec<TrackKey> = order.iter().filter(|key| self.wants(**key)).take(count).copied().collect();
        // Of the others nothing came yet; they have what places are left, so that their first word is heard.
        let silent = self.wanted.iter().map(|(key, _)| *key);
        let silent: Vec<TrackKey> = silent.filter(|key| !heard.contains(key)).take(count - heard.len()).collect();
        heard.extend(silent);
        heard
    }
}

impl Shard {
    /// Sets among which tracks the loudest are chosen for a transport; `top_n` zero: it hears whatever has a slot.
    pub(super) fn set_listening(
        &mut self,
        key: TransportKey,
        top_n: usize,
        wanted: Vec<Subscription>,
        reply: &mut SlotsReply,
    ) {
        let former = self.transports[key.index()].listening.take();
        if top_n > 0 {
            let wanted = self.find_sounds(key, wanted, reply);
            self.pass_on_places(key, &wanted);
            for (track, _) in &wanted {
                let listeners = &mut self.tracks[track.index()].listeners;
                if !listeners.contains(&key) {
                    listeners.push(key);
                }
            }
            self.transports[key.index()].listening = Some(Box::new(Listening { top_n, wanted }));
        }
        let is_new = former.is_none();
        for (track, _) in former.into_iter().flat_map(|f| f.wanted) {
            if !self.listens(key, track) {
                self.stop_listening_to(key, track);
            }
        }
        match (top_n > 0, is_new) {
            (true, true) => self.add_listener(key),
            (false, false) => self.remove_listener(key),
            _ => {}
        }
    }

    /// The transport ends: nothing is kept for it any more.
    pub(super) fn end_listening(&mut self, key: TransportKey) {
        if self.listening(key).is_some() {
            self.set_listening(key, 0, Vec::new(), &mut SlotsReply::default());
        }
    }

    pub(super) fn listens(&self, key: TransportKey, track: TrackKey) -> bool {
        self.listening(key).is_some_and(|l| l.wants(track))
    }

    fn listening(&self, key: TransportKey) -> Option<&Listening> {
        self.transports.get(key.index())?.listening.as_deref()
    }

    fn stop_listening_to(&mut self, key: TransportKey, track: TrackKey) {
        if let Some(track) = self.tracks.get_mut(track.index()) {
            track.listeners.retain(|k| *k != key);
        }
        self.update_wanted(track);
        self.release_if_unused(track);
    }

    fn add_listener(&mut self, key: TransportKey) {
        let room = self.rooms.entry(self.transports[key.index()].room.clone()).or_default();
        room.listeners.push(key);
        room.speakers.keep_order(true);
    }

    fn remove_listener(&mut self, key: TransportKey) {
        let id = &self.transports[key.index()].room;
        let Some(room) = self.rooms.get_mut(id) else { return };
        room.listeners.retain(|k| *k != key);
        if room.listeners.is_empty() {
            room.speakers.keep_order(false);
        }
        if room.is_unused() {
            self.rooms.remove(id);
        }
    }

    /// The tracks that can be sent for these subscriptions; what cannot is told.
    fn find_sounds(
        &mut self,
        key: TransportKey,
        wanted: Vec<Subscription>,
        reply: &mut SlotsReply,
    ) -> Vec<(TrackKey, Subscription)> {
        let mut found = Vec::with_capacity(wanted.len());
        for subscription in wanted {
            match self.find_source(key, &subscription) {
                Ok(id) => match self.acquire_track(&id) {
                    Some(track) => found.push((track, subscription)),
                    None => reply.missing.push(subscription.track),
                },
                Err(true) => reply.no_common_codec.push(subscription.track),
                Err(false) => reply.missing.push(subscription.track),
            }
        }
        found
    }

    /// The places of tracks whose publishers moved go to what those are called now.
    fn pass_on_places(&mut self, key: TransportKey, wanted: &[(TrackKey, Subscription)]) {
        for (track, subscription) in wanted {
            let Some(former) = subscription.formers.iter().find_map(|id| self.track_ids.get(id)).copied() else {
                continue;
            };
            if former == *track {
                continue;
            }
            let room = &self.transports[key.index()].room;
            if let Some(room) = self.rooms.get_mut(room) {
                room.speakers.succeed(former, *track);
            }
            let slots = &self.transports[key.index()].tx.slots;
            let Some(slot) = slots.iter().position(|s| s.carried.as_ref().is_some_and(|c| c.track == former)) else {
                continue;
            };
            let encoding = self.tracks[track.index()].encoding();
            if let Some(format) = slots[slot].format_of(encoding) {
                self.detach_slot(key, slot);
                self.attach_slot(key, slot, subscription.clone(), *track, format);
            }
        }
    }

    /// Gives the places of a listener to those who are to be heard now. True if that changed its slots.
    pub(super) fn seat(&mut self, key: TransportKey) -> bool {
        let transport = &self.transports[key.index()];
        let Some(listening) = &transport.listening else { return false };
        let sounds = || transport.tx.slots.iter().enumerate().filter(|(_, s)| s.kind == Kind::Audio);
        let order = self.rooms.get(&transport.room).map_or(&[][..], |r| r.speakers.order());
        let heard = listening.heard(order, sounds().count());
        let carried = |track: TrackKey| sounds().any(|(_, s)| s.carried.as_ref().is_some_and(|c| c.track == track));
        let coming: Vec<TrackKey> = heard.iter().filter(|track| !carried(**track)).copied().collect();
        let is_over = |track: TrackKey| listening.wants(track) && !heard.contains(&track);
        let going = sounds().filter(|(_, s)| s.carried.as_ref().is_some_and(|c| is_over(c.track)));
        let going: Vec<usize> = going.map(|(slot, _)| slot).collect();
        for slot in &going {
            self.detach_slot(key, *slot);
        }
        let is_changed = !going.is_empty() || !coming.is_empty();
        for track in coming {
            self.give_place(key, track);
        }
        if is_changed {
            self.allocate(key);
        }
        is_changed
    }

    fn give_place(&mut self, key: TransportKey, track: TrackKey) {
        let Some(encoding) = self.tracks.get(track.index()).map(Track::encoding) else { return };
        let transport = &self.transports[key.index()];
        let wanted = transport.listening.as_ref().and_then(|l| l.wanted.iter().find(|(k, _)| *k == track));
        let Some(wanted) = wanted.map(|(_, subscription)| subscription.clone()) else { return };
        let mut free =
            transport.tx.slots.iter().enumerate().filter(|(_, s)| s.kind == Kind::Audio && s.carried.is_none());
        let Some((slot, format)) = free.find_map(|(index, s)| Some((index, s.format_of(encoding)?))) else { return };
        self.attach_slot(key, slot, wanted, track, format);
        self.transports[key.index()].tx.slots[slot].run_up = RunUp::Sound;
    }

    /// How many slots of sound a listener lacks, as names of tracks.
    pub(super) fn unseated(&self, key: TransportKey) -> Vec<crate::id::TrackId> {
        let Some(listening) = self.listening(key) else { return Vec::new() };
        let slots = &self.transports[key.index()].tx.slots;
        let places = slots.iter().filter(|s| s.kind == Kind::Audio).count();
        let lacking = listening.top_n.min(listening.wanted.len()).saturating_sub(places);
        let is_heard = |track: TrackKey| slots.iter().any(|s| s.carried.as_ref().is_some_and(|c| c.track == track));
        let unheard = listening.wanted.iter().filter(|(track, _)| !is_heard(*track));
        unheard.take(lacking).map(|(_, subscription)| subscription.track.clone()).collect()
    }

    /// Other people speak in a room: its listeners' places are given anew, and they are told.
    pub(super) fn seat_room(&mut self, id: &RoomId) {
        let Some(room) = self.rooms.get(id) else { return };
        for key in room.listeners.clone() {
            if self.seat(key) {
                self.tell_slots(key);
            }
        }
    }

    /// Tells what the slots of a transport carry now.
    pub(super) fn tell_slots(&mut self, key: TransportKey) {
        let transport = &mut self.transports[key.index()];
        transport.slots_version += 1;
        let (slots, version) = (transport.tx.carried(), transport.slots_version);
        self.events.push_back(Event::SlotsChanged { transport: transport.id.clone(), slots, version });
        self.arm_transport(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(top_n: usize, wanted: &[usize]) -> Listening {
        let subscription = |n: &usize| Subscription {
            track: n.to_string().as_str().into(),
            kind: Kind::Audio,
            alternatives: vec![],
            formers: vec![],
            max_height: None,
            max_fps: None,
            is_paused: false,
            priority: 0,
        };
        Listening { top_n, wanted: wanted.iter().map(|n| (TrackKey::from(*n), subscription(n))).collect() }
    }

    fn heard(listening: &Listening, order: &[usize], places: usize) -> Vec<usize> {
        let order: Vec<TrackKey> = order.iter().map(|n| TrackKey::from(*n)).collect();
        listening.heard(&order, places).iter().map(|key| key.index()).collect()
    }

    #[test]
    fn the_first_of_the_order_that_are_wanted_are_heard() {
        let listening = listening(2, &[1, 2, 3, 4]);
        assert_eq!(heard(&listening, &[9, 4, 8, 3, 1], 5), [4, 3]);
        assert_eq!(heard(&listening, &[9, 4, 8, 3, 1], 1), [4]);
        assert!(heard(&listening, &[], 0).is_empty());
    }

    #[test]
    fn places_that_are_left_go_to_those_who_were_not_heard_yet() {
        let listening = listening(3, &[1, 2, 3, 4]);
        assert_eq!(heard(&listening, &[3], 5), [3, 1, 2]);
        assert_eq!(heard(&self::listening(3, &[2]), &[3], 5), [2]);
    }
}
