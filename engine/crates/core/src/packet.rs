//! One RTP packet of a track, decrypted, parsed once and shared by reference.

use std::ops::Range;
use std::time::Instant;

use mrtc_rtp::codec::PayloadInfo;
use mrtc_rtp::id::ExtSeq;

/// RFC 6464: how loud a packet's sound is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// In -dBov: 0 is the loudest, 127 is silence.
    pub level: u8,
    /// The sender's voice detection, if it has one.
    pub is_voice: bool,
}

/// A packet as it lies in a layer's ring. Its bytes never change while it is shared.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Simulcast layer, 0 is the lowest.
    pub layer: u8,
    /// First packet after a pause of the track: what came before has no relation to it in sequence.
    pub is_restart: bool,
    /// RTP marker.
    pub marker: bool,
    /// Sequence number of the layer, extended.
    pub seq: ExtSeq,
    /// RTP timestamp of the layer.
    pub timestamp: u32,
    /// When it came.
    pub arrived_at: Instant,
    /// What the payload's headers say.
    pub info: PayloadInfo,
    /// From the header extension.
    pub audio_level: Option<AudioLevel>,
    /// Rotation byte of the header extension (3GPP TS 26.114), if sent.
    pub orientation: Option<u8>,
    /// Dependency descriptor, then payload.
    pub(crate) data: Vec<u8>,
    pub(crate) dd_len: usize,
}

impl Packet {
    /// RTP payload without padding.
    pub fn payload(&self) -> &[u8] {
        &self.data[self.dd_len..]
    }

    /// The dependency descriptor extension as it was sent; empty if none.
    pub fn dependency_descriptor(&self) -> &[u8] {
        &self.data[..self.dd_len]
    }

    /// Where in `data` the payload lies.
    pub fn payload_range(&self) -> Range<usize> {
        self.dd_len..self.data.len()
    }
}

/// Where an RTP timestamp lies on this node's wall clock; from a sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReportMap {
    /// RTP timestamp of the layer.
    pub rtp_timestamp: u32,
    /// The sender's clock at that moment, Unix microseconds.
    pub sender_unix_us: i64,
    /// When the report came here, Unix microseconds of this node.
    pub received_unix_us: i64,
}
