//! Redundant sound towards one subscriber: what travels along with a packet, and how it is written.

use mrtc_rtp::id::{ExtSeq, Pt};
use mrtc_rtp::red::{self, BLOCK_HEADER_LEN, MAX_BLOCK_LEN, MAX_OFFSET, PRIMARY_HEADER_LEN};

use crate::packet::Packet;
use crate::slot::Slot;
use crate::track::Track;

/// A packet with its redundancy is kept below every path's limit.
const MAX_SIZE: usize = 1_200;

/// How many packets directly before `packet` travel inside it, and by how many bytes it grows. `size` is its own.
///
/// No gap is left between them: a receiver knows their numbers by their place alone.
pub(super) fn plan(slot: &Slot, track: &Track, packet: &Packet, size: usize) -> (u8, usize) {
    let (mut count, mut added) = (0, PRIMARY_HEADER_LEN);
    while count < slot.protection.level()
        && let Some(earlier) = earlier(track, packet, count + 1)
        && slot.forwarder.rewriter().covers(earlier.seq)
    {
        let grown = added + BLOCK_HEADER_LEN + earlier.payload().len();
        if size + grown > MAX_SIZE {
            break;
        }
        (count, added) = (count + 1, grown);
    }
    if count == 0 { (0, 0) } else { (count, added) }
}

/// Writes the payload of `packet` with the `count` packets before it. False if one of them is gone: a packet that is
/// sent again must be the same to the bit.
pub(super) fn write(track: &Track, packet: &Packet, count: u8, inner: Pt, out: &mut Vec<u8>) -> bool {
    out.clear();
    let blocks = (1..=count).rev().filter_map(|back| {
        let earlier = earlier(track, packet, back)?;
        Some((packet.timestamp.wrapping_sub(earlier.timestamp), earlier.payload()))
    });
    if blocks.clone().count() < usize::from(count) {
        return false;
    }
    red::write(inner, blocks, packet.payload(), out);
    true
}

/// The packet `back` places before another, if it can be carried. Silence need not be: nothing is missed of it.
fn earlier<'a>(track: &'a Track, packet: &Packet, back: u8) -> Option<&'a Packet> {
    let seq = ExtSeq(packet.seq.0.checked_sub(back.into())?);
    let earlier = track.packet(packet.layer, seq)?;
    let offset = packet.timestamp.wrapping_sub(earlier.timestamp);
    let is_carriable = (1..=MAX_OFFSET).contains(&offset)
        && (1..=MAX_BLOCK_LEN).contains(&earlier.payload().len())
        && !earlier.info.is_silence;
    is_carriable.then_some(earlier)
}
