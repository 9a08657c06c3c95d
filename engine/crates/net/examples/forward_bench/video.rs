//! What is published: 30 frames/s of 7 packets of 1100 bytes, or three layers of 7, 3 and 1 packets.

use std::time::{Duration, Instant};

use str0m::media::{Mid, Rid};
use str0m::rtp::RtpWrite;

use crate::client::{Client, Result};

pub const FRAMES_PER_S: u32 = 30;
/// Rids with their packets a frame, best first; a picture of one layer is the first of them, without rid.
pub const LAYERS: [(&str, u64); 3] = [("f", 7), ("h", 3), ("q", 1)];
const PAYLOAD: usize = 1100;
const FRAMES_PER_KEYFRAME: u32 = 90;
/// Where the send time is in the payload: behind the VP8 descriptor and frame header.
const TIME_AT: usize = 20;
const FIRST_SEQ: u64 = 1000;

/// The publisher's clockwork.
pub struct Video {
    epoch: Instant,
    frame: u32,
    next_at: Instant,
    is_simulcast: bool,
    is_keyframe: bool,
}

impl Video {
    pub fn new(epoch: Instant, is_simulcast: bool) -> Self {
        Self { epoch, frame: 0, next_at: Instant::now(), is_simulcast, is_keyframe: true }
    }

    pub fn next_at(&self) -> Instant {
        self.next_at
    }

    /// Sends the frame that is due.
    pub fn send_due(&mut self, publisher: &mut Client, mid: Mid) -> Result<()> {
        if Instant::now() < self.next_at {
            return Ok(());
        }
        self.is_keyframe =
            self.frame.is_multiple_of(FRAMES_PER_KEYFRAME) | std::mem::take(&mut publisher.is_keyframe_wanted);
        let layers = if self.is_simulcast { &LAYERS[..] } else { &LAYERS[..1] };
        for (rid, packets) in layers {
            let rid = self.is_simulcast.then(|| Rid::from(*rid));
            self.send_layer(publisher, mid, rid, *packets)?;
        }
        self.frame += 1;
        self.next_at += Duration::from_secs(1) / FRAMES_PER_S;
        publisher.flush()
    }

    fn send_layer(&self, publisher: &mut Client, mid: Mid, rid: Option<Rid>, packets: u64) -> Result<()> {
        let now = Instant::now();
        let first_seq = FIRST_SEQ + u64::from(self.frame) * packets;
        for index in 0..packets {
            let payload = self.payload(index == 0);
            let seq = first_seq + index;
            let write = RtpWrite::new(96.into(), seq.into(), self.frame.wrapping_mul(3000), now, payload);
            publisher.write(mid, rid, write.marker(index + 1 == packets).nackable(true))?;
        }
        Ok(())
    }

    /// A VP8 packet with a 15-bit picture id (RFC 7741) and nothing to decode.
    fn payload(&self, is_first: bool) -> Vec<u8> {
        let mut bytes = vec![0x5a; PAYLOAD];
        let picture_id = 0x8000 | (self.frame as u16 & 0x7fff);
        bytes[0] = if is_first { 0x90 } else { 0x80 };
        bytes[1] = 0x80;
        bytes[2..4].copy_from_slice(&picture_id.to_be_bytes());
        if is_first && self.is_keyframe {
            bytes[4..14].copy_from_slice(&[0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]);
        } else if is_first {
            bytes[4..7].copy_from_slice(&[0x11, 0x02, 0x00]);
        }
        let sent_at = self.epoch.elapsed().as_micros() as u64;
        bytes[TIME_AT..TIME_AT + 8].copy_from_slice(&sent_at.to_be_bytes());
        bytes
    }
}

/// How long ago a payload was made, in microseconds.
pub fn age_us(payload: &[u8], epoch: Instant) -> Option<u32> {
    let bytes = payload.get(TIME_AT..TIME_AT + 8)?.try_into().ok()?;
    let age = (epoch.elapsed().as_micros() as u64).saturating_sub(u64::from_be_bytes(bytes));
    u32::try_from(age).ok()
}
