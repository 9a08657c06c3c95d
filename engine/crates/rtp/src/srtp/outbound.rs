//! Seals what is sent to the peer.

use super::SrtpError;
use super::cipher::{
    CM_TAG_LEN, Cipher, Purpose, apply_key_stream, cm_iv, cm_tag, gcm_rtcp_nonce, gcm_rtp_nonce, gcm_seal,
};
use super::keys::{Profile, SessionKeys};
use crate::id::ExtSeq;

const RTCP_HEADER_LEN: usize = 8;
const ENCRYPTED: u32 = 1 << 31;

/// Seals the RTP and RTCP packets of one transport.
pub struct Outbound {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    rtcp_index: u32,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Outbound({:?})", self.profile)
    }
}

impl Outbound {
    /// With the send key of a transport.
    pub fn new(keys: &SessionKeys) -> Result<Self, SrtpError> {
        Ok(Self {
            profile: keys.profile,
            rtp: Cipher::derive(keys.profile, &keys.tx, Purpose::Rtp)?,
            rtcp: Cipher::derive(keys.profile, &keys.tx, Purpose::Rtcp)?,
            rtcp_index: 0,
        })
    }

    /// The index of the next RTCP packet.
    pub fn rtcp_index(&self) -> u32 {
        self.rtcp_index
    }

    /// Goes on where another holder of the same key ended.
    pub fn resume_rtcp(&mut self, index: u32) {
        self.rtcp_index = self.rtcp_index.max(index);
    }

    /// The key that RTP is sealed with, for hints to the processor's cache.
    pub fn rtp_key(&self) -> &impl Sized {
        &self.rtp
    }

    /// Bytes that sealing adds to an RTP packet.
    pub fn rtp_overhead(&self) -> usize {
        self.profile.rtp_overhead()
    }

    /// Seals the plain RTP packet in `buf[..plain_len]` in place and returns the length of the sealed one.
    ///
    /// `index` is the packet's sequence number with the roll-over counter; the caller never uses one twice for
    /// different packets of an SSRC.
    ///
    /// # Panics
    /// If `buf` is shorter than `plain_len` + [`Self::rtp_overhead`], or the header does not fit into the packet.
    pub fn seal_rtp(&self, buf: &mut [u8], header_len: usize, plain_len: usize, index: ExtSeq) -> usize {
        let end = plain_len + self.rtp_overhead();
        let (plain, tag) = buf[..end].split_at_mut(plain_len);
        let (header, data) = plain.split_at_mut(header_len);
        let ssrc = [header[8], header[9], header[10], header[11]];
        match &self.rtp {
            Cipher::Gcm { key, salt } => gcm_seal(key, gcm_rtp_nonce(salt, ssrc, index.0), header, data, tag),
            Cipher::Cm(cm) => {
                apply_key_stream(&cm.key, cm_iv(&cm.salt, ssrc, index.0), data);
                tag.copy_from_slice(&cm_tag(&cm.auth, &[header, data, &index.roc().to_be_bytes()]));
            }
        }
        end
    }

    /// Seals the plain compound RTCP packet in `packet` in place; it grows by tag and index.
    ///
    /// Fails for a packet without header, and after 2^31 packets: then the transport needs new keys.
    pub fn seal_rtcp(&mut self, packet: &mut Vec<u8>) -> Result<(), SrtpError> {
        if packet.len() < RTCP_HEADER_LEN {
            return Err(SrtpError::TooShort);
        }
        if self.rtcp_index >= ENCRYPTED {
            return Err(SrtpError::IndexExhausted);
        }
        let index = self.rtcp_index;
        self.rtcp_index += 1;
        let word = (index | ENCRYPTED).to_be_bytes();
        let ssrc = [packet[4], packet[5], packet[6], packet[7]];
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let mut aad = [0; RTCP_HEADER_LEN + 4];
                aad[..RTCP_HEADER_LEN].copy_from_slice(&packet[..RTCP_HEADER_LEN]);
                aad[RTCP_HEADER_LEN..].copy_from_slice(&word);
                let mut tag = [0; 16];
                gcm_seal(key, gcm_rtcp_nonce(salt, ssrc, index), &aad, &mut packet[RTCP_HEADER_LEN..], &mut tag);
                packet.extend(tag);
                packet.extend(word);
            }
            Cipher::Cm(cm) => {
                apply_key_stream(&cm.key, cm_iv(&cm.salt, ssrc, u64::from(index)), &mut packet[RTCP_HEADER_LEN..]);
                packet.extend(word);
                let tag: [u8; CM_TAG_LEN] = cm_tag(&cm.auth, &[packet]);
                packet.extend(tag);
            }
        }
        Ok(())
    }
}
