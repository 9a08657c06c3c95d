//! What a node tells another of a transport that goes on there, and how that is sealed.
//!
//! The client keeps its DTLS association and its SRTP contexts; what it had agreed with the first node is all that the next
//! one needs. It holds keys: it leaves the shard only sealed, with a key that all nodes of a deployment share. Inside it is
//! JSON, so that neighbouring versions understand each other: a field that is new has a default.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Longest sealed state that is opened: a transport with all the lines and SSRCs that limits allow has half of it.
pub const MAX_STATE_BYTES: usize = 512 * 1024;
/// Told apart from whatever else may be sealed with the same key.
const PURPOSE: &[u8] = b"mrtc transport state 1";
const TAG_LEN: usize = 16;

/// What all nodes of a deployment share.
#[derive(Clone)]
pub struct HandoverKey([u8; 32]);

impl HandoverKey {
    /// Of 32 secret bytes (AES-256-GCM).
    pub fn new(secret: &[u8; 32]) -> Self {
        Self(*secret)
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.0).expect("a key of 32 bytes"))
    }

    /// Seals bytes: a random nonce, then cipher text and tag.
    pub fn seal(&self, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).expect("the operating system's random source works");
        let mut data = plain.to_vec();
        self.cipher()
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(PURPOSE), &mut data)
            .expect("it is far shorter than 64 GiB");
        [&nonce[..], &data].concat()
    }

    /// Undoes `seal`; `None` if another key or another content was sealed.
    fn open(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, data) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let mut data = data.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        self.cipher().open_in_place(nonce, Aad::from(PURPOSE), &mut data).ok()?;
        data.truncate(data.len() - TAG_LEN);
        Some(data)
    }
}

impl fmt::Debug for HandoverKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandoverKey(..)")
    }
}

/// What a transport's state is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Another node meets the client. Nothing changes here; the state has no keys.
    Meet,
    /// Another node goes on. Nothing more is sent to the client from here but answers to its checks, and nothing of what it
    /// sends is taken, until the transport is closed, of which it hears nothing.
    GoOn,
    /// Another node goes on if this one dies. Nothing changes here; all numbers are ahead by more than what is sent until
    /// `MAX_CHECKPOINT_AGE` has passed, so that no index of SRTP is used twice. Refused for a stream that is too quick for that, and at
    /// the first time, when nothing is known of that.
    Checkpoint,
}

/// A checkpoint is good for so long.
pub const MAX_CHECKPOINT_AGE: Duration = Duration::from_secs(5);

/// A transport on its way from node to node.
#[derive(Serialize, Deserialize)]
pub(crate) struct TransportState {
    /// The node that gave it seals nothing more, or is dead when the state is used: no number of SRTP after these was used,
    /// and whoever holds the state goes on there. Else it has no keys, and is good for meeting the client.
    pub(crate) is_final: bool,
    /// How often the client went to another node, this time included.
    pub(crate) moves: u16,
    /// Number of the DTLS extension's SRTP profile.
    pub(crate) profile: u16,
    pub(crate) tx: KeyState,
    pub(crate) rx: KeyState,
    /// RFC 5763: the role that the answers name.
    pub(crate) is_dtls_client: bool,
    /// Of the certificate that the client verified.
    pub(crate) fingerprint: String,
    /// The client's: a later offer must have the same.
    pub(crate) remote_fingerprints: Vec<String>,
    pub(crate) local_ice: IceState,
    pub(crate) remote_ice: IceState,
    /// Where the client was last, by UDP.
    pub(crate) remote: Option<SocketAddr>,
    /// Of the `o=` line: id, version.
    pub(crate) session: (u64, u64),
    /// The last SSRC that was given out.
    pub(crate) last_ssrc: u32,
    /// RTCP is sent with it.
    pub(crate) local_ssrc: u32,
    pub(crate) next_rtcp_index: u32,
    pub(crate) transport_cc: u16,
    pub(crate) estimate_bps: u64,
    pub(crate) slots: Vec<SlotState>,
    pub(crate) streams: Vec<StreamState>,
    /// Highest index received, by SSRC.
    pub(crate) rtp_received: Vec<(u32, u64)>,
    pub(crate) rtcp_received: Vec<(u32, u64)>,
}

/// A master key of SRTP; empty if there is none.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct KeyState {
    pub(crate) key: Vec<u8>,
    pub(crate) salt: Vec<u8>,
}

/// Credentials of ICE.
#[derive(Serialize, Deserialize, PartialEq, Eq)]
pub(crate) struct IceState {
    pub(crate) ufrag: String,
    pub(crate) pwd: String,
}

/// Where the streams of a slot are.
#[derive(Serialize, Deserialize)]
pub(crate) struct SlotState {
    pub(crate) mid: String,
    pub(crate) ssrc: u32,
    pub(crate) rtx: Option<u32>,
    pub(crate) fec: Option<u32>,
    pub(crate) seq: u64,
    pub(crate) rtx_seq: u64,
    pub(crate) fec_seq: u64,
    pub(crate) timestamp: u32,
    /// When the packet of this timestamp was sent, Unix microseconds; unset if there was none.
    pub(crate) sent_at_us: Option<i64>,
    pub(crate) picture_id: u16,
    pub(crate) tl0_pic_idx: u8,
    pub(crate) frame_number: u16,
}

/// An encoding that the client sends: after its first packets only the SSRC tells which.
#[derive(Serialize, Deserialize)]
pub(crate) struct StreamState {
    pub(crate) mid: String,
    pub(crate) layer: u8,
    pub(crate) ssrc: u32,
    pub(crate) rtx: Option<u32>,
}

impl TransportState {
    pub(crate) fn seal(&self, key: &HandoverKey) -> Vec<u8> {
        key.seal(&serde_json::to_vec(self).expect("numbers, texts and lists are JSON"))
    }

    /// Fails if it was not sealed with this key, or by a version that is no neighbour of this one.
    pub(crate) fn open(sealed: &[u8], key: &HandoverKey) -> Result<Self, Error> {
        let refused = |why: &str| Error::BadRequest(format!("the state of the transport {why}"));
        if sealed.len() > MAX_STATE_BYTES {
            return Err(refused("is too long"));
        }
        let plain = key.open(sealed).ok_or_else(|| refused("was sealed with another key, or changed since"))?;
        // Without the parser's own words: they may quote a key.
        serde_json::from_slice(&plain).map_err(|_| refused("is of another version"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_same_key_opens_and_nothing_may_change() {
        let [key, other] = [1, 2].map(|n| HandoverKey::new(&[n; 32]));
        let sealed = key.seal(b"secret");
        assert_eq!(key.open(&sealed).as_deref(), Some(&b"secret"[..]));
        assert_ne!(sealed, key.seal(b"secret"), "each has a nonce of its own");
        assert!(other.open(&sealed).is_none());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(&changed).is_none());
            assert!(key.open(&sealed[..at]).is_none());
        }
        assert_eq!(format!("{key:?}"), "HandoverKey(..)");
    }

    #[test]
    fn what_fuzzing_begins_with_is_understood() {
        for seed in [
            &include_bytes!("../../../../tests/vectors/handover/final.json")[..],
            include_bytes!("../../../../tests/vectors/handover/meeting.json"),
        ] {
            let key = HandoverKey::new(&[1; 32]);
            assert!(TransportState::open(&key.seal(seed), &key).is_ok());
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let key = HandoverKey::new(&[1; 32]);
            prop_assert!(TransportState::open(&bytes, &key).is_err());
            prop_assert!(TransportState::open(&key.seal(&bytes), &key).is_err());
        }
    }
}
