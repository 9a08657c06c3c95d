//! RTCP in: reports and feedback of a client about what it sends and what it receives.

use std::net::SocketAddr;

use mrtc_rtp::id::Ssrc;
use mrtc_rtp::rtcp::{self, ExtendedReport, ReportBlock, Rtcp, SenderInfo, XrBlock, round_trip};

use super::{MIN_SLEEP, Shard, TimerKey};
use crate::addr::Proto;
use crate::clock::{duration_of_compact, unix_us_of_ntp};
use crate::keys::{TrackKey, TransportKey};
use crate::packet::SenderReportMap;
use crate::shard_message::ShardMessage;

impl Shard {
    pub(super) fn handle_rtcp(&mut self, proto: Proto, from: SocketAddr, to: SocketAddr, buf: &mut [u8]) {
        let Some(key) = self.by_addr.get(&(proto, from)).copied() else {
            self.counters.drop_unknown_source += 1;
            return;
        };
        let transport = &mut self.transports[key.index()];
        let Some(compound) = transport.rx.open_rtcp(buf, &mut self.counters) else { return self.note_arrival(key) };
        if let Some(tap) = &transport.tx.tap {
            tap.received_rtcp(self.now, from, to, compound);
        }
        for packet in rtcp::parse(compound) {
            match packet {
                Ok(packet) => self.handle_rtcp_packet(key, packet),
                Err(_) => self.counters.drop_malformed += 1,
            }
        }
        let transport = &mut self.transports[key.index()];
        if let Some(at) = transport.next_timeout_of_sending(self.now) {
            self.timers.set(&mut transport.alarm, TimerKey::Transport(key), at.max(self.now + MIN_SLEEP));
        }
        if transport.tx.has_waiting() {
            self.mark_transport(key);
        }
    }

    fn handle_rtcp_packet(&mut self, key: TransportKey, packet: Rtcp<'_>) {
        let now = self.now;
        match packet {
            Rtcp::SenderReport(report) => {
                self.take_sender_report(key, &report.info);
                report.blocks().for_each(|block| self.take_report_block(key, &block));
            }
            Rtcp::ReceiverReport(report) => report.blocks().for_each(|block| self.take_report_block(key, &block)),
            Rtcp::Nack(nack) => {
                let tx = &mut self.transports[key.index()].tx;
                if let Some(slot) = tx.slot_of(nack.media) {
                    tx.resend(now, slot, nack.seqs(), &mut self.counters);
                }
            }
            Rtcp::Pli(pli) => self.take_keyframe_request(key, pli.media),
            Rtcp::Fir(fir) => fir.entries().for_each(|(ssrc, _)| self.take_keyframe_request(key, ssrc)),
            Rtcp::Remb(remb) => self.transports[key.index()].tx.bandwidth.on_remb(now, remb.bitrate_bps),
            Rtcp::TransportCc(feedback) => {
                let tx = &mut self.transports[key.index()].tx;
                let hopeless = tx.on_transport_cc(now, &feedback, &mut self.counters);
                if tx.bandwidth.has_fallen() {
                    self.allocate(key);
                }
                if let Some(slot) = hopeless {
                    self.request_slot_keyframe(key, slot);
                }
            }
            Rtcp::Extended(report) => self.take_extended_report(key, &report),
            Rtcp::Bye(_) | Rtcp::Sdes(_) | Rtcp::Unknown { .. } => {}
        }
    }

    /// Ties a layer's timestamps to our wall clock.
    fn take_sender_report(&mut self, key: TransportKey, info: &SenderInfo) {
        let now = self.now;
        let local_us = self.clock.unix_us(now);
        let transport = &mut self.transports[key.index()];
        let Some(stream) = transport.rx.streams.list.iter_mut().find(|s| s.ssrc == info.ssrc) else { return };
        stream.last_report = Some((info.compact_ntp(), now));
        let unix_us = transport.remote_clock.local_us(unix_us_of_ntp(info.ntp), local_us);
        let map = SenderReportMap { rtp_timestamp: info.rtp_timestamp, unix_us };
        if let Some(track) = stream.track {
            let layer = stream.layer;
            self.set_sender_report(track, layer, map);
        }
    }

    /// Keeps a layer's mapping and passes it on to where the track is forwarded.
    pub(super) fn set_sender_report(&mut self, key: TrackKey, layer: u8, map: SenderReportMap) {
        let Some(track) = self.tracks.get_mut(key.index()) else { return };
        let Some(entry) = track.layers.get_mut(usize::from(layer)) else { return };
        entry.sender_report = Some(map);
        for mirror in &track.mirrors {
            self.messages.push_back((mirror.shard, ShardMessage::SenderReport { key: mirror.key, layer, map }));
        }
        let (exports, codec) = (track.exports.clone(), track.codec);
        for export in exports {
            self.relay_sender_report(export.relay, export.handle, layer, codec, map);
        }
    }

    fn take_report_block(&mut self, key: TransportKey, block: &ReportBlock) {
        let compact_now = self.clock.compact_ntp(self.now);
        let rtt = block.round_trip(compact_now).map(duration_of_compact);
        let tx = &mut self.transports[key.index()].tx;
        let Some(slot) = tx.slots.iter_mut().find(|s| s.source.ssrc == block.ssrc) else { return };
        slot.figures.fraction_lost = block.fraction_lost;
        slot.figures.jitter = block.jitter;
        tx.bandwidth.on_receiver_report(self.now, block.fraction_lost, rtt);
    }

    /// Learns the round trip to a client, and what it needs to learn its own.
    fn take_extended_report(&mut self, key: TransportKey, report: &ExtendedReport<'_>) {
        let (now, compact_now) = (self.now, self.clock.compact_ntp(self.now));
        let transport = &mut self.transports[key.index()];
        for block in report.blocks() {
            match block {
                XrBlock::ReferenceTime(ntp) => transport.reference_time = Some((report.ssrc, (ntp >> 16) as u32, now)),
                XrBlock::Delay { ssrc, last_rr, delay_since_last_rr } if ssrc == transport.local_ssrc => {
                    if let Some(rtt) = round_trip(compact_now, last_rr, delay_since_last_rr) {
                        transport.on_xr_rtt(duration_of_compact(rtt));
                    }
                }
                XrBlock::Delay { .. } => {}
            }
        }
    }

    fn take_keyframe_request(&mut self, key: TransportKey, media: Ssrc) {
        let tx = &mut self.transports[key.index()].tx;
        if let Some(slot) = tx.slot_of(media) {
            tx.slots[slot].figures.keyframe_requests += 1;
            self.request_slot_keyframe(key, slot);
        }
    }

    /// Asks for a key frame of what a slot is sent.
    fn request_slot_keyframe(&mut self, key: TransportKey, slot: usize) {
        let slot = &self.transports[key.index()].tx.slots[slot];
        let Some(carried) = &slot.carried else { return };
        let track = carried.track;
        if let Some(layer) = slot.forwarder.wants_keyframe().or(slot.forwarder.current()) {
            // Spatial layers inside one encoding share their key frame.
            let layer = if self.tracks[track.index()].layers.len() == 1 { 0 } else { layer };
            self.request_keyframe(track, layer);
        }
    }
}
