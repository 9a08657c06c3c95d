//! SDP: reads a client's offer, decides what of it we take, writes the answer.
//!
//! The server never offers. Every m-line of an offer is either *inbound* (the client sends), a *slot* (the client
//! receives), idle, or rejected; all live on one BUNDLE transport.

mod answer;
mod codecs;
mod compat;
mod lexer;
mod negotiate;
mod offer;
mod simulcast;

use mrtc_rtp::ext::{ExtKind, ExtMap};
use mrtc_rtp::id::{Mid, Pt, Rid, Ssrc};

use crate::command::{Codec, Kind};
use crate::error::Error;
use crate::handshake::RemoteParams;

pub(crate) use answer::Session;
pub use compat::Encoding;
pub use negotiate::negotiate;
pub use offer::Offer;

/// Largest offer that is read. Chromium 156 spends 5 kB on a video line with all its codecs, so this is 200 of them; a client
/// that wants more slots narrows the codecs first.
pub const MAX_OFFER_BYTES: usize = 1024 * 1024;
/// Most m-lines of an offer.
pub const MAX_LINES: usize = 600;
/// RTCP's canonical name of everything that we send (RFC 7022 wants it to say nothing of the host).
pub const CNAME: &str = "mrtc";

/// Why an offer cannot be answered.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {reason}")]
pub struct SdpError {
    /// Line of the offer, counted from 1; 0 if it is about the offer as a whole.
    pub line: usize,
    /// What is wrong, in words for the client's developer.
    pub reason: String,
}

impl SdpError {
    pub(crate) fn new(line: usize, reason: impl Into<String>) -> Self {
        Self { line, reason: reason.into() }
    }
}

impl From<SdpError> for Error {
    fn from(error: SdpError) -> Self {
        Self::BadOffer(error.to_string())
    }
}

/// What an m-line serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineUse {
    /// The client sends on it (`sendonly`, or `sendrecv`, which we answer `recvonly`).
    Inbound,
    /// The client receives on it (`recvonly`).
    Slot,
    /// Data channels: SCTP over the transport's DTLS (RFC 8841).
    Data,
    /// `inactive`, or taken out of use by port 0 in the offer; may come back in a later offer.
    Idle,
    /// We do not take it (another kind of media, no common codec, not bundled). Port 0 in the answer.
    Rejected,
}

/// The outcome of an offer: what the transport is made of from now on.
#[derive(Clone, Debug, PartialEq)]
pub struct Negotiated {
    /// ICE and DTLS of the client.
    pub remote: RemoteParams,
    /// True if the offer changed the ICE credentials of a previous one.
    pub is_ice_restart: bool,
    /// Every m-line in order, the unusable ones too.
    pub lines: Vec<NegotiatedLine>,
    /// Union of all lines' header extensions: what an inbound packet is read with (ids are unique within a BUNDLE group).
    pub exts: ExtMap,
    /// `a=extmap-allow-mixed`: one- and two-byte forms may both come on one line.
    pub is_mixed_ext_allowed: bool,
    pub(crate) session: answer::Session,
}

/// One m-line after negotiation.
#[derive(Clone, Debug, PartialEq)]
pub struct NegotiatedLine {
    /// `a=mid`; made up from the position if the offer has none.
    pub mid: Mid,
    /// Sound or picture. Means nothing on a rejected line of another kind.
    pub kind: Kind,
    /// What it serves.
    pub usage: LineUse,
    /// Inbound: what the client may send, in our order of preference. Slot: what the client can decode, in the client's
    /// order. A codec may be there several times in different variants.
    pub codecs: Vec<LineCodec>,
    /// Slot: payload type of repair packets (FlexFEC), if the client takes them.
    pub fec_pt: Option<Pt>,
    /// Header extensions of this line.
    pub exts: ExtMap,
    /// Inbound: simulcast rids lowest first; empty without simulcast by rid.
    pub rids: Vec<Rid>,
    /// Inbound: SSRCs that the offer declares, lowest simulcast layer first. Empty if the client relies on mid and rid.
    pub sources: Vec<LineSource>,
    /// Slot: what we send with. Stays the same for the life of the line.
    pub tx: Option<SlotSource>,
    /// Inbound video: what the client is asked not to exceed, in bit/s.
    pub max_bps: Option<u64>,
    /// Data: the longest message that the client takes, `u32::MAX` if it says that it takes any.
    pub max_message_size: u32,
    /// `a=rtcp-rsize`: reduced-size RTCP is understood.
    pub is_rtcp_reduced: bool,
    pub(crate) echo: answer::Echo,
}

