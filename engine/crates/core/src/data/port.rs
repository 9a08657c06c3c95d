//! The data half of a client's transport: its association, the channels on it, and what they may carry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::dcep::{self, Open};
use super::frame::{Head, PROTOCOL, with_gap};
use super::link::{Kind, LinkEvent, SctpLink};
use super::rate::Rate;
use super::share::Share;
use super::{Content, DataMessage, Delivery, is_topic};
use crate::counters::Counters;
use crate::id::RoomId;

/// Channels that a client may have open for sending.
const MAX_INBOUND: usize = 32;
/// Channels that the server opens to a client. The least used one makes room for a new one.
const MAX_OUTBOUND: usize = 64;
/// Chromium refuses stream numbers from 1024 on.
const MAX_STREAM: u16 = 1_023;
/// What waits of one reliable channel; beyond it messages are given up, and the next that fits tells so.
const MAX_RELIABLE_BUFFER: usize = 256 * 1024;
/// What waits of one lossy channel: what is late is of no use.
const MAX_LOSSY_BUFFER: usize = 32 * 1024;
/// What waits of all channels.
const MAX_BUFFER: usize = 1024 * 1024;
/// A sender that is held back is looked at again after this time.
const HELD_INTERVAL: Duration = Duration::from_millis(20);
/// Datagrams that wait for their share are looked at again after this time.
const SHARE_INTERVAL: Duration = Duration::from_millis(5);

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) identity: Arc<str>,
    pub(crate) can_publish: bool,
}

/// A channel that the client opened.
#[derive(Debug)]
struct Inbound {
    stream: u16,
    topic: Arc<str>,
    delivery: Delivery,
    is_framed: bool,
}

/// A channel that the server opened.
#[derive(Debug)]
struct Outbound {
    stream: u16,
    topic: Arc<str>,
    delivery: Delivery,
    is_acked: bool,
    /// Messages were given up; the next one tells.
    has_gap: bool,
    used_at: Instant,
}

/// The data half of a transport.
#[derive(Debug)]
pub(crate) struct DataPort {
    pub(crate) access: Option<Access>,
    /// True while the shard counts it among those who receive.
    pub(crate) is_member: bool,
    link: SctpLink,
    inbound: Vec<Inbound>,
    outbound: Vec<Outbound>,
    next_stream: u16,
    rate: Rate,
    share: Share,
    /// A reliable sender waits for its rate.
    is_held: bool,
    /// Datagrams wait for their share of the bandwidth.
    is_short: bool,
    /// Upper bound of what waits in all channels.
    buffered: usize,
}

impl DataPort {
    /// `is_dtls_client`: this side opened DTLS; it then opens SCTP too and its channels have even numbers (RFC 8832
    /// section 6).
    pub(crate) fn new(now: Instant, is_dtls_client: bool, max_send: u32) -> Self {
        Self {
            access: None,
            is_member: false,
            link: SctpLink::new(is_dtls_client, max_send),
            inbound: Vec::new(),
            outbound: Vec::new(),
            next_stream: u16::from(!is_dtls_client),
            rate: Rate::new(now),
            share: Share::new(now),
            is_held: false,
            is_short: false,
            buffered: 0,
        }
    }

    pub(crate) fn handle_input(&mut self, now: Instant, datagram: &[u8]) {
        self.link.handle_input(now, datagram);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.link.next_timeout().is_some_and(|at| at <= now) {
            self.link.handle_timeout(now);
        }
    }

    pub(crate) fn next_timeout(&self, now: Instant) -> Option<Instant> {
        let held = self.is_held.then_some(now + HELD_INTERVAL);
        let short = self.is_short.then_some(now + SHARE_INTERVAL);
        [self.link.next_timeout(), held, short].into_iter().flatten().min()
    }

    /// What data used of the bandwidth lately, in bit/s.
    pub(crate) fn used_bps(&mut self, now: Instant) -> u64 {
        self.share.used_bps(now)
    }

    // Receiving

