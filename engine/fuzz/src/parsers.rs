//! The parsers of `mrtc-rtp`.

use mrtc_rtp::codec::{Codec, PayloadInfo, av1, dependency_descriptor, h264, opus, vp8, vp9};
use mrtc_rtp::demux::{classify, stun_username};
use mrtc_rtp::flexfec::Repair;
use mrtc_rtp::header::RtpHeader;
use mrtc_rtp::payload::{Packetizer, depacketize};
use mrtc_rtp::red::{self, Red};
use mrtc_rtp::relay::{Message, Opener, association_tag};
use mrtc_rtp::rtcp::{self, Rtcp};
use mrtc_rtp::srtp::{Inbound, Profile, SessionKeys};
use mrtc_rtp::{ExtKind, ExtMap, Pt};

/// A header, its extension block and its payload.
pub fn rtp_header(data: &[u8]) {
    let _ = classify(data);
    if let Ok(header) = RtpHeader::parse(data) {
        assert!(header.header_len() <= data.len());
        let _ = header.ext_block(data);
        if let Ok(range) = header.payload_range(data) {
            assert!(range.start <= range.end && range.end <= data.len());
        }
    }
}

/// An extension block; the first byte chooses profile and ids. What is read can be written and read again.
pub fn ext(data: &[u8]) {
    let Some((&choice, block)) = data.split_first() else { return };
    let mut map = ExtMap::new();
    for (i, kind) in ExtKind::ALL.into_iter().enumerate() {
        map.set(1 + choice / 4 + i as u8, kind);
    }
    let profile = [0xbede, 0x1000, 0x100f, 0x1234][usize::from(choice % 4)];
    let values = map.parse(profile, block);
    let mut out = vec![0; 4096];
    let n = map.write(&values, &mut out);
    if n > 0 {
        let profile = u16::from_be_bytes([out[0], out[1]]);
        assert_eq!(map.parse(profile, &out[4..n]), values);
    }
}

/// A compound packet, all of it.
pub fn rtcp(data: &[u8]) {
    for packet in rtcp::parse(data).flatten() {
        match packet {
            Rtcp::SenderReport(p) => assert!(p.blocks().count() < 32),
            Rtcp::ReceiverReport(p) => assert!(p.blocks().count() < 32),
            Rtcp::Sdes(p) => assert!(p.cnames().count() < 32),
            Rtcp::Bye(p) => assert!(p.ssrcs().count() < 32),
            Rtcp::Nack(p) => assert!(p.seqs().count() <= data.len() / 4 * 17),
            Rtcp::Fir(p) => assert!(p.entries().count() <= data.len() / 8),
            Rtcp::Remb(p) => assert!(p.ssrcs().count() <= 255),
            Rtcp::Extended(p) => assert!(p.blocks().count() <= data.len() / 12),
            Rtcp::TransportCc(p) => assert!(p.statuses().count() <= usize::from(p.status_count)),
            Rtcp::Pli(_) | Rtcp::Unknown { .. } => {}
        }
    }
}

/// The body of a transport-wide feedback packet.
pub fn twcc(data: &[u8]) {
    let body = &data[..data.len().min(4000) / 4 * 4];
    let mut packet = vec![0x8f, 205];
    packet.extend((body.len() as u16 / 4).to_be_bytes());
    packet.extend(body);
    rtcp(&packet);
}

/// Sealed packets of all profiles: nothing forged is ever opened.
pub fn srtp_open(data: &[u8]) {
    for profile in [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80] {
        let material = vec![7; profile.material_len()];
        let Ok(keys) = SessionKeys::from_dtls(profile, &material, false) else { return };
        let Ok(mut inbound) = Inbound::new(&keys) else { return };
        if let Ok(header) = RtpHeader::parse(data) {
            assert!(inbound.open_rtp(&mut data.to_vec(), &header).is_err());
        }
        assert!(inbound.open_rtcp(&mut data.to_vec()).is_err());
    }
}

/// A VP8 payload; rewriting keeps its length and shape.
pub fn vp8(data: &[u8]) {
    let _ = PayloadInfo::inspect(Codec::Vp8, data, None);
    if let Ok(descriptor) = vp8::Descriptor::parse(data) {
        let mut copy = data.to_vec();
        descriptor.rewrite(&mut copy, 0x1234, 5);
        assert_eq!(vp8::Descriptor::parse(&copy).map(|d| d.len), Ok(descriptor.len));
    }
}

