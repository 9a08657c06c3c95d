//! AV1 payloads: the aggregation header (AV1 RTP specification section 4.4) and OBU headers (AV1 section 5.3).

use super::PayloadInfo;
use crate::bits::BitReader;
use crate::error::ParseError;

/// OBU types.
pub mod obu {
    /// Starts a coded video sequence.
    pub const SEQUENCE_HEADER: u8 = 1;
    /// Delimits temporal units; never sent over RTP.
    pub const TEMPORAL_DELIMITER: u8 = 2;
    /// Header and tiles of a frame.
    pub const FRAME_HEADER: u8 = 3;
    /// Tiles.
    pub const TILE_GROUP: u8 = 4;
    /// HDR and the like.
    pub const METADATA: u8 = 5;
    /// Header and tiles in one.
    pub const FRAME: u8 = 6;
    /// Never sent over RTP.
    pub const TILE_LIST: u8 = 8;
    /// Padding.
    pub const PADDING: u8 = 15;
}

/// The aggregation header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregationHeader {
    /// Z: the first element continues one of the packet before.
    pub continues: bool,
    /// Y: the last element goes on in the next packet.
    pub is_continued: bool,
    /// W: number of elements, 0 if each has a length.
    pub count: u8,
    /// N: first packet of a coded video sequence.
    pub is_sequence_start: bool,
}

impl AggregationHeader {
    /// Of the payload's first byte.
    pub fn from_byte(b: u8) -> Self {
        Self {
            continues: b & 0x80 != 0,
            is_continued: b & 0x40 != 0,
            count: b >> 4 & 3,
            is_sequence_start: b & 0x08 != 0,
        }
    }

    /// The byte.
    pub fn to_byte(self) -> u8 {
        u8::from(self.continues) << 7
            | u8::from(self.is_continued) << 6
            | (self.count & 3) << 4
            | u8::from(self.is_sequence_start) << 3
    }
}

/// The elements of a payload behind its aggregation header; ends at the first one that is not whole.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    count: u8,
    seen: u8,
}

impl<'a> Elements<'a> {
    /// Of the payload behind the aggregation header.
    pub fn new(header: AggregationHeader, rest: &'a [u8]) -> Self {
        Self { rest, count: header.count, seen: 0 }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() || (self.count != 0 && self.seen == self.count) {
            return None;
        }
        self.seen = self.seen.saturating_add(1);
        if self.count != 0 && self.seen == self.count {
            return Some(std::mem::take(&mut self.rest));
        }
        let (len, used) = read_leb128(self.rest)?;
        let (element, rest) = self.rest[used..].split_at_checked(usize::try_from(len).ok()?)?;
        self.rest = rest;
        Some(element)
    }
}

/// Reads a LEB128 number of at most eight bytes (AV1 section 4.10.5): (value, bytes used).
pub fn read_leb128(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0;
    for (i, &b) in bytes.iter().take(8).enumerate() {
        value |= u64::from(b & 0x7f) << (7 * i);
        if b & 0x80 == 0 {
            return Some((value, i + 1));
        }
    }
    None
}

/// Appends a LEB128 number.
pub fn write_leb128(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// An OBU header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObuHeader {
    /// See [`obu`].
    pub kind: u8,
    /// A size field follows.
    pub has_size: bool,
    /// (temporal, spatial) of the extension byte.
    pub layer: Option<(u8, u8)>,
    /// Bytes of header, without the size field.
    pub len: usize,
}

impl ObuHeader {
    /// Reads the header at the start of an OBU.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let first = *bytes.first().ok_or(ParseError::Truncated("OBU header"))?;
        if first & 0x80 != 0 {
            return Err(ParseError::Malformed("OBU header"));
        }
        let mut header = Self { kind: first >> 3 & 15, has_size: first & 2 != 0, layer: None, len: 1 };
        if first & 4 != 0 {
            let ext = *bytes.get(1).ok_or(ParseError::Truncated("OBU header"))?;
            header.layer = Some((ext >> 5, ext >> 3 & 3));
            header.len = 2;
        }
        Ok(header)
    }
}

pub(super) fn inspect(payload: &[u8]) -> PayloadInfo {
    let mut info = PayloadInfo::default();
    let Some((&first, rest)) = payload.split_first() else { return info };
    let header = AggregationHeader::from_byte(first);
    info.is_frame_start = !header.continues;
    info.is_keyframe = header.is_sequence_start;
    for (i, element) in Elements::new(header, rest).enumerate() {
        if i == 0 && header.continues {
            continue;
        }
        let Ok(obu) = ObuHeader::parse(element) else { break };
        if obu.kind == obu::SEQUENCE_HEADER {
            info.is_keyframe = true;
            info.size = obu_body(element, obu).and_then(|body| sequence_size(body).ok());
        }
        if let Some((temporal, spatial)) = obu.layer {
            (info.temporal, info.spatial) = (temporal, spatial);
        }
    }
    info.is_intra = info.is_keyframe;
    info.is_inter_layer = info.spatial > 0;
    info
}

