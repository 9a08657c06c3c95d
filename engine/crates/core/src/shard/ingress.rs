//! Datagrams in: which protocol, whose, and where its media goes.

use std::net::SocketAddr;
use std::time::Instant;

use mrtc_rtp::codec::PayloadInfo;
use mrtc_rtp::demux::{DatagramKind, classify, stun_username};
use mrtc_rtp::ext::AudioLevel;

use super::{Shard, TimerKey};
use crate::addr::Proto;
use crate::command::Kind;
use crate::config::Limits;
use crate::counters::Counters;
use crate::event::Event;
use crate::ingress_caps::{Admission, Asking};
use crate::keys::{TrackKey, TransportKey};
use crate::prefetch::Prefetch;
use crate::sdp::Encoding;
use crate::track::{Arriving, Taken};
use crate::transport::{MAX_ADDRS, Progress, Received, Restored};

/// Larger datagrams of media are dropped. Real ones fit an Ethernet frame; over TCP a client could send 64 kB at a time,
/// which no subscriber's UDP path takes and of which a ring of packets would hold far too much.
const MAX_MEDIA_DATAGRAM: usize = 2_000;

/// So many reports ahead the memory of their senders is asked for: enough to be there in time, and little enough to stay.
const AHEAD_REPORTERS: usize = 4;

impl Shard {
    /// Tells of datagrams that are handed over one by one hereafter, so that the state of those who report is near by then.
    pub fn expect<'a>(
        &mut self,
        proto: Proto,
        batch: impl Iterator<Item = (SocketAddr, &'a [u8])>,
        cache: &impl Prefetch,
    ) {
        let reporters = &mut self.scratch.reporters;
        reporters.clear();
        let reports = batch.filter(|(_, bytes)| classify(bytes) == DatagramKind::Rtcp);
        reporters.extend(reports.filter_map(|(from, _)| self.by_addr.get(&(proto, from))));
        let first = reporters.iter().take(AHEAD_REPORTERS).filter_map(|key| self.transports.get(key.index()));
        first.for_each(|transport| transport.prefetch_rtcp(cache));
    }

    /// The next datagram comes; so the state of those who report a little later is asked for.
    pub fn expect_next(&mut self, bytes: &[u8], cache: &impl Prefetch) {
        if classify(bytes) != DatagramKind::Rtcp || self.scratch.reporters.is_empty() {
            return;
        }
        let ahead = |count: usize| self.transports.get(self.scratch.reporters.get(count)?.index());
        if let Some(transport) = ahead(AHEAD_REPORTERS) {
            transport.prefetch_rtcp(cache);
        }
        if let Some(transport) = ahead(AHEAD_REPORTERS / 2) {
            transport.prefetch_rtcp_behind(cache);
        }
        self.scratch.reporters.pop_front();
    }

