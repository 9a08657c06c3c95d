//! Redundant audio data (RFC 2198): a packet of sound that also carries the packets before it.

use std::ops::Range;

use crate::error::ParseError;
use crate::id::Pt;

/// Earlier packets that are taken out of one packet, the newest ones. Browsers send one or two, we up to four.
pub const MAX_EARLIER: usize = 4;
/// Blocks of one packet that are read at all.
const MAX_BLOCKS: usize = 32;
/// Bytes of the header of an earlier block: mark and type, 14 bits of time, 10 bits of length.
pub const BLOCK_HEADER_LEN: usize = 4;
/// Bytes of the header of the last block, which is the packet itself.
pub const PRIMARY_HEADER_LEN: usize = 1;
/// How far back in time an earlier block may lie, in RTP clock ticks: 341 ms at 48 kHz.
pub const MAX_OFFSET: u32 = (1 << 14) - 1;
/// Longest earlier block.
pub const MAX_BLOCK_LEN: usize = (1 << 10) - 1;
/// Another block follows.
const FOLLOWS: u8 = 0x80;

/// An earlier packet inside one that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Earlier {
    /// How many packets before the one that carries it. RFC 2198 has no numbers: senders repeat the packets directly
    /// before, so that the place tells.
    pub back: u8,
    /// How much earlier, in ticks of the RTP clock.
    pub offset: u16,
    /// Where in the payload it lies; never empty.
    pub payload: Range<usize>,
}

/// What a payload holds. Ranges are into it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Red {
    earlier: [Earlier; MAX_EARLIER],
    count: usize,
    /// The packet itself; may be empty.
    pub primary: Range<usize>,
}

impl Red {
    /// Reads a payload whose blocks are all of type `inner`; earlier ones of another type are passed over.
    pub fn parse(payload: &[u8], inner: Pt) -> Result<Self, ParseError> {
        let block_count = payload.chunks(BLOCK_HEADER_LEN).take_while(|head| head[0] & FOLLOWS != 0).count();
        if block_count >= MAX_BLOCKS {
            return Err(ParseError::Malformed("RED block count"));
        }
        let mut at = block_count * BLOCK_HEADER_LEN;
        let primary_pt = *payload.get(at).ok_or(ParseError::Truncated("RED header"))?;
        if Pt(primary_pt) != inner {
            return Err(ParseError::Malformed("RED primary block's type"));
        }
        at += PRIMARY_HEADER_LEN;
        let mut red = Self::default();
        for (index, head) in payload.as_chunks::<BLOCK_HEADER_LEN>().0.iter().take(block_count).enumerate() {
            let [pt, time @ .., low] = *head;
            let time = u16::from_be_bytes(time);
            let len = usize::from(time & 3) << 8 | usize::from(low);
            let block = at..at + len;
            at = block.end;
            let back = block_count - index;
            if back <= MAX_EARLIER && len > 0 && Pt(pt & !FOLLOWS) == inner {
                red.earlier[red.count] = Earlier { back: back as u8, offset: time >> 2, payload: block };
                red.count += 1;
            }
        }
        if at > payload.len() {
            return Err(ParseError::Truncated("RED block"));
        }
        red.primary = at..payload.len();
        Ok(red)
    }

    /// The earlier packets, oldest first.
    pub fn earlier(&self) -> &[Earlier] {
        &self.earlier[..self.count]
    }
}

