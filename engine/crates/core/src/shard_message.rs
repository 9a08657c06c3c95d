//! What shards of one process tell each other about tracks that cross from one to another ("mirrors").

use std::sync::Arc;

use crate::data::DataMessage;
use crate::id::{RoomId, ShardIndex, TrackId};
use crate::packet::{Packet, SenderReportMap};
use crate::sdp::Encoding;

/// Names a mirror. Chosen by the shard that mirrors, never used again by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MirrorKey(pub u64);

/// One message. Packets are shared by reference: decrypted once, encrypted where the subscriber lives.
#[derive(Clone, Debug)]
pub enum ShardMessage {
    /// To the origin: send me this track's packets.
    Mirror {
        /// Which.
        track: TrackId,
        /// Names it in what comes back.
        key: MirrorKey,
    },
    /// To the origin: no more.
    Unmirror {
        /// Which.
        track: TrackId,
        /// As in `Mirror`.
        key: MirrorKey,
    },
    /// To the origin: a receiver needs a key frame of this layer.
    KeyframeRequest {
        /// Which.
        track: TrackId,
        /// Layer index.
        layer: u8,
    },
    /// To the origin: the layers that have receivers at the mirror, as a bit mask.
    LayersWanted {
        /// Which.
        track: TrackId,
        /// As in `Mirror`.
        key: MirrorKey,
        /// Bit n: layer n.
        mask: u8,
    },
    /// From the origin: packets since its last flush.
    Packets(Vec<(MirrorKey, Arc<Packet>)>),
    /// From the origin: where a layer's RTP time lies on the wall clock.
    SenderReport {
        /// Which.
        key: MirrorKey,
        /// Layer index.
        layer: u8,
        /// The mapping.
        map: SenderReportMap,
    },
    /// From the origin: what is really sent.
    CodecChanged {
        /// Which.
        key: MirrorKey,
        /// How it is encoded.
        encoding: Encoding,
    },
    /// A data message of a participant of the sending shard (or of a relay there).
    Data(Arc<DataMessage>),
    /// The sending shard has (or no longer has) somebody who receives the room's data.
    DataRoom {
        /// Which.
        room: RoomId,
        /// Whether it has.
        has_members: bool,
    },
    /// From the origin: the track ended, or never was.
    TrackEnded {
        /// Which.
        key: MirrorKey,
    },
}

/// A message on its way.
pub type Addressed = (ShardIndex, ShardMessage);
