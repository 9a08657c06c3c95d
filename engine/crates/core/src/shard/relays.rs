//! Relays: tracks out to other nodes and in from them, over the same socket as clients.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use mrtc_rtp::codec::PayloadInfo;
use mrtc_rtp::id::ExtSeq;
use mrtc_rtp::relay::{self, Media, MediaFlags, Message, OVERHEAD, RelayError, Sealer, SeqList};
use mrtc_rtp::seq::nearest;
use slab::Slab;

use super::{Shard, TimerKey};
use crate::addr::{Dest, Proto};
use crate::command::{Codec, RelayKey};
use crate::counters::Counters;
use crate::error::Error;
use crate::event::{Event, Reply, TrackInfo};
use crate::id::{RelayId, RoomId, TrackId};
use crate::keys::{RelaySlot, TrackKey};
use crate::nack_register::Arrival;
use crate::outbox::Outbox;
use crate::packet::{Packet, SenderReportMap};
use crate::relay::{Import, RelayControl, RelayLink, RelayResend};
use crate::runs::{Segment, plan_run};
use crate::track::{Arriving, Export, Origin, Track};

impl Shard {
    pub(super) fn open_relay(
        &mut self,
        id: RelayId,
        remote: SocketAddr,
        tx: &RelayKey,
        rx: &RelayKey,
    ) -> Result<Reply, Error> {
        let tag = relay::tag_of_name(id.as_str());
        let key = match self.relay_ids.get(&id).copied() {
            Some(key) => {
                self.relays[key.index()].rekey(self.now, tag, remote, tx, rx);
                key
            }
            None => self.add_relay(id, tag, remote, tx, rx)?,
        };
        self.arm_relay(key);
        Ok(Reply::Done)
    }

    fn add_relay(
        &mut self,
        id: RelayId,
        tag: u32,
        remote: SocketAddr,
        tx: &RelayKey,
        rx: &RelayKey,
    ) -> Result<RelaySlot, Error> {
        if self.relays.len() >= self.config.limits.max_relays {
            return Err(Error::LimitExceeded("relays of this worker".into()));
        }
        if self.relay_tags.contains_key(&tag) {
            // Two names with the same hash; once in some ten thousand nodes. The caller names it differently.
            return Err(Error::AlreadyExists(format!("a relay with the tag of {id}")));
        }
        let link = RelayLink::new(self.now, id.clone(), tag, remote, tx, rx);
        let key = RelaySlot::from(self.relays.insert(link));
        self.relay_ids.insert(id, key);
        self.relay_tags.insert(tag, key);
        Ok(key)
    }

    pub(super) fn close_relay(&mut self, id: &RelayId) {
        let Some(key) = self.relay_ids.remove(id) else { return };
        let link = &self.relays[key.index()];
        if let Some(data) = &link.data {
            let rooms: Vec<RoomId> = data.exported().cloned().collect();
            rooms.iter().for_each(|room| self.leave_data_room_by_relay(room, key));
        }
        let link = &self.relays[key.index()];
        let imported: Vec<TrackKey> = link.imports.values().map(|i| i.track).collect();
        let exported: Vec<TrackKey> = link.exports.values().copied().collect();
        for track in exported {
            self.drop_export(key, track);
        }
        for track in imported {
            self.end_track(track);
        }
        self.relays.remove(key.index());
        self.relay_tags.retain(|_, relay| *relay != key);
        self.dirty_relays.retain(|relay| *relay != key);
    }

    pub(super) fn find_relay(&self, id: &RelayId) -> Result<RelaySlot, Error> {
        self.relay_ids.get(id).copied().ok_or_else(|| Error::RelayNotFound(id.to_string()))
    }

    pub(super) fn export_track(&mut self, relay: &RelayId, id: &TrackId, handle: u32) -> Result<Reply, Error> {
        let key = self.find_relay(relay)?;
        let track_key = self.acquire_track(id).ok_or_else(|| Error::TrackNotFound(id.to_string()))?;
        let other = self.relays[key.index()].exports.get(&handle).copied();
        if other.is_some_and(|other| other != track_key) {
            self.release_if_unused(track_key);
            return Err(Error::AlreadyExists(format!("handle {handle} on relay {relay}")));
        }
        if self.tracks[track_key.index()].exports.iter().any(|e| e.relay == key && e.handle != handle) {
            self.drop_export_handles(key, track_key);
        }
        let track = &mut self.tracks[track_key.index()];
        let export = Export { relay: key, handle, mask: track.full_mask() };
        let is_new = !track.exports.iter().any(|e| e.relay == key);
        if is_new {
            track.exports.push(export);
        }
        let info = track.info();
        self.relays[key.index()].exports.insert(handle, track_key);
        self.relay_sender_reports(key, handle, track_key);
        self.update_wanted(track_key);
        Ok(Reply::Track(info))
    }

