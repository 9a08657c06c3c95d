//! What sealing and opening a packet costs, per profile: `cargo run --release -p mrtc-rtp --example srtp_cost`.
//!
//! Prints one line per profile: nanoseconds per packet of 1100 payload bytes, with 400 peers' keys in turn, so that the
//! keys come from memory and not from the first-level cache, as in a room.

use std::hint::black_box;
use std::time::Instant;

use mrtc_rtp::RtpHeader;
use mrtc_rtp::header::{FIXED_HEADER_LEN, HeaderFields, write_header};
use mrtc_rtp::id::{ExtSeq, Pt, SeqNo, Ssrc};
use mrtc_rtp::srtp::{Inbound, MAX_RTP_OVERHEAD, Outbound, Profile, SessionKeys, SrtpError};

const PEERS: usize = 400;
const ROUNDS: u64 = 500;
const PLAIN_LEN: usize = FIXED_HEADER_LEN + 1100;

fn packet(index: ExtSeq) -> [u8; PLAIN_LEN + MAX_RTP_OVERHEAD] {
    let mut buf = [7; PLAIN_LEN + MAX_RTP_OVERHEAD];
    let fields = HeaderFields {
        marker: false,
        has_padding: false,
        has_ext: false,
        pt: Pt(96),
        seq: index.seq_no(),
        timestamp: 1,
        ssrc: Ssrc(5),
    };
    if let Some(header) = buf.first_chunk_mut::<FIXED_HEADER_LEN>() {
        write_header(header, &fields);
    }
    buf
}

fn main() -> Result<(), SrtpError> {
    for profile in [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80] {
        let material: Vec<u8> = (0..profile.material_len()).map(|i| i as u8).collect();
        let (client, server) =
            (SessionKeys::from_dtls(profile, &material, true)?, SessionKeys::from_dtls(profile, &material, false)?);
        let senders = (0..PEERS).map(|_| Outbound::new(&client)).collect::<Result<Vec<_>, _>>()?;
        let mut receivers = (0..PEERS).map(|_| Inbound::new(&server)).collect::<Result<Vec<_>, _>>()?;
        let (mut sealing, mut opening) = (0, 0);
        for round in 0..ROUNDS {
            let index = ExtSeq::new(0, SeqNo(round as u16));
            let plain = packet(index);
            for (sender, receiver) in senders.iter().zip(&mut receivers) {
                let mut buf = plain;
                let begun = Instant::now();
                let len = sender.seal_rtp(black_box(&mut buf), FIXED_HEADER_LEN, PLAIN_LEN, index);
                let sealed = Instant::now();
                let header = RtpHeader::parse(&buf).map_err(|_| SrtpError::TooShort)?;
                receiver.open_rtp(black_box(&mut buf[..len]), &header)?;
                opening += sealed.elapsed().as_nanos();
                sealing += (sealed - begun).as_nanos();
            }
        }
        let count = u128::from(ROUNDS) * PEERS as u128;
        println!("{profile:?}: seal {} ns, open {} ns", sealing / count, opening / count);
    }
    Ok(())
}