/// Writes a payload: `earlier` are how much earlier (in ticks) and the payload of packets before `primary`, oldest
/// first. None of them may exceed [`MAX_OFFSET`] and [`MAX_BLOCK_LEN`].
pub fn write<'a>(inner: Pt, earlier: impl Iterator<Item = (u32, &'a [u8])> + Clone, primary: &[u8], out: &mut Vec<u8>) {
    for (offset, payload) in earlier.clone() {
        debug_assert!(offset <= MAX_OFFSET && payload.len() <= MAX_BLOCK_LEN);
        let time_and_len = offset << 10 | payload.len() as u32;
        out.extend_from_slice(&[FOLLOWS | inner.0]);
        out.extend_from_slice(&time_and_len.to_be_bytes()[1..]);
    }
    out.push(inner.0);
    for (_, payload) in earlier {
        out.extend_from_slice(payload);
    }
    out.extend_from_slice(primary);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::hex;
    use proptest::prelude::*;

    const OPUS: Pt = Pt(111);

    #[test]
    fn one_earlier_packet_as_chromium_sends_it() {
        // 960 ticks back, 3 bytes; then the packet itself.
        let payload = hex("ef 0f 00 03  6f  aa bb cc  dd ee");
        let red = Red::parse(&payload, OPUS).unwrap();
        assert_eq!(red.earlier(), [Earlier { back: 1, offset: 960, payload: 5..8 }]);
        assert_eq!(&payload[red.primary], [0xdd, 0xee]);
    }

    #[test]
    fn the_place_tells_how_far_back() {
        let mut payload = Vec::new();
        write(OPUS, [(1920, &[1u8][..]), (960, &[2, 2])].into_iter(), &[3], &mut payload);
        let red = Red::parse(&payload, OPUS).unwrap();
        let seen: Vec<_> = red.earlier().iter().map(|e| (e.back, e.offset, &payload[e.payload.clone()])).collect();
        assert_eq!(seen, [(2, 1920, &[1u8][..]), (1, 960, &[2, 2][..])]);
    }

    #[test]
    fn empty_blocks_keep_their_place() {
        // Chromium's first packets have empty blocks for what was not sent yet.
        let payload = hex("ef 1e 00 00  ef 0f 00 01  6f  aa  bb");
        let red = Red::parse(&payload, OPUS).unwrap();
        assert_eq!(red.earlier(), [Earlier { back: 1, offset: 960, payload: 9..10 }]);
    }

    #[test]
    fn only_the_newest_are_kept() {
        let mut payload = Vec::new();
        let blocks: Vec<(u32, &[u8])> = (1..=6).rev().map(|n| (n * 960, &[7u8][..])).collect();
        write(OPUS, blocks.into_iter(), &[1], &mut payload);
        let backs: Vec<u8> = Red::parse(&payload, OPUS).unwrap().earlier().iter().map(|e| e.back).collect();
        assert_eq!(backs, [4, 3, 2, 1]);
    }

    #[test]
    fn what_is_not_red_is_refused() {
        for bytes in ["", "ef 0f 00", "ef 0f 00 03", "ef 0f 00 03 6f aa bb", "60 aa", "ef 0f 00 01 60 aa bb"] {
            assert!(Red::parse(&hex(bytes), OPUS).is_err(), "{bytes}");
        }
        assert!(Red::parse(&[0xef; 400], OPUS).is_err());
    }

    proptest! {
        #[test]
        fn ranges_lie_inside(payload in prop::collection::vec(any::<u8>(), 1..200)) {
            if let Ok(red) = Red::parse(&payload, Pt(payload[0] & 0x7f)) {
                let mut end = 0;
                for earlier in red.earlier() {
                    prop_assert!(earlier.payload.start >= end && !earlier.payload.is_empty());
                    end = earlier.payload.end;
                }
                prop_assert!(end <= red.primary.start && red.primary.end == payload.len());
            }
        }

        #[test]
        fn what_is_written_is_read(
            blocks in prop::collection::vec((0u32..=MAX_OFFSET, prop::collection::vec(any::<u8>(), 1..300)), 0..=3),
            primary in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let mut payload = Vec::new();
            write(OPUS, blocks.iter().map(|(offset, data)| (*offset, &data[..])), &primary, &mut payload);
            let red = Red::parse(&payload, OPUS).unwrap();
            prop_assert_eq!(red.earlier().len(), blocks.len());
            for (earlier, (offset, data)) in red.earlier().iter().zip(&blocks) {
                prop_assert_eq!(u32::from(earlier.offset), *offset);
                prop_assert_eq!(&payload[earlier.payload.clone()], &data[..]);
            }
            prop_assert_eq!(&payload[red.primary], &primary[..]);
        }
    }
}