    pub(super) fn unexport_track(&mut self, relay: &RelayId, track: &TrackId) {
        if let (Ok(relay), Ok(track)) = (self.find_relay(relay), self.find_track(track)) {
            self.drop_export(relay, track);
            self.drop_former(relay, track);
        }
    }

    fn drop_export(&mut self, relay: RelaySlot, track: TrackKey) {
        self.drop_export_handles(relay, track);
        self.update_wanted(track);
        self.release_if_unused(track);
    }

    fn drop_export_handles(&mut self, relay: RelaySlot, track: TrackKey) {
        if let Some(track) = self.tracks.get_mut(track.index()) {
            track.exports.retain(|e| e.relay != relay);
        }
        if let Some(link) = self.relays.get_mut(relay.index()) {
            link.exports.retain(|_, t| *t != track);
            link.resends.retain(|r| r.track != track);
        }
    }

    pub(super) fn import_track(
        &mut self,
        relay: &RelayId,
        info: TrackInfo,
        room: RoomId,
        handle: u32,
    ) -> Result<Reply, Error> {
        let key = self.find_relay(relay)?;
        let origin = Origin::Relay { relay: key, handle };
        if let Some(known) = self.track_ids.get(&info.track) {
            // The same order again is no error, so that it can be repeated after a lost reply.
            let track = &self.tracks[known.index()];
            if track.origin == origin {
                return Ok(Reply::Track(track.info()));
            }
        }
        if self.relays[key.index()].imports.contains_key(&handle) {
            return Err(Error::AlreadyExists(format!("handle {handle} on relay {relay}")));
        }
        let codec = info.codec;
        let track = self.add_track(info.clone(), room, origin)?;
        let import = Import::new(track, self.tracks[track.index()].layers.len(), codec);
        self.relays[key.index()].imports.insert(handle, import);
        self.update_wanted(track);
        Ok(Reply::Track(info))
    }

    pub(super) fn tell_export_ended(&mut self, relay: RelaySlot, handle: u32) {
        if let Some(link) = self.relays.get_mut(relay.index()) {
            link.exports.remove(&handle);
            link.push(RelayControl::TrackEnded { handle });
            self.mark_relay(relay);
        }
    }

    pub(super) fn relay_keyframe_request(&mut self, relay: RelaySlot, handle: u32, layer: u8) {
        self.push_control(relay, RelayControl::KeyframeRequest { handle, layer });
    }

    pub(super) fn relay_layers_wanted(&mut self, relay: RelaySlot, handle: u32, mask: u8, fresh: u8) {
        if let Some(import) = self.relays.get_mut(relay.index()).and_then(|r| r.imports.get_mut(&handle)) {
            let restarted = import.layers.iter_mut().enumerate().filter(|(n, _)| fresh & 1 << n != 0);
            restarted.for_each(|(_, layer)| layer.restart());
        }
        self.push_control(relay, RelayControl::LayersWanted { handle, mask });
    }

    /// Says all that is known of a track's time.
    fn relay_sender_reports(&mut self, relay: RelaySlot, handle: u32, track: TrackKey) {
        let Some(track) = self.tracks.get(track.index()) else { return };
        let codec = track.codec;
        let maps: Vec<_> = track.layers.iter().map(|layer| layer.sender_report).collect();
        for (layer, map) in maps.into_iter().enumerate().filter_map(|(n, map)| Some((n as u8, map?))) {
            self.relay_sender_report(relay, handle, layer, codec, map);
        }
    }

    /// Tells the far side which timestamp belongs to this moment: it knows our clock only by when our words arrive, so
    /// a mapping of an earlier moment would look like one that was long under way.
    pub(super) fn relay_sender_report(
        &mut self,
        relay: RelaySlot,
        handle: u32,
        layer: u8,
        codec: Codec,
        map: SenderReportMap,
    ) {
        let ntp_unix_us = self.clock.unix_us(self.now);
        let rtp_timestamp = map.timestamp_at(ntp_unix_us, codec.clock_rate());
        let report = RelayControl::SenderReport { handle, layer, rtp_timestamp, ntp_unix_us };
        self.push_control(relay, report);
    }

    pub(super) fn push_control(&mut self, relay: RelaySlot, message: RelayControl) {
        if let Some(link) = self.relays.get_mut(relay.index()) {
            link.push(message);
            self.mark_relay(relay);
        }
    }

