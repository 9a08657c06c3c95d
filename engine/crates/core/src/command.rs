//! What a shard can be told to do. Every command is answered by one [`Event::Reply`](crate::event::Event::Reply).

use std::net::SocketAddr;

use crate::capture::Capture;
use crate::handover::{HandoverKey, Purpose};
use crate::id::{RelayId, RoomId, SinkId, TrackId, TransportId};

/// Sound or picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Sound.
    Audio,
    /// Picture.
    Video,
}

/// A codec that the engine forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Codec {
    Opus,
    Pcmu,
    Pcma,
    G722,
    Vp8,
    H264,
    Vp9,
    Av1,
}

impl Codec {
    /// Sound or picture.
    pub fn kind(self) -> Kind {
        match self {
            Self::Opus | Self::Pcmu | Self::Pcma | Self::G722 => Kind::Audio,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 => Kind::Video,
        }
    }

    /// RTP clock in Hz. G.722's is 8000 by RFC 3551 although it samples at 16,000.
    pub fn clock_rate(self) -> u32 {
        mrtc_rtp::Codec::from(self).clock_rate()
    }
}

impl From<Codec> for mrtc_rtp::Codec {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::Opus => Self::Opus,
            Codec::Pcmu => Self::Pcmu,
            Codec::Pcma => Self::Pcma,
            Codec::G722 => Self::G722,
            Codec::Vp8 => Self::Vp8,
            Codec::H264 => Self::H264,
            Codec::Vp9 => Self::Vp9,
            Codec::Av1 => Self::Av1,
        }
    }
}

/// What a client may be sent and may send at most, in bit/s; unset: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// What the client is sent: all subscriptions and what repairs them.
    pub egress_bps: Option<u64>,
    /// What the client sends: the media of all its tracks.
    pub ingress_bps: Option<u64>,
    /// What each of its tracks sends, all layers together; a track may have a smaller one of its own.
    pub track_bps: Option<u64>,
}

