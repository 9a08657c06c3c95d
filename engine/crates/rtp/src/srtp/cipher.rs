//! Session keys of one direction and the two ciphers, in place on a packet's bytes.

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes128, Aes256, Block};
use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;

use super::SrtpError;
use super::keys::{MasterKey, Profile};
use crate::nonce::nonce;

/// Blocks of key stream that are made at once, so that the processor's AES units work in parallel.
const CM_BATCH: usize = 8;
pub(super) const CM_TAG_LEN: usize = 10;

/// Labels of the key derivation (RFC 3711 section 4.3.1): RTP has 0 to 2, RTCP 3 to 5.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Rtp = 0,
    Rtcp = 3,
}

/// A session key with its salt.
pub(super) enum Cipher {
    Gcm { key: LessSafeKey, salt: [u8; 12] },
    Cm(Box<CounterMode>),
}

/// The keys of AES-CM with HMAC-SHA1.
pub(super) struct CounterMode {
    /// Expanded once: expanding it again for each packet costs more than the encryption.
    pub key: Aes128,
    pub auth: hmac::Key,
    pub salt: [u8; 14],
}

impl Cipher {
    pub fn derive(profile: Profile, master: &MasterKey, purpose: Purpose) -> Result<Self, SrtpError> {
        if master.key.len() != profile.key_len() || master.salt.len() != profile.salt_len() {
            return Err(SrtpError::BadKeyMaterial);
        }
        let mut key = [0; 32];
        let key = &mut key[..profile.key_len()];
        let label = purpose as u8;
        derive_bytes(master, label, key)?;
        if profile == Profile::Aes128CmSha1_80 {
            let (mut auth, mut salt) = ([0; 20], [0; 14]);
            derive_bytes(master, label + 1, &mut auth)?;
            derive_bytes(master, label + 2, &mut salt)?;
            let key = Aes128::new_from_slice(key).map_err(|_| SrtpError::BadKeyMaterial)?;
            let auth = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &auth);
            return Ok(Self::Cm(Box::new(CounterMode { key, auth, salt })));
        }
        let algorithm = if profile == Profile::AeadAes256Gcm { &AES_256_GCM } else { &AES_128_GCM };
        let mut salt = [0; 12];
        derive_bytes(master, label + 2, &mut salt)?;
        let key = UnboundKey::new(algorithm, key).map_err(|_| SrtpError::BadKeyMaterial)?;
        Ok(Self::Gcm { key: LessSafeKey::new(key), salt })
    }
}

/// The pseudo-random function of RFC 3711 section 4.3.3 and RFC 7714 section 11, with a key derivation rate of 0.
fn derive_bytes(master: &MasterKey, label: u8, out: &mut [u8]) -> Result<(), SrtpError> {
    let mut iv = [0; 16];
    // A 12-byte salt is used as if two zeros were behind it (RFC 7714 section 11).
    iv[..master.salt.len()].copy_from_slice(&master.salt);
    iv[7] ^= label;
    out.fill(0);
    match master.key.len() {
        16 => apply_key_stream(&Aes128::new_from_slice(&master.key).map_err(|_| SrtpError::BadKeyMaterial)?, iv, out),
        _ => apply_key_stream(&Aes256::new_from_slice(&master.key).map_err(|_| SrtpError::BadKeyMaterial)?, iv, out),
    }
    Ok(())
}

/// AES in counter mode (RFC 3711 section 4.1.1): the last two bytes of `iv` count blocks.
pub(super) fn apply_key_stream(
    key: &impl BlockCipherEncrypt<BlockSize = aes::cipher::consts::U16>,
    iv: [u8; 16],
    data: &mut [u8],
) {
    let mut counter = u16::from_be_bytes([iv[14], iv[15]]);
    for chunk in data.chunks_mut(16 * CM_BATCH) {
        let mut blocks = [Block::from(iv); CM_BATCH];
        let count = chunk.len().div_ceil(16);
        for block in &mut blocks[..count] {
            block[14..].copy_from_slice(&counter.to_be_bytes());
            counter = counter.wrapping_add(1);
        }
        key.encrypt_blocks(&mut blocks[..count]);
        for (bytes, block) in chunk.chunks_mut(16).zip(&blocks) {
            for (byte, stream) in bytes.iter_mut().zip(block) {
                *byte ^= stream;
            }
        }
    }
}

/// The counter block of a packet (RFC 3711 section 4.1.1).
pub(super) fn cm_iv(salt: &[u8; 14], ssrc: [u8; 4], index: u64) -> [u8; 16] {
    let mut iv = [0; 16];
    iv[..14].copy_from_slice(salt);
    xor(&mut iv[4..8], &ssrc);
    xor(&mut iv[8..14], &index.to_be_bytes()[2..]);
    iv
}

/// The nonce of an RTP packet (RFC 7714 section 8.1); `index` is roll-over counter and sequence number.
pub(super) fn gcm_rtp_nonce(salt: &[u8; 12], ssrc: [u8; 4], index: u64) -> Nonce {
    let roll_over = (index >> 32) & 0xffff;
    nonce(salt, u64::from(u32::from_be_bytes(ssrc)) << 16 | roll_over, index as u32)
}

/// The nonce of an RTCP packet (RFC 7714 section 9.1).
pub(super) fn gcm_rtcp_nonce(salt: &[u8; 12], ssrc: [u8; 4], index: u32) -> Nonce {
    nonce(salt, u64::from(u32::from_be_bytes(ssrc)) << 16, index)
}

fn xor(out: &mut [u8], with: &[u8]) {
    for (a, b) in out.iter_mut().zip(with) {
        *a ^= b;
    }
}

/// HMAC-SHA1 over the parts, cut to 80 bits.
pub(super) fn cm_tag(auth: &hmac::Key, parts: &[&[u8]]) -> [u8; CM_TAG_LEN] {
    let mut context = hmac::Context::with_key(auth);
    for part in parts {
        context.update(part);
    }
    let mut tag = [0; CM_TAG_LEN];
    tag.copy_from_slice(&context.sign().as_ref()[..CM_TAG_LEN]);
    tag
}

/// Opens `data` (cipher text and tag) in place.
pub(super) fn gcm_open(key: &LessSafeKey, nonce: Nonce, aad: &[u8], data: &mut [u8]) -> Result<(), SrtpError> {
    key.open_in_place(nonce, Aad::from(aad), data).map(|_| ()).map_err(|_| SrtpError::AuthenticationFailed)
}

/// Seals `data` in place and writes the tag.
pub(super) fn gcm_seal(key: &LessSafeKey, nonce: Nonce, aad: &[u8], data: &mut [u8], tag: &mut [u8]) {
    match key.seal_in_place_separate_tag(nonce, Aad::from(aad), data) {
        Ok(made) => tag.copy_from_slice(made.as_ref()),
        // Only data beyond GCM's limit of 64 GiB is refused. Were it ever so, no plain text may leave.
        Err(_) => data.fill(0),
    }
}