    pub(super) fn arm_relay(&mut self, key: RelaySlot) {
        if let Some(link) = self.relays.get_mut(key.index()) {
            let at = link.next_timeout(self.now).max(self.now + super::MIN_SLEEP);
            self.timers.set(&mut link.alarm, TimerKey::Relay(key), at);
        }
    }

    pub(super) fn relay_timeout(&mut self, key: RelaySlot, at: Instant) {
        let now = self.now;
        let now_us = self.relay_time_us();
        let Some(link) = self.relays.get_mut(key.index()) else { return };
        if !link.alarm.claim(at) {
            return;
        }
        if let Some(data) = &mut link.data {
            data.handle_timeout(now);
            self.mark_relay(key);
        }
        let Some(link) = self.relays.get_mut(key.index()) else { return };
        let pings_before = link.control.len();
        if link.tick(now, now_us) {
            self.events.push_back(Event::RelayLost { relay: link.id.clone() });
        }
        let has_pinged = link.control.iter().skip(pings_before).any(|m| matches!(m, RelayControl::Ping { .. }));
        if has_pinged {
            self.repeat_layers_wanted(key);
            self.repeat_sender_reports(key);
        }
        if !self.relays[key.index()].control.is_empty() {
            self.mark_relay(key);
        }
        self.arm_relay(key);
        for (track, layer) in self.relays[key.index()].take_hopeless() {
            if self.tracks.get(track.index()).is_some_and(|t| t.told_mask & 1 << layer != 0) {
                self.request_keyframe(track, layer);
            }
        }
    }

    /// A source's time is reported once only, and the far side comes to know our clock better with each.
    fn repeat_sender_reports(&mut self, key: RelaySlot) {
        let exports: Vec<_> =
            self.relays[key.index()].exports.iter().map(|(handle, track)| (*handle, *track)).collect();
        for (handle, track) in exports {
            self.relay_sender_reports(key, handle, track);
        }
    }

    /// The last wish counts, and any of them may be lost.
    fn repeat_layers_wanted(&mut self, key: RelaySlot) {
        let link = &mut self.relays[key.index()];
        let wishes: Vec<(u32, u8)> = link
            .imports
            .iter()
            .filter_map(|(handle, import)| Some((*handle, self.tracks.get(import.track.index())?.told_mask)))
            .collect();
        for (handle, mask) in wishes {
            link.push(RelayControl::LayersWanted { handle, mask });
        }
    }

    fn relay_time_us(&self) -> u64 {
        self.now.saturating_duration_since(self.clock.epoch()).as_micros() as u64
    }

    pub(super) fn handle_relay_datagram(&mut self, proto: Proto, from: SocketAddr, to: SocketAddr, buf: &mut [u8]) {
        let key = relay::association_tag(buf).and_then(|tag| self.relay_tags.get(&tag)).copied();
        let Some(key) = key.filter(|_| proto == Proto::Udp) else {
            self.counters.drop_relay += 1;
            return;
        };
        let now = self.now;
        let link = &mut self.relays[key.index()];
        let message = match link.opener.open(buf) {
            Ok(message) => message,
            Err(error) => {
                match error {
                    RelayError::Replayed => self.counters.drop_replayed += 1,
                    _ => self.counters.drop_relay += 1,
                }
                return;
            }
        };
        self.counters.rx_relay_datagrams += 1;
        (link.remote, link.local) = (from, Some(to));
        if link.hear(now) {
            self.events.push_back(Event::RelayUp { relay: link.id.clone() });
        }
        self.handle_relay_message(key, message);
    }

    fn handle_relay_message(&mut self, key: RelaySlot, message: Message<'_>) {
        match message {
            Message::Media(media) => self.take_relayed(key, &media),
            Message::Nack { handle, layer, seqs } => self.resend_relayed(key, handle, layer, &seqs),
            Message::KeyframeRequest { handle, layer } => {
                if let Some(track) = self.relays[key.index()].exports.get(&handle) {
                    self.request_keyframe(*track, layer);
                }
            }
            Message::LayersWanted { handle, mask, .. } => self.set_export_mask(key, handle, mask),
            Message::SenderReport { handle, layer, rtp_timestamp, ntp_unix_us } => {
                let local_us = self.clock.unix_us(self.now);
                let link = &mut self.relays[key.index()];
                let unix_us = link.clock.local_us(ntp_unix_us, local_us);
                if let Some(track) = link.imports.get(&handle).map(|i| i.track) {
                    self.set_sender_report(track, layer, SenderReportMap { rtp_timestamp, unix_us });
                }
            }
            Message::TrackEnded { handle } => match self.relays[key.index()].imports.get(&handle).map(|i| i.track) {
                Some(track) => self.end_track(track),
                None => drop(self.relays[key.index()].formers.remove(&handle)),
            },
            Message::Data { datagram, .. } => self.take_relayed_data(key, datagram),
            Message::Ping { id, sent_at_us } => self.push_control(key, RelayControl::Pong { id, sent_at_us }),
            Message::Pong { sent_at_us, .. } => {
                let now_us = self.relay_time_us();
                self.relays[key.index()].take_pong(now_us, sent_at_us);
            }
        }
    }

