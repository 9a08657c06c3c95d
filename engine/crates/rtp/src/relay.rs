//! The wire format between nodes: one encrypted UDP association per node pair, all tracks in it.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | 0xC1 |
//! | 4 | association tag: which association, for the receiver to find the key |
//! | 6 | packet number, from 0, never used twice with a key |
//! | n | body, AES-128-GCM, associated data = the 11 bytes before, nonce = salt xor packet number |
//! | 16 | tag |
//!
//! All numbers are big-endian. The body is one [`Message`]; its first byte tells which. A body that is longer than its
//! message is refused, so that a later version can be told apart.

mod message;

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use thiserror::Error;

use crate::error::ParseError;
use crate::nonce::nonce;
use crate::replay::ReplayWindow;

pub use message::{Media, MediaFlags, Message, SeqList};

/// First byte of every packet between nodes.
pub const FIRST_BYTE: u8 = 0xc1;
/// First byte, association tag, packet number.
pub const HEADER_LEN: usize = 11;
/// Authentication tag.
pub const TAG_LEN: usize = 16;
/// What sealing adds to a body.
pub const OVERHEAD: usize = HEADER_LEN + TAG_LEN;
/// Packet numbers have 48 bits.
const MAX_PACKET_NUMBER: u64 = (1 << 48) - 1;

/// Why a packet between nodes was not opened or sealed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RelayError {
    /// No such packet.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// Seen already, or too old to know.
    #[error("relay packet replayed or too old")]
    Replayed,
    /// The tag is wrong.
    #[error("relay packet authentication failed")]
    AuthenticationFailed,
    /// The buffer is too small.
    #[error("relay packet does not fit into the buffer")]
    BufferTooSmall,
    /// All packet numbers of this key are used; the association needs new keys.
    #[error("relay packet numbers are used up")]
    NumbersExhausted,
}

/// The association tag of a packet between nodes. Nothing is authenticated here.
pub fn association_tag(packet: &[u8]) -> Option<u32> {
    match packet.first_chunk::<5>()? {
        [FIRST_BYTE, tag @ ..] => Some(u32::from_be_bytes(*tag)),
        _ => None,
    }
}

/// The association tag of a relay's name: its FNV-1a hash. Both nodes know the name, so nobody assigns tags.
pub fn tag_of_name(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

struct Key {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Key {
    fn new(key: &[u8; 16], salt: &[u8; 12]) -> Self {
        // Only a wrong length is refused, and the type has it right.
        #[allow(clippy::expect_used)]
        let key = UnboundKey::new(&AES_128_GCM, key).expect("16 bytes are a key");
        Self { key: LessSafeKey::new(key), salt: *salt }
    }

    fn nonce(&self, number: u64) -> Nonce {
        nonce(&self.salt, number >> 32, number as u32)
    }
}

/// Seals what this node sends on an association.
pub struct Sealer {
    key: Key,
    tag: u32,
    next_number: u64,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer({:08x}, {})", self.tag, self.next_number)
    }
}

impl Sealer {
    /// With a fresh key: packet numbers begin at 0.
    pub fn new(tag: u32, key: &[u8; 16], salt: &[u8; 12]) -> Self {
        Self { key: Key::new(key, salt), tag, next_number: 0 }
    }

    /// Writes a whole packet into `out` and returns its length.
    pub fn seal(&mut self, message: &Message<'_>, out: &mut [u8]) -> Result<usize, RelayError> {
        if self.next_number > MAX_PACKET_NUMBER {
            return Err(RelayError::NumbersExhausted);
        }
        let body_len = message.encoded_len();
        let len = body_len + OVERHEAD;
        let out = out.get_mut(..len).ok_or(RelayError::BufferTooSmall)?;
        let (header, rest) = out.split_at_mut(HEADER_LEN);
        let (body, tag) = rest.split_at_mut(body_len);
        header[0] = FIRST_BYTE;
        header[1..5].copy_from_slice(&self.tag.to_be_bytes());
        header[5..].copy_from_slice(&self.next_number.to_be_bytes()[2..]);
        message.encode(body);
        let nonce = self.key.nonce(self.next_number);
        let made = self.key.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body);
        tag.copy_from_slice(made.map_err(|_| RelayError::BufferTooSmall)?.as_ref());
        self.next_number += 1;
        Ok(len)
    }
}

/// Opens what the other node sends on an association.
pub struct Opener {
    key: Key,
    window: ReplayWindow,
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener({:?})", self.window.highest())
    }
}

impl Opener {
    /// With the other node's key.
    pub fn new(key: &[u8; 16], salt: &[u8; 12]) -> Self {
        Self { key: Key::new(key, salt), window: ReplayWindow::new() }
    }

    /// Opens a packet in place and lends its message.
    pub fn open<'a>(&mut self, packet: &'a mut [u8]) -> Result<Message<'a>, RelayError> {
        let Some((header, body)) = packet.split_first_chunk_mut::<HEADER_LEN>() else {
            return Err(ParseError::Truncated("relay packet").into());
        };
        if header[0] != FIRST_BYTE {
            return Err(ParseError::Malformed("relay packet").into());
        }
        let number = header[5..].iter().fold(0, |n, &b| n << 8 | u64::from(b));
        if !self.window.is_fresh(number) {
            return Err(RelayError::Replayed);
        }
        let plain = self.key.key.open_in_place(self.key.nonce(number), Aad::from(&*header), body);
        let plain = plain.map_err(|_| RelayError::AuthenticationFailed)?;
        self.window.accept(number);
        Ok(Message::decode(plain)?)
    }
}

#[cfg(test)]
mod tests;
