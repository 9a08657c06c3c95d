//! The dependency descriptor (AV1 RTP specification appendix A): layers and dependencies in a header extension.
//!
//! A stream's descriptors refer to templates that are sent with its key frames, so reading needs a [`Reader`] per
//! stream that keeps the last template structure.

use super::PayloadInfo;
use crate::bits::BitReader;
use crate::error::ParseError;

/// Most templates in a structure: template ids have six bits.
const MAX_TEMPLATES: usize = 64;
/// Most decode targets and most chains: both are counted with five bits and one.
pub const MAX_DECODE_TARGETS: usize = 32;
/// References that are kept of a frame; more are read and dropped.
pub const MAX_FDIFFS: usize = 8;

/// A decode target of a template structure: what a receiver of it gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodeTarget {
    /// Highest spatial layer.
    pub spatial: u8,
    /// Highest temporal layer.
    pub temporal: u8,
    /// Index of the chain that protects it.
    pub chain: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Template {
    spatial: u8,
    temporal: u8,
    dtis: Dtis,
    fdiffs: Fdiffs,
    chain_fdiffs: [u8; MAX_DECODE_TARGETS],
}

/// Decode target indications of a frame, a bit per target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dtis {
    /// The frame belongs to the target (discardable, switch or required).
    pub present: u32,
    /// Nothing else of the target depends on it.
    pub discardable: u32,
    /// All later frames of the target can be decoded once this one is.
    pub switch: u32,
    /// Needed by later frames.
    pub required: u32,
}

impl Dtis {
    fn set(&mut self, target: usize, dti: u32) {
        let bit = 1 << target;
        match dti {
            1 => self.discardable |= bit,
            2 => self.switch |= bit,
            3 => self.required |= bit,
            _ => return,
        }
        self.present |= bit;
    }
}

/// Distances in frame numbers to the frames that a frame refers to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fdiffs {
    count: u8,
    values: [u16; MAX_FDIFFS],
}

impl Fdiffs {
    /// The distances.
    pub fn as_slice(&self) -> &[u16] {
        &self.values[..usize::from(self.count)]
    }

    fn push(&mut self, value: u16) {
        if let Some(slot) = self.values.get_mut(usize::from(self.count)) {
            *slot = value;
            self.count += 1;
        }
    }
}

/// The templates of a coded video sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Structure {
    id_offset: u8,
    templates: Vec<Template>,
    targets: Vec<DecodeTarget>,
    chain_count: u8,
    resolutions: Vec<(u16, u16)>,
}

impl Structure {
    /// What receivers can choose from, as the sender orders it (libwebrtc: by spatial, then temporal layer).
    pub fn decode_targets(&self) -> &[DecodeTarget] {
        &self.targets
    }

    /// Number of chains.
    pub fn chain_count(&self) -> u8 {
        self.chain_count
    }

    /// Width and height of each spatial layer, lowest first; empty if not sent.
    pub fn resolutions(&self) -> &[(u16, u16)] {
        &self.resolutions
    }

    fn read(r: &mut BitReader<'_>) -> Result<Self, ParseError> {
        let id_offset = r.bits(6)? as u8;
        let target_count = r.bits(5)? as usize + 1;
        let mut templates = read_layers(r)?;
        for template in &mut templates {
            for target in 0..target_count {
                template.dtis.set(target, r.bits(2)?);
            }
        }
        for template in &mut templates {
            while r.bit()? {
                template.fdiffs.push(r.bits(4)? as u16 + 1);
            }
        }
        let mut targets: Vec<DecodeTarget> = (0..target_count).map(|t| target_layers(&templates, t)).collect();
        let chain_count = r.ns(target_count as u32 + 1)?;
        if chain_count > 0 {
            for target in &mut targets {
                target.chain = Some(r.ns(chain_count)? as u8);
            }
            for template in &mut templates {
                for fdiff in &mut template.chain_fdiffs[..chain_count as usize] {
                    *fdiff = r.bits(4)? as u8;
                }
            }
        }
        let mut resolutions = Vec::new();
        if r.bit()? {
            let spatial_layers = templates.iter().map(|t| t.spatial).max().unwrap_or_default() + 1;
            for _ in 0..spatial_layers {
                let (width, height) = (r.bits(16)? as u16, r.bits(16)? as u16);
                resolutions.push((width.saturating_add(1), height.saturating_add(1)));
            }
        }
        Ok(Self { id_offset, templates, targets, chain_count: chain_count as u8, resolutions })
    }
}

fn read_layers(r: &mut BitReader<'_>) -> Result<Vec<Template>, ParseError> {
    let (mut spatial, mut temporal) = (0u8, 0u8);
    let mut templates = Vec::new();
    loop {
        if templates.len() == MAX_TEMPLATES {
            return Err(ParseError::Malformed("dependency descriptor templates"));
        }
        templates.push(Template { spatial, temporal, ..Template::default() });
        match r.bits(2)? {
            0 => {}
            1 => temporal += 1,
            2 => (spatial, temporal) = (spatial + 1, 0),
            _ => break,
        }
        // Three bits of temporal and two of spatial layer in AV1's own headers.
        if spatial > 3 || temporal > 7 {
            return Err(ParseError::Malformed("dependency descriptor layers"));
        }
    }
    Ok(templates)
}

