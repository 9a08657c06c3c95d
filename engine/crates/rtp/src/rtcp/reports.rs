//! Sender and receiver reports, source description, goodbye (RFC 3550 section 6.4 to 6.6).

use super::{ReadBytes, begin_packet, end_packet, packet_type};
use crate::error::ParseError;
use crate::id::Ssrc;

const BLOCK_LEN: usize = 24;
const SDES_CNAME: u8 = 1;
/// Most report blocks, sources or chunks in a packet: the count has five bits.
const MAX_COUNT: usize = 31;

/// How a stream is received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: Ssrc,
    /// Part of the packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost in all, 24 bits with sign.
    pub cumulative_lost: i32,
    /// Cycles and highest sequence number.
    pub highest_seq: u32,
    /// Interarrival jitter in timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time; 0 if there was none.
    pub last_sr: u32,
    /// Time since that came, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn from_bytes(b: &[u8; BLOCK_LEN]) -> Self {
        let word = |at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
        Self {
            ssrc: Ssrc(word(0)),
            fraction_lost: b[4],
            // Shifted up and down again to extend the sign of the 24 bits.
            cumulative_lost: (word(4) << 8) as i32 >> 8,
            highest_seq: word(8),
            jitter: word(12),
            last_sr: word(16),
            delay_since_last_sr: word(20),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let lost = self.cumulative_lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        out.extend(self.ssrc.0.to_be_bytes());
        out.extend((u32::from(self.fraction_lost) << 24 | lost).to_be_bytes());
        for word in [self.highest_seq, self.jitter, self.last_sr, self.delay_since_last_sr] {
            out.extend(word.to_be_bytes());
        }
    }

    /// Round trip in 1/65536 s, if the report answers a sender report; `now` is the middle 32 bits of NTP time.
    pub fn round_trip(&self, now: u32) -> Option<u32> {
        round_trip(now, self.last_sr, self.delay_since_last_sr)
    }
}

/// Round trip in 1/65536 s: `now`, less the time that is answered (0: none), less how long the answer waited.
pub fn round_trip(now: u32, answered: u32, waited: u32) -> Option<u32> {
    let elapsed = now.wrapping_sub(answered).wrapping_sub(waited);
    // A negative result (clock steps, nonsense of the peer) is the upper half of the circle.
    (answered != 0 && elapsed < 1 << 31).then_some(elapsed)
}

#[derive(Clone, Copy, Debug)]
struct Blocks<'a>(&'a [u8]);

impl<'a> Blocks<'a> {
    fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        body.get(..BLOCK_LEN * usize::from(count)).map(Self).ok_or(ParseError::Truncated("RTCP report blocks"))
    }

    fn iter(self) -> impl Iterator<Item = ReportBlock> + 'a {
        self.0.as_chunks::<BLOCK_LEN>().0.iter().map(ReportBlock::from_bytes)
    }
}

/// The sender's part of a sender report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// The sender.
    pub ssrc: Ssrc,
    /// NTP time, 32.32 bits since 1900, of `rtp_timestamp`.
    pub ntp: u64,
    /// The same moment on the stream's clock.
    pub rtp_timestamp: u32,
    /// Packets sent in all.
    pub packet_count: u32,
    /// Payload bytes sent in all.
    pub octet_count: u32,
}

impl SenderInfo {
    /// Middle 32 bits of the NTP time: what report blocks refer to.
    pub fn compact_ntp(&self) -> u32 {
        (self.ntp >> 16) as u32
    }
}

/// A sender report.
#[derive(Clone, Copy, Debug)]
pub struct SenderReport<'a> {
    /// The sender's part.
    pub info: SenderInfo,
    blocks: Blocks<'a>,
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(count: u8, mut body: &'a [u8]) -> Result<Self, ParseError> {
        let what = "RTCP sender report";
        let info = SenderInfo {
            ssrc: Ssrc(body.u32(what)?),
            ntp: u64::from_be_bytes(body.take(what)?),
            rtp_timestamp: body.u32(what)?,
            packet_count: body.u32(what)?,
            octet_count: body.u32(what)?,
        };
        Ok(Self { info, blocks: Blocks::parse(count, body)? })
    }

    /// The report blocks.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + 'a {
        self.blocks.iter()
    }
}

/// A receiver report.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub ssrc: Ssrc,
    blocks: Blocks<'a>,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(count: u8, mut body: &'a [u8]) -> Result<Self, ParseError> {
        Ok(Self { ssrc: Ssrc(body.u32("RTCP receiver report")?), blocks: Blocks::parse(count, body)? })
    }

    /// The report blocks.
    pub fn blocks(&self) -> impl Iterator<Item = ReportBlock> + 'a {
        self.blocks.iter()
    }
}

