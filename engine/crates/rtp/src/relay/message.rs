//! The bodies of packets between nodes.

use crate::error::ParseError;
use crate::ext::AudioLevel;
use crate::id::SeqNo;

const MEDIA: u8 = 1;
const NACK: u8 = 2;
const KEYFRAME_REQUEST: u8 = 3;
const LAYERS_WANTED: u8 = 4;
const SENDER_REPORT: u8 = 5;
const TRACK_ENDED: u8 = 6;
const PING: u8 = 7;
const PONG: u8 = 8;
const DATA: u8 = 9;

/// Longest dependency descriptor that fits: its length has one byte.
pub const MAX_DESCRIPTOR_LEN: usize = 255;

/// What a packet between nodes says. A `handle` names a track; the receiving node chose it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Message<'a> {
    /// One RTP packet of a track, without its header.
    Media(Media<'a>),
    /// Asks for packets again.
    Nack {
        /// Of which track.
        handle: u32,
        /// Of which layer.
        layer: u8,
        /// Which.
        seqs: SeqList<'a>,
    },
    /// Asks for a key frame.
    KeyframeRequest {
        /// Of which track.
        handle: u32,
        /// Of which layer.
        layer: u8,
    },
    /// Tells which layers the receiving side needs. The last one counts; it is repeated.
    LayersWanted {
        /// Of which track.
        handle: u32,
        /// Bit n: layer n (simulcast) or spatial layer n.
        mask: u8,
        /// Highest temporal layer.
        temporal: u8,
    },
    /// Ties a layer's timestamps to the origin node's wall clock.
    SenderReport {
        /// Of which track.
        handle: u32,
        /// Of which layer.
        layer: u8,
        /// RTP timestamp.
        rtp_timestamp: u32,
        /// The same moment, Unix microseconds.
        ntp_unix_us: i64,
    },
    /// The track ended at its origin.
    TrackEnded {
        /// Which.
        handle: u32,
    },
    /// A datagram of the association that carries data messages (SCTP).
    Data {
        /// 0.
        handle: u32,
        /// As SCTP made it.
        datagram: &'a [u8],
    },
    /// Is the other node there?
    Ping {
        /// Comes back in the answer.
        id: u32,
        /// The sender's clock in microseconds; comes back too.
        sent_at_us: u64,
    },
    /// It is.
    Pong {
        /// As in `Ping`.
        id: u32,
        /// As in `Ping`.
        sent_at_us: u64,
    },
}

/// What the origin read from the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MediaFlags {
    /// RTP marker.
    pub marker: bool,
    /// See [`crate::codec::PayloadInfo::is_keyframe`].
    pub is_keyframe: bool,
    /// See [`crate::codec::PayloadInfo::is_frame_start`].
    pub is_frame_start: bool,
    /// See [`crate::codec::PayloadInfo::is_frame_end`].
    pub is_frame_end: bool,
    /// It was sent before and is sent again.
    pub is_retransmission: bool,
}

const MARKER: u8 = 1;
const KEYFRAME: u8 = 2;
const FRAME_START: u8 = 4;
const FRAME_END: u8 = 8;
const RETRANSMISSION: u8 = 16;
const HAS_AUDIO_LEVEL: u8 = 32;
const HAS_DESCRIPTOR: u8 = 64;

/// One RTP packet of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Media<'a> {
    /// Which track.
    pub handle: u32,
    /// Which simulcast layer, 0 if there is one.
    pub layer: u8,
    /// What the origin read from the packet.
    pub flags: MediaFlags,
    /// Low 32 bits of the layer's extended sequence number.
    pub seq: u32,
    /// RTP timestamp of the layer.
    pub rtp_timestamp: u32,
    /// RFC 6464 level.
    pub audio_level: Option<AudioLevel>,
    /// Raw dependency descriptor, at most [`MAX_DESCRIPTOR_LEN`] bytes; a longer one is not sent.
    pub dependency_descriptor: Option<&'a [u8]>,
    /// RTP payload without padding.
    pub payload: &'a [u8],
}

