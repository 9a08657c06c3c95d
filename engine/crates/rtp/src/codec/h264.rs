//! H.264 payloads (RFC 6184), profiles (section 8.1) and the sequence parameter set (ITU-T H.264 section 7.3.2.1).

use super::PayloadInfo;
use crate::bits::BitReader;
use crate::error::ParseError;

/// Types of NAL units and of RFC 6184's packets.
pub mod nal {
    /// Coded slice of a picture that is no IDR picture.
    pub const SLICE: u8 = 1;
    /// Coded slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const AUD: u8 = 9;
    /// Filler data.
    pub const FILLER: u8 = 12;
    /// Aggregation of whole NAL units.
    pub const STAP_A: u8 = 24;
    /// Fragment of a NAL unit.
    pub const FU_A: u8 = 28;
}

/// The type bits of a NAL header.
pub fn nal_type(header: u8) -> u8 {
    header & 0x1f
}

pub(super) fn inspect(payload: &[u8]) -> PayloadInfo {
    let mut info = PayloadInfo::default();
    let Some((&header, rest)) = payload.split_first() else { return info };
    match nal_type(header) {
        nal::STAP_A => {
            for unit in StapA::new(rest) {
                inspect_nal(&mut info, unit);
            }
        }
        nal::FU_A => inspect_fragment(&mut info, header, rest),
        _ => inspect_nal(&mut info, payload),
    }
    info.is_intra = info.is_keyframe;
    info
}

fn inspect_nal(info: &mut PayloadInfo, unit: &[u8]) {
    let Some((&header, body)) = unit.split_first() else { return };
    let kind = nal_type(header);
    match kind {
        nal::SPS => {
            info.is_keyframe = true;
            info.is_frame_start = true;
            info.size = Sps::parse(unit).ok().map(|s| (s.width, s.height));
        }
        nal::IDR | nal::SLICE => inspect_slice(info, header, kind, body),
        nal::AUD => info.is_frame_start = true,
        _ => {}
    }
}

fn inspect_fragment(info: &mut PayloadInfo, indicator: u8, rest: &[u8]) {
    let Some((&fu, body)) = rest.split_first() else { return };
    let (is_start, is_end) = (fu & 0x80 != 0, fu & 0x40 != 0);
    let kind = nal_type(fu);
    if is_start && matches!(kind, nal::IDR | nal::SLICE) {
        inspect_slice(info, indicator, kind, body);
    } else {
        info.is_discardable = kind == nal::SLICE && indicator & 0x60 == 0;
    }
    // Only whole NAL units can end a picture; whether they do is the marker's to say.
    info.is_frame_end = is_end && info.is_frame_end;
}

fn inspect_slice(info: &mut PayloadInfo, header: u8, kind: u8, body: &[u8]) {
    info.is_keyframe |= kind == nal::IDR;
    // first_mb_in_slice is ue(v): a leading 1 bit is 0, the picture's first slice.
    info.is_frame_start |= body.first().is_some_and(|b| b & 0x80 != 0);
    info.is_discardable = header & 0x60 == 0;
}

/// The NAL units of a STAP-A behind its header byte; ends at the first that is not whole.
#[derive(Clone, Debug)]
pub struct StapA<'a> {
    rest: &'a [u8],
}

impl<'a> StapA<'a> {
    /// Of the payload behind the STAP-A header byte.
    pub fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }
}

impl<'a> Iterator for StapA<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (len, rest) = self.rest.split_first_chunk::<2>()?;
        let (unit, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
        self.rest = rest;
        if unit.is_empty() { None } else { Some(unit) }
    }
}

/// The NAL units of an Annex B byte stream, without start codes and trailing zeros.
pub fn annex_b_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = match find_start_code(stream) {
        Some((_, after)) => &stream[after..],
        None => &[],
    };
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let unit = match find_start_code(rest) {
                Some((at, after)) => {
                    let unit = &rest[..at];
                    rest = &rest[after..];
                    unit
                }
                None => std::mem::take(&mut rest),
            };
            let end = unit.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
            if end > 0 {
                return Some(&unit[..end]);
            }
        }
        None
    })
}

