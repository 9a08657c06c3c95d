//! Opens what the peer sends.

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::SrtpError;
use super::cipher::{
    CM_TAG_LEN, Cipher, Purpose, apply_key_stream, cm_iv, cm_tag, gcm_open, gcm_rtcp_nonce, gcm_rtp_nonce,
};
use super::keys::{Profile, SessionKeys};
use crate::header::RtpHeader;
use crate::id::{ExtSeq, Ssrc};
use crate::replay::ReplayWindow;
use crate::seq::nearest;

/// Most SSRCs of a peer, for RTP and for RTCP each.
///
/// State is kept only for an SSRC of which a packet was authentic, so only the peer itself can fill the table. When
/// it is full, new SSRCs are refused. Nothing is evicted: an evicted replay window would let old packets in again.
pub const MAX_SSRCS: usize = 1024;

/// The highest index of each SSRC.
pub type Highest = Vec<(Ssrc, u64)>;

const RTCP_HEADER_LEN: usize = 8;
const RTCP_INDEX_LEN: usize = 4;
const ENCRYPTED: u32 = 1 << 31;

/// Opens the SRTP and SRTCP packets of a peer and refuses replayed ones.
pub struct Inbound {
    profile: Profile,
    rtp: Cipher,
    rtcp: Cipher,
    rtp_windows: Windows,
    rtcp_windows: Windows,
}

impl std::fmt::Debug for Inbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Inbound({:?})", self.profile)
    }
}

/// A replay window per SSRC. Few SSRCs per peer: a scan of their numbers beats a hash.
#[derive(Default)]
struct Windows {
    ssrcs: Vec<Ssrc>,
    windows: Vec<ReplayWindow>,
}

impl Windows {
    fn of(highest: &[(Ssrc, u64)]) -> Self {
        let known = || highest.iter().take(MAX_SSRCS);
        Self {
            ssrcs: known().map(|(ssrc, _)| *ssrc).collect(),
            windows: known().map(|(_, index)| ReplayWindow::all_seen(*index)).collect(),
        }
    }

    fn highest(&self) -> Highest {
        let pairs = self.ssrcs.iter().zip(&self.windows);
        pairs.filter_map(|(ssrc, window)| Some((*ssrc, window.highest()?))).collect()
    }

    fn find(&self, ssrc: Ssrc) -> Option<usize> {
        self.ssrcs.iter().position(|&s| s == ssrc)
    }

    /// Marks a number as seen, adding the SSRC if it is new.
    fn accept(&mut self, slot: Option<usize>, ssrc: Ssrc, n: u64) {
        let slot = slot.unwrap_or_else(|| {
            self.ssrcs.push(ssrc);
            self.windows.push(ReplayWindow::new());
            self.ssrcs.len() - 1
        });
        self.windows[slot].accept(n);
    }

    fn check_room(&self, slot: Option<usize>) -> Result<(), SrtpError> {
        if slot.is_none() && self.ssrcs.len() >= MAX_SSRCS { Err(SrtpError::TooManySsrcs) } else { Ok(()) }
    }
}

impl Inbound {
    /// With the receive key of a transport.
    pub fn new(keys: &SessionKeys) -> Result<Self, SrtpError> {
        Ok(Self {
            profile: keys.profile,
            rtp: Cipher::derive(keys.profile, &keys.rx, Purpose::Rtp)?,
            rtcp: Cipher::derive(keys.profile, &keys.rx, Purpose::Rtcp)?,
            rtp_windows: Windows::default(),
            rtcp_windows: Windows::default(),
        })
    }

    /// What came last: of RTP with the roll-over counter, and of RTCP.
    pub fn highest(&self) -> (Highest, Highest) {
        (self.rtp_windows.highest(), self.rtcp_windows.highest())
    }

    /// Goes on where another holder of the same keys ended: knows roll-over counters, and takes nothing that is not newer.
    /// More than [`MAX_SSRCS`] are left out.
    pub fn resume(&mut self, rtp: &[(Ssrc, u64)], rtcp: &[(Ssrc, u64)]) {
        self.rtp_windows = Windows::of(rtp);
        self.rtcp_windows = Windows::of(rtcp);
    }

    /// The key that RTCP is opened with, for hints to the processor's cache.
    pub fn rtcp_key(&self) -> &impl Sized {
        &self.rtcp
    }

    #[cfg(test)]
    pub(super) fn rtp_ssrc_count(&self) -> usize {
        self.rtp_windows.ssrcs.len()
    }

    /// Opens an RTP packet in place. Returns its index and the length of the plain packet, header included.
    ///
    /// After an error the content of `packet` is not to be used.
    pub fn open_rtp(&mut self, packet: &mut [u8], header: &RtpHeader) -> Result<(ExtSeq, usize), SrtpError> {
        let header_len = header.header_len();
        let plain_len = packet.len().checked_sub(self.profile.tag_len()).ok_or(SrtpError::TooShort)?;
        if plain_len < header_len {
            return Err(SrtpError::TooShort);
        }
        let slot = self.rtp_windows.find(header.ssrc);
        let Some(slot) = slot else { return self.open_first_rtp(packet, header, plain_len) };
        let window = &self.rtp_windows.windows[slot];
        let index = nearest(window.highest().unwrap_or_default(), u64::from(header.seq.0), 16);
        if !window.is_fresh(index) {
            return Err(SrtpError::Replayed);
        }
        self.open_rtp_at(packet, header, plain_len, index)?;
        self.rtp_windows.accept(Some(slot), header.ssrc, index);
        Ok((ExtSeq(index), plain_len))
    }