fn target_layers(templates: &[Template], target: usize) -> DecodeTarget {
    let of_target = || templates.iter().filter(move |t| t.dtis.present & 1 << target != 0);
    DecodeTarget {
        spatial: of_target().map(|t| t.spatial).max().unwrap_or_default(),
        temporal: of_target().map(|t| t.temporal).max().unwrap_or_default(),
        chain: None,
    }
}

/// One packet's descriptor, resolved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameInfo {
    /// First packet of the frame.
    pub is_frame_start: bool,
    /// Last packet of the frame.
    pub is_frame_end: bool,
    /// The packet carries a template structure: it begins a coded video sequence.
    pub has_structure: bool,
    /// Counts the frames of the stream, wraps.
    pub frame_number: u16,
    /// Spatial layer.
    pub spatial: u8,
    /// Temporal layer.
    pub temporal: u8,
    /// What the frame is to each decode target.
    pub dtis: Dtis,
    /// Frames that it refers to.
    pub fdiffs: Fdiffs,
    /// Distance to the previous frame of each chain, 0 if the frame starts it.
    pub chain_fdiffs: [u8; MAX_DECODE_TARGETS],
    /// Decode targets that are sent at the moment, if the packet says so.
    pub active_decode_targets: Option<u32>,
    /// Size of the frame, if the structure tells.
    pub size: Option<(u16, u16)>,
}

impl FrameInfo {
    /// Overwrites in `info` what the descriptor knows better than the payload.
    pub(super) fn apply(&self, info: &mut PayloadInfo) {
        info.is_keyframe = self.has_structure;
        info.is_intra = self.fdiffs.as_slice().is_empty();
        info.is_frame_start = self.is_frame_start;
        info.is_frame_end = self.is_frame_end;
        info.spatial = self.spatial;
        info.temporal = self.temporal;
        info.is_inter_layer = self.spatial > 0;
        info.is_switch_point = self.dtis.switch != 0;
        info.is_discardable = self.dtis.required == 0 && self.dtis.switch == 0;
        info.picture_id = Some(self.frame_number);
        info.decode_targets = self.dtis.present;
        if self.has_structure {
            info.size = self.size.or(info.size);
        }
    }
}

/// Reads the descriptors of one stream.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    structure: Option<Box<Structure>>,
}

impl Reader {
    /// Knows no structure yet: reads nothing before a key frame.
    pub fn new() -> Self {
        Self::default()
    }

    /// The last template structure.
    pub fn structure(&self) -> Option<&Structure> {
        self.structure.as_deref()
    }

    /// Reads the extension's bytes. A template structure in it is kept for the packets behind it.
    pub fn read(&mut self, bytes: &[u8]) -> Result<FrameInfo, ParseError> {
        let mut r = BitReader::new(bytes, "dependency descriptor");
        let mut frame = FrameInfo { is_frame_start: r.bit()?, is_frame_end: r.bit()?, ..FrameInfo::default() };
        let template_id = r.bits(6)? as u8;
        frame.frame_number = r.bits(16)? as u16;
        let (mut has_dtis, mut has_fdiffs, mut has_chains) = (false, false, false);
        if bytes.len() > 3 {
            frame.has_structure = r.bit()?;
            let has_active = r.bit()?;
            (has_dtis, has_fdiffs, has_chains) = (r.bit()?, r.bit()?, r.bit()?);
            if frame.has_structure {
                let structure = Structure::read(&mut r)?;
                frame.active_decode_targets = Some(all_targets(structure.targets.len()));
                self.structure = Some(Box::new(structure));
            }
            if has_active {
                let count = self.structure.as_ref().ok_or(UNKNOWN_STRUCTURE)?.targets.len();
                frame.active_decode_targets = Some(r.bits(count as u32)?);
            }
        }
        let structure = self.structure.as_deref().ok_or(UNKNOWN_STRUCTURE)?;
        let index = usize::from((template_id + 64 - structure.id_offset) % 64);
        let template = structure.templates.get(index).ok_or(UNKNOWN_STRUCTURE)?;
        (frame.spatial, frame.temporal) = (template.spatial, template.temporal);
        frame.dtis = if has_dtis { read_dtis(&mut r, structure.targets.len())? } else { template.dtis };
        frame.fdiffs = if has_fdiffs { read_fdiffs(&mut r)? } else { template.fdiffs };
        frame.chain_fdiffs = template.chain_fdiffs;
        if has_chains {
            for fdiff in &mut frame.chain_fdiffs[..usize::from(structure.chain_count)] {
                *fdiff = r.bits(8)? as u8;
            }
        }
        frame.size = structure.resolutions.get(usize::from(frame.spatial)).copied();
        Ok(frame)
    }
}

const UNKNOWN_STRUCTURE: ParseError = ParseError::Malformed("dependency descriptor without its structure");

fn all_targets(count: usize) -> u32 {
    u32::MAX >> (32 - count.clamp(1, 32))
}