    fn take_relayed(&mut self, key: RelaySlot, media: &Media<'_>) {
        let now = self.now;
        let (key, handle) = self.import_of(key, media.handle);
        let link = &mut self.relays[key.index()];
        let import = link.imports.get_mut(&handle);
        let Some((track_key, layer)) =
            import.and_then(|i| Some((i.track, i.layers.get_mut(usize::from(media.layer))?)))
        else {
            self.counters.drop_relay += 1;
            return;
        };
        let Some(track) = self.tracks.get(track_key.index()) else {
            self.counters.drop_relay += 1;
            return;
        };
        let low = u64::from(media.seq);
        let seq = ExtSeq(layer.highest.map_or(1 << 32 | low, |highest| nearest(highest.0, low, 32)));
        let arrival = layer.register.on_packet(seq, media.rtp_timestamp, now);
        if arrival == Arrival::Duplicate {
            self.counters.drop_duplicate += 1;
            return;
        }
        if arrival == Arrival::Recovered {
            self.counters.rx_recovered_packets += 1;
        } else {
            layer.highest = Some(seq);
        }
        let is_restart = std::mem::take(&mut layer.is_restarting) || arrival == Arrival::Reset;
        let codec = track.codec;
        let frame = media.dependency_descriptor.and_then(|dd| layer.descriptors.read(dd).ok());
        let has_gap = layer.register.has_missing();
        let arriving = Arriving {
            layer: media.layer,
            seq,
            timestamp: media.rtp_timestamp,
            marker: media.flags.marker,
            is_restart,
            info: inspect(codec, media.payload, frame.as_ref()),
            audio_level: media.audio_level,
            orientation: None,
            dd: media.dependency_descriptor.filter(|_| frame.is_some()).unwrap_or_default(),
            payload: media.payload,
        };
        if has_gap {
            self.arm_relay(key);
        }
        if is_restart {
            self.request_keyframe(track_key, media.layer);
        }
        self.note_codec(track_key, codec.into());
        self.take_packet(track_key, &arriving);
    }

    fn resend_relayed(&mut self, key: RelaySlot, handle: u32, layer: u8, seqs: &SeqList<'_>) {
        let link = &mut self.relays[key.index()];
        let Some(track_key) = link.exports.get(&handle).copied() else { return };
        let Some(entry) = self.tracks.get(track_key.index()).and_then(|t| t.layers.get(usize::from(layer))) else {
            return;
        };
        let Some(newest) = entry.ring.newest() else { return };
        for seq in seqs.iter() {
            let seq = ExtSeq(nearest(newest.0, u64::from(seq.0), 16));
            let is_here = entry.ring.get(seq).is_some();
            if !is_here || !link.push_resend(RelayResend { handle, track: track_key, layer, seq }) {
                self.counters.drop_retransmission += 1;
            }
        }
        self.mark_relay(key);
    }

    fn set_export_mask(&mut self, key: RelaySlot, handle: u32, mask: u8) {
        let Some(track_key) = self.relays[key.index()].exports.get(&handle).copied() else { return };
        let Some(track) = self.tracks.get_mut(track_key.index()) else { return };
        if let Some(export) = track.exports.iter_mut().find(|e| e.relay == key) {
            export.mask = mask;
        }
        self.update_wanted(track_key);
    }

    /// A track has packets for this flush.
    pub(super) fn pass_to_relays(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get(key.index()) else { return };
        for export in track.exports.clone() {
            if let Some(link) = self.relays.get_mut(export.relay.index()) {
                link.due.push((export.handle, key, export.mask));
                self.mark_relay(export.relay);
            }
        }
    }

