//! NACK and PLI (RFC 4585), FIR (RFC 5104), REMB (draft-alvestrand-rmcat-remb).

use super::{ReadBytes, begin_packet, end_packet, packet_type};
use crate::error::ParseError;
use crate::id::{SeqNo, Ssrc};

/// Lost packets that are asked for again (RFC 4585 section 6.2.1).
#[derive(Clone, Copy, Debug)]
pub struct Nack<'a> {
    /// Who asks.
    pub sender: Ssrc,
    /// Of which stream.
    pub media: Ssrc,
    entries: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(mut body: &'a [u8]) -> Result<Self, ParseError> {
        let what = "RTCP NACK";
        Ok(Self { sender: Ssrc(body.u32(what)?), media: Ssrc(body.u32(what)?), entries: body })
    }

    /// The lost sequence numbers, in the order sent.
    pub fn seqs(&self) -> impl Iterator<Item = SeqNo> + 'a {
        self.entries.as_chunks::<4>().0.iter().flat_map(|&[p0, p1, b0, b1]| {
            let first = SeqNo(u16::from_be_bytes([p0, p1]));
            let mask = u16::from_be_bytes([b0, b1]);
            let more = (0..16).filter(move |i| mask >> i & 1 != 0).map(move |i| first + (i + 1));
            std::iter::once(first).chain(more)
        })
    }
}

/// Appends a NACK. Numbers that ascend (over the wrap too) share entries. Nothing is written if there is none.
pub fn write_nack(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, seqs: impl IntoIterator<Item = SeqNo>) {
    let start = begin_packet(out, 1, packet_type::RTPFB);
    out.extend(sender.0.to_be_bytes());
    out.extend(media.0.to_be_bytes());
    let mut entry: Option<(SeqNo, u16)> = None;
    let mut put = |(first, mask): (SeqNo, u16)| {
        out.extend(first.0.to_be_bytes());
        out.extend(mask.to_be_bytes());
    };
    for seq in seqs {
        entry = Some(match entry {
            None => (seq, 0),
            Some((first, mask)) => match seq.distance(first) {
                0 => (first, mask),
                n @ 1..=16 => (first, mask | 1 << (n - 1)),
                _ => {
                    put((first, mask));
                    (seq, 0)
                }
            },
        });
    }
    match entry {
        Some(last) => put(last),
        None => return out.truncate(start),
    }
    end_packet(out, start);
}

/// The picture is lost: a key frame is needed (RFC 4585 section 6.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pli {
    /// Who asks.
    pub sender: Ssrc,
    /// Of which stream.
    pub media: Ssrc,
}

impl Pli {
    pub(super) fn parse(mut body: &[u8]) -> Result<Self, ParseError> {
        Ok(Self { sender: Ssrc(body.u32("RTCP PLI")?), media: Ssrc(body.u32("RTCP PLI")?) })
    }
}

/// Appends a PLI.
pub fn write_pli(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc) {
    let start = begin_packet(out, 1, packet_type::PSFB);
    out.extend(sender.0.to_be_bytes());
    out.extend(media.0.to_be_bytes());
    end_packet(out, start);
}

/// Full intra requests (RFC 5104 section 4.3.1).
#[derive(Clone, Copy, Debug)]
pub struct Fir<'a> {
    /// Who asks.
    pub sender: Ssrc,
    entries: &'a [u8],
}

impl<'a> Fir<'a> {
    pub(super) fn parse(mut body: &'a [u8]) -> Result<Self, ParseError> {
        let sender = Ssrc(body.u32("RTCP FIR")?);
        body.u32("RTCP FIR")?; // media source, unused
        Ok(Self { sender, entries: body })
    }

    /// (stream, command number: a repeated one is the same request).
    pub fn entries(&self) -> impl Iterator<Item = (Ssrc, u8)> + 'a {
        self.entries.as_chunks::<8>().0.iter().map(|b| (Ssrc(u32::from_be_bytes([b[0], b[1], b[2], b[3]])), b[4]))
    }
}

/// Appends a FIR for one stream.
pub fn write_fir(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, command: u8) {
    let start = begin_packet(out, 4, packet_type::PSFB);
    out.extend(sender.0.to_be_bytes());
    out.extend([0; 4]);
    out.extend(media.0.to_be_bytes());
    out.extend([command, 0, 0, 0]);
    end_packet(out, start);
}

/// Receiver estimated maximum bitrate.
#[derive(Clone, Copy, Debug)]
pub struct Remb<'a> {
    /// Who estimates.
    pub sender: Ssrc,
    /// The estimate.
    pub bitrate_bps: u64,
    sources: &'a [u8],
}

const REMB_NAME: [u8; 4] = *b"REMB";

impl<'a> Remb<'a> {
    pub(super) fn is_remb(body: &[u8]) -> bool {
        body.get(8..12) == Some(&REMB_NAME)
    }

    pub(super) fn parse(mut body: &'a [u8]) -> Result<Self, ParseError> {
        let what = "RTCP REMB";
        let sender = Ssrc(body.u32(what)?);
        body.take::<8>(what)?; // media source (unused) and name
        let [count, e, m1, m0] = body.take(what)?;
        let (exponent, mantissa) = (e >> 2, u32::from_be_bytes([0, e & 3, m1, m0]));
        let bitrate_bps = u64::from(mantissa).checked_shl(u32::from(exponent)).unwrap_or(u64::MAX);
        // Bits beyond the 64th are lost in the shift: such a number means "no limit" as well.
        let bitrate_bps = if bitrate_bps >> exponent == u64::from(mantissa) { bitrate_bps } else { u64::MAX };
        let sources = body.get(..4 * usize::from(count)).ok_or(ParseError::Truncated(what))?;
        Ok(Self { sender, bitrate_bps, sources })
    }

    /// The streams that share it.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + 'a {
        self.sources.as_chunks::<4>().0.iter().map(|b| Ssrc(u32::from_be_bytes(*b)))
    }
}

/// Appends a REMB for at most 255 streams. The bitrate is rounded down to 18 significant bits.
pub fn write_remb(out: &mut Vec<u8>, sender: Ssrc, bitrate_bps: u64, ssrcs: &[Ssrc]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(255)];
    let exponent = (u64::BITS - bitrate_bps.leading_zeros()).saturating_sub(18);
    let mantissa = (bitrate_bps >> exponent) as u32;
    let start = begin_packet(out, 15, packet_type::PSFB);
    out.extend(sender.0.to_be_bytes());
    out.extend([0; 4]);
    out.extend(REMB_NAME);
    out.extend([
        ssrcs.len() as u8,
        (exponent as u8) << 2 | (mantissa >> 16) as u8,
        (mantissa >> 8) as u8,
        mantissa as u8,
    ]);
    for ssrc in ssrcs {
        out.extend(ssrc.0.to_be_bytes());
    }
    end_packet(out, start);
}
