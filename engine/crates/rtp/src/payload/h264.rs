//! H.264 (RFC 6184), packetization mode 1: single NAL units, STAP-A, FU-A.

use super::equal_pieces;
use crate::codec::h264::{StapA, annex_b_units, nal, nal_type};
use crate::error::ParseError;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
const NRI_MASK: u8 = 0x60;

/// Small units that wait to share a packet.
#[derive(Default)]
struct Pending<'a> {
    units: Vec<&'a [u8]>,
    /// Length of the STAP-A that they make.
    len: usize,
}

impl<'a> Pending<'a> {
    fn add(&mut self, unit: &'a [u8], max: usize, payloads: &mut Vec<Vec<u8>>) {
        if self.len + 2 + unit.len() > max {
            self.flush(payloads);
        }
        self.len = self.len.max(1) + 2 + unit.len();
        self.units.push(unit);
    }

    fn flush(&mut self, payloads: &mut Vec<Vec<u8>>) {
        match self.units[..] {
            [] => {}
            [unit] => payloads.push(unit.to_vec()),
            _ => {
                let nri = self.units.iter().map(|u| u[0] & NRI_MASK).max().unwrap_or_default();
                let mut payload = vec![nri | nal::STAP_A];
                for unit in &self.units {
                    payload.extend((unit.len() as u16).to_be_bytes());
                    payload.extend(*unit);
                }
                payloads.push(payload);
            }
        }
        *self = Self::default();
    }
}

pub(super) fn packetize(unit: &[u8], max: usize) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut pending = Pending::default();
    // A STAP-A's lengths have 16 bits.
    let max = max.min(usize::from(u16::MAX));
    for unit in annex_b_units(unit) {
        match nal_type(unit[0]) {
            // They say nothing that RTP does not.
            nal::AUD | nal::FILLER => {}
            _ if unit.len() > max => {
                pending.flush(&mut payloads);
                fragment(unit, max, &mut payloads);
            }
            _ => pending.add(unit, max, &mut payloads),
        }
    }
    pending.flush(&mut payloads);
    payloads
}

fn fragment(unit: &[u8], max: usize, payloads: &mut Vec<Vec<u8>>) {
    let (header, body) = (unit[0], &unit[1..]);
    let first = payloads.len();
    for piece in equal_pieces(body, max - 2) {
        let mut payload = Vec::with_capacity(piece.len() + 2);
        payload.extend([header & NRI_MASK | nal::FU_A, nal_type(header)]);
        payload.extend(piece);
        payloads.push(payload);
    }
    payloads[first][1] |= 0x80;
    if let Some(last) = payloads.last_mut() {
        last[1] |= 0x40;
    }
}

pub(super) fn depacketize<'a>(payloads: impl Iterator<Item = &'a [u8]>, out: &mut Vec<u8>) -> Result<bool, ParseError> {
    let mut is_keyframe = false;
    let mut is_inside_fragments = false;
    let mut put = |unit: &[u8], out: &mut Vec<u8>| {
        is_keyframe |= matches!(nal_type(unit[0]), nal::IDR | nal::SPS);
        out.extend(START_CODE);
        out.extend(unit);
    };
    for payload in payloads {
        let kind = nal_type(payload[0]);
        if is_inside_fragments && kind != nal::FU_A {
            return Err(ParseError::Malformed("H.264 fragment without end"));
        }
        match kind {
            1..=23 => put(payload, out),
            nal::STAP_A => StapA::new(&payload[1..]).for_each(|unit| put(unit, out)),
            nal::FU_A => {
                let [indicator, fu, body @ ..] = payload else { return Err(ParseError::Truncated("H.264 FU-A")) };
                let (is_start, is_end) = (fu & 0x80 != 0, fu & 0x40 != 0);
                if is_start == is_inside_fragments {
                    return Err(ParseError::Malformed("H.264 fragment order"));
                }
                if is_start {
                    put(&[indicator & 0xe0 | nal_type(*fu)], out);
                }
                out.extend(body);
                is_inside_fragments = !is_end;
            }
            _ => return Err(ParseError::Malformed("H.264 packet type")),
        }
    }
    if is_inside_fragments { Err(ParseError::Malformed("H.264 fragment without end")) } else { Ok(is_keyframe) }
}
