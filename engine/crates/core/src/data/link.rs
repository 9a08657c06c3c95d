//! One SCTP association over somebody else's datagrams (RFC 8261), driven by time: streams, messages, nothing of topics.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};

use super::{Delivery, Reliability};

/// Bytes of a message per datagram: with SCTP's, DTLS's, UDP's and IP's heads it stays below 1,200.
const MAX_CHUNK: u32 = 1_080;
/// What a peer may have sent that was not read yet. When it is full the peer has to wait.
const RECEIVE_BUFFER: u32 = 256 * 1024;
/// Larger messages end the association; those between the announced limit and this are dropped and counted.
const MAX_RECEIVE: u32 = 128 * 1024;
/// Retransmission timeouts in ms. RFC 9260 has 1 to 60 s, for paths and times other than a call's.
const RTO_INITIAL_MS: u64 = 500;
const RTO_MIN_MS: u64 = 200;
const RTO_MAX_MS: u64 = 3_000;
/// Of no meaning: the association does not know what carries its datagrams.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);

static ENDPOINT: LazyLock<Arc<EndpointConfig>> = LazyLock::new(|| {
    let mut config = EndpointConfig::new();
    config.max_payload_size(MAX_CHUNK);
    Arc::new(config)
});
static TRANSPORT: LazyLock<Arc<TransportConfig>> = LazyLock::new(|| {
    let config = TransportConfig::default()
        .with_max_receive_buffer_size(RECEIVE_BUFFER)
        .with_max_receive_message_size(MAX_RECEIVE)
        // Whether the peer is there is ICE's affair (or the relay's).
        .with_max_init_retransmits(None)
        .with_max_data_retransmits(None)
        .with_rto_initial_ms(RTO_INITIAL_MS)
        .with_rto_min_ms(RTO_MIN_MS)
        .with_rto_max_ms(RTO_MAX_MS);
    Arc::new(config)
});
static SERVER: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let mut config = ServerConfig::new();
    config.transport = TRANSPORT.clone();
    Arc::new(config)
});

/// What a message is (RFC 8831 section 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of RFC 8832.
    Dcep,
    /// Text.
    Text,
    /// Bytes.
    Binary,
}

/// What happens to an association.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// Messages can be sent.
    Connected,
    /// Something can be read of this stream.
    Readable(u16),
    /// The peer closed this stream.
    Closed(u16),
    /// The association ended and does not come back.
    Lost,
}

/// One association.
pub struct SctpLink {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Association)>,
    outgoing: VecDeque<Bytes>,
    max_send: u32,
    is_connected: bool,
    is_lost: bool,
    /// Its end is still to be told.
    is_broken: bool,
}

impl std::fmt::Debug for SctpLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SctpLink(connected {}, lost {})", self.is_connected, self.is_lost)
    }
}

impl SctpLink {
    /// `is_client`: this side opens the association, else it waits for the peer. `max_send` is the peer's largest message.
    pub fn new(is_client: bool, max_send: u32) -> Self {
        let mut endpoint = Endpoint::new(ENDPOINT.clone(), Some(SERVER.clone()));
        let mut config = ClientConfig::new();
        config.transport = TRANSPORT.clone();
        let association = is_client.then(|| endpoint.connect(config, PEER).ok()).flatten();
        let outgoing = VecDeque::new();
        Self { endpoint, association, outgoing, max_send, is_connected: false, is_lost: false, is_broken: false }
    }

    /// True while messages can be sent.
    pub fn is_connected(&self) -> bool {
        self.is_connected && !self.is_lost
    }

    /// Takes a datagram of the peer.
    pub fn handle_input(&mut self, now: Instant, datagram: &[u8]) {
        self.guard(|link| link.take_datagram(now, datagram));
    }

