//! RTP, RTCP, SRTP, payload formats and the node-to-node wire format.
//!
//! Everything here is a function of its input: there is no clock, no socket and no thread, and nothing allocates for a
//! packet on its way through. All parsers take foreign bytes and never panic on any of them.

mod bits;
pub mod codec;
pub mod demux;
pub mod error;
pub mod ext;
pub mod header;
pub mod id;
pub mod payload;
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
