//! Access units into RTP payloads and back, for local sources and sinks.
//!
//! An access unit is what a decoder takes at once: Annex B for H.264, a plain frame for VP8 and VP9, a temporal unit in
//! the low-overhead format (each OBU with its size) for AV1, a packet for sound.

mod av1;
mod h264;
mod vp8;
mod vp9;

use crate::codec::Codec;
use crate::error::ParseError;

/// Largest access unit that is put together or taken apart: far above any key frame that a browser sends.
pub const MAX_UNIT_LEN: usize = 8 << 20;
/// Smallest payload limit that is honoured; below it headers would take most of a packet.
const MIN_PAYLOAD: usize = 64;

/// Splits access units into RTP payloads.
#[derive(Clone, Debug)]
pub struct Packetizer {
    codec: Codec,
    max_payload: usize,
    picture_id: u16,
}

impl Packetizer {
    /// For payloads of at most `max_payload` bytes (at least 64). Sound is never split.
    pub fn new(codec: Codec, max_payload: usize) -> Self {
        Self { codec, max_payload: max_payload.max(MIN_PAYLOAD), picture_id: 0 }
    }

    /// The payloads of an access unit, in order; of a picture the last one gets the RTP marker.
    ///
    /// Fails if the unit is empty, too large, or not in the codec's form.
    pub fn packetize(&mut self, unit: &[u8]) -> Result<Vec<Vec<u8>>, ParseError> {
        if unit.is_empty() || unit.len() > MAX_UNIT_LEN {
            return Err(ParseError::Malformed("access unit length"));
        }
        let payloads = match self.codec {
            Codec::H264 => h264::packetize(unit, self.max_payload),
            Codec::Vp8 => vp8::packetize(unit, self.max_payload, self.picture_id),
            Codec::Vp9 => vp9::packetize(unit, self.max_payload, self.picture_id),
            Codec::Av1 => av1::packetize(unit, self.max_payload)?,
            Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::G722 => vec![unit.to_vec()],
        };
        if payloads.is_empty() {
            return Err(ParseError::Malformed("access unit without content"));
        }
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        Ok(payloads)
    }
}

/// Puts the payloads of one access unit, complete and in order, together and appends it to `out`. True if it is a
/// key frame (always for sound).
///
/// Fails, with `out` as it was, if the payloads do not make a whole.
pub fn depacketize<'a>(
    codec: Codec,
    payloads: impl IntoIterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> Result<bool, ParseError> {
    let start = out.len();
    let payloads = payloads.into_iter().filter(|p| !p.is_empty());
    let result = match codec {
        Codec::H264 => h264::depacketize(payloads, out),
        Codec::Vp8 => vp8::depacketize(payloads, out),
        Codec::Vp9 => vp9::depacketize(payloads, out),
        Codec::Av1 => av1::depacketize(payloads, out),
        Codec::Opus | Codec::Pcmu | Codec::Pcma | Codec::G722 => {
            payloads.for_each(|p| out.extend(p));
            Ok(true)
        }
    };
    let len = out.len() - start;
    let result = match result {
        Ok(_) if len == 0 || len > MAX_UNIT_LEN => Err(ParseError::Malformed("access unit length")),
        other => other,
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Cuts into pieces of almost equal length, none above `max`: no tiny last packet.
fn equal_pieces(data: &[u8], max: usize) -> impl Iterator<Item = &[u8]> {
    let count = data.len().div_ceil(max.max(1)).max(1);
    data.chunks(data.len().div_ceil(count).max(1))
}

#[cfg(test)]
mod tests;
