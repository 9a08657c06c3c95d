//! Which payload formats of an offer we take.

use mrtc_rtp::id::Pt;

use super::offer::{OfferLine, RtpMap};
use super::{Feedback, LineCodec, LineUse, Variant};
use crate::command::{Codec, Kind};

/// Clock of repair packets: video's.
pub(super) const FEC_CLOCK_RATE: u32 = 90_000;
/// RFC 3551 table 4: payload types that need no rtpmap.
const STATIC: [(u8, &str, u32); 3] = [(0, "PCMU", 8_000), (8, "PCMA", 8_000), (9, "G722", 8_000)];

/// The formats that we take, in the client's order (RFC 8829 section 5.3.1 asks for that, and it lets a client choose by
/// `setCodecPreferences`), except that H.264 in packetization mode 1 goes before mode 0.
pub(super) fn line_codecs(line: &OfferLine, kind: Kind, usage: LineUse) -> Vec<LineCodec> {
    let mut codecs: Vec<LineCodec> =
        line.formats.iter().filter_map(|f| f.parse().ok()).filter_map(|pt| line_codec(line, kind, Pt(pt))).collect();
    // Duplicate payload types would be ambiguous; the first one counts.
    let mut seen = [false; 256];
    codecs.retain(|c| !std::mem::replace(&mut seen[usize::from(c.pt.0)], true));
    if usage == LineUse::Inbound {
        let order: Vec<Codec> = codecs.iter().map(|c| c.codec).collect();
        codecs.sort_by_key(|c| (order.iter().position(|o| *o == c.codec), is_single_nal(c.variant)));
    }
    codecs
}

fn is_single_nal(variant: Variant) -> bool {
    matches!(variant, Variant::H264 { packetization_mode: 0, .. })
}

fn line_codec(line: &OfferLine, kind: Kind, pt: Pt) -> Option<LineCodec> {
    let map = rtpmap(line, pt)?;
    let (codec, codec_kind) = codec_of(&map)?;
    if codec_kind != kind {
        return None;
    }
    let fmtp = line.fmtp(pt).to_owned();
    Some(LineCodec {
        codec,
        pt,
        clock_rate: map.clock_rate,
        channels: if kind == Kind::Audio { map.channels } else { 0 },
        variant: variant(codec, &fmtp)?,
        fmtp,
        rtx_pt: rtx_of(line, pt, map.clock_rate),
        red_pt: if codec == Codec::Opus { red_of(line, pt, map.clock_rate) } else { None },
        feedback: feedback(line, kind, pt),
    })
}

fn rtpmap(line: &OfferLine, pt: Pt) -> Option<RtpMap> {
    line.rtpmaps.iter().find(|m| m.pt == pt).cloned().or_else(|| {
        let (_, name, clock_rate) = STATIC.into_iter().find(|(p, ..)| *p == pt.0)?;
        Some(RtpMap { pt, name: name.to_owned(), clock_rate, channels: 1 })
    })
}

fn codec_of(map: &RtpMap) -> Option<(Codec, Kind)> {
    Some(match (map.name.as_str(), map.clock_rate, map.channels) {
        ("OPUS", 48_000, 2) => (Codec::Opus, Kind::Audio),
        ("PCMU", 8_000, 1) => (Codec::Pcmu, Kind::Audio),
        ("PCMA", 8_000, 1) => (Codec::Pcma, Kind::Audio),
        ("G722", 8_000, 1) => (Codec::G722, Kind::Audio),
        ("VP8", 90_000, _) => (Codec::Vp8, Kind::Video),
        ("H264", 90_000, _) => (Codec::H264, Kind::Video),
        ("VP9", 90_000, _) => (Codec::Vp9, Kind::Video),
        ("AV1", 90_000, _) => (Codec::Av1, Kind::Video),
        _ => return None,
    })
}

/// SDP's name of a codec.
pub(super) fn encoding_name(codec: Codec) -> &'static str {
    match codec {
        Codec::Opus => "opus",
        Codec::Pcmu => "PCMU",
        Codec::Pcma => "PCMA",
        Codec::G722 => "G722",
        Codec::Vp8 => "VP8",
        Codec::H264 => "H264",
        Codec::Vp9 => "VP9",
        Codec::Av1 => "AV1",
    }
}

