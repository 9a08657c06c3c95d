//! SRTP and SRTCP (RFC 3711, RFC 7714): keys from the DTLS handshake, opening and sealing in place.
//!
//! An [`Inbound`] guards against replay and keeps a roll-over counter per SSRC. An [`Outbound`] keeps no state for RTP:
//! the caller owns the packet index and **must never seal two different packets of one SSRC with the same index**,
//! since in AES-GCM that gives the key away.

mod cipher;
mod inbound;
mod keys;
mod outbound;

use thiserror::Error;

pub use inbound::{Highest, Inbound, MAX_SSRCS};
pub use keys::{MasterKey, Profile, SessionKeys};
pub use outbound::Outbound;

/// Longest authentication tag of the profiles: what sealing an RTP packet can add to it.
pub const MAX_RTP_OVERHEAD: usize = 16;
/// What sealing an RTCP packet can add to it: the tag and the index.
pub const MAX_RTCP_OVERHEAD: usize = 20;

/// Why a packet was not opened or keys not made.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SrtpError {
    /// Shorter than header, tag and index.
    #[error("SRTP packet too short")]
    TooShort,
    /// Seen already, or too old to know.
    #[error("SRTP packet replayed or too old")]
    Replayed,
    /// The tag is wrong.
    #[error("SRTP authentication failed")]
    AuthenticationFailed,
    /// The peer uses more SSRCs than are kept.
    #[error("too many SSRCs")]
    TooManySsrcs,
    /// All 2^31 SRTCP indices of this key are used.
    #[error("SRTCP indices are used up")]
    IndexExhausted,
    /// The handshake's key material has not the profile's length.
    #[error("wrong length of SRTP key material")]
    BadKeyMaterial,
}

#[cfg(test)]
mod tests;
