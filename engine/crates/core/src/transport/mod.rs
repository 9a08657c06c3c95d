//! One WebRTC leg of a participant: handshake, what the client sends, what it is sent.

mod caps;
mod data;
mod handover;
mod held;
mod lost_again;
mod protect;
mod rates;
mod repairs;
pub(crate) mod reports;
mod rx;
mod seal;
pub(crate) mod streams;
mod tx;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mrtc_rtp::id::Ssrc;
use mrtc_rtp::srtp::{Inbound, Outbound, Profile, SessionKeys};

use crate::addr::Proto;
use crate::clock::{Clock, RemoteClock};
use crate::command::Caps;
use crate::error::Error;
use crate::event::{CloseReason, Line};
use crate::handshake::{Handshake, HandshakeOutput};
use crate::id::{RoomId, TransportId};
use crate::prefetch::Prefetch;
use crate::sdp::{LineUse, Negotiated};
use crate::shard::stage::Listening;
use crate::slot::Slot;
use crate::ssrcs::Ssrcs;
use crate::timers::Alarm;

use caps::ToldLimit;
pub(crate) use data::TransportData;
pub(crate) use rates::{Counts, Rates};
pub(crate) use rx::{Received, Restored, TransportRx};
pub(crate) use tx::{FlushContext, Outgoing, TransportTx, send_datagram};

/// A client that is not connected by then is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// RFC 7675 has clients check every 5 s or so and lets consent expire after 30 s; a client that is gone should free its
/// place sooner, and three lost checks in a row are rare.
const CONSENT_TIMEOUT: Duration = Duration::from_secs(15);
/// How often consent is looked at.
const CONSENT_INTERVAL: Duration = Duration::from_secs(1);
/// RTCP reports: libwebrtc's own interval for video.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// What is done once a second is done at multiples of this, so that hundreds of idle clients wake the worker some dozens
/// of times a second and not once each.
const GRID: Duration = Duration::from_millis(20);
/// Gaps are looked at this often while there are some.
const NACK_INTERVAL: Duration = Duration::from_millis(10);
/// Addresses of one transport in the shard's demultiplexer: what a client that changes networks may use up.
pub(crate) const MAX_ADDRS: usize = 16;

/// One transport.
pub(crate) struct Transport {
    pub(crate) id: TransportId,
    pub(crate) room: RoomId,
    pub(crate) handshake: Handshake,
    pub(crate) negotiated: Negotiated,
    pub(crate) rx: TransportRx,
    pub(crate) tx: TransportTx,
    /// As in `SlotsReply`.
    pub(crate) slots_version: u64,
    /// Set if it hears the loudest only.
    pub(crate) listening: Option<Box<Listening>>,
    /// Set once data channels are negotiated or allowed.
    pub(crate) data: Option<Box<TransportData>>,
    /// Addresses that lead here; oldest first.
    pub(crate) addrs: Vec<(Proto, SocketAddr)>,
    pub(crate) remote_clock: RemoteClock,
    /// Round trip by extended reports: known of a client that only sends, too.
    pub(crate) xr_rtt: Option<Duration>,
    /// The client's own reference time, to be answered: its SSRC, the time, when it came.
    pub(crate) reference_time: Option<(Ssrc, u32, Instant)>,
    pub(crate) ssrcs: Ssrcs,
    pub(crate) local_ssrc: Ssrc,
    pub(crate) alarm: Alarm,
    pub(crate) is_dirty: bool,
    pub(crate) created_at: Instant,
    /// Where its client connects from, while it counts as half open.
    pub(crate) half_open: Option<IpAddr>,
    pub(crate) rates: Rates,
    pub(crate) caps: Caps,
    /// As the handshake gave them; what a node that goes on with this transport needs.
    keys: Option<SessionKeys>,
    /// How often it came from another node.
    pub(crate) moves: u16,
    pace: Option<Box<handover::Pace>>,
    told_limit: ToldLimit,
    report_at: Instant,
    nack_at: Instant,
    consent_at: Instant,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Transport({})", self.id)
    }
}

/// What the handshake tells the shard.
#[derive(Debug)]
pub(crate) enum Progress {
    Connected,
    Closed(CloseReason),
}

/// What a new transport is made of.
pub(crate) struct TransportInit {
    pub(crate) id: TransportId,
    pub(crate) room: RoomId,
    pub(crate) handshake: Handshake,
    pub(crate) negotiated: Negotiated,
    pub(crate) caps: Caps,
    pub(crate) ssrcs: Ssrcs,
}

