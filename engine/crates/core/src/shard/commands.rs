//! Carries out commands: one function per command, each of which gives a reply or changes nothing.

use std::time::Instant;

use super::Shard;
use super::handover::Import;
use crate::capture::{Capture, TransportTap};
use crate::command::{Caps, Command};
use crate::data::Content;
use crate::error::Error;
use crate::event::{CloseReason, Event, Reply, TrackInfo};
use crate::handshake::Handshake;
use crate::id::{CommandId, RoomId, TrackId, TransportId};
use crate::keys::TransportKey;
use crate::sdp::{LineUse, Negotiated, Offer, negotiate};
use crate::ssrcs::Ssrcs;
use crate::track::Origin;
use crate::transport::{Transport, TransportInit};

impl Shard {
    /// Carries out a command; its reply is an event.
    pub fn handle_command(&mut self, now: Instant, id: CommandId, command: Command) {
        self.set_now(now);
        let result = self.carry_out(command);
        self.events.push_back(Event::Reply { command: id, result });
    }

    fn carry_out(&mut self, command: Command) -> Result<Reply, Error> {
        match command {
            Command::CreateTransport { transport, room, offer, caps } => {
                self.create_transport(transport, room, &offer, caps)
            }
            Command::ExportTransport { transport, purpose, key } => self.export_transport(&transport, purpose, &key),
            Command::ImportTransport { transport, room, offer, caps, state, key } => {
                let import = Import { room, offer: &offer, caps, sealed: &state, key: &key };
                self.import_transport(transport, import)
            }
            Command::CompleteTransport { transport, state, key } => self.complete_transport(&transport, &state, &key),
            Command::SetCaps { transport, caps } => self.set_caps(&transport, caps),
            Command::Negotiate { transport, offer } => self.negotiate(&transport, &offer),
            Command::CloseTransport { transport } => {
                if let Some(key) = self.transport_ids.get(&transport) {
                    self.close_transport(*key, CloseReason::Closed);
                }
                Ok(Reply::Done)
            }
            Command::SetDataAccess { transport, identity, can_publish } => {
                self.set_data_access(&transport, &identity, can_publish)
            }
            Command::SendData { room, sender, topic, is_reliable, is_text, to, payload } => {
                let content = Content { is_text, to: to.into_iter().map(Into::into).collect(), payload: &payload };
                self.send_data(room, &sender, &topic, is_reliable, content)
            }
            Command::PublishTrack { track, transport, mid } => self.publish_track(track, &transport, &mid),
            Command::UnpublishTrack { track } => {
                self.unpublish_track(&track);
                Ok(Reply::Done)
            }
            Command::SetTrackMuted { track, is_muted } => self.set_track_muted(&track, is_muted),
            Command::SetTrackCap { track, max_bps } => self.set_track_cap(&track, max_bps),
            Command::SetSubscriptions { transport, subscriptions, audio_top_n } => {
                self.set_subscriptions(&transport, subscriptions, audio_top_n)
            }
            Command::CreateSource { track, room, codec } => self.create_source(track, room, codec),
            Command::PushFrames { track, late_us, frames } => self.push_frames(&track, late_us, frames),
            Command::CreateSink { sink, track } => self.create_sink(sink, &track),
            Command::CloseSink { sink } => {
                self.close_sink(&sink);
                Ok(Reply::Done)
            }
            Command::OpenRelay { relay, remote, tx, rx } => self.open_relay(relay, remote, &tx, &rx),
            Command::CloseRelay { relay } => {
                self.close_relay(&relay);
                Ok(Reply::Done)
            }
            Command::ExportTrack { relay, track, handle } => self.export_track(&relay, &track, handle),
            Command::ExportData { relay, room, handle } => self.export_data(&relay, room, handle),
            Command::ImportData { relay, room, handle } => self.import_data(&relay, room, handle),
            Command::StopData { relay, room } => {
                self.stop_data(&relay, &room);
                Ok(Reply::Done)
            }
            Command::UnexportTrack { relay, track } => {
                self.unexport_track(&relay, &track);
                Ok(Reply::Done)
            }
            Command::ImportTrack { relay, track, room, handle, codec, rids } => {
                let info = TrackInfo { track, kind: codec.kind(), codec, variant: None, rids };
                self.import_track(&relay, info, room, handle)
            }
            Command::MoveImport { relay, track, handle } => self.move_import(&relay, &track, handle),
            Command::Stats { transports } => Ok(Reply::Json(self.stats(&transports))),
            Command::SetCapture { capture } => {
                self.set_capture(capture);
                Ok(Reply::Done)
            }
            Command::DumpRoom { room } => Ok(Reply::Json(self.dump_room(&room))),
        }
    }

