//! Extended reports, as far as they tell the round trip to a sender that receives nothing (RFC 3611 sections 4.4, 4.5).

use super::{ReadBytes, begin_packet, end_packet, packet_type};
use crate::error::ParseError;
use crate::id::Ssrc;

const RRTR: u8 = 4;
const DLRR: u8 = 5;
/// Words of a reference time block's body.
const RRTR_WORDS: u16 = 2;
const SUB_BLOCK_LEN: usize = 12;

/// An extended report.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedReport<'a> {
    /// Who reports.
    pub ssrc: Ssrc,
    blocks: &'a [u8],
}

/// One block; those of other kinds are passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XrBlock {
    /// The reporter's NTP time when it sent this.
    ReferenceTime(u64),
    /// An answer to a reference time.
    Delay {
        /// Whose reference time is answered.
        ssrc: Ssrc,
        /// The middle 32 bits of that time.
        last_rr: u32,
        /// How long the answer waited, in 1/65536 s.
        delay_since_last_rr: u32,
    },
}

impl<'a> ExtendedReport<'a> {
    pub(super) fn parse(mut body: &'a [u8]) -> Result<Self, ParseError> {
        Ok(Self { ssrc: Ssrc(body.u32("RTCP extended report")?), blocks: body })
    }

    /// The blocks that we know; ends at the first one that is malformed.
    pub fn blocks(&self) -> impl Iterator<Item = XrBlock> + 'a {
        let mut rest = self.blocks;
        let mut delays: &[u8] = &[];
        std::iter::from_fn(move || {
            loop {
                if let Some((sub_block, behind)) = delays.split_first_chunk::<SUB_BLOCK_LEN>() {
                    delays = behind;
                    return Some(read_delay(sub_block));
                }
                let (&[kind, _, l0, l1], behind) = rest.split_first_chunk()?;
                let (body, behind) = behind.split_at_checked(4 * usize::from(u16::from_be_bytes([l0, l1])))?;
                rest = behind;
                match (kind, body.first_chunk::<8>()) {
                    (RRTR, Some(ntp)) => return Some(XrBlock::ReferenceTime(u64::from_be_bytes(*ntp))),
                    (DLRR, _) => delays = body,
                    _ => {}
                }
            }
        })
    }
}

fn read_delay(b: &[u8; SUB_BLOCK_LEN]) -> XrBlock {
    let word = |at: usize| u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]);
    XrBlock::Delay { ssrc: Ssrc(word(0)), last_rr: word(4), delay_since_last_rr: word(8) }
}

/// Appends an extended report with our reference time.
pub fn write_reference_time(out: &mut Vec<u8>, sender: Ssrc, ntp: u64) {
    let start = begin_packet(out, 0, packet_type::XR);
    out.extend(sender.0.to_be_bytes());
    out.extend([RRTR, 0]);
    out.extend(RRTR_WORDS.to_be_bytes());
    out.extend(ntp.to_be_bytes());
    end_packet(out, start);
}

/// Appends an extended report that answers the reference time of `ssrc`.
pub fn write_delay(out: &mut Vec<u8>, sender: Ssrc, ssrc: Ssrc, last_rr: u32, delay_since_last_rr: u32) {
    let start = begin_packet(out, 0, packet_type::XR);
    out.extend(sender.0.to_be_bytes());
    out.extend([DLRR, 0, 0, (SUB_BLOCK_LEN / 4) as u8]);
    for word in [ssrc.0, last_rr, delay_since_last_rr] {
        out.extend(word.to_be_bytes());
    }
    end_packet(out, start);
}

#[cfg(test)]
mod tests {
    use super::super::{Rtcp, parse};
    use super::*;

    fn blocks(bytes: &[u8]) -> Vec<XrBlock> {
        match parse(bytes).next() {
            Some(Ok(Rtcp::Extended(report))) => report.blocks().collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_what_it_writes() {
        let mut out = Vec::new();
        write_reference_time(&mut out, Ssrc(1), 0x1234_5678_9abc_def0);
        assert_eq!(out.len(), 20);
        assert_eq!(blocks(&out), [XrBlock::ReferenceTime(0x1234_5678_9abc_def0)]);
        let mut out = Vec::new();
        write_delay(&mut out, Ssrc(1), Ssrc(7), 8, 9);
        assert_eq!(blocks(&out), [XrBlock::Delay { ssrc: Ssrc(7), last_rr: 8, delay_since_last_rr: 9 }]);
    }

    #[test]
    fn passes_over_foreign_and_cut_blocks() {
        // A statistics block of one word, a reference time that is too short, and one that ends early.
        let mut out = vec![0x80, 207, 0, 6, 0, 0, 0, 1];
        out.extend([6, 0, 0, 1, 9, 9, 9, 9, 4, 0, 0, 1, 1, 1, 1, 1, 4, 0, 0, 2]);
        out[3] = (out.len() / 4 - 1) as u8;
        assert_eq!(blocks(&out), []);
    }
}