    pub(super) fn flush_relays(&mut self, out: &mut impl Outbox) {
        for key in std::mem::take(&mut self.dirty_relays) {
            let Some(link) = self.relays.get_mut(key.index()) else { continue };
            link.is_dirty = false;
            // Unspecified until the other node was heard: the kernel chooses.
            let any = match link.remote {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let local = link.local.unwrap_or(SocketAddr::new(any, 0));
            let dest = Dest { proto: Proto::Udp, local, remote: link.remote };
            link.send_control(dest, &mut self.counters, out);
            link.send_data(self.now, dest, &mut self.counters, out);
            link.send_media(dest, &self.tracks, &mut self.counters, out);
            if link.data.is_some() {
                // What was just sent may have to be sent again.
                self.arm_relay(key);
            }
        }
    }
}

impl RelayLink {
    fn send_control(&mut self, dest: Dest, counters: &mut Counters, out: &mut impl Outbox) {
        counters.drop_control_queue += std::mem::take(&mut self.dropped_control);
        for control in self.control.drain(..) {
            let message = control.message();
            self.tx_packets += send_alone(&mut self.sealer, &message, dest, counters, out);
        }
    }

    fn send_data(&mut self, now: Instant, dest: Dest, counters: &mut Counters, out: &mut impl Outbox) {
        let Some(data) = &mut self.data else { return };
        while let Some(datagram) = data.poll_transmit(now) {
            let message = Message::Data { handle: 0, datagram: &datagram };
            self.tx_packets += send_alone(&mut self.sealer, &message, dest, counters, out);
        }
    }

    fn send_media(&mut self, dest: Dest, tracks: &Slab<Track>, counters: &mut Counters, out: &mut impl Outbox) {
        let mut media: Vec<Media<'_>> = Vec::new();
        for resend in self.resends.drain(..) {
            let packet = tracks.get(resend.track.index()).and_then(|t| t.packet(resend.layer, resend.seq));
            counters.drop_retransmission += u64::from(packet.is_none());
            media.extend(packet.map(|packet| media_of(packet, resend.handle, true)));
        }
        for (handle, key, mask) in self.due.drain(..) {
            let Some(track) = tracks.get(key.index()) else { continue };
            let wanted = track.pending.iter().filter(|p| mask & 1 << p.layer != 0);
            media.extend(wanted.filter_map(|p| track.packet(p.layer, p.seq)).map(|p| media_of(p, handle, false)));
        }
        let messages: Vec<Message<'_>> = media.into_iter().map(Message::Media).collect();
        let mut rest = &messages[..];
        while !rest.is_empty() {
            let sizes = rest.iter().map(|m| Segment { size: m.encoded_len() + OVERHEAD, is_paddable: false });
            let run = plan_run(sizes);
            let (now_sent, later) = rest.split_at(run.count);
            rest = later;
            let buf = out.reserve(run.count * run.segment_size);
            let mut at = 0;
            for message in now_sent {
                at += self.sealer.seal(message, &mut buf[at..]).unwrap_or(0);
            }
            if at > 0 {
                out.commit(dest, at, run.segment_size);
                counters.tx_runs += 1;
            }
            counters.tx_relay_datagrams += run.count as u64;
            counters.tx_bytes += at as u64;
            self.tx_packets += run.count as u64;
        }
    }
}

/// Sends one message as a datagram of its own; returns how many went out.
fn send_alone(
    sealer: &mut Sealer,
    message: &Message<'_>,
    dest: Dest,
    counters: &mut Counters,
    out: &mut impl Outbox,
) -> u64 {
    let Ok(len) = sealer.seal(message, out.reserve(message.encoded_len() + OVERHEAD)) else { return 0 };
    out.commit(dest, len, len);
    counters.tx_relay_datagrams += 1;
    counters.tx_bytes += len as u64;
    counters.tx_runs += 1;
    1
}

fn media_of(packet: &Packet, handle: u32, is_retransmission: bool) -> Media<'_> {
    let dd = packet.dependency_descriptor();
    Media {
        handle,
        layer: packet.layer,
        flags: MediaFlags {
            marker: packet.marker,
            is_keyframe: packet.info.is_keyframe,
            is_frame_start: packet.info.is_frame_start,
            is_frame_end: packet.info.is_frame_end,
            is_retransmission,
        },
        seq: packet.seq.0 as u32,
        rtp_timestamp: packet.timestamp,
        audio_level: packet.audio_level,
        dependency_descriptor: (!dd.is_empty()).then_some(dd),
        payload: packet.payload(),
    }
}

fn inspect(
    codec: Codec,
    payload: &[u8],
    frame: Option<&mrtc_rtp::codec::dependency_descriptor::FrameInfo>,
) -> PayloadInfo {
    PayloadInfo::inspect(codec.into(), payload, frame.filter(|_| codec != Codec::Vp8))
}
