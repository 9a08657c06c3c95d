//! VP8 payload descriptor (RFC 7741 section 4.2) and key frame header (RFC 6386 section 9.1).

use super::PayloadInfo;
use crate::error::ParseError;

/// A parsed payload descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// No other frame refers to this one (N).
    pub is_non_reference: bool,
    /// First packet of a partition (S).
    pub is_partition_start: bool,
    /// Partition (PID).
    pub partition: u8,
    /// 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// True if the picture id has 15 bits.
    pub is_wide_picture_id: bool,
    /// TL0PICIDX.
    pub tl0_pic_idx: Option<u8>,
    /// Temporal layer (TID) and its layer sync bit (Y).
    pub temporal: Option<(u8, bool)>,
    /// KEYIDX.
    pub key_idx: Option<u8>,
    /// Where the VP8 payload begins.
    pub len: usize,
    picture_id_at: usize,
    tl0_pic_idx_at: usize,
}

impl Descriptor {
    /// Reads the descriptor at the start of `payload`.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let mut at = 0;
        let mut take = || -> Result<u8, ParseError> {
            let byte = payload.get(at).copied().ok_or(ParseError::Truncated("VP8 descriptor"))?;
            at += 1;
            Ok(byte)
        };
        let first = take()?;
        let mut d = Self {
            is_non_reference: first & 0x20 != 0,
            is_partition_start: first & 0x10 != 0,
            partition: first & 0x07,
            ..Self::default()
        };
        let flags = if first & 0x80 != 0 { take()? } else { 0 };
        d.len = 1 + usize::from(first & 0x80 != 0);
        if flags & 0x80 != 0 {
            d.picture_id_at = d.len;
            let high = take()?;
            d.is_wide_picture_id = high & 0x80 != 0;
            d.picture_id = Some(if d.is_wide_picture_id {
                u16::from(high & 0x7f) << 8 | u16::from(take()?)
            } else {
                u16::from(high)
            });
            d.len += 1 + usize::from(d.is_wide_picture_id);
        }
        if flags & 0x40 != 0 {
            d.tl0_pic_idx_at = d.len;
            d.tl0_pic_idx = Some(take()?);
            d.len += 1;
        }
        if flags & 0x30 != 0 {
            let byte = take()?;
            d.temporal = (flags & 0x20 != 0).then_some((byte >> 6, byte & 0x20 != 0));
            d.key_idx = (flags & 0x10 != 0).then_some(byte & 0x1f);
            d.len += 1;
        }
        Ok(d)
    }

    /// The packet is the first of a frame.
    pub fn is_frame_start(&self) -> bool {
        self.is_partition_start && self.partition == 0
    }

    /// Overwrites picture id and TL0PICIDX in the payload that this descriptor was read from, in their own widths
    /// (7 bits of the picture id, if it was sent so). Fields that the payload does not have are left.
    pub fn rewrite(&self, payload: &mut [u8], picture_id: u16, tl0_pic_idx: u8) {
        if self.picture_id.is_some() {
            if self.is_wide_picture_id {
                if let Some(field) = payload.get_mut(self.picture_id_at..self.picture_id_at + 2) {
                    field.copy_from_slice(&(picture_id | 0x8000).to_be_bytes());
                }
            } else if let Some(field) = payload.get_mut(self.picture_id_at) {
                *field = picture_id as u8 & 0x7f;
            }
        }
        if self.tl0_pic_idx.is_some()
            && let Some(field) = payload.get_mut(self.tl0_pic_idx_at)
        {
            *field = tl0_pic_idx;
        }
    }
}

/// True if a VP8 frame (without descriptor) is a key frame: the P bit of the frame tag is clear.
pub fn is_keyframe(frame: &[u8]) -> bool {
    frame.first().is_some_and(|b| b & 1 == 0)
}

