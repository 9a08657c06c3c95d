//! What the payload of a packet tells: key frame, layers, frame limits. Read once per packet at ingress.

pub mod av1;
pub mod dependency_descriptor;
pub mod h264;
pub mod opus;
pub mod vp8;
pub mod vp9;

use dependency_descriptor::FrameInfo;

/// A codec that is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Codec {
    Opus,
    Pcmu,
    Pcma,
    G722,
    Vp8,
    H264,
    Vp9,
    Av1,
}

impl Codec {
    /// True for sound.
    pub fn is_audio(self) -> bool {
        matches!(self, Self::Opus | Self::Pcmu | Self::Pcma | Self::G722)
    }

    /// RTP clock in Hz. G.722 is 8000 by RFC 3551 although it samples at 16,000.
    pub fn clock_rate(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::Pcmu | Self::Pcma | Self::G722 => 8_000,
            Self::Vp8 | Self::H264 | Self::Vp9 | Self::Av1 => 90_000,
        }
    }
}

/// What one packet's payload tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PayloadInfo {
    /// The packet belongs to a frame that can be decoded without any before it and is where a decoder can start:
    /// set on the packets in which this can be seen, at least on the first one of the key frame. Always true for audio.
    pub is_keyframe: bool,
    /// First packet of a frame (of a layer frame, with spatial layers).
    pub is_frame_start: bool,
    /// Last packet of a frame (of a layer frame), where the payload or the descriptor tells; the RTP marker tells
    /// the end of the whole picture.
    pub is_frame_end: bool,
    /// No later frame of the same temporal layer or above depends on it (VP8's N bit and the like).
    pub is_discardable: bool,
    /// Spatial layer, 0 is the base.
    pub spatial: u8,
    /// Temporal layer, 0 is the base.
    pub temporal: u8,
    /// A receiver of lower temporal layers can start to receive this one with this packet (VP8's Y, VP9's U, a switch
    /// indication of the dependency descriptor).
    pub is_switch_point: bool,
    /// VP9: uses lower spatial layers of its own picture. True also for AV1 frames above spatial layer 0.
    pub is_inter_layer: bool,
    /// VP9: the frame is not predicted from earlier pictures (P bit clear).
    pub is_intra: bool,
    /// Picture id of 7 or 15 bits (VP8, VP9); frame number for the dependency descriptor (16 bits).
    pub picture_id: Option<u16>,
    /// VP8, VP9: index of the temporal base layer's frame.
    pub tl0_pic_idx: Option<u8>,
    /// Width and height of the picture, of the packet's own spatial layer, if this packet tells them (key frames mostly).
    pub size: Option<(u16, u16)>,
    /// Frames of the dependency descriptor: which decode targets contain this frame, bit per target; 0 without one.
    pub decode_targets: u32,
    /// Opus: nothing is said (DTX or comfort noise).
    pub is_silence: bool,
}

impl PayloadInfo {
    /// Reads a payload. `frame` is the packet's dependency descriptor, already resolved against its template structure.
    ///
    /// A payload that cannot be read gives the default: no key frame, base layer. It is forwarded, not judged.
    pub fn inspect(codec: Codec, payload: &[u8], frame: Option<&FrameInfo>) -> Self {
        let mut info = match codec {
            Codec::Vp8 => vp8::inspect(payload),
            Codec::Vp9 => vp9::inspect(payload),
            Codec::H264 => h264::inspect(payload),
            Codec::Av1 => av1::inspect(payload),
            Codec::Opus => opus::inspect(payload),
            Codec::Pcmu | Codec::Pcma | Codec::G722 => Self::audio(),
        };
        if let Some(frame) = frame {
            frame.apply(&mut info);
        }
        info
    }

    /// A packet of sound: a frame of its own.
    pub fn audio() -> Self {
        Self { is_keyframe: true, is_frame_start: true, is_frame_end: true, ..Self::default() }
    }
}
