//! Data of rooms between two nodes: one SCTP association within the relay, so that what is reliable is so there too.

use std::time::Instant;

use bytes::Bytes;
use hashbrown::HashMap;
use mrtc_rtp::ParseError;

use super::link::{Kind, LinkEvent, SctpLink};
use super::relay_frame::{decode, encode};
use super::{DataMessage, Delivery, Reliability};
use crate::counters::Counters;
use crate::id::RoomId;

/// Largest message between nodes: that of a client, its topic and its addressees.
const MAX_SEND: u32 = 128 * 1024;
/// Rooms share so many pairs of streams, so that one room's loss does not hold up all others.
const STREAM_PAIRS: u32 = 64;
/// Bytes that wait for the other node in one stream; beyond it messages are given up, and the next one tells.
const MAX_BUFFER: usize = 1024 * 1024;
/// What may be lost is tried for so long: a client would not miss it then.
const LOSSY: Delivery = Delivery { is_ordered: false, reliability: Reliability::Lifetime(300) };

/// A room whose data goes to the other node.
#[derive(Debug)]
struct Export {
    handle: u32,
    /// Messages were given up; the next one tells.
    has_gap: bool,
}

/// The data half of a relay.
#[derive(Debug)]
pub(crate) struct RelayPort {
    is_client: bool,
    link: SctpLink,
    exports: HashMap<RoomId, Export>,
    imports: HashMap<u32, RoomId>,
}

impl RelayPort {
    /// The node that wants data opens the association.
    pub(crate) fn new(is_client: bool) -> Self {
        let link = SctpLink::new(is_client, MAX_SEND);
        Self { is_client, link, exports: HashMap::new(), imports: HashMap::new() }
    }

    /// The relay began anew: what was under way is gone.
    pub(crate) fn restart(&mut self) {
        self.link = SctpLink::new(self.is_client, MAX_SEND);
        self.exports.values_mut().for_each(|e| e.has_gap = true);
    }

    pub(crate) fn export(&mut self, room: RoomId, handle: u32) {
        self.exports.insert(room, Export { handle, has_gap: false });
    }

    pub(crate) fn unexport(&mut self, room: &RoomId) {
        self.exports.remove(room);
    }

    pub(crate) fn exported(&self) -> impl Iterator<Item = &RoomId> {
        self.exports.keys()
    }

    pub(crate) fn import(&mut self, room: RoomId, handle: u32) {
        self.imports.insert(handle, room);
    }

    pub(crate) fn unimport(&mut self, room: &RoomId) {
        self.imports.retain(|_, imported| imported != room);
    }

    /// Queues a message for the other node, or drops and counts it.
    pub(crate) fn send(&mut self, message: &DataMessage, counters: &mut Counters) {
        let Some(export) = self.exports.get_mut(&message.room) else { return };
        let is_reliable = message.delivery.is_reliable();
        let stream = (export.handle % STREAM_PAIRS * 2) as u16 + u16::from(!is_reliable);
        let bytes = encode(export.handle, message, export.has_gap && is_reliable);
        let is_open = self.link.is_connected() && {
            self.link.open(stream, if is_reliable { Delivery::RELIABLE } else { LOSSY });
            self.link.buffered(stream) + bytes.len() <= MAX_BUFFER
        };
        if is_open && self.link.write(stream, Kind::Binary, &bytes) {
            export.has_gap &= !is_reliable;
        } else {
            export.has_gap |= is_reliable;
            counters.drop_data_relay += 1;
        }
    }

    /// Takes a datagram of the other node.
    pub(crate) fn handle_input(
        &mut self,
        now: Instant,
        datagram: &[u8],
        counters: &mut Counters,
        out: &mut Vec<DataMessage>,
    ) {
        self.link.handle_input(now, datagram);
        while let Some(event) = self.link.poll_event() {
            match event {
                LinkEvent::Readable(stream) => {
                    while let Some((_, bytes)) = self.link.read(stream) {
                        match self.decode(&bytes) {
                            Ok(message) => out.push(message),
                            Err(_) => counters.drop_data_relay += 1,
                        }
                    }
                }
                LinkEvent::Lost => {
                    counters.data_links_lost += 1;
                    return self.restart();
                }
                LinkEvent::Connected | LinkEvent::Closed(_) => {}
            }
        }
    }

    fn decode(&self, bytes: &[u8]) -> Result<DataMessage, ParseError> {
        let (handle, message) = decode(bytes)?;
        let room = self.imports.get(&handle).ok_or(ParseError::Malformed("data handle"))?;
        Ok(DataMessage { room: room.clone(), ..message })
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.link.handle_timeout(now);
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.link.next_timeout()
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        self.link.poll_transmit(now)
    }
}
