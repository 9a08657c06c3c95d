//! One RTP packet of a track, decrypted, parsed once and shared by reference.

use std::time::Instant;

use mrtc_rtp::codec::PayloadInfo;
use mrtc_rtp::ext::AudioLevel;
use mrtc_rtp::id::ExtSeq;

use crate::track::Arriving;

/// A packet as it lies in a layer's ring. Its bytes never change while it is shared.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Simulcast layer, 0 is the lowest.
    pub layer: u8,
    /// First packet after a pause of the track: what came before has no relation to it in sequence.
    pub is_restart: bool,
    /// The payload begins with a VP8 payload descriptor (RFC 7741 4.2), whose picture id may be rewritten.
    pub has_vp8_descriptor: bool,
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
    /// A buffer to be filled.
    pub(crate) fn empty(now: Instant) -> Self {
        Self {
            layer: 0,
            is_restart: false,
            has_vp8_descriptor: false,
            marker: false,
            seq: ExtSeq(0),
            timestamp: 0,
            arrived_at: now,
            info: PayloadInfo::default(),
            audio_level: None,
            orientation: None,
            data: Vec::new(),
            dd_len: 0,
        }
    }

    pub(crate) fn fill(&mut self, now: Instant, from: &Arriving<'_>, is_restart: bool, has_vp8_descriptor: bool) {
        self.data.clear();
        self.data.extend_from_slice(from.dd);
        self.data.extend_from_slice(from.payload);
        self.dd_len = from.dd.len();
        self.layer = from.layer;
        self.is_restart = is_restart;
        self.has_vp8_descriptor = has_vp8_descriptor;
        self.marker = from.marker;
        self.seq = from.seq;
        self.timestamp = from.timestamp;
        self.arrived_at = now;
        self.info = from.info;
        self.audio_level = from.audio_level;
        self.orientation = from.orientation;
    }

    /// RTP payload without padding.
    pub fn payload(&self) -> &[u8] {
        &self.data[self.dd_len..]
    }

    /// The dependency descriptor extension as it was sent; empty if none.
    pub fn dependency_descriptor(&self) -> &[u8] {
        &self.data[..self.dd_len]
    }
}

/// Where an RTP timestamp lies on this node's wall clock; from a sender report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReportMap {
    /// RTP timestamp of the layer.
    pub rtp_timestamp: u32,
    /// When it was captured: the sender's clock, shifted to this node's, Unix microseconds.
    pub unix_us: i64,
}

impl SenderReportMap {
    /// When `timestamp` was captured.
    pub fn unix_us_of(&self, timestamp: u32, clock_rate: u32) -> i64 {
        let ticks = i64::from(timestamp.wrapping_sub(self.rtp_timestamp) as i32);
        self.unix_us + ticks * 1_000_000 / i64::from(clock_rate)
    }

    /// The timestamp of what is captured at `unix_us`.
    pub fn timestamp_at(&self, unix_us: i64, clock_rate: u32) -> u32 {
        let elapsed_us = i128::from(unix_us - self.unix_us);
        let ticks = elapsed_us * i128::from(clock_rate) / 1_000_000;
        self.rtp_timestamp.wrapping_add(ticks as u32)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A packet that says nothing but its number.
    pub(crate) fn packet(seq: u64, now: Instant) -> Packet {
        Packet { seq: ExtSeq(seq), data: vec![0; 10], ..Packet::empty(now) }
    }

    #[test]
    fn timestamps_map_to_the_wall_clock_and_back() {
        let map = SenderReportMap { rtp_timestamp: u32::MAX - 899, unix_us: 5_000_000 };
        assert_eq!(map.unix_us_of(900, 90_000), 5_020_000);
        assert_eq!(map.timestamp_at(5_020_000, 90_000), 900);
        assert_eq!(map.timestamp_at(4_990_000, 90_000), u32::MAX - 1_799);
    }
}
