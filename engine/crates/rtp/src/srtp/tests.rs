//! RFC vectors and round trips.

use super::cipher::{Cipher, Purpose, apply_key_stream, gcm_open, gcm_rtcp_nonce, gcm_rtp_nonce, gcm_seal};
use super::*;
use crate::header::RtpHeader;
use crate::id::{ExtSeq, SeqNo, Ssrc};
use crate::test_support::hex;
use aes::Aes128;
use aes::cipher::KeyInit;
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, LessSafeKey, UnboundKey};
use proptest::prelude::*;

const PROFILES: [Profile; 3] = [Profile::AeadAes128Gcm, Profile::AeadAes256Gcm, Profile::Aes128CmSha1_80];

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

fn pair(profile: Profile) -> (Outbound, Inbound) {
    let material: Vec<u8> = (0..profile.material_len()).map(|i| i as u8).collect();
    let client = SessionKeys::from_dtls(profile, &material, true).unwrap();
    let server = SessionKeys::from_dtls(profile, &material, false).unwrap();
    (Outbound::new(&client).unwrap(), Inbound::new(&server).unwrap())
}

fn rtp(seq: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
    let mut p = vec![0x80, 96];
    p.extend(seq.to_be_bytes());
    p.extend([0, 0, 0, 1]);
    p.extend(ssrc.to_be_bytes());
    p.extend(payload);
    p
}

fn seal(tx: &Outbound, plain: &[u8], index: ExtSeq) -> Vec<u8> {
    let mut buf = plain.to_vec();
    buf.resize(plain.len() + MAX_RTP_OVERHEAD, 0);
    let n = tx.seal_rtp(&mut buf, 12, plain.len(), index);
    buf.truncate(n);
    buf
}

fn open(rx: &mut Inbound, sealed: &[u8]) -> Result<(ExtSeq, Vec<u8>), SrtpError> {
    let mut buf = sealed.to_vec();
    let header = RtpHeader::parse(&buf).unwrap();
    let (index, n) = rx.open_rtp(&mut buf, &header)?;
    Ok((index, buf[..n].to_vec()))
}

/// RFC 3711 appendix B.2.
#[test]
fn aes_cm_key_stream() {
    let key = Aes128::new_from_slice(&hex("2B7E151628AED2A6ABF7158809CF4F3C")).unwrap();
    let mut stream = vec![0; 0xff02 * 16];
    apply_key_stream(&key, array("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000"), &mut stream);
    assert_eq!(
        stream[..48],
        hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0")
    );
    assert_eq!(
        stream[0xfeff * 16..],
        hex("EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44")
    );
}

