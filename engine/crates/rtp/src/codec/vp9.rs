//! VP9 payload descriptor (RFC 9628 section 4.2).

use super::PayloadInfo;
use crate::bits::BitReader;
use crate::error::ParseError;

/// A parsed payload descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// 7 or 15 bits (I).
    pub picture_id: Option<u16>,
    /// True if the picture id has 15 bits.
    pub is_wide_picture_id: bool,
    /// Predicted from earlier pictures (P).
    pub is_inter_picture: bool,
    /// Flexible mode (F).
    pub is_flexible: bool,
    /// First packet of a layer frame (B).
    pub is_layer_start: bool,
    /// Last packet of a layer frame (E).
    pub is_layer_end: bool,
    /// Not a reference for higher spatial layers of this picture (Z).
    pub is_not_inter_layer_reference: bool,
    /// Layer indices, if sent (L).
    pub layer: Option<Layer>,
    /// TL0PICIDX, in non-flexible mode.
    pub tl0_pic_idx: Option<u8>,
    /// Resolution of the highest spatial layer in the scalability structure (V).
    pub size: Option<(u16, u16)>,
    /// Resolution of the packet's own spatial layer in it.
    pub own_size: Option<(u16, u16)>,
    /// Number of spatial layers in the scalability structure (V).
    pub spatial_layers: Option<u8>,
    /// Where the VP9 payload begins.
    pub len: usize,
    picture_id_at: usize,
    tl0_pic_idx_at: usize,
}

/// Layer indices of a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// TID.
    pub temporal: u8,
    /// U: a receiver may switch up to this temporal layer here.
    pub is_switch_point: bool,
    /// SID.
    pub spatial: u8,
    /// D: predicted from the next lower spatial layer of this picture.
    pub is_inter_layer: bool,
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn u8(&mut self) -> Result<u8, ParseError> {
        let byte = self.bytes.get(self.at).copied().ok_or(ParseError::Truncated("VP9 descriptor"))?;
        self.at += 1;
        Ok(byte)
    }

    fn u16(&mut self) -> Result<u16, ParseError> {
        Ok(u16::from_be_bytes([self.u8()?, self.u8()?]))
    }
}

impl Descriptor {
    /// Reads the descriptor at the start of `payload`.
    pub fn parse(payload: &[u8]) -> Result<Self, ParseError> {
        let mut r = Reader { bytes: payload, at: 0 };
        let flags = r.u8()?;
        let mut d = Self {
            is_inter_picture: flags & 0x40 != 0,
            is_flexible: flags & 0x10 != 0,
            is_layer_start: flags & 0x08 != 0,
            is_layer_end: flags & 0x04 != 0,
            is_not_inter_layer_reference: flags & 0x01 != 0,
            ..Self::default()
        };
        if flags & 0x80 != 0 {
            d.read_picture_id(&mut r)?;
        }
        if flags & 0x20 != 0 {
            d.read_layer(&mut r)?;
        }
        if d.is_flexible && d.is_inter_picture {
            skip_reference_indices(&mut r)?;
        }
        if flags & 0x02 != 0 {
            d.read_scalability_structure(&mut r)?;
        }
        d.len = r.at;
        Ok(d)
    }

    fn read_picture_id(&mut self, r: &mut Reader<'_>) -> Result<(), ParseError> {
        self.picture_id_at = r.at;
        let high = r.u8()?;
        self.is_wide_picture_id = high & 0x80 != 0;
        let id = u16::from(high & 0x7f);
        self.picture_id = Some(if self.is_wide_picture_id { id << 8 | u16::from(r.u8()?) } else { id });
        Ok(())
    }

    fn read_layer(&mut self, r: &mut Reader<'_>) -> Result<(), ParseError> {
        let byte = r.u8()?;
        self.layer = Some(Layer {
            temporal: byte >> 5,
            is_switch_point: byte & 0x10 != 0,
            spatial: byte >> 1 & 0x07,
            is_inter_layer: byte & 0x01 != 0,
        });
        if !self.is_flexible {
            self.tl0_pic_idx_at = r.at;
            self.tl0_pic_idx = Some(r.u8()?);
        }
        Ok(())
    }

