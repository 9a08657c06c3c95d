//! The RTP header (RFC 3550 section 5.1).

use std::ops::Range;

use crate::error::ParseError;
use crate::id::{Pt, SeqNo, Ssrc};

/// Length of the fixed part.
pub const FIXED_HEADER_LEN: usize = 12;

/// A parsed RTP header. Holds offsets, not slices, so it can travel with the packet that it was read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RtpHeader {
    /// Meaning depends on the codec; for video the last packet of a frame.
    pub marker: bool,
    /// The last payload byte tells how many bytes of padding there are. Encrypted until the packet is opened.
    pub has_padding: bool,
    /// Payload type.
    pub pt: Pt,
    /// Sequence number.
    pub seq: SeqNo,
    /// Media time in units of the codec's clock.
    pub timestamp: u32,
    /// Sender.
    pub ssrc: Ssrc,
    /// Number of contributing sources, 0 to 15.
    pub csrc_count: u8,
    /// "Defined by profile" of the extension block: 0xBEDE one-byte, 0x100x two-byte; `None` without a block.
    pub ext_profile: Option<u16>,
    /// Where the extension block's content begins.
    pub ext_start: u16,
    /// Its length in bytes, a multiple of 4.
    pub ext_len: u16,
    /// Where the payload begins.
    pub header_len: u16,
}

impl RtpHeader {
    /// Reads the header of a packet, encrypted or plain.
    pub fn parse(packet: &[u8]) -> Result<Self, ParseError> {
        let Some(fixed) = packet.first_chunk::<FIXED_HEADER_LEN>() else {
            return Err(ParseError::Truncated("RTP header"));
        };
        if fixed[0] >> 6 != 2 {
            return Err(ParseError::Malformed("RTP version"));
        }
        let csrc_count = fixed[0] & 0x0f;
        let mut header_len = FIXED_HEADER_LEN + 4 * usize::from(csrc_count);
        let mut ext_profile = None;
        let mut ext_start = header_len;
        if fixed[0] & 0x10 != 0 {
            let Some(&[p0, p1, l0, l1]) = packet.get(header_len..header_len + 4) else {
                return Err(ParseError::Truncated("RTP header extension"));
            };
            ext_profile = Some(u16::from_be_bytes([p0, p1]));
            ext_start = header_len + 4;
            header_len = ext_start + 4 * usize::from(u16::from_be_bytes([l0, l1]));
        }
        if header_len > packet.len() {
            return Err(ParseError::Truncated("RTP header"));
        }
        let narrow = |n: usize| u16::try_from(n).map_err(|_| ParseError::Malformed("RTP header length"));
        Ok(Self {
            marker: fixed[1] & 0x80 != 0,
            has_padding: fixed[0] & 0x20 != 0,
            pt: Pt(fixed[1] & 0x7f),
            seq: SeqNo(u16::from_be_bytes([fixed[2], fixed[3]])),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: Ssrc(u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]])),
            csrc_count,
            ext_profile,
            ext_start: narrow(ext_start)?,
            ext_len: if ext_profile.is_some() { narrow(header_len - ext_start)? } else { 0 },
            header_len: narrow(header_len)?,
        })
    }

    /// Where the payload begins.
    pub fn header_len(&self) -> usize {
        usize::from(self.header_len)
    }

    /// The content of the extension block of the packet that this header was read from; empty if there is none.
    pub fn ext_block<'a>(&self, packet: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.ext_start);
        packet.get(start..start + usize::from(self.ext_len)).unwrap_or_default()
    }

    /// Where the payload of the opened packet is, without padding. Empty for a packet of padding only.
    ///
    /// `plain` ends where the packet ends (without authentication tag).
    pub fn payload_range(&self, plain: &[u8]) -> Result<Range<usize>, ParseError> {
        let start = self.header_len();
        if start > plain.len() {
            return Err(ParseError::Truncated("RTP payload"));
        }
        if !self.has_padding {
            return Ok(start..plain.len());
        }
        match plain[start..].last() {
            Some(&n) if n != 0 && usize::from(n) <= plain.len() - start => Ok(start..plain.len() - usize::from(n)),
            _ => Err(ParseError::Malformed("RTP padding")),
        }
    }
}