/// (where 00 00 01 begins, where the unit behind it begins).
fn find_start_code(stream: &[u8]) -> Option<(usize, usize)> {
    let at = stream.windows(3).position(|w| w == [0, 0, 1])?;
    Some((at, at + 3))
}

/// What the engine reads of a sequence parameter set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    /// profile_idc.
    pub profile_idc: u8,
    /// The constraint flags byte.
    pub constraints: u8,
    /// level_idc.
    pub level_idc: u8,
    /// Picture width in pixels, cropped.
    pub width: u16,
    /// Picture height in pixels, cropped.
    pub height: u16,
}

impl Sps {
    /// Reads a NAL unit of type 7.
    pub fn parse(unit: &[u8]) -> Result<Self, ParseError> {
        let mut r = BitReader::of_nal(unit, "H.264 SPS");
        if nal_type(r.bits(8)? as u8) != nal::SPS {
            return Err(ParseError::Malformed("H.264 SPS"));
        }
        let (profile_idc, constraints, level_idc) = (r.bits(8)? as u8, r.bits(8)? as u8, r.bits(8)? as u8);
        r.ue()?; // seq_parameter_set_id
        let chroma = read_chroma(&mut r, profile_idc)?;
        r.ue()?; // log2_max_frame_num_minus4
        skip_order_count(&mut r)?;
        r.ue()?; // max_num_ref_frames
        r.bit()?; // gaps_in_frame_num_value_allowed_flag
        let width_mbs = u64::from(r.ue()?) + 1;
        let height_units = u64::from(r.ue()?) + 1;
        let is_frame_only = r.bit()?;
        if !is_frame_only {
            r.bit()?; // mb_adaptive_frame_field_flag
        }
        r.bit()?; // direct_8x8_inference_flag
        let fields = if is_frame_only { 1 } else { 2 };
        let crop = read_crop(&mut r, chroma, fields)?;
        let narrow = |full: u64, crop: u64| {
            let size = full.checked_sub(crop).and_then(|n| u16::try_from(n).ok());
            size.ok_or(ParseError::Malformed("H.264 picture size"))
        };
        Ok(Self {
            profile_idc,
            constraints,
            level_idc,
            width: narrow(width_mbs * 16, crop.0)?,
            height: narrow(height_units * 16 * fields, crop.1)?,
        })
    }
}

/// chroma_format_idc, or 1 where the profile does not tell; 0 stands for separate planes too.
fn read_chroma(r: &mut BitReader<'_>, profile_idc: u8) -> Result<u32, ParseError> {
    if !matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135) {
        return Ok(1);
    }
    let mut chroma = r.ue()?;
    let lists = if chroma == 3 { 12 } else { 8 };
    if chroma == 3 && r.bit()? {
        chroma = 0;
    }
    r.ue()?; // bit_depth_luma_minus8
    r.ue()?; // bit_depth_chroma_minus8
    r.bit()?; // qpprime_y_zero_transform_bypass_flag
    if r.bit()? {
        for i in 0..lists {
            if r.bit()? {
                skip_scaling_list(r, if i < 6 { 16 } else { 64 })?;
            }
        }
    }
    Ok(chroma)
}

fn skip_scaling_list(r: &mut BitReader<'_>, size: u32) -> Result<(), ParseError> {
    let (mut last, mut next) = (8i32, 8i32);
    for _ in 0..size {
        if next != 0 {
            next = last.wrapping_add(r.se()?).wrapping_add(256) % 256;
        }
        if next != 0 {
            last = next;
        }
    }
    Ok(())
}

