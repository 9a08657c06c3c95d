//! What time alone brings.

use std::time::Instant;

use super::{Shard, TimerKey};
use crate::event::{CloseReason, Event};
use crate::keys::{TrackKey, TransportKey};

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
        for (id, room) in &mut self.rooms {
            if let Some(speakers) = room.speakers.poll(now) {
                let named = speakers
                    .iter()
                    .filter_map(|(key, level)| self.tracks.get(key.index()).map(|track| (track.id.clone(), *level)));
                self.events.push_back(Event::ActiveSpeakers { room: id.clone(), speakers: named.collect() });
            }
            next = [next, room.speakers.next_timeout()].into_iter().flatten().min();
        }
        if let Some(at) = next {
            self.timers.set(&mut self.rooms_alarm, TimerKey::Rooms, at.max(now + super::MIN_SLEEP));
        }
    }
}