    /// Takes what the client said, as far as its rate goes.
    pub(crate) fn receive(&mut self, now: Instant, room: &RoomId, counters: &mut Counters, out: &mut Vec<DataMessage>) {
        let mut fresh = Vec::new();
        while let Some(event) = self.link.poll_event() {
            match event {
                LinkEvent::Connected => {}
                LinkEvent::Readable(stream) => fresh.push(stream),
                LinkEvent::Closed(stream) => {
                    self.read(stream, now, room, counters, out);
                    self.forget(stream);
                }
                LinkEvent::Lost => {
                    counters.data_links_lost += 1;
                    self.inbound.clear();
                    self.outbound.clear();
                }
            }
        }
        self.is_held = false;
        let known: Vec<u16> = self.inbound.iter().map(|c| c.stream).filter(|s| !fresh.contains(s)).collect();
        for stream in fresh.into_iter().chain(known) {
            self.read(stream, now, room, counters, out);
        }
    }

    fn read(&mut self, stream: u16, now: Instant, room: &RoomId, counters: &mut Counters, out: &mut Vec<DataMessage>) {
        loop {
            let has_room = self.rate.has_room(now);
            let channel = self.inbound.iter().find(|c| c.stream == stream);
            if channel.is_some_and(|c| self.access.is_none() || c.delivery.is_reliable() && !has_room) {
                self.is_held = true;
                return;
            }
            let Some((kind, bytes)) = self.link.read(stream) else { return };
            if kind == Kind::Dcep {
                self.take_dcep(stream, &bytes, counters);
                continue;
            }
            if !has_room {
                counters.drop_data_rate += 1;
                continue;
            }
            self.rate.take(bytes.len());
            if let Some(message) = self.message(stream, kind, &bytes, room, counters) {
                counters.rx_data_messages += 1;
                out.push(message);
            }
        }
    }

    fn message(
        &self,
        stream: u16,
        kind: Kind,
        bytes: &[u8],
        room: &RoomId,
        counters: &mut Counters,
    ) -> Option<DataMessage> {
        let (Some(channel), Some(access)) = (self.inbound.iter().find(|c| c.stream == stream), &self.access) else {
            counters.drop_data_malformed += 1;
            return None;
        };
        if !access.can_publish {
            counters.drop_data_forbidden += 1;
            return None;
        }
        let Ok(content) = content(channel, kind, bytes) else {
            counters.drop_data_malformed += 1;
            return None;
        };
        if content.payload.len() > channel.delivery.max_payload() {
            counters.drop_data_too_large += 1;
            return None;
        }
        let (sender, topic) = (access.identity.clone(), channel.topic.clone());
        Some(DataMessage::new(room.clone(), sender, topic, channel.delivery, content))
    }

    fn take_dcep(&mut self, stream: u16, bytes: &[u8], counters: &mut Counters) {
        if bytes == dcep::ACK {
            return self.acked(stream);
        }
        let open = Open::parse(bytes).ok().filter(|open| is_topic(open.label));
        let is_ours = self.outbound.iter().any(|c| c.stream == stream);
        let is_known = self.inbound.iter().any(|c| c.stream == stream);
        let Some(open) = open.filter(|_| !is_ours && !is_known) else {
            counters.drop_data_malformed += 1;
            if !is_ours && !is_known {
                self.link.close(stream);
            }
            return;
        };
        if self.inbound.len() >= MAX_INBOUND {
            counters.drop_data_channels += 1;
            return self.link.close(stream);
        }
        self.link.write(stream, Kind::Dcep, &dcep::ACK);
        let is_framed = open.protocol == PROTOCOL;
        self.inbound.push(Inbound { stream, topic: open.label.into(), delivery: open.delivery, is_framed });
    }

    /// From the answer on messages may overtake each other (RFC 8832 section 6).
    fn acked(&mut self, stream: u16) {
        if let Some(channel) = self.outbound.iter_mut().find(|c| c.stream == stream && !c.is_acked) {
            channel.is_acked = true;
            self.link.set_delivery(stream, channel.delivery);
        }
    }

    fn forget(&mut self, stream: u16) {
        self.link.close(stream);
        self.inbound.retain(|c| c.stream != stream);
        self.outbound.retain(|c| c.stream != stream);
    }

    // Sending

