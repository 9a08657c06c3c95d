//! VP9 (RFC 9628), without layers on the way out; spatial layers of a picture become a superframe on the way in.

use super::equal_pieces;
use crate::codec::vp9::{Descriptor, is_keyframe, keyframe_size};
use crate::error::ParseError;

const DESCRIPTOR_LEN: usize = 3;
const SCALABILITY_LEN: usize = 5;
const LAYER_START: u8 = 0x08;
const LAYER_END: u8 = 0x04;
const SCALABILITY: u8 = 0x02;
/// Most frames in a superframe (VP9 bitstream annex B).
const MAX_LAYERS: usize = 8;

pub(super) fn packetize(frame: &[u8], max: usize, picture_id: u16) -> Vec<Vec<u8>> {
    let [id_high, id_low] = (picture_id | 0x8000).to_be_bytes();
    let inter_picture = if is_keyframe(frame) { 0 } else { 0x40 };
    let size = keyframe_size(frame);
    let mut payloads: Vec<Vec<u8>> = Vec::new();
    for (i, piece) in equal_pieces(frame, max - DESCRIPTOR_LEN - SCALABILITY_LEN).enumerate() {
        let mut payload = Vec::with_capacity(DESCRIPTOR_LEN + SCALABILITY_LEN + piece.len());
        payload.extend([0x80 | inter_picture, id_high, id_low]);
        if i == 0 {
            payload[0] |= LAYER_START;
            if let Some((width, height)) = size {
                // One spatial layer, with its size and without a picture group.
                payload[0] |= SCALABILITY;
                payload.push(0x10);
                payload.extend(width.to_be_bytes());
                payload.extend(height.to_be_bytes());
            }
        }
        payload.extend(piece);
        payloads.push(payload);
    }
    if let Some(last) = payloads.last_mut() {
        last[0] |= LAYER_END;
    }
    payloads
}

pub(super) fn depacketize<'a>(payloads: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Result<bool, ParseError> {
    let start = out.len();
    let mut layer_starts = Vec::new();
    let mut is_inside_layer = false;
    for payload in payloads {
        let descriptor = Descriptor::parse(payload)?;
        if descriptor.is_layer_start == is_inside_layer {
            return Err(ParseError::Malformed("VP9 packet order"));
        }
        if descriptor.is_layer_start {
            layer_starts.push(out.len());
        }
        is_inside_layer = !descriptor.is_layer_end;
        out.extend(&payload[descriptor.len..]);
    }
    if is_inside_layer || layer_starts.len() > MAX_LAYERS {
        return Err(ParseError::Malformed("VP9 layers"));
    }
    let is_keyframe = is_keyframe(&out[start..]);
    if layer_starts.len() > 1 {
        write_superframe_index(out, &layer_starts);
    }
    Ok(is_keyframe)
}

/// The index behind a superframe: marker, sizes of four bytes each, marker.
fn write_superframe_index(out: &mut Vec<u8>, starts: &[usize]) {
    let end = out.len();
    let marker = 0xc0 | 3 << 3 | (starts.len() - 1) as u8;
    out.push(marker);
    for (i, start) in starts.iter().enumerate() {
        let next = starts.get(i + 1).copied().unwrap_or(end);
        out.extend(((next - start) as u32).to_le_bytes());
    }
    out.push(marker);
}
