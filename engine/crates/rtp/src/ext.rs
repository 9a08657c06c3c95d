//! RTP header extensions (RFC 8285) and the ones that we know.

use crate::id::{Mid, Rid};

/// Profile value of one-byte elements.
pub const ONE_BYTE_PROFILE: u16 = 0xbede;
/// Profile value of two-byte elements; the low four bits are free for the application.
pub const TWO_BYTE_PROFILE: u16 = 0x1000;

/// A header extension that we read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum ExtKind {
    AudioLevel,
    AbsSendTime,
    TransportCc,
    Mid,
    Rid,
    RepairedRid,
    DependencyDescriptor,
    PlayoutDelay,
    VideoOrientation,
    AbsCaptureTime,
    VideoLayersAllocation,
    ColorSpace,
    ContentType,
}

impl ExtKind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::AudioLevel,
        Self::AbsSendTime,
        Self::TransportCc,
        Self::Mid,
        Self::Rid,
        Self::RepairedRid,
        Self::DependencyDescriptor,
        Self::PlayoutDelay,
        Self::VideoOrientation,
        Self::AbsCaptureTime,
        Self::VideoLayersAllocation,
        Self::ColorSpace,
        Self::ContentType,
    ];

    /// The name in SDP's `a=extmap`.
    pub fn uri(self) -> &'static str {
        match self {
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransportCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::Rid => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRid => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::VideoLayersAllocation => "http://www.webrtc.org/experiments/rtp-hdrext/video-layers-allocation00",
            Self::ColorSpace => "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
            Self::ContentType => "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
        }
    }

    /// The kind of a name in SDP.
    pub fn from_uri(uri: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|k| k.uri() == uri)
    }
}

/// Sound level of a packet (RFC 6464).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioLevel {
    /// -dBov: 0 is the loudest, 127 is silence.
    pub level: u8,
    /// The sender believes that this is speech.
    pub is_voice: bool,
}

/// When the first sample of a frame was captured (WebRTC's abs-capture-time).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbsCaptureTime {
    /// NTP time, 32.32 bits, on the capturing system's clock.
    pub ntp: u64,
    /// Offset from the sending system's clock to the capturing system's, 32.32 bits; `None` if not sent.
    pub clock_offset: Option<i64>,
}

/// The values of one packet's known extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtValues<'a> {
    /// RFC 6464.
    pub audio_level: Option<AudioLevel>,
    /// Seconds modulo 64 as 6.18 bits fixed point.
    pub abs_send_time: Option<u32>,
    /// Transport-wide sequence number.
    pub transport_cc: Option<u16>,
    /// RFC 9143.
    pub mid: Option<Mid>,
    /// RFC 8852.
    pub rid: Option<Rid>,
    /// RFC 8852: of the stream that this one (RTX) repairs.
    pub repaired_rid: Option<Rid>,
    /// Raw; read by [`crate::codec::dependency_descriptor`].
    pub dependency_descriptor: Option<&'a [u8]>,
    /// (least, most) in units of 10 ms, 12 bits each.
    pub playout_delay: Option<(u16, u16)>,
    /// 3GPP coordination of video orientation: camera, flip and rotation bits.
    pub video_orientation: Option<u8>,
    /// When it was captured.
    pub abs_capture_time: Option<AbsCaptureTime>,
    /// Raw.
    pub video_layers_allocation: Option<&'a [u8]>,
    /// Raw.
    pub color_space: Option<&'a [u8]>,
    /// 0 unspecified, 1 screen share.
    pub content_type: Option<u8>,
}

/// Which id stands for which extension on a transport; ids are 1 to 255, and 15 is never used in the one-byte form.
#[derive(Clone, PartialEq, Eq)]
pub struct ExtMap {
    kinds: [Option<ExtKind>; 256],
    ids: [u8; ExtKind::ALL.len()],
}

impl Default for ExtMap {
    fn default() -> Self {
        Self { kinds: [None; 256], ids: [0; ExtKind::ALL.len()] }
    }
}

impl std::fmt::Debug for ExtMap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl ExtMap {
    /// No extension.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mapping. False, and no change, if the id is 0 or taken by another kind, or the kind has another id.
    pub fn set(&mut self, id: u8, kind: ExtKind) -> bool {
        let current = self.ids[kind as usize];
        if id == 0 || (current != 0 && current != id) || self.kind_of(id).is_some_and(|k| k != kind) {
            return false;
        }
        self.kinds[usize::from(id)] = Some(kind);
        self.ids[kind as usize] = id;
        true
    }

    /// The kind of an id.
    pub fn kind_of(&self, id: u8) -> Option<ExtKind> {
        self.kinds[usize::from(id)]
    }