    /// Takes a datagram. Media is decrypted in place. `to` is our address that it came to. True if it proves that `from`
    /// is a client's: a check with the credentials that the client was given.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        proto: Proto,
        from: SocketAddr,
        to: SocketAddr,
        buf: &mut [u8],
    ) -> bool {
        self.set_now(now);
        self.counters.rx_datagrams += 1;
        self.counters.rx_bytes += buf.len() as u64;
        let kind = classify(buf);
        if buf.len() > MAX_MEDIA_DATAGRAM && matches!(kind, DatagramKind::Rtp | DatagramKind::Relay) {
            self.counters.drop_too_large += 1;
            return false;
        }
        match kind {
            DatagramKind::Rtp => self.handle_rtp(proto, from, to, buf),
            DatagramKind::Rtcp => self.handle_rtcp(proto, from, to, buf),
            DatagramKind::Stun => return self.handle_stun(proto, from, to, buf),
            DatagramKind::Dtls => self.handle_dtls(proto, from, to, buf),
            DatagramKind::Relay => self.handle_relay_datagram(proto, from, to, buf),
            DatagramKind::Unknown => self.counters.drop_unknown_datagram += 1,
        }
        false
    }

    /// A check names its transport by our ufrag, also when it comes from an address that was another transport's. Whoever
    /// does not know a ufrag is turned away here, before anything is computed or kept.
    fn handle_stun(&mut self, proto: Proto, from: SocketAddr, to: SocketAddr, buf: &[u8]) -> bool {
        let key = stun_username(buf).and_then(|(local, _)| self.by_ufrag.get(local)).copied();
        let Some(key) = key else {
            self.counters.drop_unknown_stun += 1;
            return false;
        };
        let now = self.now;
        if !self.may_connect(key, from) {
            self.counters.drop_half_open_limit += 1;
            return false;
        }
        let transport = &mut self.transports[key.index()];
        if !transport.handshake.handle_datagram(now, proto, from, to, buf) {
            self.counters.drop_unauthentic += 1;
            return false;
        }
        self.learn_address(key, proto, from);
        self.after_handshake(key);
        true
    }

    /// Counts a client that begins to connect as half open. False if there are too many; its checks are repeated, so it
    /// comes in as soon as others are through.
    fn may_connect(&mut self, key: TransportKey, from: SocketAddr) -> bool {
        let Limits { max_half_open, max_half_open_per_address, .. } = self.config.limits;
        let transport = &mut self.transports[key.index()];
        if transport.half_open.is_some() || transport.handshake.is_connected() {
            return true;
        }
        let may = self.half_open.begin(from.ip(), max_half_open_per_address, max_half_open);
        transport.half_open = may.then_some(from.ip());
        may
    }

    fn handle_dtls(&mut self, proto: Proto, from: SocketAddr, to: SocketAddr, buf: &[u8]) {
        let Some(key) = self.by_addr.get(&(proto, from)).copied() else {
            self.counters.drop_unknown_source += 1;
            return;
        };
        let now = self.now;
        if !self.transports[key.index()].handshake.handle_datagram(now, proto, from, to, buf) {
            self.counters.drop_unauthentic += 1;
            return;
        }
        self.after_handshake(key);
    }

    fn learn_address(&mut self, key: TransportKey, proto: Proto, from: SocketAddr) {
        if self.by_addr.get(&(proto, from)) == Some(&key) {
            return;
        }
        self.by_addr.insert((proto, from), key);
        let addrs = &mut self.transports[key.index()].addrs;
        addrs.push((proto, from));
        if addrs.len() > MAX_ADDRS {
            let oldest = addrs.remove(0);
            if self.by_addr.get(&oldest) == Some(&key) {
                self.by_addr.remove(&oldest);
            }
        }
    }

    pub(super) fn after_handshake(&mut self, key: TransportKey) {
        let progress = self.transports[key.index()].drain_handshake(self.now);
        match progress {
            Some(Progress::Closed(reason)) => return self.close_transport(key, reason),
            Some(Progress::Connected) => {
                if let Some(address) = self.transports[key.index()].half_open.take() {
                    self.half_open.end(address);
                }
                let transport = &mut self.transports[key.index()];
                transport.tx.release();
                let id = transport.id.clone();
                self.events.push_back(Event::TransportConnected { transport: id });
                self.request_carried_keyframes(key);
            }
            None => {}
        }
        if self.transports[key.index()].data.is_some() {
            self.take_data(key);
        }
        if self.transports[key.index()].tx.has_waiting() {
            self.mark_transport(key);
        }
        self.arm_transport(key);
    }

    pub(super) fn handle_rtp(&mut self, proto: Proto, from: SocketAddr, to: SocketAddr, buf: &mut [u8]) {
        let Some(key) = self.by_addr.get(&(proto, from)).copied() else {
            self.counters.drop_unknown_source += 1;
            return;
        };
        let now = self.now;
        let max_ssrcs = self.config.limits.max_ssrcs;
        let transport = &mut self.transports[key.index()];
        let opened_before = transport.rx.packets;
        let rtt = transport.known_rtt().unwrap_or_default();
        let received = transport.rx.receive(now, buf, &transport.negotiated, rtt, max_ssrcs, &mut self.counters);
        if let Some(tap) = &transport.tx.tap
            && transport.rx.packets != opened_before
        {
            tap.received_rtp(now, from, to, &buf[..buf.len() - transport.tx.rtp_overhead()]);
        }
        if transport.needs_attention(now) {
            self.arm_transport(key);
        }
        let Some(received) = received else { return self.note_arrival(key) };
        if received.is_restart {
            self.request_keyframe(received.track, received.layer);
        }
        self.note_codec(received.track, Encoding { codec: received.codec, variant: Some(received.variant) });
        for restored in received.restored.iter().flatten() {
            self.take_restored(&received, restored, &buf[restored.payload.clone()]);
        }
        let is_restart = match self.admit(key, &received) {
            Some(is_resumed) => received.is_restart || is_resumed,
            None => return,
        };
        let arriving = Arriving {
            layer: received.layer,
            seq: received.seq,
            timestamp: received.timestamp,
            marker: received.marker,
            is_restart,
            info: received.info,
            audio_level: received.audio_level,
            orientation: received.orientation,
            dd: &buf[received.dd],
            payload: &buf[received.payload],
        };
        self.take_packet(received.track, &arriving);
    }

    /// Nothing came of a datagram; if it waits for its keys, its client has come over from another node.
    pub(super) fn note_arrival(&mut self, key: TransportKey) {
        let transport = &mut self.transports[key.index()];
        if transport.rx.is_holding() && !transport.handshake.is_connected() {
            transport.handshake.arrive();
            self.after_handshake(key);
        }
    }

    /// Holds a packet against its client's caps. `None`: it is over them and dropped, else whether its layer begins anew.
    fn admit(&mut self, key: TransportKey, received: &Received) -> Option<bool> {
        let Some(caps) = &mut self.transports[key.index()].rx.caps else { return Some(false) };
        let track = self.tracks.get(received.track.index())?;
        let asking = Asking {
            track: received.track,
            layer: received.layer,
            layers: track.layers.len() as u8,
            bytes: received.payload.len(),
            is_entry: track.kind == Kind::Audio || received.info.is_keyframe && received.info.is_frame_start,
        };
        let admission = caps.admit(self.now, &asking);
        match admission {
            Admission::Passed => return Some(false),
            Admission::Resumed => return Some(true),
            Admission::AwaitsKeyframe => self.request_keyframe(received.track, received.layer),
            Admission::Refused => {}
        }
        self.counters.drop_ingress_cap += 1;
        None
    }

    /// A packet of sound that came inside a later one: like any other, but for its level, which is not known.
    fn take_restored(&mut self, carrier: &Received, restored: &Restored, payload: &[u8]) {
        self.counters.rx_restored_packets += 1;
        let arriving = Arriving {
            layer: carrier.layer,
            seq: restored.seq,
            timestamp: restored.timestamp,
            marker: false,
            is_restart: false,
            info: PayloadInfo::inspect(carrier.codec.into(), payload, None),
            audio_level: None,
            orientation: None,
            dd: &[],
            payload,
        };
        self.take_packet(carrier.track, &arriving);
    }

    /// Follows how loud a track is.
    pub(super) fn note_level(&mut self, key: TrackKey, level: Option<AudioLevel>, is_silence: bool) {
        let now = self.now;
        let Some(track) = self.tracks.get(key.index()) else { return };
        if track.kind != Kind::Audio || track.is_muted {
            return;
        }
        let Some(room) = self.rooms.get_mut(&track.room) else { return };
        match level {
            Some(audio) => room.speakers.on_level(key, audio.level, audio.is_voice, now),
            None => room.speakers.on_sound(key, is_silence, now),
        }
        let at = room.speakers.next_timeout().unwrap_or(now).max(now + super::MIN_SLEEP);
        self.timers.set(&mut self.rooms_alarm, TimerKey::Rooms, at);
    }

    /// A packet comes into a track whose origin is here.
    pub(super) fn take_packet(&mut self, key: TrackKey, arriving: &Arriving<'_>) {
        let now = self.now;
        self.note_level(key, arriving.audio_level, arriving.info.is_silence);
        let Some(track) = self.tracks.get_mut(key.index()) else { return };
        let taken = track.take(now, arriving);
        count_taken(taken, &mut self.counters);
        if taken == Taken::Pending {
            self.mark_track(key);
        }
    }
}

pub(super) fn count_taken(taken: Taken, counters: &mut Counters) {
    match taken {
        Taken::Pending => {}
        Taken::Muted => counters.drop_not_published += 1,
        Taken::Duplicate => counters.drop_duplicate += 1,
        Taken::Overflow => counters.drop_pending_limit += 1,
    }
}