/// Width and height of a key frame (without descriptor).
pub fn keyframe_size(frame: &[u8]) -> Option<(u16, u16)> {
    match frame.first_chunk::<10>()? {
        [tag, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] if tag & 1 == 0 => {
            Some((u16::from_le_bytes([*w0, *w1]) & 0x3fff, u16::from_le_bytes([*h0, *h1]) & 0x3fff))
        }
        _ => None,
    }
}

pub(super) fn inspect(payload: &[u8]) -> PayloadInfo {
    let Ok(d) = Descriptor::parse(payload) else { return PayloadInfo::default() };
    let frame = &payload[d.len..];
    let is_keyframe = d.is_frame_start() && is_keyframe(frame);
    let (temporal, is_switch_point) = d.temporal.unwrap_or_default();
    PayloadInfo {
        is_keyframe,
        is_frame_start: d.is_frame_start(),
        is_discardable: d.is_non_reference,
        temporal,
        is_switch_point,
        is_intra: is_keyframe,
        picture_id: d.picture_id,
        tl0_pic_idx: d.tl0_pic_idx,
        size: if is_keyframe { keyframe_size(frame) } else { None },
        ..PayloadInfo::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::hex;
    use proptest::prelude::*;

    const KEY: [u8; 10] = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0xe0, 0x01];

    #[test]
    fn full_descriptor_of_a_key_frame() {
        let mut p = vec![0x90, 0xf0, 0x81, 0x02, 7, 0x60 | 5];
        p.extend(KEY);
        let d = Descriptor::parse(&p).unwrap();
        assert_eq!(
            (d.picture_id, d.tl0_pic_idx, d.temporal, d.key_idx),
            (Some(0x102), Some(7), Some((1, true)), Some(5))
        );
        assert_eq!(d.len, 6);
        let info = inspect(&p);
        assert!(info.is_keyframe && info.is_frame_start);
        assert_eq!(info.size, Some((640, 480)));
        d.rewrite(&mut p, 0x7abc, 9);
        let d = Descriptor::parse(&p).unwrap();
        assert_eq!((d.picture_id, d.tl0_pic_idx, d.temporal), (Some(0x7abc), Some(9), Some((1, true))));
    }

    #[test]
    fn frames_of_libvpx() {
        let key = hex("d058009d012a5603e001004708858588");
        assert_eq!((is_keyframe(&key), keyframe_size(&key)), (true, Some((854, 480))));
        assert!(!is_keyframe(&hex("d103000f11fc0018")));
    }

    #[test]
    fn narrow_picture_id_stays_narrow() {
        let mut p = vec![0x80, 0x80, 5, 1];
        let d = Descriptor::parse(&p).unwrap();
        assert_eq!((d.picture_id, d.is_wide_picture_id, d.len), (Some(5), false, 3));
        d.rewrite(&mut p, 0x1ff, 3);
        assert_eq!(p, [0x80, 0x80, 0x7f, 1]);
    }

    #[test]
    fn later_packets_and_delta_frames_are_no_key_frames() {
        assert!(!inspect(&[0x00, 0x10]).is_keyframe);
        let delta = inspect(&[0x30, 0x11]);
        assert!(delta.is_frame_start && !delta.is_keyframe && delta.is_discardable);
        assert_eq!(inspect(&[0x80]), PayloadInfo::default());
    }

    proptest! {
        #[test]
        fn never_panics_and_rewrites_in_place(mut p in prop::collection::vec(any::<u8>(), 0..20), id: u16, tl0: u8) {
            let _ = inspect(&p);
            if let Ok(d) = Descriptor::parse(&p) {
                prop_assert!(d.len <= p.len());
                let tail = p[d.len..].to_vec();
                d.rewrite(&mut p, id & 0x7fff, tl0);
                let e = Descriptor::parse(&p).unwrap();
                prop_assert_eq!(e.len, d.len);
                prop_assert_eq!(&p[d.len..], &tail[..]);
                if d.is_wide_picture_id {
                    prop_assert_eq!(e.picture_id, Some(id & 0x7fff));
                }
            }
        }
    }
}