    fn create_transport(&mut self, id: TransportId, room: RoomId, offer: &str, caps: Caps) -> Result<Reply, Error> {
        self.check_new_transport(&id)?;
        let mut ssrcs = Ssrcs::new(self.random.next());
        let negotiated = self.negotiate_offer(offer, None, &mut ssrcs)?;
        let handshake = Handshake::new(&self.config.certificate, negotiated.remote.clone(), self.now)
            .map_err(|error| Error::BadOffer(error.to_string()))?;
        let ufrag = handshake.local_ufrag().to_owned();
        let init = TransportInit { id: id.clone(), room, handshake, negotiated, caps, ssrcs };
        let mut transport = Transport::new(self.now, &self.clock, init);
        transport.tx.tap = self.tap_of(&transport);
        let key = TransportKey::from(self.transports.insert(Box::new(transport)));
        self.transport_ids.insert(id, key);
        self.by_ufrag.insert(ufrag, key);
        Ok(self.apply_and_answer(key))
    }

    pub(super) fn check_new_transport(&self, id: &TransportId) -> Result<(), Error> {
        if self.transport_ids.contains_key(id) {
            return Err(Error::AlreadyExists(format!("transport {id}")));
        }
        if self.transports.len() >= self.config.limits.max_transports {
            return Err(Error::LimitExceeded("transports of this worker".into()));
        }
        Ok(())
    }

    fn negotiate(&mut self, id: &TransportId, offer: &str) -> Result<Reply, Error> {
        let key = self.find_transport(id)?;
        let previous = self.transports[key.index()].negotiated.clone();
        let mut ssrcs = self.transports[key.index()].ssrcs;
        let negotiated = self.negotiate_offer(offer, Some(&previous), &mut ssrcs)?;
        let transport = &mut self.transports[key.index()];
        if negotiated.is_ice_restart {
            self.by_ufrag.remove(transport.handshake.local_ufrag());
            transport.handshake.restart_ice(&negotiated.remote.ice);
            self.by_ufrag.insert(transport.handshake.local_ufrag().to_owned(), key);
        }
        transport.ssrcs = ssrcs;
        transport.negotiated = negotiated;
        for slot in transport.idle_slots() {
            self.detach_slot(key, slot);
        }
        Ok(self.apply_and_answer(key))
    }

    pub(super) fn negotiate_offer(
        &self,
        offer: &str,
        previous: Option<&Negotiated>,
        ssrcs: &mut Ssrcs,
    ) -> Result<Negotiated, Error> {
        let offer = Offer::parse(offer)?;
        let negotiated = negotiate(&offer, previous, &mut || ssrcs.next())?;
        let max_lines = self.config.limits.max_lines;
        if negotiated.lines.len() > max_lines {
            return Err(Error::LimitExceeded(format!("{max_lines} m-lines")));
        }
        Ok(negotiated)
    }

    fn apply_and_answer(&mut self, key: TransportKey) -> Reply {
        let now = self.now;
        let transport = &mut self.transports[key.index()];
        transport.apply_negotiated(now, self.config.limits.max_ssrcs, || self.random.next());
        self.answer(key)
    }

    /// The answer to what was applied last.
    pub(super) fn answer(&mut self, key: TransportKey) -> Reply {
        let now = self.now;
        let transport = &mut self.transports[key.index()];
        transport.settle_caps(now, &self.tracks);
        let local = transport.handshake.local_params();
        let answer = transport.negotiated.answer(&local, &self.config.candidates);
        let lines = transport.lines();
        self.update_data_member(key);
        self.arm_transport(key);
        Reply::Answer { answer, lines }
    }

    fn set_caps(&mut self, id: &TransportId, caps: Caps) -> Result<Reply, Error> {
        let key = self.find_transport(id)?;
        let transport = &mut self.transports[key.index()];
        transport.caps = caps;
        transport.tx.bandwidth.set_max_bps(caps.egress_bps);
        self.settle_caps(key);
        Ok(Reply::Done)
    }