/// One payload format of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineCodec {
    /// Which codec.
    pub codec: Codec,
    /// The client's payload type; used in both directions.
    pub pt: Pt,
    /// RTP clock in Hz.
    pub clock_rate: u32,
    /// 2 for Opus always (RFC 7587), 1 for other audio, 0 for video.
    pub channels: u8,
    /// Format parameters as in the answer; empty if none.
    pub fmtp: String,
    /// Payload type of its retransmissions (RFC 4588), if agreed.
    pub rtx_pt: Option<Pt>,
    /// Payload type of redundant packets of it (RFC 2198), if agreed.
    pub red_pt: Option<Pt>,
    /// Agreed feedback.
    pub feedback: Feedback,
    /// What distinguishes this variant from others of the codec.
    pub variant: Variant,
}

/// Variants of a codec that are not interchangeable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// There is only one.
    Plain,
    /// RFC 6184.
    H264 {
        /// profile_idc, constraint flags, level_idc.
        profile_level_id: [u8; 3],
        /// 0 single NAL unit, 1 non-interleaved.
        packetization_mode: u8,
    },
    /// RFC 9628: 0 is 8 bit 4:2:0, 2 is 10 or 12 bit.
    Vp9 {
        /// `profile-id`.
        profile: u8,
    },
    /// AV1 RTP: 0 main, 1 high, 2 professional.
    Av1 {
        /// `profile`.
        profile: u8,
    },
}

/// RTCP feedback of a payload format (RFC 4585, RFC 5104).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feedback {
    /// Generic NACK.
    pub nack: bool,
    /// Picture loss indication.
    pub pli: bool,
    /// Full intra request.
    pub fir: bool,
    /// Receiver-estimated maximum bitrate.
    pub remb: bool,
    /// Transport-wide congestion control.
    pub twcc: bool,
}

/// An SSRC that an offer declares for an inbound line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LineSource {
    /// Of the media.
    pub ssrc: Ssrc,
    /// Of its retransmissions (`a=ssrc-group:FID`).
    pub rtx: Option<Ssrc>,
}

/// With what we send on a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotSource {
    /// Of the media.
    pub ssrc: Ssrc,
    /// Of retransmissions; set if the line has RTX.
    pub rtx: Option<Ssrc>,
    /// Of repair packets; set if the line has FlexFEC.
    pub fec: Option<Ssrc>,
}

impl NegotiatedLine {
    /// True if its sender learns by REMB alone what the path takes, and says when its packets left.
    pub(crate) fn needs_remb(&self) -> bool {
        let is_told = |c: &LineCodec| c.feedback.remb && !c.feedback.twcc;
        self.usage == LineUse::Inbound
            && self.exts.id_of(ExtKind::AbsSendTime).is_some()
            && self.codecs.iter().any(is_told)
    }
}

impl Negotiated {
    /// The line of data channels, if there is one.
    pub fn data_line(&self) -> Option<&NegotiatedLine> {
        self.lines.iter().find(|l| l.usage == LineUse::Data)
    }

    /// The line of a mid.
    pub fn line(&self, mid: &str) -> Option<&NegotiatedLine> {
        self.lines.iter().find(|l| l.mid.as_str() == mid)
    }
}

#[cfg(test)]
mod tests;
