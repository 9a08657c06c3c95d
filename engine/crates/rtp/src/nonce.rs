//! Nonces of AES-GCM.

use aws_lc_rs::aead::Nonce;

/// The salt, each bit of it changed where `first` (its first eight bytes) and `last` (the other four) have one.
///
/// Made and written as eight bytes and four, as they are read right afterwards: a processor that has to put together
/// what was written in other pieces waits until all stores before have reached its cache.
pub(crate) fn nonce(salt: &[u8; 12], first: u64, last: u32) -> Nonce {
    let first = first ^ u64::from_be_bytes(std::array::from_fn(|at| salt[at]));
    let last = last ^ u32::from_be_bytes(std::array::from_fn(|at| salt[8 + at]));
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&first.to_be_bytes());
    nonce[8..].copy_from_slice(&last.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