impl Transport {
    pub(crate) fn new(now: Instant, clock: &Clock, mut init: TransportInit) -> Self {
        Self {
            id: init.id,
            room: init.room,
            handshake: init.handshake,
            negotiated: init.negotiated,
            rx: TransportRx::new(now),
            tx: TransportTx::new(now, clock.epoch(), init.caps.egress_bps),
            slots_version: 0,
            listening: None,
            data: None,
            addrs: Vec::new(),
            remote_clock: RemoteClock::default(),
            xr_rtt: None,
            reference_time: None,
            local_ssrc: init.ssrcs.next(),
            ssrcs: init.ssrcs,
            alarm: Alarm::default(),
            is_dirty: false,
            created_at: now,
            half_open: None,
            rates: Rates::new(now),
            caps: init.caps,
            keys: None,
            moves: 0,
            pace: None,
            told_limit: ToldLimit::default(),
            report_at: now + REPORT_INTERVAL,
            nack_at: now,
            consent_at: now + CONSENT_INTERVAL,
        }
    }

    /// A flush comes soon: what it reads of this struct.
    pub(crate) fn prefetch_flush(&self, cache: &impl Prefetch) {
        self.handshake.prefetch_path(cache);
        cache.prefetch(&self.data);
        cache.prefetch(&self.alarm);
        self.tx.prefetch(cache);
    }

    /// RTCP is read soon: this struct's part of it, which is most of it.
    pub(crate) fn prefetch_rtcp(&self, cache: &impl Prefetch) {
        cache.prefetch(&self.rx);
        cache.prefetch(&self.tx);
        cache.prefetch(&self.alarm);
    }

    /// The same, sooner: what this struct points to.
    pub(crate) fn prefetch_rtcp_behind(&self, cache: &impl Prefetch) {
        self.rx.prefetch_rtcp(cache);
        self.tx.prefetch_reported(cache);
    }

    /// Makes streams and slots of what was negotiated. `random` gives the first numbers of new slots.
    pub(crate) fn apply_negotiated(&mut self, now: Instant, max_ssrcs: usize, mut random: impl FnMut() -> u64) {
        self.rx.negotiate(now, &self.negotiated, max_ssrcs);
        let is_mixed = self.negotiated.is_mixed_ext_allowed;
        for (index, line) in self.negotiated.lines.iter().enumerate() {
            let known = self.tx.slots.iter_mut().find(|s| s.line == index);
            match (known, line.usage) {
                (Some(slot), LineUse::Slot) => slot.renegotiate(line, is_mixed),
                (None, LineUse::Slot) => self.tx.slots.extend(Slot::new(index, line, is_mixed, random())),
                _ => {}
            }
        }
        if self.tx.slots.iter().any(Slot::has_transport_cc) {
            self.tx.bandwidth.expect_feedback(self.created_at);
        }
    }

    /// Slots whose line the last offer took out of use.
    pub(crate) fn idle_slots(&self) -> Vec<usize> {
        let is_idle = |s: &Slot| self.negotiated.lines.get(s.line).is_none_or(|l| l.usage != LineUse::Slot);
        self.tx.slots.iter().enumerate().filter(|(_, s)| is_idle(s)).map(|(index, _)| index).collect()
    }

    /// The lines as the application sees them.
    pub(crate) fn lines(&self) -> Vec<Line> {
        let used = self.negotiated.lines.iter().filter(|l| matches!(l.usage, LineUse::Inbound | LineUse::Slot));
        used.map(|line| {
            let mut codecs = Vec::new();
            for codec in &line.codecs {
                if !codecs.contains(&codec.codec) {
                    codecs.push(codec.codec);
                }
            }
            Line {
                mid: line.mid.to_string(),
                kind: line.kind,
                is_inbound: line.usage == LineUse::Inbound,
                codecs,
                rids: line.rids.iter().map(ToString::to_string).collect(),
            }
        })
        .collect()
    }

    pub(crate) fn is_rtcp_reduced(&self) -> bool {
        self.negotiated.lines.iter().any(|l| l.is_rtcp_reduced)
    }

    /// Takes what the handshake yields: datagrams are queued, keys are put to use.
    pub(crate) fn drain_handshake(&mut self, now: Instant) -> Option<Progress> {
        let mut progress = None;
        while let Some(output) = self.handshake.poll() {
            match output {
                HandshakeOutput::Transmit { dest, bytes } => self.tx.push_control(dest, bytes),
                HandshakeOutput::Keys { profile, material, is_dtls_client } => {
                    if self.install_keys(profile, &material, is_dtls_client).is_err() {
                        progress = Some(Progress::Closed(CloseReason::DtlsFailed));
                    }
                }
                HandshakeOutput::Connected => progress = progress.or(Some(Progress::Connected)),
                HandshakeOutput::PathSelected(_) => {}
                HandshakeOutput::Data(datagram) => {
                    if let Some(port) = self.data.as_mut().and_then(|d| d.port.as_mut()) {
                        port.handle_input(now, &datagram);
                    }
                }
                HandshakeOutput::Failed(error) => {
                    tracing::info!(transport = %self.id, %error, "handshake failed");
                    progress = Some(Progress::Closed(CloseReason::DtlsFailed));
                }
                HandshakeOutput::PeerClosed => progress = Some(Progress::Closed(CloseReason::PeerClosed)),
            }
        }
        progress
    }