/// A VP9 payload and frame header.
pub fn vp9(data: &[u8]) {
    let _ = (PayloadInfo::inspect(Codec::Vp9, data, None), vp9::keyframe_size(data));
    if let Ok(descriptor) = vp9::Descriptor::parse(data) {
        assert!(descriptor.len <= data.len());
    }
}

/// An H.264 payload, byte stream and parameter set.
pub fn h264(data: &[u8]) {
    let _ = PayloadInfo::inspect(Codec::H264, data, None);
    let _ = h264::Sps::parse(data);
    assert!(h264::annex_b_units(data).all(|unit| !unit.is_empty()));
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = h264::ProfileLevel::parse(text);
    }
}

/// An AV1 payload and sequence header, an Opus packet.
pub fn av1(data: &[u8]) {
    let _ = PayloadInfo::inspect(Codec::Av1, data, None);
    let _ = av1::sequence_size(data);
    let _ = (PayloadInfo::inspect(Codec::Opus, data, None), opus::duration_samples(data));
}

/// Descriptors one after the other with the same reader; the first byte of each tells its length.
pub fn av1_dd(data: &[u8]) {
    let mut reader = dependency_descriptor::Reader::new();
    for_each_piece(data, |piece| {
        if let Ok(frame) = reader.read(piece) {
            let _ = PayloadInfo::inspect(Codec::Av1, &[], Some(&frame));
        }
    });
}

fn for_each_piece<'a>(mut data: &'a [u8], mut each: impl FnMut(&'a [u8])) {
    while let Some((&len, rest)) = data.split_first() {
        let (piece, behind) = rest.split_at(usize::from(len).min(rest.len()));
        each(piece);
        data = behind;
    }
}

fn depacketize_any(codec: Codec, data: &[u8]) {
    let mut payloads = Vec::new();
    for_each_piece(data, |piece| payloads.push(piece));
    let mut out = vec![1, 2, 3];
    if depacketize(codec, payloads.iter().copied(), &mut out).is_err() {
        assert_eq!(out, [1, 2, 3]);
    }
    if let Ok(payloads) = Packetizer::new(codec, 100).packetize(data) {
        assert!(payloads.iter().all(|p| codec.is_audio() || p.len() <= 100));
    }
}

/// H.264 payloads into an access unit, and bytes as an access unit into payloads.
pub fn depacketize_h264(data: &[u8]) {
    depacketize_any(Codec::H264, data);
}

/// As [`depacketize_h264`].
pub fn depacketize_vp8(data: &[u8]) {
    depacketize_any(Codec::Vp8, data);
}

/// As [`depacketize_h264`].
pub fn depacketize_vp9(data: &[u8]) {
    depacketize_any(Codec::Vp9, data);
}

/// As [`depacketize_h264`].
pub fn depacketize_av1(data: &[u8]) {
    depacketize_any(Codec::Av1, data);
}

/// A packet between nodes, forged, and a body as an authentic sender would give it.
pub fn relay(data: &[u8]) {
    let _ = association_tag(data);
    assert!(Opener::new(&[1; 16], &[2; 12]).open(&mut data.to_vec()).is_err());
    if let Ok(message) = Message::decode(data) {
        assert_eq!(message.encoded_len(), data.len());
    }
}

/// A STUN request from an unknown address.
pub fn stun_name(data: &[u8]) {
    let _ = classify(data);
    let _ = stun_username(data);
}

/// Redundant audio; the first byte is the type of its blocks. What is read can be written and read again.
pub fn red(data: &[u8]) {
    let Some((&inner, payload)) = data.split_first() else { return };
    let inner = Pt(inner & 0x7f);
    let Ok(red) = Red::parse(payload, inner) else { return };
    let earlier = red.earlier().iter().map(|e| (u32::from(e.offset), &payload[e.payload.clone()]));
    let mut out = Vec::new();
    red::write(inner, earlier, &payload[red.primary.clone()], &mut out);
    let again = Red::parse(&out, inner).expect("what was written is read");
    assert_eq!(again.earlier().len(), red.earlier().len());
    assert_eq!(out[again.primary], payload[red.primary]);
}

/// A repair packet, one byte for its length before it, and the packets that it covers.
pub fn flexfec(data: &[u8]) {
    let mut pieces = Vec::new();
    for_each_piece(data, |piece| pieces.push(piece));
    let Some((payload, others)) = pieces.split_first() else { return };
    let Ok(repair) = Repair::parse(payload) else { return };
    let Some(missing) = repair.covered().next() else { return };
    if let Some(packet) = repair.recover(missing, others.iter().copied()) {
        assert!(packet.len() <= payload.len());
        assert_eq!(packet[2..4], missing.0.to_be_bytes());
    }
}
