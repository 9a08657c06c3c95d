//! RTP, RTCP, SRTP, payload formats and the node-to-node wire format.
//!
//! Everything here is a function of its input: there is no clock, no socket and no thread, and nothing allocates for a
//! packet on its way through. All parsers take foreign bytes and never panic on any of them.

mod bits;
pub mod codec;
pub mod demux;
pub mod error;
pub mod ext;
pub mod flexfec;
pub mod header;
pub mod id;
mod nonce;
pub mod payload;
pub mod red;
pub mod relay;
pub mod replay;
pub mod rtcp;
pub mod seq;
pub mod srtp;

pub use codec::{Codec, PayloadInfo};
pub use error::ParseError;
pub use ext::{ExtKind, ExtMap, ExtValues};
pub use header::RtpHeader;
pub use id::{ExtSeq, Mid, Pt, Rid, SeqNo, Ssrc};

#[cfg(test)]
pub(crate) mod test_support {
    /// Bytes of hexadecimal digits; spaces are passed over.
    pub fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect()
    }
}
