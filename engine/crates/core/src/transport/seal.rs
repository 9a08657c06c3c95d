//! Writes one RTP packet and seals it, in place, in the memory that it is sent from.

use std::time::Duration;

use mrtc_rtp::codec::vp8;
use mrtc_rtp::header::{FIXED_HEADER_LEN, HeaderFields, write_header};
use mrtc_rtp::id::{ExtSeq, Pt, SeqNo, Ssrc};
use mrtc_rtp::srtp::Outbound;

use crate::capture::TransportTap;
use crate::rtp_rewriter::Patch;
use crate::slot_exts::{SlotExtValues, SlotExts};

/// Bytes of the original sequence number in front of a retransmitted payload (RFC 4588 section 4).
pub(super) const OSN_LEN: usize = 2;

/// The head of a packet.
pub(super) struct Head {
    pub(super) pt: Pt,
    pub(super) ssrc: Ssrc,
    pub(super) seq: ExtSeq,
    pub(super) timestamp: u32,
    pub(super) marker: bool,
}

/// What is behind the head.
pub(super) struct Body<'a> {
    pub(super) exts: &'a SlotExts,
    pub(super) values: SlotExtValues<'a>,
    /// Original sequence number of a retransmission.
    pub(super) osn: Option<SeqNo>,
    pub(super) payload: &'a [u8],
    pub(super) patch: Patch,
    /// RTP padding, 0 to 255 bytes.
    pub(super) padding: usize,
}

/// Writes and seals; returns the length. `tap` is given a copy in the clear. `out` must hold head, extensions, payload,
/// padding and the SRTP overhead.
pub(super) fn seal(srtp: &Outbound, head: &Head, body: &Body<'_>, tap: Option<&TransportTap>, out: &mut [u8]) -> usize {
    let (header_len, len) = write(head, body, out);
    if let Some(tap) = tap {
        tap.sent_rtp(&out[..len]);
    }
    srtp.seal_rtp(out, header_len, len, head.seq)
}

/// Writes without sealing; returns the length of the header with its extensions, and of all.
pub(super) fn write(head: &Head, body: &Body<'_>, out: &mut [u8]) -> (usize, usize) {
    let ext_len = body.exts.len(&body.values);
    let header_len = FIXED_HEADER_LEN + ext_len;
    let (fixed, rest) = out.split_first_chunk_mut::<FIXED_HEADER_LEN>().expect("room was reserved");
    let fields = HeaderFields {
        marker: head.marker,
        has_padding: body.padding > 0,
        has_ext: ext_len > 0,
        pt: head.pt,
        seq: head.seq.seq_no(),
        timestamp: head.timestamp,
        ssrc: head.ssrc,
    };
    write_header(fixed, &fields);
    body.exts.write(&body.values, &mut rest[..ext_len]);
    let mut at = ext_len;
    if let Some(osn) = body.osn {
        rest[at..at + OSN_LEN].copy_from_slice(&osn.0.to_be_bytes());
        at += OSN_LEN;
    }
    let payload = &mut rest[at..at + body.payload.len()];
    payload.copy_from_slice(body.payload);
    apply(body.patch, payload);
    at += body.payload.len();
    if body.padding > 0 {
        rest[at..at + body.padding].fill(0);
        at += body.padding;
        rest[at - 1] = body.padding as u8;
    }
    (header_len, FIXED_HEADER_LEN + at)
}

fn apply(patch: Patch, payload: &mut [u8]) {
    if let Patch::Vp8 { picture_id, tl0_pic_idx } = patch
        && let Ok(descriptor) = vp8::Descriptor::parse(payload)
    {
        descriptor.rewrite(payload, picture_id, tl0_pic_idx);
    }
}

/// Seconds since some epoch, modulo 64, in 6.18 fixed point.
pub(super) fn abs_send_time(since_epoch: Duration) -> u32 {
    let us = since_epoch.as_micros() as u64 % 64_000_000;
    ((us << 18) / 1_000_000) as u32 & 0x00ff_ffff
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use mrtc_rtp::ext::{ExtKind, ExtMap};
    use mrtc_rtp::header::RtpHeader;
    use mrtc_rtp::srtp::{Inbound, Profile, SessionKeys};

    use super::*;
    use crate::packet::tests::packet;

    const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80];

    #[test]
    fn every_profile_opens_what_was_sealed() {
        let mut map = ExtMap::new();
        map.set(3, ExtKind::TransportCc);
        let exts = SlotExts::new(&map, false);
        let packet = packet(1, Instant::now());
        for profile in PROFILES {
            let material = vec![7; profile.material_len()];
            let server = SessionKeys::from_dtls(profile, &material, false).unwrap();
            let client = SessionKeys::from_dtls(profile, &material, true).unwrap();
            let srtp = Outbound::new(&server).unwrap();
            let seq = ExtSeq(0x1_0005);
            let head = Head { pt: Pt(96), ssrc: Ssrc(9), seq, timestamp: 77, marker: true };
            let values = SlotExtValues { stamp: 0x1234, packet: Some(&packet), ..Default::default() };
            let osn = Some(SeqNo(500));
            let body = Body { exts: &exts, values, osn, payload: packet.payload(), patch: Patch::None, padding: 20 };
            let mut out = [0; 200];
            let len = seal(&srtp, &head, &body, None, &mut out);
            assert_eq!(len, FIXED_HEADER_LEN + 8 + OSN_LEN + 10 + 20 + srtp.rtp_overhead());
            let header = RtpHeader::parse(&out[..len]).unwrap();
            let mut inbound = Inbound::new(&client).unwrap();
            let (index, plain) = inbound.open_rtp(&mut out[..len], &header).unwrap();
            assert_eq!((index, header.timestamp, header.marker), (seq, 77, true));
            let payload = &out[header.payload_range(&out[..plain]).unwrap()];
            assert_eq!((payload.len(), &payload[..2]), (12, &500u16.to_be_bytes()[..]));
        }
    }

    #[test]
    fn the_absolute_send_time_wraps_at_64_seconds() {
        assert_eq!(abs_send_time(Duration::from_secs(1)), 1 << 18);
        assert_eq!(abs_send_time(Duration::from_secs(65)), 1 << 18);
    }
}
