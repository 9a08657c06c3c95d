//! VP8 (RFC 7741) with 15-bit picture ids.

use super::equal_pieces;
use crate::codec::vp8::{Descriptor, is_keyframe};
use crate::error::ParseError;

const DESCRIPTOR_LEN: usize = 4;

pub(super) fn packetize(frame: &[u8], max: usize, picture_id: u16) -> Vec<Vec<u8>> {
    let [id_high, id_low] = (picture_id | 0x8000).to_be_bytes();
    equal_pieces(frame, max - DESCRIPTOR_LEN)
        .enumerate()
        .map(|(i, piece)| {
            let start = if i == 0 { 0x10 } else { 0 };
            let mut payload = Vec::with_capacity(DESCRIPTOR_LEN + piece.len());
            payload.extend([0x80 | start, 0x80, id_high, id_low]);
            payload.extend(piece);
            payload
        })
        .collect()
}

pub(super) fn depacketize<'a>(payloads: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Result<bool, ParseError> {
    let start = out.len();
    for (i, payload) in payloads.enumerate() {
        let descriptor = Descriptor::parse(payload)?;
        if descriptor.is_frame_start() != (i == 0) {
            return Err(ParseError::Malformed("VP8 packet order"));
        }
        out.extend(&payload[descriptor.len..]);
    }
    Ok(is_keyframe(&out[start..]))
}