    /// The first packet of an SSRC. Its roll-over counter is 0, unless the sender began just below the wrap and the
    /// packets before it were lost: then it is 1, which is tried too.
    fn open_first_rtp(
        &mut self,
        packet: &mut [u8],
        header: &RtpHeader,
        plain_len: usize,
    ) -> Result<(ExtSeq, usize), SrtpError> {
        self.rtp_windows.check_room(None)?;
        let may_have_wrapped = header.seq.0 < 1 << 15;
        // Opening destroys the packet when it fails. A copy once per new SSRC does not matter.
        let copy = may_have_wrapped.then(|| packet.to_vec());
        let mut index = ExtSeq::new(0, header.seq);
        if let Err(error) = self.open_rtp_at(packet, header, plain_len, index.0) {
            let copy = copy.ok_or(error)?;
            packet.copy_from_slice(&copy);
            index = ExtSeq::new(1, header.seq);
            self.open_rtp_at(packet, header, plain_len, index.0)?;
        }
        self.rtp_windows.accept(None, header.ssrc, index.0);
        Ok((index, plain_len))
    }

    fn open_rtp_at(
        &self,
        packet: &mut [u8],
        header: &RtpHeader,
        plain_len: usize,
        index: u64,
    ) -> Result<(), SrtpError> {
        let ssrc = header.ssrc.0.to_be_bytes();
        match &self.rtp {
            Cipher::Gcm { key, salt } => {
                let (aad, data) = packet.split_at_mut(header.header_len());
                gcm_open(key, gcm_rtp_nonce(salt, ssrc, index), aad, data)
            }
            Cipher::Cm(cm) => {
                let (plain, tag) = packet.split_at_mut(plain_len);
                let roc = ((index >> 16) as u32).to_be_bytes();
                check_tag(&cm_tag(&cm.auth, &[plain, &roc]), tag)?;
                apply_key_stream(&cm.key, cm_iv(&cm.salt, ssrc, index), &mut plain[header.header_len()..]);
                Ok(())
            }
        }
    }

    /// Opens an RTCP packet in place. Returns the length of the plain compound packet.
    ///
    /// After an error the content of `packet` is not to be used.
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let overhead = self.profile.tag_len() + RTCP_INDEX_LEN;
        let plain_len = packet.len().checked_sub(overhead).ok_or(SrtpError::TooShort)?;
        if plain_len < RTCP_HEADER_LEN {
            return Err(SrtpError::TooShort);
        }
        let index_at = match self.rtcp {
            Cipher::Gcm { .. } => packet.len() - RTCP_INDEX_LEN,
            Cipher::Cm(_) => plain_len,
        };
        let word = read_u32(packet, index_at);
        let (is_encrypted, index) = (word & ENCRYPTED != 0, word & !ENCRYPTED);
        let ssrc = read_u32(packet, 4);
        let slot = self.rtcp_windows.find(Ssrc(ssrc));
        self.rtcp_windows.check_room(slot)?;
        if slot.is_some_and(|s| !self.rtcp_windows.windows[s].is_fresh(u64::from(index))) {
            return Err(SrtpError::Replayed);
        }
        match &self.rtcp {
            Cipher::Gcm { key, salt } => {
                let nonce = gcm_rtcp_nonce(salt, ssrc.to_be_bytes(), index);
                open_gcm_rtcp(key, nonce, packet, plain_len, is_encrypted)?;
            }
            Cipher::Cm(cm) => {
                let (body, tag) = packet.split_at_mut(plain_len + RTCP_INDEX_LEN);
                check_tag(&cm_tag(&cm.auth, &[body]), tag)?;
                if is_encrypted {
                    let iv = cm_iv(&cm.salt, ssrc.to_be_bytes(), u64::from(index));
                    apply_key_stream(&cm.key, iv, &mut body[RTCP_HEADER_LEN..plain_len]);
                }
            }
        }
        self.rtcp_windows.accept(slot, Ssrc(ssrc), u64::from(index));
        Ok(plain_len)
    }
}

/// RFC 7714 section 9.2 and 9.3: associated data is the header and the index word, or, if the packet is not
/// encrypted, all of it.
fn open_gcm_rtcp(
    key: &aws_lc_rs::aead::LessSafeKey,
    nonce: aws_lc_rs::aead::Nonce,
    packet: &mut [u8],
    plain_len: usize,
    is_encrypted: bool,
) -> Result<(), SrtpError> {
    let (body, word) = packet.split_at_mut(packet.len() - RTCP_INDEX_LEN);
    if is_encrypted {
        let mut aad = [0; RTCP_HEADER_LEN + RTCP_INDEX_LEN];
        aad[..RTCP_HEADER_LEN].copy_from_slice(&body[..RTCP_HEADER_LEN]);
        aad[RTCP_HEADER_LEN..].copy_from_slice(word);
        return gcm_open(key, nonce, &aad, &mut body[RTCP_HEADER_LEN..]);
    }
    let (plain, tag) = body.split_at_mut(plain_len);
    let aad = [plain as &[u8], word].concat();
    gcm_open(key, nonce, &aad, tag)
}

fn check_tag(wanted: &[u8; CM_TAG_LEN], tag: &[u8]) -> Result<(), SrtpError> {
    verify_slices_are_equal(wanted, tag).map_err(|_| SrtpError::AuthenticationFailed)
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b))
}