/// One order to a shard.
#[derive(Clone, Debug)]
pub enum Command {
    /// Opens a transport from an SDP offer. Replies `Answer`.
    CreateTransport {
        /// Chosen by the caller.
        transport: TransportId,
        /// Its room.
        room: RoomId,
        /// SDP.
        offer: String,
        /// Its caps.
        caps: Caps,
    },
    /// Tells what another node needs for a connected transport without data channels. Replies `TransportState`.
    ExportTransport {
        /// Which.
        transport: TransportId,
        /// What the other node does with it.
        purpose: Purpose,
        /// Seals it.
        key: HandoverKey,
    },
    /// Goes on with a transport of another node, which its client takes for the same: it has to restart ICE, or to follow
    /// our own check. Tracks and subscriptions are made as for a new one. Replies `Answer`. With a state that is not final
    /// the client is met and what it sends is kept; `TransportConnected` tells that it sends here, `CompleteTransport` follows.
    ImportTransport {
        /// Chosen by the caller.
        transport: TransportId,
        /// Its room.
        room: RoomId,
        /// SDP: one that restarts ICE; or the last one, then the client is called where it was last.
        offer: String,
        /// Its caps.
        caps: Caps,
        /// As `ExportTransport` gave it. One to go on with is to be used once.
        state: Vec<u8>,
        /// As there.
        key: HandoverKey,
    },
    /// Goes on with a transport that was imported with a state that was not final. Replies `Done`.
    CompleteTransport {
        /// Which.
        transport: TransportId,
        /// The final one. To be used once.
        state: Vec<u8>,
        /// As in `ExportTransport`.
        key: HandoverKey,
    },
    /// Changes a transport's caps, at once. Replies `Done`.
    SetCaps {
        /// Which.
        transport: TransportId,
        /// All of them.
        caps: Caps,
    },
    /// Answers a later offer of the same transport (more m-lines, ICE restart). Replies `Answer`.
    Negotiate {
        /// Which.
        transport: TransportId,
        /// SDP.
        offer: String,
    },
    /// Ends a transport, its tracks and subscriptions. Replies `Done`, also if it does not exist.
    CloseTransport {
        /// Which.
        transport: TransportId,
    },
    /// Says who a transport's client is on data channels. Until then nothing is taken of it and nothing sent to it on them.
    /// Replies `Done`.
    SetDataAccess {
        /// Which.
        transport: TransportId,
        /// Stamped on what it sends; what is sent to this identity reaches it.
        identity: String,
        /// False: it only receives.
        can_publish: bool,
    },
    /// Sends a message into a room on data channels, as if a participant had sent it. Replies `Done`.
    SendData {
        /// Which.
        room: RoomId,
        /// Stamped on it.
        sender: String,
        /// Its topic.
        topic: String,
        /// False: unordered, sent once.
        is_reliable: bool,
        /// It is UTF-8 text.
        is_text: bool,
        /// Identities it is for; empty: everybody but the sender.
        to: Vec<String>,
        /// The message itself.
        payload: Vec<u8>,
    },
    /// Makes a track of an inbound m-line. Replies `Track`.
    PublishTrack {
        /// Chosen by the caller.
        track: TrackId,
        /// The publisher.
        transport: TransportId,
        /// Its m-line.
        mid: String,
    },
    /// Ends a track of any origin. Replies `Done`, also if it does not exist.
    UnpublishTrack {
        /// Which.
        track: TrackId,
    },
    /// A muted track is not forwarded. Replies `Done`.
    SetTrackMuted {
        /// Which.
        track: TrackId,
        /// The wanted state.
        is_muted: bool,
    },
    /// Changes what a track of a client may send at most, all layers together; the smallest cap that is set counts. Replies
    /// `Done`.
    SetTrackCap {
        /// Which.
        track: TrackId,
        /// In bit/s; unset: none of its own.
        max_bps: Option<u64>,
    },
    /// Sets the whole list of tracks that a transport receives. Replies `Slots`.
    SetSubscriptions {
        /// The subscriber.
        transport: TransportId,
        /// All of it; what is not listed ends.
        subscriptions: Vec<Subscription>,
        /// Of the tracks of sound only so many have a slot at a time: those who speak (`SlotsChanged` tells of changes).
        /// Zero: each has its own.
        audio_top_n: usize,
    },
    /// Makes a track that is fed by `Source` frames of this process. Replies `Track`.
    CreateSource {
        /// Chosen by the caller.
        track: TrackId,
        /// Its room.
        room: RoomId,
        /// Its codec.
        codec: Codec,
    },
    /// Packetises frames of a source track and sends them when due. Replies `Done`.
    PushFrames {
        /// Which source.
        track: TrackId,
        /// How long ago the first of these frames was due, in microseconds; negative: it is due later. Counts for a
        /// source's very first frame only, which sets the source's clock: so several sources stay together.
        late_us: i64,
        /// In decode order.
        frames: Vec<SourceFrame>,
    },
    /// Delivers a track's frames to this process. Replies `Done`.
    CreateSink {
        /// Chosen by the caller.
        sink: SinkId,
        /// Of which track.
        track: TrackId,
    },
    /// Ends a sink. Replies `Done`, also if it does not exist.
    CloseSink {
        /// Which.
        sink: SinkId,
    },
    /// Opens (or re-keys) an association with another node. Replies `Done`.
    OpenRelay {
        /// The same on both nodes.
        relay: RelayId,
        /// The other node's relay socket.
        remote: SocketAddr,
        /// Key of what this node sends.
        tx: RelayKey,
        /// Key of what the other node sends.
        rx: RelayKey,
    },
    /// Ends an association and all tracks that came over it. Replies `Done`.
    CloseRelay {
        /// Which.
        relay: RelayId,
    },
    /// Lets a track of this node flow out. Replies `Track`.
    ExportTrack {
        /// Over which relay.
        relay: RelayId,
        /// Which track.
        track: TrackId,
        /// Names the track in relay packets; chosen by the receiving node.
        handle: u32,
    },
    /// Lets a room's data messages flow out. Replies `Done`.
    ExportData {
        /// Over which relay.
        relay: RelayId,
        /// Which room.
        room: RoomId,
        /// Names the room in relay packets; chosen by the receiving node.
        handle: u32,
    },
    /// Takes a room's data messages of another node. Replies `Done`.
    ImportData {
        /// Over which relay.
        relay: RelayId,
        /// Which room.
        room: RoomId,
        /// As in `ExportData`.
        handle: u32,
    },
    /// Stops both. Replies `Done`.
    StopData {
        /// Over which relay.
        relay: RelayId,
        /// Which room.
        room: RoomId,
    },
    /// Stops it. Where the track came over this relay before `MoveImport`, nothing is taken from there any more. Replies
    /// `Done`.
    UnexportTrack {
        /// Over which relay.
        relay: RelayId,
        /// Which track.
        track: TrackId,
    },
    /// Makes a track that is fed by a relay. Replies `Track`.
    ImportTrack {
        /// Over which relay.
        relay: RelayId,
        /// Which track; the same id as on the origin node.
        track: TrackId,
        /// Its room.
        room: RoomId,
        /// As in `ExportTrack`.
        handle: u32,
        /// Its codec.
        codec: Codec,
        /// Its simulcast rids, lowest first; empty if not simulcast.
        rids: Vec<String>,
    },
    /// Takes an imported track over another relay from now on: the same packets under the same numbers, from another node.
    /// Receivers notice nothing. What the former relay still brings is taken too, until `UnexportTrack` or its end. The
    /// relay must be of the worker that has the track. Replies `Track`.
    MoveImport {
        /// Over which relay from now on.
        relay: RelayId,
        /// Which track.
        track: TrackId,
        /// Its handle there, as in `ExportTrack`.
        handle: u32,
    },
    /// Replies `Json` with the figures of transports and their tracks.
    Stats {
        /// Of these; empty: all.
        transports: Vec<TransportId>,
    },
    /// Replies `Json` with a room's forwarding state.
    DumpRoom {
        /// Which.
        room: RoomId,
    },
    /// Begins to copy packets of some transports, or ends it; there is one capture at a time. Replies `Done`.
    SetCapture {
        /// What to copy and where to; unset: nothing.
        capture: Option<Capture>,
    },
}