    fn read_scalability_structure(&mut self, r: &mut Reader<'_>) -> Result<(), ParseError> {
        let head = r.u8()?;
        let layers = (head >> 5) + 1;
        self.spatial_layers = Some(layers);
        if head & 0x10 != 0 {
            let own = self.layer.map_or(0, |l| l.spatial);
            for layer in 0..layers {
                self.size = Some((r.u16()?, r.u16()?));
                if layer == own {
                    self.own_size = self.size;
                }
            }
        }
        if head & 0x08 != 0 {
            for _ in 0..r.u8()? {
                let references = r.u8()? >> 2 & 0x03;
                for _ in 0..references {
                    r.u8()?;
                }
            }
        }
        Ok(())
    }

    /// Overwrites picture id and TL0PICIDX in the payload that this descriptor was read from, in their own widths.
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

/// Up to three P_DIFF bytes, each with a bit that says whether another follows.
fn skip_reference_indices(r: &mut Reader<'_>) -> Result<(), ParseError> {
    for _ in 0..3 {
        if r.u8()? & 1 == 0 {
            return Ok(());
        }
    }
    Err(ParseError::Malformed("VP9 reference indices"))
}

pub(super) fn inspect(payload: &[u8]) -> PayloadInfo {
    let Ok(d) = Descriptor::parse(payload) else { return PayloadInfo::default() };
    let layer = d.layer.unwrap_or_default();
    PayloadInfo {
        is_keyframe: !d.is_inter_picture && d.is_layer_start && layer.spatial == 0,
        is_frame_start: d.is_layer_start,
        is_frame_end: d.is_layer_end,
        spatial: layer.spatial,
        temporal: layer.temporal,
        is_switch_point: layer.is_switch_point,
        is_inter_layer: layer.is_inter_layer,
        is_intra: !d.is_inter_picture,
        picture_id: d.picture_id,
        tl0_pic_idx: d.tl0_pic_idx,
        size: d.own_size,
        ..PayloadInfo::default()
    }
}

/// True if a VP9 frame (uncompressed header first, VP9 bitstream section 6.2) is a key frame.
pub fn is_keyframe(frame: &[u8]) -> bool {
    let Some(&b) = frame.first() else { return false };
    // frame_marker (2 bits) must be 2; two profile bits, low one first; profile 3 has a reserved bit more.
    let has_marker = b >> 6 == 2;
    let bits = if b & 0x30 == 0x30 { b << 5 } else { b << 4 };
    let shows_existing = bits & 0x80 != 0;
    let is_non_key = bits & 0x40 != 0;
    has_marker && !shows_existing && !is_non_key
}

/// Width and height of a key frame (VP9 bitstream sections 6.2, 6.2.2 and 6.2.3).
pub fn keyframe_size(frame: &[u8]) -> Option<(u16, u16)> {
    if !is_keyframe(frame) {
        return None;
    }
    let mut r = BitReader::new(frame, "VP9 frame header");
    let mut read = || -> Result<Option<(u16, u16)>, ParseError> {
        r.skip(2)?; // frame_marker
        let profile = u32::from(r.bit()?) | u32::from(r.bit()?) << 1;
        r.skip(4 + u32::from(profile == 3))?; // reserved, show_existing_frame, frame_type, show_frame, error_resilient
        if r.bits(24)? != SYNC_CODE {
            return Ok(None);
        }
        if profile >= 2 {
            r.skip(1)?; // bit depth
        }
        let has_subsampling = profile & 1 == 1;
        if r.bits(3)? != COLOR_SPACE_RGB {
            r.skip(1 + if has_subsampling { 3 } else { 0 })?; // color_range, subsampling, reserved
        } else if has_subsampling {
            r.skip(1)?; // reserved
        }
        let (width, height) = (r.bits(16)? as u16, r.bits(16)? as u16);
        Ok(Some((width.saturating_add(1), height.saturating_add(1))))
    };
    read().ok().flatten()
}

const SYNC_CODE: u32 = 0x49_8342;
const COLOR_SPACE_RGB: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::hex;
    use proptest::prelude::*;

