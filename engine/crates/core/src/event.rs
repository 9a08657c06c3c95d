//! What a shard tells. State that repeats (speakers, wanted layers) is coalesced; frames travel apart from events.

use crate::command::{Codec, Kind};
use crate::error::Error;
use crate::id::{CommandId, RelayId, RoomId, ShardIndex, SinkId, TrackId, TransportId};
use crate::sdp::{Encoding, Variant};

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The result of a command.
    Reply {
        /// Of which.
        command: CommandId,
        /// What it gave.
        result: Result<Reply, Error>,
    },
    /// ICE and DTLS are up.
    TransportConnected {
        /// Which.
        transport: TransportId,
    },
    /// A transport ended; its tracks and subscriptions with it.
    TransportClosed {
        /// Which.
        transport: TransportId,
        /// Why.
        reason: CloseReason,
    },
    /// A track's first packet came, or its codec changed.
    TrackStarted {
        /// Which.
        track: TrackId,
        /// What is really sent.
        codec: Codec,
    },
    /// A track ended because its origin (transport, relay) ended.
    TrackEnded {
        /// Which.
        track: TrackId,
    },
    /// The layers of a track that have receivers changed. Sent for tracks of transports only.
    LayersWanted {
        /// Which.
        track: TrackId,
        /// Rids that somebody receives, lowest first. Of a track in one encoding: an empty one, or none if nobody receives it.
        rids: Vec<String>,
        /// Of layers inside one encoding (SVC): so many from the lowest on have receivers; 0: all.
        spatial_layers: u8,
    },
    /// Who speaks in a room, of the tracks whose origin is this shard (transports and sources, not relays). Repeated twice
    /// a second while somebody does.
    ActiveSpeakers {
        /// Which room.
        room: RoomId,
        /// This shard; others may have more speakers of the room.
        shard: ShardIndex,
        /// The dominant one first, then the loudest; level 0 to 127, 127 loudest.
        speakers: Vec<(TrackId, u8)>,
    },
    /// Other people speak, of a transport that hears the loudest only.
    SlotsChanged {
        /// Which.
        transport: TransportId,
        /// As in [`SlotsReply`].
        slots: Vec<SlotContent>,
        /// As in [`SlotsReply`].
        version: u64,
    },
    /// A receiver of a source track needs a key frame.
    KeyframeRequested {
        /// Which.
        track: TrackId,
    },
    /// The other node answers on the relay.
    RelayUp {
        /// Which.
        relay: RelayId,
    },
    /// Nothing was heard from the other node for the relay timeout; the relay is kept and may come up again.
    RelayLost {
        /// Which.
        relay: RelayId,
    },
}

/// What a command gave.
#[derive(Clone, Debug)]
pub enum Reply {
    /// It is done.
    Done,
    /// A transport's answer.
    Answer {
        /// SDP.
        answer: String,
        /// All m-lines.
        lines: Vec<Line>,
    },
    /// A track.
    Track(TrackInfo),
    /// What became of the subscriptions.
    Slots(SlotsReply),
    /// A transport on its way to another node, sealed.
    TransportState(Vec<u8>),
    /// Figures or state for people.
    Json(String),
}

/// One m-line of a transport after negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As in the SDP.
    pub mid: String,
    /// Sound or picture.
    pub kind: Kind,
    /// True: the client sends on it; false: it is a slot.
    pub is_inbound: bool,
    /// In order of preference.
    pub codecs: Vec<Codec>,
    /// Simulcast rids that the client sends, lowest first.
    pub rids: Vec<String>,
}

/// A track as made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackInfo {
    /// Which.
    pub track: TrackId,
    /// Sound or picture.
    pub kind: Kind,
    /// The codec that is sent, or is expected to be.
    pub codec: Codec,
    /// Which variant of it, if that is known.
    pub variant: Option<Variant>,
    /// Lowest first; empty if not simulcast.
    pub rids: Vec<String>,
}

impl TrackInfo {
    /// How it is encoded.
    pub fn encoding(&self) -> Encoding {
        Encoding { codec: self.codec, variant: self.variant }
    }
}

/// A slot: mid, kind, and the track it carries (its first name, also when an alternative is sent).
pub type SlotContent = (String, Kind, Option<TrackId>);

/// The slots after `SetSubscriptions`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotsReply {
    /// Every slot.
    pub slots: Vec<SlotContent>,
    /// Grows with each change of what the transport's slots carry: events and replies may overtake each other.
    pub version: u64,
    /// Tracks that found no free slot; of sound of which the loudest are heard, as many as slots are lacking.
    pub unplaced: Vec<TrackId>,
    /// Tracks of which the client can decode neither the codec nor an alternative's.
    pub no_common_codec: Vec<TrackId>,
    /// Tracks that this engine does not have.
    pub missing: Vec<TrackId>,
}

/// Why a transport ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// `CloseTransport`.
    Closed,
    /// No consent for too long.
    IceTimeout,
    /// The handshake failed.
    DtlsFailed,
    /// The client closed DTLS.
    PeerClosed,
}

/// One access unit of a sink, in decode order.
#[derive(Clone, Debug)]
pub struct SinkFrame {
    /// Which sink.
    pub sink: SinkId,
    /// Codec of `data`.
    pub codec: Codec,
    /// Starts a decodable sequence.
    pub is_keyframe: bool,
    /// True if frames before this one were lost and this one may not decode.
    pub is_discontinuous: bool,
    /// Unwrapped RTP timestamp in units of the codec's clock (48,000 Opus, 90,000 video).
    pub rtp_time: u64,
    /// When it was captured: sender-report time mapped to this node's wall clock, Unix microseconds. Before the first
    /// sender report, the time of arrival. Sinks of one publisher are in sync on it.
    pub captured_at_us: i64,
    /// Annex B for H.264, a plain frame for VP8/VP9, an OBU sequence for AV1, a packet for audio.
    pub data: Vec<u8>,
}