/// The variant; nothing if it is one that we do not take.
fn variant(codec: Codec, fmtp: &str) -> Option<Variant> {
    match codec {
        Codec::H264 => h264_variant(fmtp),
        Codec::Vp9 => match parameter(fmtp, "profile-id").unwrap_or("0").parse() {
            Ok(profile @ (0 | 2)) => Some(Variant::Vp9 { profile }),
            _ => None,
        },
        Codec::Av1 => parameter(fmtp, "profile").unwrap_or("0").parse().ok().map(|profile| Variant::Av1 { profile }),
        _ => Some(Variant::Plain),
    }
}

/// RFC 6184 section 8.1. Without parameters: Baseline, level 1, single NAL unit mode.
fn h264_variant(fmtp: &str) -> Option<Variant> {
    let packetization_mode = match parameter(fmtp, "packetization-mode").unwrap_or("0") {
        "0" => 0,
        "1" => 1,
        // Interleaved (2) is not used in WebRTC (RFC 7742 section 6.2).
        _ => return None,
    };
    let profile_level_id = parse_profile_level_id(parameter(fmtp, "profile-level-id").unwrap_or("42000a"))?;
    // Baseline, Main, Extended, High.
    matches!(profile_level_id[0], 0x42 | 0x4d | 0x58 | 0x64)
        .then_some(Variant::H264 { profile_level_id, packetization_mode })
}

fn parse_profile_level_id(text: &str) -> Option<[u8; 3]> {
    let is_hex = text.len() == 6 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let value = u32::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
    let [_, profile, constraints, level] = value.to_be_bytes();
    Some([profile, constraints, level])
}

/// One `name=value` of format parameters.
fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';')
        .filter_map(|p| p.trim().split_once('='))
        .find(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// RFC 4588 section 8.6: the format whose `apt` names this one.
fn rtx_of(line: &OfferLine, pt: Pt, clock_rate: u32) -> Option<Pt> {
    line.rtpmaps
        .iter()
        .filter(|m| m.name == "RTX" && m.clock_rate == clock_rate)
        .find(|m| parameter(line.fmtp(m.pt), "apt").and_then(|apt| apt.parse().ok()) == Some(pt.0))
        .map(|m| m.pt)
}

/// Payload type of FlexFEC in the version that libwebrtc speaks.
pub(super) fn fec_of(line: &OfferLine) -> Option<Pt> {
    let mut maps = line.rtpmaps.iter().filter(|m| m.name == "FLEXFEC-03" && m.clock_rate == FEC_CLOCK_RATE);
    maps.find(|m| line.formats.iter().any(|f| f.parse() == Ok(m.pt.0))).map(|m| m.pt)
}

/// RFC 2198 section 5: redundancy whose blocks are all of this format (`111/111`).
fn red_of(line: &OfferLine, pt: Pt, clock_rate: u32) -> Option<Pt> {
    let is_of_this = |m: &&RtpMap| {
        let mut blocks = line.fmtp(m.pt).split('/').map(|block| block.trim().parse());
        line.fmtp(m.pt).contains('/') && blocks.all(|block| block == Ok(pt.0))
    };
    let maps = line.rtpmaps.iter().filter(|m| m.name == "RED" && m.clock_rate == clock_rate);
    maps.filter(|m| line.formats.iter().any(|f| f.parse() == Ok(m.pt.0))).find(is_of_this).map(|m| m.pt)
}

/// NACK is answered for sound although nobody offers it: libwebrtc then asks for lost sound and sends it again, both of
/// which it does by the answer alone; others do not mind.
fn feedback(line: &OfferLine, kind: Kind, pt: Pt) -> Feedback {
    let mut feedback = Feedback { nack: kind == Kind::Audio, ..Feedback::default() };
    for (_, kind) in line.feedback.iter().filter(|(p, _)| p.is_none_or(|p| p == pt)) {
        match kind.as_str() {
            "nack" => feedback.nack = true,
            "nack pli" => feedback.pli = true,
            "ccm fir" => feedback.fir = true,
            "goog-remb" => feedback.remb = true,
            "transport-cc" => feedback.twcc = true,
            _ => {}
        }
    }
    feedback
}