    fn take_datagram(&mut self, now: Instant, datagram: &[u8]) {
        match self.endpoint.handle(now, PEER, None, None, Bytes::copy_from_slice(datagram)) {
            // A second association over one transport is of nobody who plays by the rules.
            Some((handle, DatagramEvent::NewAssociation(association))) if self.association.is_none() => {
                self.association = Some((handle, association));
            }
            Some((_, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, association)) = &mut self.association {
                    association.handle_event(event);
                }
            }
            _ => {}
        }
    }

    /// The library reads bytes of strangers: should it ever panic, that is to cost this association and no other call of
    /// the worker.
    fn guard(&mut self, work: impl FnOnce(&mut Self)) {
        if !self.is_lost && catch_unwind(AssertUnwindSafe(|| work(self))).is_err() {
            self.association = None;
            self.is_lost = true;
            self.is_broken = true;
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.guard(|link| link.do_what_is_due(now));
    }

    fn do_what_is_due(&mut self, now: Instant) {
        let Some((handle, association)) = &mut self.association else { return };
        association.handle_timeout(now);
        while let Some(event) = association.poll_endpoint_event() {
            if let Some(event) = self.endpoint.handle_event(*handle, event) {
                association.handle_event(event);
            }
        }
    }

    /// When to call `handle_timeout`.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.association.as_ref().filter(|_| !self.is_lost)?.1.poll_timeout()
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        if std::mem::take(&mut self.is_broken) {
            return Some(LinkEvent::Lost);
        }
        let (_, association) = self.association.as_mut()?;
        while let Some(event) = association.poll() {
            match event {
                Event::Connected => {
                    association.set_max_send_message_size(self.max_send);
                    self.is_connected = true;
                    return Some(LinkEvent::Connected);
                }
                Event::HandshakeFailed { .. } | Event::AssociationLost { .. } => {
                    self.is_lost = true;
                    return Some(LinkEvent::Lost);
                }
                Event::Stream(StreamEvent::Readable { id }) => return Some(LinkEvent::Readable(id)),
                Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) => {
                    return Some(LinkEvent::Closed(id));
                }
                _ => {}
            }
        }
        None
    }

    /// Takes the next whole message of a stream.
    pub fn read(&mut self, stream: u16) -> Option<(Kind, Vec<u8>)> {
        let (_, association) = self.association.as_mut()?;
        let chunks = association.stream(stream).ok()?.read().ok()??;
        let mut bytes = vec![0; chunks.len()];
        chunks.read(&mut bytes).ok()?;
        let kind = match chunks.ppi {
            PayloadProtocolIdentifier::Dcep => Kind::Dcep,
            PayloadProtocolIdentifier::String => Kind::Text,
            // SCTP has no empty messages; these come with one byte of no meaning (RFC 8831 section 6.6).
            PayloadProtocolIdentifier::StringEmpty => return Some((Kind::Text, Vec::new())),
            PayloadProtocolIdentifier::BinaryEmpty => return Some((Kind::Binary, Vec::new())),
            PayloadProtocolIdentifier::Binary | PayloadProtocolIdentifier::Unknown => Kind::Binary,
        };
        Some((kind, bytes))
    }

    /// Makes a stream for sending; false while its number is in use or on its way out.
    pub fn open(&mut self, stream: u16, delivery: Delivery) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        association.open_stream(stream, PayloadProtocolIdentifier::Binary).is_ok()
            && self.set_delivery(stream, delivery)
    }

    /// Changes what a stream promises for messages written from now on.
    pub fn set_delivery(&mut self, stream: u16, delivery: Delivery) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        let (kind, value) = match delivery.reliability {
            Reliability::Reliable => (ReliabilityType::Reliable, 0),
            Reliability::Retransmits(count) => (ReliabilityType::Rexmit, count),
            Reliability::Lifetime(ms) => (ReliabilityType::Timed, ms),
        };
        let stream = association.stream(stream);
        stream.is_ok_and(|mut s| s.set_reliability_params(!delivery.is_ordered, kind, value).is_ok())
    }

    /// Queues a message; false if it cannot be sent (no such stream, too large for the peer). Never empty.
    pub fn write(&mut self, stream: u16, kind: Kind, message: &[u8]) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        let ppi = match kind {
            Kind::Dcep => PayloadProtocolIdentifier::Dcep,
            Kind::Text => PayloadProtocolIdentifier::String,
            Kind::Binary => PayloadProtocolIdentifier::Binary,
        };
        association.stream(stream).is_ok_and(|mut s| s.write_with_ppi(message, ppi).is_ok())
    }

    /// Closes a stream in both directions (RFC 6525).
    pub fn close(&mut self, stream: u16) {
        if let Some((_, association)) = &mut self.association
            && let Ok(mut stream) = association.stream(stream)
        {
            let _ = stream.close();
        }
    }

    /// Bytes of a stream that the peer has not acknowledged.
    pub fn buffered(&mut self, stream: u16) -> usize {
        let Some((_, association)) = &mut self.association else { return 0 };
        association.stream(stream).and_then(|s| s.buffered_amount()).unwrap_or(0)
    }

    /// The next datagram for the peer.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if self.outgoing.is_empty() {
            let of_endpoint = self.endpoint.poll_transmit();
            let next = of_endpoint.or_else(|| self.association.as_mut()?.1.poll_transmit(now))?;
            if let Payload::RawEncode(datagrams) = next.payload {
                self.outgoing.extend(datagrams);
            }
        }
        self.outgoing.pop_front()
    }
}

#[cfg(test)]
mod tests;