/// The fields of an outgoing header; no contributing sources are ever sent.
#[derive(Clone, Copy, Debug)]
pub struct HeaderFields {
    /// See [`RtpHeader::marker`].
    pub marker: bool,
    /// See [`RtpHeader::has_padding`].
    pub has_padding: bool,
    /// An extension block follows.
    pub has_ext: bool,
    /// Payload type.
    pub pt: Pt,
    /// Sequence number.
    pub seq: SeqNo,
    /// Media time.
    pub timestamp: u32,
    /// Sender.
    pub ssrc: Ssrc,
}

/// Writes the fixed header. An extension block, if any, is written behind it by [`crate::ext::ExtMap::write`].
pub fn write_header(out: &mut [u8; FIXED_HEADER_LEN], fields: &HeaderFields) {
    out[0] = 0x80 | u8::from(fields.has_padding) << 5 | u8::from(fields.has_ext) << 4;
    out[1] = u8::from(fields.marker) << 7 | fields.pt.0 & 0x7f;
    out[2..4].copy_from_slice(&fields.seq.0.to_be_bytes());
    out[4..8].copy_from_slice(&fields.timestamp.to_be_bytes());
    out[8..12].copy_from_slice(&fields.ssrc.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_extension_and_csrc() {
        let mut p = vec![0x91, 0x80 | 96, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5];
        p.extend([1, 1, 1, 1]);
        p.extend([0xbe, 0xde, 0, 1, 0x10, 0xaa, 0, 0]);
        p.extend([1, 2, 3]);
        let h = RtpHeader::parse(&p).unwrap();
        assert!(h.marker && !h.has_padding);
        assert_eq!((h.pt, h.seq, h.timestamp, h.ssrc), (Pt(96), SeqNo(7), 9, Ssrc(5)));
        assert_eq!((h.csrc_count, h.ext_profile, h.header_len()), (1, Some(0xbede), 24));
        assert_eq!(h.ext_block(&p), [0x10, 0xaa, 0, 0]);
        assert_eq!(h.payload_range(&p).unwrap(), 24..27);
    }

    #[test]
    fn padding_is_checked() {
        let mut p = vec![0xa0, 96, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, 1, 2, 0, 2];
        let h = RtpHeader::parse(&p).unwrap();
        assert_eq!(h.payload_range(&p).unwrap(), 12..14);
        *p.last_mut().unwrap() = 4;
        assert_eq!(h.payload_range(&p).unwrap(), 12..12);
        for bad in [0, 5, 255] {
            *p.last_mut().unwrap() = bad;
            assert!(h.payload_range(&p).is_err());
        }
        assert!(h.payload_range(&p[..12]).is_err());
    }

    #[test]
    fn refuses_what_is_not_whole() {
        assert!(RtpHeader::parse(&[0x80; 11]).is_err());
        assert!(RtpHeader::parse(&[0x40; 20]).is_err());
        assert!(RtpHeader::parse(&[0x8f; 20]).is_err());
        let mut p = [0u8; 16];
        p[0] = 0x90;
        p[15] = 1;
        assert!(RtpHeader::parse(&p).is_err());
    }

    proptest! {
        #[test]
        fn writes_what_it_reads(marker: bool, has_padding: bool, pt in 0u8..128, seq: u16, timestamp: u32, ssrc: u32) {
            let fields = HeaderFields {
                marker, has_padding, has_ext: false, pt: Pt(pt), seq: SeqNo(seq), timestamp, ssrc: Ssrc(ssrc),
            };
            let mut out = [0; FIXED_HEADER_LEN];
            write_header(&mut out, &fields);
            let h = RtpHeader::parse(&out).unwrap();
            prop_assert_eq!((h.marker, h.has_padding, h.pt.0, h.seq.0), (marker, has_padding, pt, seq));
            prop_assert_eq!((h.timestamp, h.ssrc.0, h.header_len()), (timestamp, ssrc, 12));
        }

        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(h) = RtpHeader::parse(&bytes) {
                let _ = (h.ext_block(&bytes), h.payload_range(&bytes));
            }
        }
    }
}