/// Sequence numbers of a [`Message::Nack`]: to be sent from a slice, or lent from a packet.
#[derive(Clone, Copy)]
pub enum SeqList<'a> {
    /// To be sent.
    Numbers(&'a [SeqNo]),
    /// As received: two bytes each.
    Bytes(&'a [u8]),
}

impl<'a> SeqList<'a> {
    /// The numbers.
    pub fn iter(&self) -> impl Iterator<Item = SeqNo> + 'a {
        let (numbers, bytes) = match *self {
            Self::Numbers(numbers) => (numbers, &[][..]),
            Self::Bytes(bytes) => (&[][..], bytes),
        };
        numbers.iter().copied().chain(bytes.as_chunks::<2>().0.iter().map(|b| SeqNo(u16::from_be_bytes(*b))))
    }

    fn byte_len(&self) -> usize {
        match self {
            Self::Numbers(numbers) => 2 * numbers.len(),
            Self::Bytes(bytes) => bytes.len(),
        }
    }
}

impl PartialEq for SeqList<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for SeqList<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter().map(|s| s.0)).finish()
    }
}

impl<'a> Message<'a> {
    /// Bytes of the body.
    pub fn encoded_len(&self) -> usize {
        match self {
            Self::Media(m) => m.encoded_len(),
            Self::Nack { seqs, .. } => 6 + seqs.byte_len(),
            Self::KeyframeRequest { .. } => 6,
            Self::LayersWanted { .. } => 7,
            Self::SenderReport { .. } => 18,
            Self::TrackEnded { .. } => 5,
            Self::Ping { .. } | Self::Pong { .. } => 13,
            Self::Data { datagram, .. } => 5 + datagram.len(),
        }
    }

    /// Writes the body into a slice of [`Self::encoded_len`] bytes.
    pub(super) fn encode(&self, out: &mut [u8]) {
        let mut w = Writer { out, at: 0 };
        match *self {
            Self::Media(ref m) => m.encode(&mut w),
            Self::Nack { handle, layer, seqs } => {
                w.head(NACK, handle).put(&[layer]);
                for seq in seqs.iter() {
                    w.put(&seq.0.to_be_bytes());
                }
            }
            Self::KeyframeRequest { handle, layer } => drop(w.head(KEYFRAME_REQUEST, handle).put(&[layer])),
            Self::LayersWanted { handle, mask, temporal } => {
                w.head(LAYERS_WANTED, handle).put(&[mask, temporal]);
            }
            Self::SenderReport { handle, layer, rtp_timestamp, ntp_unix_us } => {
                w.head(SENDER_REPORT, handle).put(&[layer]);
                w.put(&rtp_timestamp.to_be_bytes()).put(&ntp_unix_us.to_be_bytes());
            }
            Self::TrackEnded { handle } => drop(w.head(TRACK_ENDED, handle)),
            Self::Data { handle, datagram } => drop(w.head(DATA, handle).put(datagram)),
            Self::Ping { id, sent_at_us } => drop(w.head(PING, id).put(&sent_at_us.to_be_bytes())),
            Self::Pong { id, sent_at_us } => drop(w.head(PONG, id).put(&sent_at_us.to_be_bytes())),
        }
    }

    /// Reads a body.
    pub fn decode(body: &'a [u8]) -> Result<Self, ParseError> {
        let mut r = Reader(body);
        let kind = r.u8()?;
        let handle = r.u32()?;
        let message = match kind {
            MEDIA => return Media::decode(handle, r).map(Self::Media),
            NACK => return decode_nack(handle, r),
            DATA => return Ok(Self::Data { handle, datagram: r.0 }),
            KEYFRAME_REQUEST => Self::KeyframeRequest { handle, layer: r.u8()? },
            LAYERS_WANTED => Self::LayersWanted { handle, mask: r.u8()?, temporal: r.u8()? },
            SENDER_REPORT => Self::SenderReport {
                handle,
                layer: r.u8()?,
                rtp_timestamp: r.u32()?,
                ntp_unix_us: i64::from_be_bytes(r.take()?),
            },
            TRACK_ENDED => Self::TrackEnded { handle },
            PING => Self::Ping { id: handle, sent_at_us: u64::from_be_bytes(r.take()?) },
            PONG => Self::Pong { id: handle, sent_at_us: u64::from_be_bytes(r.take()?) },
            _ => return Err(ParseError::Malformed("relay message type")),
        };
        if r.0.is_empty() { Ok(message) } else { Err(ParseError::Malformed("relay message length")) }
    }
}

