//! AV1 (AV1 RTP specification section 4): OBU elements with lengths, fragmented where they do not fit.

use crate::codec::av1::{AggregationHeader, Elements, ObuHeader, obu, obu_body, read_leb128, write_leb128};
use crate::error::ParseError;

const TEMPORAL_DELIMITER: [u8; 2] = [obu::TEMPORAL_DELIMITER << 3 | 2, 0];
/// A packet with less room than this left is closed: a fragment would be mostly header.
const MIN_ROOM: usize = 16;
const HAS_SIZE: u8 = 2;

pub(super) fn packetize(unit: &[u8], max: usize) -> Result<Vec<Vec<u8>>, ParseError> {
    let mut writer = PacketWriter { max, payloads: Vec::new(), current: vec![0] };
    let mut is_sequence_start = false;
    let mut rest = unit;
    while !rest.is_empty() {
        let header = ObuHeader::parse(rest)?;
        let body = obu_body(rest, header).ok_or(ParseError::Truncated("OBU"))?;
        let size_len = if header.has_size { read_leb128(&rest[header.len..]).map_or(0, |(_, used)| used) } else { 0 };
        let (head, behind) = (&rest[..header.len], &rest[header.len + size_len + body.len()..]);
        is_sequence_start |= header.kind == obu::SEQUENCE_HEADER;
        if !matches!(header.kind, obu::TEMPORAL_DELIMITER | obu::TILE_LIST | obu::PADDING) {
            let mut element = Vec::with_capacity(head.len() + body.len());
            element.extend(head);
            element[0] &= !HAS_SIZE;
            element.extend(body);
            writer.add(&element);
        }
        rest = behind;
    }
    Ok(writer.finish(is_sequence_start))
}

/// Fills packets with elements; the first byte of each is its aggregation header with W = 0.
struct PacketWriter {
    max: usize,
    payloads: Vec<Vec<u8>>,
    current: Vec<u8>,
}

impl PacketWriter {
    fn add(&mut self, mut element: &[u8]) {
        let mut continues = false;
        loop {
            if self.max - self.current.len() < MIN_ROOM {
                self.close(continues);
            }
            // Three bytes hold a length of up to 2 MiB, more than any packet.
            let room = self.max - self.current.len() - 3;
            let (piece, rest) = element.split_at(element.len().min(room));
            write_leb128(piece.len() as u64, &mut self.current);
            self.current.extend(piece);
            element = rest;
            if element.is_empty() {
                return;
            }
            continues = true;
            self.close(continues);
        }
    }

    /// Ends the packet; `is_continued` tells whether its last element goes on in the next one.
    fn close(&mut self, is_continued: bool) {
        if self.current.len() == 1 {
            return;
        }
        let continues = if is_continued { 0x80 } else { 0 };
        let mut payload = std::mem::replace(&mut self.current, vec![continues]);
        payload[0] |= if is_continued { 0x40 } else { 0 };
        self.payloads.push(payload);
    }

    fn finish(mut self, is_sequence_start: bool) -> Vec<Vec<u8>> {
        self.close(false);
        if let Some(first) = self.payloads.first_mut()
            && is_sequence_start
        {
            first[0] |= 0x08;
        }
        self.payloads
    }
}

pub(super) fn depacketize<'a>(payloads: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Result<bool, ParseError> {
    let mut is_keyframe = false;
    let mut unfinished: Option<Vec<u8>> = None;
    out.extend(TEMPORAL_DELIMITER);
    let start = out.len();
    for payload in payloads {
        let header = AggregationHeader::from_byte(payload[0]);
        if header.continues != unfinished.is_some() {
            return Err(ParseError::Malformed("AV1 packet order"));
        }
        let mut elements = Elements::new(header, &payload[1..]).peekable();
        while let Some(element) = elements.next() {
            let mut whole = unfinished.take().unwrap_or_default();
            whole.extend(element);
            if header.is_continued && elements.peek().is_none() {
                unfinished = Some(whole);
            } else {
                is_keyframe |= put_obu(&whole, out)?;
            }
        }
    }
    if unfinished.is_some() || out.len() == start {
        return Err(ParseError::Malformed("AV1 fragment without end"));
    }
    Ok(is_keyframe)
}

/// Appends an OBU with a size field. True if it is a sequence header.
fn put_obu(element: &[u8], out: &mut Vec<u8>) -> Result<bool, ParseError> {
    if element.is_empty() {
        return Ok(false);
    }
    let header = ObuHeader::parse(element)?;
    let body = obu_body(element, header).ok_or(ParseError::Truncated("OBU"))?;
    if header.kind != obu::TEMPORAL_DELIMITER {
        let at = out.len();
        out.extend(&element[..header.len]);
        out[at] |= HAS_SIZE;
        write_leb128(body.len() as u64, out);
        out.extend(body);
    }
    Ok(header.kind == obu::SEQUENCE_HEADER)
}
