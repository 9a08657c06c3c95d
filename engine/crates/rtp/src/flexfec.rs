//! FlexFEC as libwebrtc speaks it: draft-ietf-payload-flexible-fec-scheme-03, flexible masks, one protected stream.
//!
//! A repair packet is the exclusive or of some media packets, headers included. It travels on an SSRC of its own, so
//! that the numbers of the media stay as they are. Header extensions that a sender fills in at the last moment
//! (transport-wide number, absolute send time) count as zeros on both sides.

use crate::error::ParseError;
use crate::header::FIXED_HEADER_LEN;
use crate::id::{SeqNo, Ssrc};

/// Packets that one repair packet can cover: the mask of six bytes has 46 bits. libwebrtc's limit is 48.
pub const MAX_SPAN: usize = 46;
/// Fields before the mask.
const MASK_AT: usize = 18;
/// Longest header that is written: a mask of six bytes.
pub const MAX_HEADER_LEN: usize = MASK_AT + 6;
/// Bits of the first and second part of the mask, without their K bits.
const FIRST_BITS: usize = 15;

/// Sums up media packets to one repair packet.
#[derive(Clone, Debug, Default)]
pub struct RepairSum {
    head: [u8; 2],
    length: u16,
    timestamp: [u8; 4],
    mask: u64,
    /// What is behind the fixed header, padded with zeros to the longest.
    body: Vec<u8>,
}

impl RepairSum {
    /// Covers nothing; keeps its memory.
    pub fn clear(&mut self) {
        (self.head, self.length, self.timestamp, self.mask) = ([0; 2], 0, [0; 4], 0);
        self.body.clear();
    }

    /// Adds a plain RTP packet that is `place` numbers after the first; `place` is below [`MAX_SPAN`], and the packet has
    /// a whole header, else nothing happens.
    pub fn add(&mut self, place: usize, packet: &[u8]) {
        let Some((header, body)) = packet.split_first_chunk::<FIXED_HEADER_LEN>() else { return };
        if place >= MAX_SPAN {
            return;
        }
        self.mask |= 1 << place;
        xor(&mut self.head, &header[..2]);
        xor(&mut self.timestamp, &header[4..8]);
        self.length ^= body.len() as u16;
        if self.body.len() < body.len() {
            self.body.resize(body.len(), 0);
        }
        xor(&mut self.body, body);
    }

    /// True if no packet was added.
    pub fn is_empty(&self) -> bool {
        self.mask == 0
    }

    /// Bytes of the payload that [`RepairSum::write`] makes.
    pub fn len(&self) -> usize {
        self.header_len() + self.body.len()
    }

    fn header_len(&self) -> usize {
        if self.mask >> FIRST_BITS == 0 { MASK_AT + 2 } else { MAX_HEADER_LEN }
    }

    /// Appends the payload of a repair packet for `ssrc`, whose mask begins at `base`.
    pub fn write(&self, ssrc: Ssrc, base: SeqNo, out: &mut Vec<u8>) {
        // R and F stay zero: no retransmission, a mask of any shape.
        out.extend([self.head[0] & 0x3f, self.head[1]]);
        out.extend(self.length.to_be_bytes());
        out.extend(self.timestamp);
        // One protected SSRC, three reserved bytes.
        out.extend([1, 0, 0, 0]);
        out.extend(ssrc.0.to_be_bytes());
        out.extend(base.0.to_be_bytes());
        // Bit i of our mask is the i-th from the left on the wire. The K bit of a part says that it is the last one.
        let first = ((self.mask as u16) << 1).reverse_bits() & 0x7fff;
        let second = ((self.mask >> FIRST_BITS) as u32) << 1;
        if second == 0 {
            out.extend((first | 0x8000).to_be_bytes());
        } else {
            out.extend(first.to_be_bytes());
            out.extend((second.reverse_bits() | 0x8000_0000).to_be_bytes());
        }
        out.extend(&self.body);
    }
}

/// A repair packet's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repair<'a> {
    /// The protected stream.
    pub ssrc: Ssrc,
    /// The first number of the mask.
    pub base: SeqNo,
    /// Bit `i`: the packet `base + i` is covered.
    pub mask: u128,
    head: [u8; 2],
    length: u16,
    timestamp: [u8; 4],
    body: &'a [u8],
}

impl<'a> Repair<'a> {
    /// Reads a payload. Retransmissions, fixed masks and several protected streams are refused, as libwebrtc does.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ParseError> {
        let (fields, rest) = payload.split_first_chunk::<MASK_AT>().ok_or(ParseError::Truncated("FlexFEC header"))?;
        if fields[0] & 0xc0 != 0 {
            return Err(ParseError::Malformed("FlexFEC mode"));
        }
        if fields[8] != 1 {
            return Err(ParseError::Malformed("FlexFEC stream count"));
        }
        let (mask, body) = read_mask(rest)?;
        Ok(Self {
            ssrc: Ssrc(u32::from_be_bytes([fields[12], fields[13], fields[14], fields[15]])),
            base: SeqNo(u16::from_be_bytes([fields[16], fields[17]])),
            mask,
            head: [fields[0], fields[1]],
            length: u16::from_be_bytes([fields[2], fields[3]]),
            timestamp: [fields[4], fields[5], fields[6], fields[7]],
            body,
        })
    }

    /// The numbers that are covered.
    pub fn covered(&self) -> impl Iterator<Item = SeqNo> + use<> {
        let (mask, base) = (self.mask, self.base.0);
        (0..128u16).filter(move |i| mask >> i & 1 != 0).map(move |i| SeqNo(base.wrapping_add(i)))
    }

    /// Rebuilds the covered packet `missing` from all the others, as plain RTP. `None` if they do not fit together.
    pub fn recover<'p>(&self, missing: SeqNo, others: impl Iterator<Item = &'p [u8]>) -> Option<Vec<u8>> {
        let (mut head, mut length, mut timestamp) = (self.head, self.length, self.timestamp);
        let mut body = self.body.to_vec();
        for packet in others {
            let (header, rest) = packet.split_first_chunk::<FIXED_HEADER_LEN>()?;
            xor(&mut head, &header[..2]);
            xor(&mut timestamp, &header[4..8]);
            length ^= rest.len() as u16;
            // What is longer than the repair packet was not covered by it.
            xor(body.get_mut(..rest.len())?, rest);
        }
        if usize::from(length) > body.len() {
            return None;
        }
        body.truncate(length.into());
        let mut packet = Vec::with_capacity(FIXED_HEADER_LEN + body.len());
        packet.extend([0x80 | head[0] & 0x3f, head[1]]);
        packet.extend(missing.0.to_be_bytes());
        packet.extend(timestamp);
        packet.extend(self.ssrc.0.to_be_bytes());
        packet.extend(body);
        Some(packet)
    }
}