/// A track that a subscriber wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Which.
    pub track: TrackId,
    /// Sound or picture: decides which slots can carry it.
    pub kind: Kind,
    /// The same picture in other codecs; the first one that the slot's negotiated codecs allow is sent.
    pub alternatives: Vec<TrackId>,
    /// What the track and its alternatives were called before their publisher moved to another transport: one that has a
    /// slot is sent until the track can be decoded, so that nobody sees the move.
    pub formers: Vec<TrackId>,
    /// Largest picture of use in pixels of height; the fitting layer is sent.
    pub max_height: Option<u32>,
    /// Largest frame rate of use; decides temporal layers.
    pub max_fps: Option<u32>,
    /// Keep the slot, send nothing.
    pub is_paused: bool,
    /// Who keeps quality when bandwidth is short; higher wins.
    pub priority: u8,
}

/// An encoded frame that a source sends.
#[derive(Clone, Debug)]
pub struct SourceFrame {
    /// Presentation time in microseconds on the source's own clock; the first frame starts it.
    pub pts_us: u64,
    /// Starts a decodable sequence.
    pub is_keyframe: bool,
    /// One access unit: Annex B for H.264, a plain frame for VP8/VP9, a packet for Opus.
    pub data: Vec<u8>,
}

/// AES-128-GCM key and salt of one direction of a relay.
#[derive(Clone)]
pub struct RelayKey {
    /// Key.
    pub key: [u8; 16],
    /// Salt; xored with the packet number to make the nonce.
    pub salt: [u8; 12],
}

impl std::fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RelayKey(..)")
    }
}