    fn install_keys(&mut self, profile: Profile, material: &[u8], is_dtls_client: bool) -> Result<(), Error> {
        let bad = |_| Error::BadRequest("no usable SRTP keys".into());
        let keys = SessionKeys::from_dtls(profile, material, is_dtls_client).map_err(bad)?;
        self.rx.set_srtp(Inbound::new(&keys).map_err(bad)?);
        self.tx.set_srtp(Outbound::new(&keys).map_err(bad)?);
        self.keys = Some(keys);
        Ok(())
    }

    /// Why the transport is to be closed now, if it is.
    pub(crate) fn expired(&self, now: Instant) -> bool {
        // Without keys the client is another node's still, which has to hand it over.
        if !self.handshake.is_connected() || self.keys.is_none() {
            return now.saturating_duration_since(self.created_at) >= CONNECT_TIMEOUT;
        }
        self.handshake.is_silent(now, self.created_at, CONSENT_TIMEOUT)
    }

    /// True if reports are due; then the next ones are set.
    pub(crate) fn take_report_due(&mut self, now: Instant) -> bool {
        let is_due = now >= self.report_at;
        if is_due {
            self.report_at = now + REPORT_INTERVAL;
            self.rates.measure(now, self.counts());
        }
        is_due
    }

    fn counts(&self) -> Counts {
        Counts {
            rx_packets: self.rx.packets,
            rx_bytes: self.rx.bytes,
            tx_packets: self.tx.packets,
            tx_bytes: self.tx.bytes,
        }
    }

    /// Does what time alone brings: handshake, consent, NACKs, feedback.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.handshake.handle_timeout(now);
        if let Some(port) = self.data_port() {
            port.handle_timeout(now);
        }
        if now >= self.consent_at {
            self.consent_at = now + CONSENT_INTERVAL;
        }
        if self.tx.is_ready() {
            self.send_transport_cc(now);
            self.tell_fallen_estimate();
            if now >= self.nack_at && self.has_missing() {
                self.nack_at = now + NACK_INTERVAL;
                self.send_nacks(now);
            }
        }
    }

    /// True if a packet just received brought a deadline nearer: feedback or NACKs fell due.
    pub(crate) fn needs_attention(&self, now: Instant) -> bool {
        self.alarm.is_later_than(self.next_rx_timeout(now))
    }

    fn next_rx_timeout(&self, now: Instant) -> Option<Instant> {
        let nacks = self.has_missing().then(|| self.nack_at.max(now));
        let fallen = self.has_fallen_estimate().then_some(now);
        [self.rx.twcc.next_timeout(), nacks, fallen].into_iter().flatten().min()
    }

    /// Takes a measured round trip; RFC 6298: an eighth of each new sample.
    pub(crate) fn on_xr_rtt(&mut self, sample: Duration) {
        self.xr_rtt = Some(self.xr_rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    /// Round trip to the client, as measured.
    pub(crate) fn known_rtt(&self) -> Option<Duration> {
        self.xr_rtt.or_else(|| self.tx.bandwidth.known_rtt())
    }

    fn has_missing(&self) -> bool {
        self.rx.streams.list.iter().any(|s| s.register.has_missing())
    }

    /// True if the allocator has something to share.
    pub(crate) fn has_carried(&self) -> bool {
        self.tx.slots.iter().any(|s| s.carried.is_some())
    }

    /// When something is wanted next, after a flush or a report: `None` if that brought no deadline nearer.
    pub(crate) fn next_timeout_of_sending(&self, now: Instant) -> Option<Instant> {
        let is_quiet = self.alarm.is_set() && self.data.is_none();
        if is_quiet { self.tx.next_timeout(now) } else { Some(self.next_timeout(now)) }
    }

    /// The next multiple of [`GRID`], the same for all transports of a shard.
    fn on_grid(&self, at: Instant) -> Instant {
        let past = at.saturating_duration_since(self.tx.epoch);
        self.tx.epoch + Duration::from_micros((past.as_micros() as u64).next_multiple_of(GRID.as_micros() as u64))
    }

    /// When `handle_timeout` (or a flush) is wanted next.
    pub(crate) fn next_timeout(&self, now: Instant) -> Instant {
        let mut at = self.on_grid(self.consent_at);
        at = at.min(self.handshake.next_timeout().unwrap_or(at));
        if let Some(port) = self.data.as_ref().and_then(|d| d.port.as_ref()) {
            at = at.min(port.next_timeout(now).unwrap_or(at));
        }
        if !self.tx.is_ready() {
            return at;
        }
        at = at.min(self.on_grid(self.report_at));
        at = at.min(self.rx.twcc.next_timeout().unwrap_or(at));
        at = at.min(self.tx.next_timeout(now).unwrap_or(at));
        if self.has_missing() {
            at = at.min(self.nack_at.max(now));
        }
        if self.has_fallen_estimate() {
            at = at.min(now);
        }
        if self.has_carried() {
            at = at.min(self.tx.bandwidth.allocate_at());
        }
        at
    }
}