    /// Queues a message for the client, or drops and counts it. True if something is to be sent.
    pub(crate) fn send(&mut self, now: Instant, message: &DataMessage, counters: &mut Counters) -> bool {
        if !self.link.is_connected() {
            return false;
        }
        let Some(at) = self.channel(now, message, counters) else { return false };
        let len = message.framed.len();
        let channel = &mut self.outbound[at];
        channel.used_at = now;
        let limit = match (channel.delivery.is_reliable(), channel.has_gap) {
            (false, _) => MAX_LOSSY_BUFFER,
            // Once messages are missing the channel goes on when half of what waits has gone: one gap, not hundreds.
            (true, false) => MAX_RELIABLE_BUFFER,
            (true, true) => MAX_RELIABLE_BUFFER / 2,
        };
        let (stream, has_gap) = (channel.stream, channel.has_gap);
        if self.link.buffered(stream) + len > limit || self.is_full(len) {
            self.outbound[at].has_gap |= self.outbound[at].delivery.is_reliable();
            counters.drop_data_slow += 1;
            return false;
        }
        let framed = if has_gap { with_gap(&message.framed).into() } else { message.framed.clone() };
        if !self.link.write(stream, Kind::Binary, &framed) {
            counters.drop_data_too_large += 1;
            return false;
        }
        self.outbound[at].has_gap = false;
        self.buffered += len;
        counters.tx_data_messages += 1;
        true
    }

    fn is_full(&mut self, len: usize) -> bool {
        if self.buffered + len > MAX_BUFFER {
            self.buffered = self.outbound.iter().map(|c| self.link.buffered(c.stream)).sum();
        }
        self.buffered + len > MAX_BUFFER
    }

    /// The channel of a message's topic; opened if it is the first.
    fn channel(&mut self, now: Instant, message: &DataMessage, counters: &mut Counters) -> Option<usize> {
        let is_it = |c: &Outbound| c.delivery == message.delivery && c.topic == message.topic;
        if let Some(at) = self.outbound.iter().position(is_it) {
            return Some(at);
        }
        if self.outbound.len() >= MAX_OUTBOUND {
            self.close_least_used();
        }
        let stream = (self.outbound.len() < MAX_OUTBOUND).then(|| self.open_stream(message.delivery)).flatten();
        let Some(stream) = stream else {
            counters.drop_data_channels += 1;
            return None;
        };
        let open = Open { delivery: message.delivery, label: &message.topic, protocol: PROTOCOL };
        self.link.write(stream, Kind::Dcep, &open.to_bytes());
        let (topic, delivery) = (message.topic.clone(), message.delivery);
        self.outbound.push(Outbound { stream, topic, delivery, is_acked: false, has_gap: false, used_at: now });
        Some(self.outbound.len() - 1)
    }

    /// A free stream number; ordered until the client has answered.
    fn open_stream(&mut self, delivery: Delivery) -> Option<u16> {
        for _ in 0..=MAX_STREAM / 2 {
            let stream = self.next_stream;
            self.next_stream += 2;
            if self.next_stream > MAX_STREAM {
                self.next_stream %= 2;
            }
            if self.link.open(stream, Delivery { is_ordered: true, ..delivery }) {
                return Some(stream);
            }
        }
        None
    }

    fn close_least_used(&mut self) {
        let mut idle: Vec<(Instant, u16)> = self.outbound.iter().map(|c| (c.used_at, c.stream)).collect();
        idle.retain(|(_, stream)| self.link.buffered(*stream) == 0);
        if let Some((_, stream)) = idle.into_iter().min() {
            self.forget(stream);
        }
    }

    // Datagrams

    /// The next datagram, if data's share of the bandwidth has room. `media`: estimate and what media leaves of it, if the
    /// client is sent any.
    pub(crate) fn poll_transmit(&mut self, now: Instant, media: Option<(u64, u64)>, is_first: bool) -> Option<Bytes> {
        let has_room = match media {
            Some((estimate, free)) if is_first => self.share.has_room(now, estimate, free),
            Some(_) => self.share.is_left(),
            None => true,
        };
        // Whether there is something to send only asking tells, so a port without room asks again.
        self.is_short = !has_room;
        if !has_room {
            return None;
        }
        let datagram = self.link.poll_transmit(now)?;
        self.share.take(now, datagram.len());
        Some(datagram)
    }
}

fn content<'a>(channel: &Inbound, kind: Kind, bytes: &'a [u8]) -> Result<Content<'a>, mrtc_rtp::ParseError> {
    if !channel.is_framed {
        return Ok(Content { is_text: kind == Kind::Text, to: Vec::new(), payload: bytes });
    }
    let (head, payload) = Head::parse(bytes)?;
    Ok(Content { is_text: head.is_text, to: head.names.into_iter().map(Arc::from).collect(), payload })
}