/// Parts of 15, 31 and 63 bits, each behind a K bit that is set on the last part.
fn read_mask(bytes: &[u8]) -> Result<(u128, &[u8]), ParseError> {
    let cut = || ParseError::Truncated("FlexFEC mask");
    let (part, rest) = bytes.split_first_chunk::<2>().ok_or_else(cut)?;
    let part = u16::from_be_bytes(*part);
    let mut mask = u128::from(part.reverse_bits() >> 1);
    if part & 0x8000 != 0 {
        return Ok((mask, rest));
    }
    let (part, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    let part = u32::from_be_bytes(*part);
    mask |= u128::from(part.reverse_bits() >> 1) << FIRST_BITS;
    if part & 0x8000_0000 != 0 {
        return Ok((mask, rest));
    }
    let (part, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
    let part = u64::from_be_bytes(*part);
    if part >> 63 == 0 {
        return Err(ParseError::Malformed("FlexFEC mask"));
    }
    Ok((mask | u128::from(part.reverse_bits() >> 1) << MAX_SPAN, rest))
}

fn xor(sum: &mut [u8], bytes: &[u8]) {
    sum.iter_mut().zip(bytes).for_each(|(a, b)| *a ^= b);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(seq: u16, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x90, 0x80 | 96];
        packet.extend(seq.to_be_bytes());
        packet.extend((u32::from(seq) * 3_000).to_be_bytes());
        packet.extend(0x0a0b_0c0du32.to_be_bytes());
        packet.extend(body);
        packet
    }

    fn repair_of(places: &[usize], packets: &[Vec<u8>]) -> Vec<u8> {
        let mut sum = RepairSum::default();
        places.iter().for_each(|place| sum.add(*place, &packets[*place]));
        let mut out = Vec::new();
        sum.write(Ssrc(0x0a0b_0c0d), SeqNo(65_530), &mut out);
        assert_eq!(out.len(), sum.len());
        out
    }

    #[test]
    fn masks_are_on_the_wire_as_the_draft_draws_them() {
        let packets: Vec<Vec<u8>> = (0..46).map(|i| packet(65_530u16.wrapping_add(i), &[i as u8; 4])).collect();
        assert_eq!(repair_of(&[0, 2], &packets)[16..20], [0xff, 0xfa, 0xd0, 0x00]);
        assert_eq!(repair_of(&[14], &packets)[18..20], [0x80, 0x01]);
        assert_eq!(repair_of(&[0, 15, 45], &packets)[18..24], [0x40, 0x00, 0xc0, 0x00, 0x00, 0x01]);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let packets = [packet(1, &[1; 4])];
        let good = repair_of(&[0], &packets);
        assert!(Repair::parse(&good).is_ok());
        for (at, value) in [(0, 0x80), (0, 0x40), (8, 2)] {
            let mut bad = good.clone();
            bad[at] = value;
            assert!(Repair::parse(&bad).is_err());
        }
        assert!(Repair::parse(&good[..19]).is_err());
    }

    proptest! {
        #[test]
        fn one_lost_packet_comes_back(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..46),
            choice in any::<prop::sample::Index>(),
            pick in any::<u64>(),
        ) {
            let packets: Vec<Vec<u8>> =
                bodies.iter().enumerate().map(|(i, b)| packet(65_530u16.wrapping_add(i as u16), b)).collect();
            let mut places: Vec<usize> = (0..packets.len()).filter(|i| pick >> i & 1 != 0).collect();
            if places.is_empty() {
                places.push(0);
            }
            let lost = places[choice.index(places.len())];
            let bytes = repair_of(&places, &packets);
            let repair = Repair::parse(&bytes).unwrap();
            let covered: Vec<u16> = repair.covered().map(|s| s.0).collect();
            let expected: Vec<u16> = places.iter().map(|p| 65_530u16.wrapping_add(*p as u16)).collect();
            prop_assert_eq!(covered, expected);
            let others = places.iter().filter(|p| **p != lost).map(|p| packets[*p].as_slice());
            let seq = SeqNo(65_530u16.wrapping_add(lost as u16));
            prop_assert_eq!(repair.recover(seq, others), Some(packets[lost].clone()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80), other in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(repair) = Repair::parse(&bytes) {
                prop_assert!(repair.covered().count() <= 109);
                if let Some(packet) = repair.recover(SeqNo(1), std::iter::once(other.as_slice())) {
                    prop_assert!(packet.len() <= bytes.len());
                }
            }
        }
    }
}