/// RFC 3711 appendix B.3: cipher key, authentication key and salt of the session.
#[test]
fn aes_cm_key_derivation() {
    let master = MasterKey::new(&hex("E1F97A0D3E018BE0D64FA32C06DE4139"), &hex("0EC675AD498AFEEBB6960B3AABE6"));
    let Cipher::Cm(cm) = Cipher::derive(Profile::Aes128CmSha1_80, &master, Purpose::Rtp).unwrap() else {
        panic!("counter mode expected");
    };
    assert_eq!(cm.salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
    let (mut mine, mut theirs) = ([0; 32], [0; 32]);
    apply_key_stream(&cm.key, [7; 16], &mut mine);
    let wanted = Aes128::new_from_slice(&hex("C61E7A93744F39EE10734AFE3FF7A087")).unwrap();
    apply_key_stream(&wanted, [7; 16], &mut theirs);
    assert_eq!(mine, theirs);
    let algorithm = aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY;
    let wanted = aws_lc_rs::hmac::Key::new(algorithm, &hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    assert_eq!(super::cipher::cm_tag(&cm.auth, &[b"x"]), super::cipher::cm_tag(&wanted, &[b"x"]));
}

const GCM_RTP: &str =
    "8040f17b 8041f8d3 5501a0b2 47616c6c 6961206573 7420 6f6d6e69 7320646976697361 20696e2070617274 657320747265 73";
const GCM_SALT: &str = "517569642070726f2071756f";

fn gcm_key(algorithm: &'static aws_lc_rs::aead::Algorithm) -> LessSafeKey {
    let key: Vec<u8> = (0..algorithm.key_len() as u8).collect();
    LessSafeKey::new(UnboundKey::new(algorithm, &key).unwrap())
}

fn check_gcm_rtp(algorithm: &'static aws_lc_rs::aead::Algorithm, sealed: &str) {
    let (key, plain, salt) = (gcm_key(algorithm), hex(GCM_RTP), array(GCM_SALT));
    let ssrc = array("5501a0b2");
    let mut packet = plain.clone();
    let (header, data) = packet.split_at_mut(12);
    let mut tag = [0; 16];
    gcm_seal(&key, gcm_rtp_nonce(&salt, ssrc, 0xf17b), header, data, &mut tag);
    packet.extend(tag);
    assert_eq!(packet[12..], hex(sealed));
    let (header, data) = packet.split_at_mut(12);
    gcm_open(&key, gcm_rtp_nonce(&salt, ssrc, 0xf17b), header, data).unwrap();
    assert_eq!(packet[..plain.len()], plain);
}

/// RFC 7714 section 16.1.1.
#[test]
fn gcm_128_rtp_vector() {
    check_gcm_rtp(
        &AES_128_GCM,
        "f24de3a3fb34de6cacba861c9d7e4bca be633bd50d294e6f42a5f47a51c7d19b 36de3adf8833899d7f27beb16a9152cf 765ee4390cce",
    );
}

/// RFC 7714 section 16.2.1.
#[test]
fn gcm_256_rtp_vector() {
    check_gcm_rtp(
        &AES_256_GCM,
        "32b1de78a822fe12ef9f78fa332e33aa b18012389a58e2f3b50b2a0276ffae0f 1ba63799b87b7aa3db36dfffd6b0f9bb 7878d7a76c13",
    );
}

/// RFC 7714 section 17.1: an encrypted sender report with index 0x5d4.
#[test]
fn gcm_128_rtcp_vector() {
    let plain = hex(
        "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef deadbeef deadbeef deadbeef",
    );
    let key = gcm_key(&AES_128_GCM);
    let (header, data) = plain.split_at(8);
    let aad = [header, &hex("800005d4")].concat();
    let (mut data, mut tag) = (data.to_vec(), [0; 16]);
    gcm_seal(&key, gcm_rtcp_nonce(&array(GCM_SALT), array("4d617273"), 0x5d4), &aad, &mut data, &mut tag);
    let wanted = hex(
        "63e94885dcdab67ca727d7662f6b7e99 7ff5c0f76c06f32dc676a5f1730d6fda 4ce09b4686303ded0bb9275bc84aa458 96cf4d2fc5abf87245d9eade",
    );
    assert_eq!([&data[..], &tag].concat(), wanted);
}

#[test]
fn material_is_split_by_side() {
    let profile = Profile::AeadAes128Gcm;
    assert_eq!(profile.material_len(), 56);
    let material: Vec<u8> = (0..56).collect();
    let client = SessionKeys::from_dtls(profile, &material, true).unwrap();
    assert_eq!((client.tx.key[0], client.rx.key[0], client.tx.salt[0], client.rx.salt[0]), (0, 16, 32, 44));
    assert_eq!(SessionKeys::from_dtls(profile, &material[1..], true).unwrap_err(), SrtpError::BadKeyMaterial);
    assert_eq!(format!("{client:?}").matches("..").count(), 2);
}

#[test]
fn rtp_round_trip_replay_and_wrap() {
    for profile in PROFILES {
        let (tx, mut rx) = pair(profile);
        let first = ExtSeq::new(0, SeqNo(65_534));
        let mut sealed = Vec::new();
        for i in 0..6u64 {
            let index = ExtSeq(first.0 + i);
            let plain = rtp(index.seq_no().0, 5, &[i as u8; 100]);
            let packet = seal(&tx, &plain, index);
            assert_eq!(packet.len(), plain.len() + profile.rtp_overhead());
            assert_eq!(open(&mut rx, &packet).unwrap(), (index, plain));
            sealed.push(packet);
        }
        for packet in &sealed {
            assert_eq!(open(&mut rx, packet), Err(SrtpError::Replayed));
        }
    }
}

#[test]
fn first_packets_lost_just_before_the_wrap() {
    for profile in PROFILES {
        let (tx, mut rx) = pair(profile);
        let index = ExtSeq::new(1, SeqNo(3));
        let plain = rtp(3, 5, b"hello");
        assert_eq!(open(&mut rx, &seal(&tx, &plain, index)).unwrap(), (index, plain));
        let late = ExtSeq::new(0, SeqNo(65_535));
        let plain = rtp(65_535, 5, b"late");
        assert_eq!(open(&mut rx, &seal(&tx, &plain, late)).unwrap(), (late, plain));
    }
}

#[test]
fn forged_packets_leave_no_trace() {
    for profile in PROFILES {
        let (tx, mut rx) = pair(profile);
        let plain = rtp(100, 5, b"hello");
        let sealed = seal(&tx, &plain, ExtSeq(100));
        for at in [1, 3, 8, 14, sealed.len() - 1] {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert_eq!(open(&mut rx, &forged), Err(SrtpError::AuthenticationFailed), "{profile:?} {at}");
        }
        assert!(rx.rtp_ssrc_count() == 0);
        assert!(open(&mut rx, &sealed).is_ok());
        assert_eq!(open(&mut rx, &sealed[..20]), Err(SrtpError::TooShort));
    }
}

#[test]
fn ssrcs_are_limited() {
    let (tx, mut rx) = pair(Profile::AeadAes128Gcm);
    for ssrc in 0..MAX_SSRCS as u32 {
        open(&mut rx, &seal(&tx, &rtp(1, ssrc, b""), ExtSeq(1))).unwrap();
    }
    let one_more = seal(&tx, &rtp(1, u32::MAX, b""), ExtSeq(1));
    assert_eq!(open(&mut rx, &one_more), Err(SrtpError::TooManySsrcs));
    assert!(open(&mut rx, &seal(&tx, &rtp(2, 7, b""), ExtSeq(2))).is_ok());
}

#[test]
fn another_holder_of_the_keys_goes_on() {
    for profile in PROFILES {
        let (mut tx, mut rx) = pair(profile);
        let index = ExtSeq::new(3, SeqNo(10));
        let plain = rtp(9, 5, b"before");
        // With a roll-over counter that a newcomer could not guess.
        rx.resume(&[(Ssrc(5), ExtSeq::new(3, SeqNo(8)).0)], &[]);
        let before = seal(&tx, &plain, ExtSeq::new(3, SeqNo(9)));
        assert!(open(&mut rx, &before).is_ok());
        let mut report = [0x80, 201, 0, 1, 0, 0, 0, 5, 1, 2, 3, 4].to_vec();
        tx.seal_rtcp(&mut report).unwrap();
        rx.open_rtcp(&mut report.clone()).unwrap();

        let (mut new_tx, mut new_rx) = pair(profile);
        let (rtp_highest, rtcp_highest) = rx.highest();
        new_rx.resume(&rtp_highest, &rtcp_highest);
        new_tx.resume_rtcp(tx.rtcp_index());
        assert_eq!(open(&mut new_rx, &before), Err(SrtpError::Replayed));
        assert_eq!(new_rx.open_rtcp(&mut report), Err(SrtpError::Replayed));
        let plain = rtp(10, 5, b"after");
        assert_eq!(open(&mut new_rx, &seal(&new_tx, &plain, index)).unwrap(), (index, plain));
        let mut next = [0x80, 201, 0, 1, 0, 0, 0, 5, 1, 2, 3, 4].to_vec();
        new_tx.seal_rtcp(&mut next).unwrap();
        assert!(new_rx.open_rtcp(&mut next).is_ok(), "its index was not used before");
        new_tx.resume_rtcp(0);
        assert_eq!(new_tx.rtcp_index(), 2, "never back");
    }
}

#[test]
fn rtcp_round_trip_and_replay() {
    for profile in PROFILES {
        let (mut tx, mut rx) = pair(profile);
        let plain = [0x80, 201, 0, 1, 0, 0, 0, 5, 1, 2, 3, 4].to_vec();
        for _ in 0..3 {
            let mut packet = plain.clone();
            tx.seal_rtcp(&mut packet).unwrap();
            assert_eq!(packet.len(), plain.len() + profile.rtp_overhead() + 4);
            let mut forged = packet.clone();
            forged[9] ^= 1;
            assert_eq!(rx.open_rtcp(&mut forged), Err(SrtpError::AuthenticationFailed));
            let mut opened = packet.clone();
            let n = rx.open_rtcp(&mut opened).unwrap();
            assert_eq!(opened[..n], plain);
            assert_eq!(rx.open_rtcp(&mut packet), Err(SrtpError::Replayed));
        }
        assert_eq!(tx.seal_rtcp(&mut vec![0; 7]), Err(SrtpError::TooShort));
        assert_eq!(rx.open_rtcp(&mut [0x80; 11]), Err(SrtpError::TooShort));
    }
}

proptest! {
    #[test]
    fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        for profile in PROFILES {
            let (_, mut rx) = pair(profile);
            let mut rtcp = bytes.clone();
            prop_assert!(rx.open_rtcp(&mut rtcp).is_err());
            let mut packet = bytes.clone();
            if let Ok(header) = RtpHeader::parse(&bytes) {
                prop_assert!(rx.open_rtp(&mut packet, &header).is_err());
            }
        }
    }

    #[test]
    fn any_payload_survives(payload in prop::collection::vec(any::<u8>(), 0..1400), seq: u16) {
        for profile in PROFILES {
            let (tx, mut rx) = pair(profile);
            let plain = rtp(seq, 9, &payload);
            let (_, opened) = open(&mut rx, &seal(&tx, &plain, ExtSeq(u64::from(seq)))).unwrap();
            prop_assert_eq!(opened, plain);
        }
    }
}