    /// The id of a kind.
    pub fn id_of(&self, kind: ExtKind) -> Option<u8> {
        match self.ids[kind as usize] {
            0 => None,
            id => Some(id),
        }
    }

    /// (id, kind) of each mapping, in the order of kinds.
    pub fn iter(&self) -> impl Iterator<Item = (u8, ExtKind)> + '_ {
        ExtKind::ALL.into_iter().filter_map(|k| self.id_of(k).map(|id| (id, k)))
    }

    /// Reads the known elements of an extension block. What is unknown or malformed is passed over.
    pub fn parse<'a>(&self, profile: u16, block: &'a [u8]) -> ExtValues<'a> {
        let mut values = ExtValues::default();
        for (id, data) in Elements::new(profile, block) {
            if let Some(kind) = self.kind_of(id) {
                values.read(kind, data);
            }
        }
        values
    }

    /// Writes the values that have an id as an extension block (profile, length, elements, padding) and returns its
    /// length: 0 if there is nothing to write, so that the header's extension bit stays clear.
    ///
    /// Uses the one-byte form whenever it can hold all of it. Values that no longer fit into `out` are left out.
    pub fn write(&self, values: &ExtValues<'_>, out: &mut [u8]) -> usize {
        let is_two_byte = ExtKind::ALL.into_iter().any(|kind| {
            self.id_of(kind).is_some_and(|id| {
                let len = values.encoded_len(kind);
                len.is_some_and(|len| id > 14 || len == 0 || len > 16)
            })
        });
        let mut at = 4;
        for (id, kind) in self.iter() {
            if let Some(len) = values.encoded_len(kind) {
                at += write_element(values, kind, id, len, is_two_byte, out.get_mut(at..).unwrap_or_default());
            }
        }
        if at == 4 {
            return 0;
        }
        let end = at.next_multiple_of(4);
        if end > out.len() {
            return 0;
        }
        out[at..end].fill(0);
        let profile = if is_two_byte { TWO_BYTE_PROFILE } else { ONE_BYTE_PROFILE };
        out[..2].copy_from_slice(&profile.to_be_bytes());
        out[2..4].copy_from_slice(&((end / 4 - 1) as u16).to_be_bytes());
        end
    }
}

fn write_element(
    values: &ExtValues<'_>,
    kind: ExtKind,
    id: u8,
    len: usize,
    is_two_byte: bool,
    out: &mut [u8],
) -> usize {
    let head = if is_two_byte { 2 } else { 1 };
    // Room for the padding to four bytes is kept free too.
    if len > 255 || out.len() < head + len + 3 {
        return 0;
    }
    if is_two_byte {
        out[0] = id;
        out[1] = len as u8;
    } else {
        out[0] = id << 4 | (len - 1) as u8;
    }
    values.encode(kind, &mut out[head..head + len]);
    head + len
}

/// The elements of an extension block: (id, data).
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    is_two_byte: bool,
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// Of a block's content; yields nothing for a profile that is not RFC 8285's.
    pub fn new(profile: u16, block: &'a [u8]) -> Self {
        let is_two_byte = profile & 0xfff0 == TWO_BYTE_PROFILE;
        let is_known = is_two_byte || profile == ONE_BYTE_PROFILE;
        Self { is_two_byte, rest: if is_known { block } else { &[] } }
    }

    fn end(&mut self) -> Option<(u8, &'a [u8])> {
        self.rest = &[];
        None
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            if first == 0 {
                self.rest = rest;
                continue;
            }
            let (id, len, rest) = if self.is_two_byte {
                let Some((&len, rest)) = rest.split_first() else { return self.end() };
                (first, usize::from(len), rest)
            } else {
                // RFC 8285 section 4.2: id 0 with a length is padding's kin, id 15 ends the block.
                if first >> 4 == 15 {
                    return self.end();
                }
                (first >> 4, usize::from(first & 15) + 1, rest)
            };
            if len > rest.len() {
                return self.end();
            }
            let (data, rest) = rest.split_at(len);
            self.rest = rest;
            if id != 0 {
                return Some((id, data));
            }
        }
    }
}