/// What is behind an OBU's header and size field.
pub fn obu_body(bytes: &[u8], header: ObuHeader) -> Option<&[u8]> {
    let body = bytes.get(header.len..)?;
    if !header.has_size {
        return Some(body);
    }
    let (size, used) = read_leb128(body)?;
    body.get(used..used.checked_add(usize::try_from(size).ok()?)?)
}

/// Largest frame size of a sequence header OBU's body (AV1 section 5.5.1).
pub fn sequence_size(body: &[u8]) -> Result<(u16, u16), ParseError> {
    let mut r = BitReader::new(body, "AV1 sequence header");
    r.skip(4)?; // seq_profile, still_picture
    if r.bit()? {
        r.skip(5)?; // reduced still picture header: seq_level_idx only
    } else {
        skip_operating_points(&mut r)?;
    }
    let (width_bits, height_bits) = (r.bits(4)? + 1, r.bits(4)? + 1);
    // 16 bits at most each; a size of 65,536 does not fit and is said as 65,535.
    let (width, height) = (r.bits(width_bits)?, r.bits(height_bits)?);
    Ok((width.saturating_add(1).min(65_535) as u16, height.saturating_add(1).min(65_535) as u16))
}

fn skip_operating_points(r: &mut BitReader<'_>) -> Result<(), ParseError> {
    let mut delay_bits = None;
    if r.bit()? {
        r.skip(64)?; // num_units_in_display_tick, time_scale
        if r.bit()? {
            r.ue()?; // num_ticks_per_picture_minus_1
        }
        if r.bit()? {
            delay_bits = Some(r.bits(5)? + 1);
            r.skip(32 + 5 + 5)?;
        }
    }
    let has_display_delay = r.bit()?;
    for _ in 0..=r.bits(5)? {
        r.skip(12)?; // operating_point_idc
        if r.bits(5)? > 7 {
            r.bit()?; // seq_tier
        }
        if let Some(n) = delay_bits
            && r.bit()?
        {
            r.skip(2 * n + 1)?;
        }
        if has_display_delay && r.bit()? {
            r.skip(4)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::hex;
    use proptest::prelude::*;

    /// Made with SVT-AV1: a sequence header OBU with its size field.
    const SEQUENCE: &str = "0a0b 0000000cc4ff6712be4010";

    #[test]
    fn sequence_header_tells_size() {
        let sequence = hex(SEQUENCE);
        let h = ObuHeader::parse(&sequence).unwrap();
        assert_eq!((h.kind, h.has_size, h.len), (obu::SEQUENCE_HEADER, true, 1));
        let body = obu_body(&sequence, h).unwrap();
        assert_eq!(sequence_size(body), Ok((640, 360)));
        assert!(sequence_size(&body[..4]).is_err());
    }

    #[test]
    fn elements_with_and_without_count() {
        let two = AggregationHeader::from_byte(0x20);
        assert_eq!(Elements::new(two, &[1, 7, 8, 9]).collect::<Vec<_>>(), [&[7][..], &[8, 9]]);
        let all = AggregationHeader::from_byte(0);
        assert_eq!(Elements::new(all, &[1, 7, 2, 8, 9]).collect::<Vec<_>>(), [&[7][..], &[8, 9]]);
        assert_eq!(Elements::new(all, &[5, 7]).count(), 0);
    }

    #[test]
    fn keyframe_by_n_bit_or_sequence_header() {
        assert!(inspect(&[0x18, 0x30]).is_keyframe);
        let mut p = vec![0x10];
        p.extend(hex(SEQUENCE));
        assert!(inspect(&p).is_keyframe);
        let delta = inspect(&[0x90, 0x30]);
        assert!(!delta.is_keyframe && !delta.is_frame_start);
        let layered = inspect(&[0x10, 0x34, 0x48, 0]);
        assert_eq!((layered.temporal, layered.spatial, layered.is_inter_layer), (2, 1, true));
    }

    proptest! {
        #[test]
        fn leb128_round_trip(value in 0u64..1 << 56) {
            let mut out = Vec::new();
            write_leb128(value, &mut out);
            prop_assert_eq!(read_leb128(&out), Some((value, out.len())));
        }

        #[test]
        fn never_panics(p in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = inspect(&p);
            let _ = sequence_size(&p);
        }
    }
}
