//! Data channels: SCTP over a transport's DTLS (RFC 8831), channels opened in band (RFC 8832), and what is said on them.
//!
//! A channel's label is a *topic*. A client sends on channels that it opens; what others send comes on channels that the
//! server opens, one per topic and kind of delivery. `docs/protocol.md` is the contract with clients.

pub mod dcep;
pub mod frame;
pub mod link;
pub(crate) mod port;
mod rate;
pub mod relay_frame;
pub(crate) mod relay_port;
mod share;

use std::sync::Arc;

use bytes::Bytes;

use crate::id::RoomId;

/// Longest topic in bytes.
pub const MAX_TOPIC_BYTES: usize = 64;
/// Longest payload of one message on a channel that delivers reliably.
pub const MAX_PAYLOAD_BYTES: usize = 64_000;
/// Longest payload on a channel that may lose: each lost datagram costs a whole message, so more than a dozen of them
/// would hardly ever arrive on a path that loses.
pub const MAX_LOSSY_PAYLOAD_BYTES: usize = 15_000;
/// `a=max-message-size` of answers: payload and frame head together.
pub const MAX_MESSAGE_BYTES: usize = 65_536;

/// How hard a channel tries (RFC 8832 section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reliability {
    /// Until it arrives.
    Reliable,
    /// So many retransmissions.
    Retransmits(u32),
    /// For so many milliseconds.
    Lifetime(u32),
}

/// What a channel promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// In the order of sending.
    pub is_ordered: bool,
    /// How hard it tries.
    pub reliability: Reliability,
}

impl Delivery {
    /// What `createDataChannel(label)` gives.
    pub const RELIABLE: Self = Self { is_ordered: true, reliability: Reliability::Reliable };
    /// Unordered, sent once.
    pub const LOSSY: Self = Self { is_ordered: false, reliability: Reliability::Retransmits(0) };

    /// True if no message may be lost.
    pub fn is_reliable(self) -> bool {
        self.reliability == Reliability::Reliable
    }

    /// The longest payload.
    pub fn max_payload(self) -> usize {
        if self.is_reliable() { MAX_PAYLOAD_BYTES } else { MAX_LOSSY_PAYLOAD_BYTES }
    }
}

/// True for 1 to [`MAX_TOPIC_BYTES`] visible ASCII characters.
pub fn is_topic(text: &str) -> bool {
    (1..=MAX_TOPIC_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A message on its way through the engine. Shared by reference: it is framed once, whoever receives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataMessage {
    /// Where it was said.
    pub room: RoomId,
    /// Who said it; stamped by the engine.
    pub sender: Arc<str>,
    /// On which topic.
    pub topic: Arc<str>,
    /// As the sender's channel was opened.
    pub delivery: Delivery,
    /// Identities it is for; empty: everybody but the sender.
    pub to: Vec<Arc<str>>,
    /// As it goes to receivers: frame head with the sender, then the payload.
    pub framed: Bytes,
    /// It stays within this node: it came from another one, or each node is told by itself.
    pub is_local: bool,
}

impl DataMessage {
    /// Frames a payload.
    pub fn new(room: RoomId, sender: Arc<str>, topic: Arc<str>, delivery: Delivery, content: Content<'_>) -> Self {
        let head = frame::Head { is_text: content.is_text, has_gap: false, names: vec![&sender] };
        let framed = head.frame(content.payload).into();
        Self { room, sender, topic, delivery, to: content.to, framed, is_local: false }
    }

    /// True if `identity` is to get it.
    pub fn is_for(&self, identity: &Arc<str>) -> bool {
        *identity != self.sender && (self.to.is_empty() || self.to.contains(identity))
    }
}

/// What a sender said.
#[derive(Clone, Debug)]
pub struct Content<'a> {
    /// It is UTF-8 text, not bytes.
    pub is_text: bool,
    /// Identities it is for; empty: everybody.
    pub to: Vec<Arc<str>>,
    /// The message itself.
    pub payload: &'a [u8],
}