impl<'a> ExtValues<'a> {
    fn read(&mut self, kind: ExtKind, data: &'a [u8]) {
        match kind {
            ExtKind::AudioLevel => {
                self.audio_level = data.first().map(|b| AudioLevel { level: b & 0x7f, is_voice: b & 0x80 != 0 });
            }
            ExtKind::AbsSendTime => self.abs_send_time = data.first_chunk().map(read_u24),
            ExtKind::TransportCc => self.transport_cc = data.first_chunk().map(|b| u16::from_be_bytes(*b)),
            ExtKind::Mid => self.mid = Mid::from_bytes(data),
            ExtKind::Rid => self.rid = Rid::from_bytes(data),
            ExtKind::RepairedRid => self.repaired_rid = Rid::from_bytes(data),
            ExtKind::DependencyDescriptor => self.dependency_descriptor = Some(data),
            ExtKind::PlayoutDelay => {
                self.playout_delay = data.first_chunk().map(read_u24).map(|v| ((v >> 12) as u16, (v & 0xfff) as u16));
            }
            ExtKind::VideoOrientation => self.video_orientation = data.first().copied(),
            ExtKind::AbsCaptureTime => self.abs_capture_time = read_capture_time(data),
            ExtKind::VideoLayersAllocation => self.video_layers_allocation = Some(data),
            ExtKind::ColorSpace => self.color_space = Some(data),
            ExtKind::ContentType => self.content_type = data.first().copied(),
        }
    }

    fn encoded_len(&self, kind: ExtKind) -> Option<usize> {
        match kind {
            ExtKind::AudioLevel => self.audio_level.map(|_| 1),
            ExtKind::AbsSendTime => self.abs_send_time.map(|_| 3),
            ExtKind::TransportCc => self.transport_cc.map(|_| 2),
            ExtKind::Mid => self.mid.map(|m| m.as_bytes().len()),
            ExtKind::Rid => self.rid.map(|r| r.as_bytes().len()),
            ExtKind::RepairedRid => self.repaired_rid.map(|r| r.as_bytes().len()),
            ExtKind::DependencyDescriptor => self.dependency_descriptor.map(<[u8]>::len),
            ExtKind::PlayoutDelay => self.playout_delay.map(|_| 3),
            ExtKind::VideoOrientation => self.video_orientation.map(|_| 1),
            ExtKind::AbsCaptureTime => self.abs_capture_time.map(|t| if t.clock_offset.is_some() { 16 } else { 8 }),
            ExtKind::VideoLayersAllocation => self.video_layers_allocation.map(<[u8]>::len),
            ExtKind::ColorSpace => self.color_space.map(<[u8]>::len),
            ExtKind::ContentType => self.content_type.map(|_| 1),
        }
    }

    /// Writes a present value into a slice of its [`Self::encoded_len`].
    fn encode(&self, kind: ExtKind, out: &mut [u8]) {
        let mut put = |bytes: &[u8]| out.copy_from_slice(bytes);
        match kind {
            ExtKind::AudioLevel => {
                if let Some(a) = self.audio_level {
                    put(&[u8::from(a.is_voice) << 7 | a.level & 0x7f]);
                }
            }
            ExtKind::AbsSendTime => put(&self.abs_send_time.unwrap_or_default().to_be_bytes()[1..]),
            ExtKind::TransportCc => put(&self.transport_cc.unwrap_or_default().to_be_bytes()),
            ExtKind::Mid => put(self.mid.as_ref().map(Mid::as_bytes).unwrap_or_default()),
            ExtKind::Rid => put(self.rid.as_ref().map(Rid::as_bytes).unwrap_or_default()),
            ExtKind::RepairedRid => put(self.repaired_rid.as_ref().map(Rid::as_bytes).unwrap_or_default()),
            ExtKind::DependencyDescriptor => put(self.dependency_descriptor.unwrap_or_default()),
            ExtKind::PlayoutDelay => {
                let (least, most) = self.playout_delay.unwrap_or_default();
                put(&(u32::from(least & 0xfff) << 12 | u32::from(most & 0xfff)).to_be_bytes()[1..]);
            }
            ExtKind::VideoOrientation => put(&[self.video_orientation.unwrap_or_default()]),
            ExtKind::AbsCaptureTime => {
                if let Some(t) = self.abs_capture_time {
                    out[..8].copy_from_slice(&t.ntp.to_be_bytes());
                    if let Some(offset) = t.clock_offset {
                        out[8..].copy_from_slice(&offset.to_be_bytes());
                    }
                }
            }
            ExtKind::VideoLayersAllocation => put(self.video_layers_allocation.unwrap_or_default()),
            ExtKind::ColorSpace => put(self.color_space.unwrap_or_default()),
            ExtKind::ContentType => put(&[self.content_type.unwrap_or_default()]),
        }
    }
}

fn read_u24(b: &[u8; 3]) -> u32 {
    u32::from_be_bytes([0, b[0], b[1], b[2]])
}