    /// A client's caps, or what it publishes, changed.
    pub(super) fn settle_caps(&mut self, key: TransportKey) {
        let now = self.now;
        let Some(transport) = self.transports.get_mut(key.index()) else { return };
        transport.settle_caps(now, &self.tracks);
        if transport.tx.has_waiting() {
            self.mark_transport(key);
        }
    }

    fn set_capture(&mut self, capture: Option<Capture>) {
        self.capture = capture;
        for key in self.transport_ids.values() {
            let tap = self.tap_of(&self.transports[key.index()]);
            self.transports[key.index()].tx.tap = tap;
        }
    }

    pub(super) fn tap_of(&self, transport: &Transport) -> Option<Box<TransportTap>> {
        let capture = self.capture.as_ref().filter(|c| c.takes(&transport.id, &transport.room))?;
        Some(TransportTap::new(capture.tap.clone()))
    }

    pub(super) fn find_transport(&self, id: &TransportId) -> Result<TransportKey, Error> {
        self.transport_ids.get(id).copied().ok_or_else(|| Error::TransportNotFound(id.to_string()))
    }

    /// Ends a transport with all that hangs on it.
    pub(super) fn close_transport(&mut self, key: TransportKey, reason: CloseReason) {
        let Some(transport) = self.transports.get_mut(key.index()) else { return };
        transport.handshake.close(self.now);
        transport.drain_handshake(self.now);
        self.leave_data_room(key);
        let Some(transport) = self.transports.get_mut(key.index()) else { return };
        let farewell = transport.tx.take_control();
        let published: Vec<_> = transport.rx.streams.published.iter().map(|(_, track)| *track).collect();
        self.end_listening(key);
        for slot in 0..self.transports[key.index()].tx.slots.len() {
            self.detach_slot(key, slot);
        }
        for track in published {
            self.end_track(track);
        }
        let transport = self.transports.remove(key.index());
        if let Some(address) = transport.half_open {
            self.half_open.end(address);
        }
        self.transport_ids.remove(&transport.id);
        self.by_ufrag.remove(transport.handshake.local_ufrag());
        for addr in &transport.addrs {
            // Another transport may have taken the address over.
            if self.by_addr.get(addr) == Some(&key) {
                self.by_addr.remove(addr);
            }
        }
        self.dirty_transports.retain(|k| *k != key);
        self.farewells.extend(farewell);
        self.events.push_back(Event::TransportClosed { transport: transport.id, reason });
    }

    fn publish_track(&mut self, id: TrackId, transport_id: &TransportId, mid: &str) -> Result<Reply, Error> {
        let key = self.find_transport(transport_id)?;
        let transport = &self.transports[key.index()];
        let is_wanted = |l: &crate::sdp::NegotiatedLine| l.mid.as_str() == mid && l.usage == LineUse::Inbound;
        let line = transport.negotiated.lines.iter().position(is_wanted);
        let line =
            line.ok_or_else(|| Error::BadRequest(format!("transport {transport_id} sends nothing on mid {mid}")))?;
        if let Some((_, track)) = transport.rx.streams.published.iter().find(|(l, _)| *l == line) {
            // The same order again is no error, so that it can be repeated after a lost reply.
            let track = &self.tracks[track.index()];
            let is_same = track.id == id;
            let in_use = Error::AlreadyExists(format!("track {} on mid {mid}", track.id));
            return if is_same { Ok(Reply::Track(track.info())) } else { Err(in_use) };
        }
        let negotiated = &transport.negotiated.lines[line];
        let format = negotiated.codecs.first().ok_or_else(|| Error::BadRequest(format!("mid {mid} has no codec")))?;
        let info = TrackInfo {
            track: id,
            kind: negotiated.kind,
            codec: format.codec,
            variant: Some(format.variant),
            rids: negotiated.rids.iter().map(ToString::to_string).collect(),
        };
        let room = transport.room.clone();
        let track = self.add_track(info.clone(), room, Origin::Transport { transport: key, line })?;
        let transport = &mut self.transports[key.index()];
        let has_begun = transport.rx.streams.publish(line, track);
        self.settle_caps(key);
        if has_begun {
            // What came so far was dropped; without this the next key frame may be seconds away.
            (0..self.tracks[track.index()].layers.len()).for_each(|layer| self.request_keyframe(track, layer as u8));
        }
        Ok(Reply::Track(info))
    }
}