    #[test]
    fn non_flexible_key_frame_with_structure() {
        // I L B V, wide picture id, tid 0 sid 0, tl0, structure: 2 layers with sizes, 1 picture with 1 reference
        let p = [0xaa, 0x81, 0x23, 0x00, 9, 0x38, 1, 0x40, 0, 0xb4, 2, 0x80, 1, 0x68, 1, 0x04, 5, 0x82];
        let d = Descriptor::parse(&p).unwrap();
        assert_eq!((d.picture_id, d.tl0_pic_idx), (Some(0x123), Some(9)));
        assert_eq!((d.spatial_layers, d.size, d.own_size), (Some(2), Some((640, 360)), Some((320, 180))));
        assert_eq!(d.len, 17);
        let info = inspect(&p);
        assert!(info.is_keyframe && info.is_frame_start && !info.is_frame_end && info.is_intra);
        assert_eq!(info.size, Some((320, 180)), "that of its own layer, not of the whole picture");
    }

    #[test]
    fn upper_layer_of_a_key_picture() {
        let info = inspect(&[0xa8 | 0x04, 3, 0x13, 7, 0]);
        assert!(!info.is_keyframe && info.is_intra && info.is_inter_layer && info.is_switch_point);
        assert_eq!((info.spatial, info.temporal, info.picture_id), (1, 0, Some(3)));
    }

    #[test]
    fn flexible_mode_has_references_and_no_tl0() {
        // I P L F B, references 3 (more), 1
        let d = Descriptor::parse(&[0xf8, 3, 0x20, 0x07, 0x02, 0xff]).unwrap();
        assert_eq!((d.tl0_pic_idx, d.len, d.layer.unwrap().temporal), (None, 5, 1));
        assert!(Descriptor::parse(&[0xf8, 3, 0x20, 7, 7, 7, 7]).is_err());
        assert!(Descriptor::parse(&[0xf8, 3]).is_err());
    }

    #[test]
    fn frame_header_key_bit() {
        assert!(is_keyframe(&[0x82, 0x49, 0x83]));
        assert!(!is_keyframe(&[0x86]));
        assert!(!is_keyframe(&[]));
        assert!(!is_keyframe(&[0x02]));
        // libvpx, profile 0 and profile 1 (4:4:4)
        assert_eq!(keyframe_size(&hex("824983420035501df60038241c18")), Some((854, 480)));
        assert_eq!(keyframe_size(&hex("a249834200028201e2c007048383")), Some((322, 242)));
        assert!(!is_keyframe(&hex("86004092f0014004")));
        assert_eq!(keyframe_size(&[0x82, 0x49, 0x83, 0x42, 0x00, 0x13, 0xf0, 0x0e, 0xf6]), Some((320, 240)));
        assert_eq!(keyframe_size(&[0x82, 0x49, 0x83]), None);
    }

    proptest! {
        #[test]
        fn never_panics_and_rewrites_in_place(mut p in prop::collection::vec(any::<u8>(), 0..64), id: u16, tl0: u8) {
            let _ = (inspect(&p), keyframe_size(&p));
            if let Ok(d) = Descriptor::parse(&p) {
                prop_assert!(d.len <= p.len());
                d.rewrite(&mut p, id & 0x7fff, tl0);
                let e = Descriptor::parse(&p).unwrap();
                prop_assert_eq!(e.len, d.len);
                if d.tl0_pic_idx.is_some() {
                    prop_assert_eq!(e.tl0_pic_idx, Some(tl0));
                }
            }
        }
    }
}