fn read_capture_time(data: &[u8]) -> Option<AbsCaptureTime> {
    let (ntp, rest) = data.split_first_chunk()?;
    Some(AbsCaptureTime {
        ntp: u64::from_be_bytes(*ntp),
        clock_offset: rest.first_chunk().map(|b| i64::from_be_bytes(*b)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(ids: &[(u8, ExtKind)]) -> ExtMap {
        let mut m = ExtMap::new();
        for &(id, kind) in ids {
            assert!(m.set(id, kind));
        }
        m
    }

    #[test]
    fn map_refuses_conflicts() {
        let mut m = map(&[(1, ExtKind::Mid)]);
        assert!(m.set(1, ExtKind::Mid));
        assert!(!m.set(1, ExtKind::Rid));
        assert!(!m.set(2, ExtKind::Mid));
        assert!(!m.set(0, ExtKind::Rid));
        assert_eq!(m.iter().collect::<Vec<_>>(), [(1, ExtKind::Mid)]);
    }

    #[test]
    fn uris_are_found_again() {
        for kind in ExtKind::ALL {
            assert_eq!(ExtKind::from_uri(kind.uri()), Some(kind));
        }
        assert_eq!(ExtKind::from_uri("urn:x"), None);
    }

    #[test]
    fn one_byte_form_skips_padding_and_stops_at_15() {
        let m = map(&[(1, ExtKind::AudioLevel), (3, ExtKind::TransportCc)]);
        let v = m.parse(ONE_BYTE_PROFILE, &[0x10, 0x85, 0, 0, 0x31, 1, 2, 0xf0, 0x10, 0x01]);
        assert_eq!(v.audio_level, Some(AudioLevel { level: 5, is_voice: true }));
        assert_eq!(v.transport_cc, Some(0x0102));
    }

    #[test]
    fn truncated_element_ends_the_block() {
        let m = map(&[(1, ExtKind::AudioLevel), (3, ExtKind::Mid)]);
        let v = m.parse(ONE_BYTE_PROFILE, &[0x10, 5, 0x3f, b'a']);
        assert_eq!((v.audio_level.is_some(), v.mid), (true, None));
        assert_eq!(m.parse(0x1234, &[0x10, 5, 0, 0]), ExtValues::default());
    }

    #[test]
    fn wide_values_take_the_two_byte_form() {
        let m = map(&[(1, ExtKind::Mid), (2, ExtKind::DependencyDescriptor)]);
        let dd = [7u8; 40];
        let values = ExtValues { mid: Mid::new("3"), dependency_descriptor: Some(&dd), ..Default::default() };
        let mut out = [0xaa; 80];
        let n = m.write(&values, &mut out);
        assert_eq!(u16::from_be_bytes([out[0], out[1]]), TWO_BYTE_PROFILE);
        assert_eq!(m.parse(TWO_BYTE_PROFILE, &out[4..n]), values);
    }

    #[test]
    fn nothing_to_write_is_no_block() {
        let m = map(&[(1, ExtKind::Mid)]);
        assert_eq!(m.write(&ExtValues { rid: Rid::new("h"), ..Default::default() }, &mut [0; 32]), 0);
        assert_eq!(m.write(&ExtValues { mid: Mid::new("h"), ..Default::default() }, &mut [0; 3]), 0);
    }

    proptest! {
        #[test]
        fn writes_what_it_reads(level in 0u8..128, is_voice: bool, send in 0u32..1 << 24, cc: u16,
                                delay in (0u16..4096, 0u16..4096), ntp: u64, offset: Option<i64>, base in 1u8..30) {
            let mut m = ExtMap::new();
            for (i, kind) in ExtKind::ALL.into_iter().enumerate() {
                m.set(base + i as u8, kind);
            }
            let values = ExtValues {
                audio_level: Some(AudioLevel { level, is_voice }),
                abs_send_time: Some(send),
                transport_cc: Some(cc),
                mid: Mid::new("m1"),
                rid: Rid::new("q"),
                playout_delay: Some(delay),
                abs_capture_time: Some(AbsCaptureTime { ntp, clock_offset: offset }),
                content_type: Some(1),
                ..Default::default()
            };
            let mut out = [0u8; 128];
            let n = m.write(&values, &mut out);
            prop_assert!(n > 0 && n.is_multiple_of(4));
            let profile = u16::from_be_bytes([out[0], out[1]]);
            prop_assert_eq!(usize::from(u16::from_be_bytes([out[2], out[3]])) * 4 + 4, n);
            prop_assert_eq!(m.parse(profile, &out[4..n]), values);
        }

        #[test]
        fn never_panics(profile in prop_oneof![Just(0xbedeu16), Just(0x1000u16), any::<u16>()],
                        block in prop::collection::vec(any::<u8>(), 0..80), base in 1u8..240) {
            let mut m = ExtMap::new();
            for (i, kind) in ExtKind::ALL.into_iter().enumerate() {
                m.set(base + i as u8, kind);
            }
            let values = m.parse(profile, &block);
            let mut out = [0u8; 200];
            let n = m.write(&values, &mut out);
            prop_assert!(n <= out.len());
        }
    }
}