fn skip_order_count(r: &mut BitReader<'_>) -> Result<(), ParseError> {
    match r.ue()? {
        0 => {
            r.ue()?; // log2_max_pic_order_cnt_lsb_minus4
        }
        1 => {
            r.bit()?; // delta_pic_order_always_zero_flag
            r.se()?; // offset_for_non_ref_pic
            r.se()?; // offset_for_top_to_bottom_field
            let cycle = r.ue()?;
            if cycle > 255 {
                return Err(ParseError::Malformed("H.264 SPS"));
            }
            for _ in 0..cycle {
                r.se()?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// Cropped (width, height) in pixels.
fn read_crop(r: &mut BitReader<'_>, chroma: u32, fields: u64) -> Result<(u64, u64), ParseError> {
    if !r.bit()? {
        return Ok((0, 0));
    }
    let (unit_x, unit_y) = match chroma {
        1 => (2, 2),
        2 => (2, 1),
        _ => (1, 1),
    };
    let (left, right) = (u64::from(r.ue()?), u64::from(r.ue()?));
    let (top, bottom) = (u64::from(r.ue()?), u64::from(r.ue()?));
    Ok(((left + right) * unit_x, (top + bottom) * unit_y * fields))
}

/// What a `profile-level-id` says about the tools that a decoder needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    PredictiveHigh444,
}

/// A parsed `profile-level-id` (RFC 6184 section 8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProfileLevel {
    /// The profile.
    pub profile: Profile,
    /// level_idc, 31 is level 3.1; level 1b is 9.
    pub level_idc: u8,
}

impl ProfileLevel {
    /// Assumed when the parameter is absent: Constrained Baseline, level 1 by the RFC; browsers treat it as 3.1.
    pub const DEFAULT: Self = Self { profile: Profile::ConstrainedBaseline, level_idc: 31 };

    /// Reads six hexadecimal digits. `None` if they are not a profile that we know (RFC 6184 table 5).
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 6 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let value = u32::from_str_radix(text, 16).ok()?;
        let (idc, iop, mut level_idc) = ((value >> 16) as u8, (value >> 8) as u8, value as u8);
        let profile = match idc {
            0x42 if iop & 0x4f == 0x40 => Profile::ConstrainedBaseline,
            0x42 if iop & 0x4f == 0 => Profile::Baseline,
            0x4d if iop & 0x8f == 0x80 => Profile::ConstrainedBaseline,
            0x4d if iop & 0x8f == 0 => Profile::Main,
            0x58 if iop & 0xcf == 0xc0 => Profile::ConstrainedBaseline,
            0x58 if iop & 0xcf == 0x80 => Profile::Baseline,
            0x64 if iop == 0 => Profile::High,
            0x64 if iop == 0x0c => Profile::ConstrainedHigh,
            0xf4 if iop == 0 => Profile::PredictiveHigh444,
            _ => return None,
        };
        if level_idc == 11 && iop & 0x10 != 0 && matches!(idc, 0x42 | 0x4d | 0x58) {
            level_idc = 9;
        }
        Some(Self { profile, level_idc })
    }

    /// True if a decoder of `self` can be expected to decode a stream of `stream`'s profile (levels are not compared:
    /// browsers decode more than they say).
    pub fn can_decode(&self, stream: &Self) -> bool {
        use Profile::{Baseline, ConstrainedBaseline, ConstrainedHigh, High, Main};
        match stream.profile {
            ConstrainedBaseline => self.profile != Profile::PredictiveHigh444,
            Baseline => self.profile == Baseline,
            Main => matches!(self.profile, Main | High),
            ConstrainedHigh => matches!(self.profile, ConstrainedHigh | High),
            other => self.profile == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::hex;
    use proptest::prelude::*;

    /// x264, 640x360 High, level 3.0.
    const SPS_640X360: [u8; 24] = [
        0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f, 0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00,
        0x00, 0x03, 0x00, 0x3c, 0x0f, 0x16,
    ];
    /// Constrained Baseline, 1280x720 as browsers send it (OpenH264).
    const SPS_1280X720: [u8; 15] =
        [0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x28, 0x02, 0xdd, 0x00, 0xf0, 0x88, 0x45, 0x38];

    #[test]
    fn sps_size() {
        let sps = Sps::parse(&SPS_640X360).unwrap();
        assert_eq!((sps.profile_idc, sps.level_idc, sps.width, sps.height), (100, 30, 640, 360));
        let sps = Sps::parse(&SPS_1280X720).unwrap();
        assert_eq!((sps.profile_idc, sps.width, sps.height), (66, 1280, 720));
        assert!(Sps::parse(&SPS_640X360[..6]).is_err());
        assert!(Sps::parse(&[0x68, 1]).is_err());
    }

    /// Made with x264: cropped sizes, and a profile with a chroma format.
    #[test]
    fn sps_of_x264() {
        for (sps, size) in [
            ("6764001facb201b07bcdc2000003000200000300791e306490", (854, 480)),
            ("6742c028d900780227e584000003000400000300f23c60c920", (1920, 1080)),
            ("67f4000a919b28e4f1b1f080000003008000001e078912cb", (100, 50)),
        ] {
            let sps = Sps::parse(&hex(sps)).unwrap();
            assert_eq!((sps.width, sps.height), size);
        }
    }

    #[test]
    fn key_frames() {
        let mut stap = vec![0x78, 0, 24];
        stap.extend(SPS_640X360);
        stap.extend([0, 2, 0x68, 0xee]);
        let info = inspect(&stap);
        assert!(info.is_keyframe && info.is_frame_start);
        assert_eq!(info.size, Some((640, 360)));
        assert!(inspect(&[0x65, 0x88]).is_keyframe);
        assert!(inspect(&[0x7c, 0x85, 0x88]).is_keyframe);
        assert!(!inspect(&[0x7c, 0x05, 0x88]).is_keyframe);
        assert!(!inspect(&[0x41, 0x9a]).is_keyframe);
    }

    #[test]
    fn slices() {
        assert!(inspect(&[0x41, 0x9a]).is_frame_start);
        assert!(!inspect(&[0x41, 0x1a]).is_frame_start);
        assert!(inspect(&[0x01, 0x9a]).is_discardable);
        assert!(!inspect(&[0x41, 0x9a]).is_discardable);
    }

    #[test]
    fn annex_b_is_split() {
        let stream = [0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 1, 2, 0, 0, 0, 1, 0x65, 3];
        let units: Vec<&[u8]> = annex_b_units(&stream).collect();
        assert_eq!(units, [&[9, 0xf0][..], &[0x67, 1, 2], &[0x65, 3]]);
        assert_eq!(annex_b_units(&[1, 2, 3]).count(), 0);
        assert_eq!(annex_b_units(&[0, 0, 1]).count(), 0);
    }

    #[test]
    fn profiles() {
        let p = |t| ProfileLevel::parse(t).unwrap();
        assert_eq!(p("42e01f").profile, Profile::ConstrainedBaseline);
        assert_eq!(p("42001f").profile, Profile::Baseline);
        assert_eq!(p("4d001f").profile, Profile::Main);
        assert_eq!(p("640c1f").profile, Profile::ConstrainedHigh);
        assert_eq!(p("64001f"), ProfileLevel { profile: Profile::High, level_idc: 31 });
        assert_eq!(p("42f00b").level_idc, 9);
        for bad in ["", "42e01", "42e01g", "ffffff", "+2e01f"] {
            assert_eq!(ProfileLevel::parse(bad), None);
        }
        assert!(p("64001f").can_decode(&p("42e01f")) && p("42e01f").can_decode(&p("42e034")));
        assert!(!p("42e01f").can_decode(&p("64001f")) && !p("640c1f").can_decode(&p("64001f")));
    }

    proptest! {
        #[test]
        fn never_panics(p in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = inspect(&p);
            let _ = annex_b_units(&p).count();
            let mut sps = p.clone();
            sps.insert(0, 0x67);
            let _ = Sps::parse(&sps);
        }
    }
}
