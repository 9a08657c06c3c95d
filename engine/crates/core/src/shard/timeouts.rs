//! What time alone brings.

use std::time::Instant;

use slab::Slab;

use super::{Shard, TimerKey};
use crate::event::{CloseReason, Event};
use crate::id::TrackId;
use crate::keys::{TrackKey, TransportKey};
use crate::track::{Origin, Track};

impl Shard {
    /// Does what is due. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.set_now(now);
        while let Some((key, at)) = self.timers.pop(self.now) {
            match key {
                TimerKey::Transport(key) => self.transport_timeout(key, at),
                TimerKey::Track(key) => self.track_timeout(key, at),
                TimerKey::Source(key) => self.source_timeout(key, at),
                TimerKey::Sink(key) => self.sink_timeout(key, at),
                TimerKey::Relay(key) => self.relay_timeout(key, at),
                TimerKey::Rooms => self.rooms_timeout(at),
            }
        }
    }

    fn transport_timeout(&mut self, key: TransportKey, at: Instant) {
        let now = self.now;
        let Some(transport) = self.transports.get_mut(key.index()) else { return };
        if !transport.alarm.claim(at) {
            return;
        }
        if transport.expired(now) {
            return self.close_transport(key, CloseReason::IceTimeout);
        }
        transport.handle_timeout(now);
        self.request_hopeless_keyframes(key);
        let transport = &mut self.transports[key.index()];
        if transport.take_report_due(now) {
            transport.send_reports(now, &self.clock, &self.tracks);
        }
        let transport = &self.transports[key.index()];
        if transport.has_carried() && transport.tx.bandwidth.allocate_at() <= now {
            self.allocate(key);
        }
        let tx = &self.transports[key.index()].tx;
        if tx.has_waiting() || tx.next_timeout(now).is_some() {
            self.mark_transport(key);
        }
        self.after_handshake(key);
    }

    fn track_timeout(&mut self, key: TrackKey, at: Instant) {
        let Some(track) = self.tracks.get_mut(key.index()) else { return };
        if track.alarm.claim(at) {
            self.update_wanted(key);
            self.poll_keyframes(key);
        }
    }

    /// Ranks the speakers of all rooms.
    fn rooms_timeout(&mut self, at: Instant) {
        if !self.rooms_alarm.claim(at) {
            return;
        }
        let now = self.now;
        let mut next: Option<Instant> = None;
        let mut reordered = Vec::new();
        for (id, room) in &mut self.rooms {
            if let Some(ranked) = room.speakers.poll(now) {
                let speakers = own_speakers(&self.tracks, ranked);
                if room.is_speech_told || !speakers.is_empty() {
                    room.is_speech_told = !speakers.is_empty();
                    let shard = self.config.index;
                    self.events.push_back(Event::ActiveSpeakers { room: id.clone(), shard, speakers });
                }
            }
            if room.speakers.take_order_change() {
                reordered.push(id.clone());
            }
            next = [next, room.speakers.next_timeout()].into_iter().flatten().min();
        }
        for room in reordered {
            self.seat_room(&room);
        }
        if let Some(at) = next {
            self.timers.set(&mut self.rooms_alarm, TimerKey::Rooms, at.max(now + super::MIN_SLEEP));
        }
    }
}

/// Of the speakers those whose sound comes into the process here: the others are told where theirs does.
fn own_speakers(tracks: &Slab<Track>, ranked: &[(TrackKey, u8)]) -> Vec<(TrackId, u8)> {
    let is_own = |track: &&Track| matches!(track.origin, Origin::Transport { .. } | Origin::Source);
    let named = |(key, level): &(TrackKey, u8)| Some((tracks.get(key.index()).filter(is_own)?.id.clone(), *level));
    ranked.iter().filter_map(named).collect()
}