/// A source description.
#[derive(Clone, Copy, Debug)]
pub struct Sdes<'a> {
    count: u8,
    body: &'a [u8],
}

impl<'a> Sdes<'a> {
    pub(super) fn new(count: u8, body: &'a [u8]) -> Self {
        Self { count, body }
    }

    /// (source, CNAME as sent) of each chunk that has one; ends at the first chunk that is malformed.
    pub fn cnames(&self) -> impl Iterator<Item = (Ssrc, &'a [u8])> + 'a {
        let (mut left, mut rest) = (self.count, self.body);
        std::iter::from_fn(move || {
            while left > 0 {
                left -= 1;
                let (ssrc, cname, behind) = read_chunk(rest)?;
                rest = behind;
                if let Some(cname) = cname {
                    return Some((ssrc, cname));
                }
            }
            None
        })
    }
}

type Chunk<'a> = (Ssrc, Option<&'a [u8]>, &'a [u8]);

/// (source, CNAME, what is behind the chunk).
fn read_chunk(bytes: &[u8]) -> Option<Chunk<'_>> {
    let (ssrc, mut rest) = bytes.split_first_chunk::<4>()?;
    let mut cname = None;
    loop {
        let (&kind, behind) = rest.split_first()?;
        if kind == 0 {
            let used = (bytes.len() - behind.len()).next_multiple_of(4);
            return Some((Ssrc(u32::from_be_bytes(*ssrc)), cname, bytes.get(used..)?));
        }
        let (&len, behind) = behind.split_first()?;
        let (text, behind) = behind.split_at_checked(usize::from(len))?;
        if kind == SDES_CNAME {
            cname = Some(text);
        }
        rest = behind;
    }
}

/// A goodbye.
#[derive(Clone, Copy, Debug)]
pub struct Bye<'a> {
    sources: &'a [u8],
}

impl<'a> Bye<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let sources = body.get(..4 * usize::from(count)).ok_or(ParseError::Truncated("RTCP goodbye"))?;
        Ok(Self { sources })
    }

    /// Who leaves.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + 'a {
        self.sources.as_chunks::<4>().0.iter().map(|b| Ssrc(u32::from_be_bytes(*b)))
    }
}

fn write_blocks(out: &mut Vec<u8>, blocks: &[ReportBlock]) {
    for block in blocks.iter().take(MAX_COUNT) {
        block.write(out);
    }
}

/// Appends a sender report with at most 31 report blocks.
pub fn write_sender_report(out: &mut Vec<u8>, info: &SenderInfo, blocks: &[ReportBlock]) {
    let start = begin_packet(out, blocks.len().min(MAX_COUNT) as u8, packet_type::SR);
    out.extend(info.ssrc.0.to_be_bytes());
    out.extend(info.ntp.to_be_bytes());
    for word in [info.rtp_timestamp, info.packet_count, info.octet_count] {
        out.extend(word.to_be_bytes());
    }
    write_blocks(out, blocks);
    end_packet(out, start);
}

/// Appends a receiver report with at most 31 report blocks.
pub fn write_receiver_report(out: &mut Vec<u8>, sender: Ssrc, blocks: &[ReportBlock]) {
    let start = begin_packet(out, blocks.len().min(MAX_COUNT) as u8, packet_type::RR);
    out.extend(sender.0.to_be_bytes());
    write_blocks(out, blocks);
    end_packet(out, start);
}

/// Appends a source description with one CNAME (cut to 255 bytes).
pub fn write_sdes_cname(out: &mut Vec<u8>, ssrc: Ssrc, cname: &str) {
    let start = begin_packet(out, 1, packet_type::SDES);
    let cname = &cname.as_bytes()[..cname.len().min(255)];
    out.extend(ssrc.0.to_be_bytes());
    out.extend([SDES_CNAME, cname.len() as u8]);
    out.extend(cname);
    // The item list ends with at least one zero.
    let len = (out.len() + 1 - start).next_multiple_of(4);
    out.resize(start + len, 0);
    end_packet(out, start);
}

/// Appends a goodbye of at most 31 sources.
pub fn write_bye(out: &mut Vec<u8>, ssrcs: &[Ssrc]) {
    let start = begin_packet(out, ssrcs.len().min(MAX_COUNT) as u8, packet_type::BYE);
    for ssrc in ssrcs.iter().take(MAX_COUNT) {
        out.extend(ssrc.0.to_be_bytes());
    }
    end_packet(out, start);
}