fn decode_nack<'a>(handle: u32, mut r: Reader<'a>) -> Result<Message<'a>, ParseError> {
    let layer = r.u8()?;
    if !r.0.len().is_multiple_of(2) {
        return Err(ParseError::Malformed("relay message length"));
    }
    Ok(Message::Nack { handle, layer, seqs: SeqList::Bytes(r.0) })
}

impl<'a> Media<'a> {
    fn descriptor(&self) -> Option<&'a [u8]> {
        self.dependency_descriptor.filter(|d| d.len() <= MAX_DESCRIPTOR_LEN)
    }

    fn encoded_len(&self) -> usize {
        let descriptor = self.descriptor().map_or(0, |d| 1 + d.len());
        15 + usize::from(self.audio_level.is_some()) + descriptor + self.payload.len()
    }

    fn encode(&self, w: &mut Writer<'_>) {
        let f = self.flags;
        let mut flags = 0;
        for (is_set, bit) in [
            (f.marker, MARKER),
            (f.is_keyframe, KEYFRAME),
            (f.is_frame_start, FRAME_START),
            (f.is_frame_end, FRAME_END),
            (f.is_retransmission, RETRANSMISSION),
            (self.audio_level.is_some(), HAS_AUDIO_LEVEL),
            (self.descriptor().is_some(), HAS_DESCRIPTOR),
        ] {
            flags |= if is_set { bit } else { 0 };
        }
        w.head(MEDIA, self.handle).put(&[self.layer, flags]);
        w.put(&self.seq.to_be_bytes()).put(&self.rtp_timestamp.to_be_bytes());
        if let Some(a) = self.audio_level {
            w.put(&[u8::from(a.is_voice) << 7 | a.level & 0x7f]);
        }
        if let Some(descriptor) = self.descriptor() {
            w.put(&[descriptor.len() as u8]).put(descriptor);
        }
        w.put(self.payload);
    }

    fn decode(handle: u32, mut r: Reader<'a>) -> Result<Self, ParseError> {
        let layer = r.u8()?;
        let flags = r.u8()?;
        let (seq, rtp_timestamp) = (r.u32()?, r.u32()?);
        let has = |bit| flags & bit != 0;
        let mut media = Self { handle, layer, seq, rtp_timestamp, ..Self::default() };
        media.flags = MediaFlags {
            marker: has(MARKER),
            is_keyframe: has(KEYFRAME),
            is_frame_start: has(FRAME_START),
            is_frame_end: has(FRAME_END),
            is_retransmission: has(RETRANSMISSION),
        };
        if has(HAS_AUDIO_LEVEL) {
            let b = r.u8()?;
            media.audio_level = Some(AudioLevel { level: b & 0x7f, is_voice: b & 0x80 != 0 });
        }
        if has(HAS_DESCRIPTOR) {
            let len = usize::from(r.u8()?);
            media.dependency_descriptor = Some(r.slice(len)?);
        }
        media.payload = r.0;
        Ok(media)
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn head(&mut self, kind: u8, handle: u32) -> &mut Self {
        self.put(&[kind]).put(&handle.to_be_bytes())
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
        self
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn slice(&mut self, len: usize) -> Result<&'a [u8], ParseError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(ParseError::Truncated("relay message"))?;
        self.0 = rest;
        Ok(head)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(ParseError::Truncated("relay message"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, ParseError> {
        Ok(self.take::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, ParseError> {
        Ok(u32::from_be_bytes(self.take()?))
    }
}