fn read_dtis(r: &mut BitReader<'_>, count: usize) -> Result<Dtis, ParseError> {
    let mut dtis = Dtis::default();
    for target in 0..count {
        dtis.set(target, r.bits(2)?);
    }
    Ok(dtis)
}

fn read_fdiffs(r: &mut BitReader<'_>) -> Result<Fdiffs, ParseError> {
    let mut fdiffs = Fdiffs::default();
    loop {
        match r.bits(2)? {
            0 => return Ok(fdiffs),
            nibbles => fdiffs.push(r.bits(4 * nibbles)? as u16 + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Writes bits for hand-made descriptors.
    #[derive(Default)]
    struct Bits(Vec<bool>);

    impl Bits {
        fn put(&mut self, value: u32, n: u32) -> &mut Self {
            self.0.extend((0..n).rev().map(|i| value >> i & 1 != 0));
            self
        }

        fn bytes(&self) -> Vec<u8> {
            self.0.chunks(8).map(|c| c.iter().enumerate().fold(0, |b, (i, &v)| b | u8::from(v) << (7 - i))).collect()
        }
    }

    /// One spatial, two temporal layers (L1T2), two decode targets, one chain, 640x360.
    fn key_descriptor() -> Vec<u8> {
        let mut b = Bits::default();
        b.put(1, 1).put(0, 1).put(5, 6).put(100, 16); // start, template 5, frame 100
        b.put(0b10000, 5); // structure only
        b.put(5, 6).put(1, 5); // offset 5, two targets
        b.put(0, 2).put(1, 2).put(3, 2); // templates: T0 T0 T1
        b.put(0b1010, 4).put(0b1111, 4).put(0b0001, 4); // dtis: switch switch; required required; none, discardable
        b.put(0, 1); // T0 key: no references
        b.put(1, 1).put(1, 4).put(0, 1); // T0: 2 back
        b.put(1, 1).put(0, 4).put(0, 1); // T1: 1 back
        b.put(0b10, 2); // ns(3) = 1 chain: w=2, m=1, v=1 bit '1' -> extra '0' -> 1
        // ns(1) takes no bits
        b.put(0, 4).put(2, 4).put(1, 4); // chain distances
        b.put(1, 1).put(639, 16).put(359, 16);
        b.bytes()
    }

    #[test]
    fn key_frame_brings_the_structure() {
        let mut reader = Reader::new();
        let f = reader.read(&key_descriptor()).unwrap();
        assert!(f.is_frame_start && !f.is_frame_end && f.has_structure);
        assert_eq!((f.frame_number, f.spatial, f.temporal), (100, 0, 0));
        assert_eq!((f.dtis.present, f.dtis.switch, f.active_decode_targets), (3, 3, Some(3)));
        assert_eq!(f.size, Some((640, 360)));
        let targets = reader.structure().unwrap().decode_targets();
        assert_eq!(targets[0], DecodeTarget { spatial: 0, temporal: 0, chain: Some(0) });
        assert_eq!(targets[1], DecodeTarget { spatial: 0, temporal: 1, chain: Some(0) });
    }

    #[test]
    fn later_frames_refer_to_it() {
        let mut reader = Reader::new();
        assert!(reader.read(&[0xc7, 0, 101]).is_err());
        reader.read(&key_descriptor()).unwrap();
        let f = reader.read(&[0xc7, 0, 101]).unwrap();
        assert!(f.is_frame_start && f.is_frame_end && !f.has_structure);
        assert_eq!((f.frame_number, f.temporal, f.dtis.present, f.dtis.discardable), (101, 1, 2, 2));
        assert_eq!((f.fdiffs.as_slice(), f.chain_fdiffs[0]), (&[1][..], 1));
        assert!(reader.read(&[0xc8, 0, 101]).is_err());
        let mut info = PayloadInfo::default();
        f.apply(&mut info);
        assert!(info.is_discardable && !info.is_keyframe && info.temporal == 1);
    }

    #[test]
    fn custom_fields_replace_the_template() {
        let mut reader = Reader::new();
        reader.read(&key_descriptor()).unwrap();
        let mut b = Bits::default();
        b.put(3, 2).put(6, 6).put(102, 16).put(0b01111, 5).put(1, 2);
        b.put(0b0010, 4).put(1, 2).put(3, 4).put(2, 2).put(99, 8).put(0, 2).put(7, 8);
        let f = reader.read(&b.bytes()).unwrap();
        assert_eq!((f.active_decode_targets, f.dtis.present, f.dtis.switch), (Some(1), 2, 2));
        assert_eq!((f.fdiffs.as_slice(), f.chain_fdiffs[0]), (&[4, 100][..], 7));
    }

    proptest! {
        #[test]
        fn never_panics(inputs in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..4), flip in 0usize..400) {
            let mut reader = Reader::new();
            for bytes in &inputs {
                let _ = reader.read(bytes);
            }
            let mut key = key_descriptor();
            let at = flip % (key.len() * 8);
            key[at / 8] ^= 1 << (at % 8);
            let _ = reader.read(&key);
            for bytes in &inputs {
                let _ = reader.read(bytes);
            }
        }
    }
}
