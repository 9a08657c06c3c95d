//! RTCP (RFC 3550 section 6, RFC 4585, RFC 5104, REMB, transport-wide congestion control).
//!
//! [`parse`] walks a compound packet, reduced-size ones (RFC 5506) included, and lends views into it. Writers append one
//! packet each to a `Vec<u8>`, so that a compound packet is a row of calls.

mod feedback;
mod reports;
pub mod twcc;
mod xr;

use crate::error::ParseError;

pub use feedback::{Fir, Nack, Pli, Remb, write_fir, write_nack, write_pli, write_remb};
pub use reports::{
    Bye, ReceiverReport, ReportBlock, Sdes, SenderInfo, SenderReport, round_trip, write_bye, write_receiver_report,
    write_sdes_cname, write_sender_report,
};
pub use twcc::{TransportCc, TransportCcBuilder};
pub use xr::{ExtendedReport, XrBlock, write_delay, write_reference_time};

/// Packet types.
pub mod packet_type {
    /// Sender report.
    pub const SR: u8 = 200;
    /// Receiver report.
    pub const RR: u8 = 201;
    /// Source description.
    pub const SDES: u8 = 202;
    /// Goodbye.
    pub const BYE: u8 = 203;
    /// Transport layer feedback (RFC 4585): NACK, transport-wide congestion control.
    pub const RTPFB: u8 = 205;
    /// Payload-specific feedback (RFC 4585): PLI, FIR, REMB.
    pub const PSFB: u8 = 206;
    /// Extended report (RFC 3611).
    pub const XR: u8 = 207;
}

/// One packet of a compound.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Rtcp<'a> {
    SenderReport(SenderReport<'a>),
    ReceiverReport(ReceiverReport<'a>),
    Sdes(Sdes<'a>),
    Bye(Bye<'a>),
    Nack(Nack<'a>),
    Pli(Pli),
    Fir(Fir<'a>),
    Remb(Remb<'a>),
    TransportCc(TransportCc<'a>),
    Extended(ExtendedReport<'a>),
    /// Well framed, but not one of the above.
    Unknown {
        /// Packet type.
        packet_type: u8,
        /// Count or format.
        count: u8,
    },
}

/// Walks a plain compound packet. A packet with a malformed body gives an error and the walk goes on behind it;
/// broken framing gives an error and ends it.
pub fn parse(compound: &[u8]) -> Packets<'_> {
    Packets { rest: compound }
}

/// See [`parse`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Result<Rtcp<'a>, ParseError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match split_packet(self.rest) {
            Ok((count, packet_type, body, rest)) => {
                self.rest = rest;
                Some(parse_body(count, packet_type, body))
            }
            Err(error) => {
                self.rest = &[];
                Some(Err(error))
            }
        }
    }
}

type Split<'a> = (u8, u8, &'a [u8], &'a [u8]);

/// (count, type, body without padding, what is behind).
fn split_packet(bytes: &[u8]) -> Result<Split<'_>, ParseError> {
    let Some(&[b0, packet_type, l0, l1]) = bytes.first_chunk() else {
        return Err(ParseError::Truncated("RTCP header"));
    };
    if b0 >> 6 != 2 {
        return Err(ParseError::Malformed("RTCP version"));
    }
    let len = 4 * (usize::from(u16::from_be_bytes([l0, l1])) + 1);
    let Some((packet, rest)) = bytes.split_at_checked(len) else {
        return Err(ParseError::Truncated("RTCP packet"));
    };
    let mut body = &packet[4..];
    if b0 & 0x20 != 0 {
        let padding = usize::from(body.last().copied().unwrap_or_default());
        if padding == 0 || padding > body.len() {
            return Err(ParseError::Malformed("RTCP padding"));
        }
        body = &body[..body.len() - padding];
    }
    Ok((b0 & 0x1f, packet_type, body, rest))
}

fn parse_body(count: u8, packet_type: u8, body: &[u8]) -> Result<Rtcp<'_>, ParseError> {
    use packet_type::{BYE, PSFB, RR, RTPFB, SDES, SR, XR};
    Ok(match (packet_type, count) {
        (SR, _) => Rtcp::SenderReport(SenderReport::parse(count, body)?),
        (RR, _) => Rtcp::ReceiverReport(ReceiverReport::parse(count, body)?),
        (SDES, _) => Rtcp::Sdes(Sdes::new(count, body)),
        (BYE, _) => Rtcp::Bye(Bye::parse(count, body)?),
        (RTPFB, 1) => Rtcp::Nack(Nack::parse(body)?),
        (RTPFB, 15) => Rtcp::TransportCc(TransportCc::parse(body)?),
        (PSFB, 1) => Rtcp::Pli(Pli::parse(body)?),
        (PSFB, 4) => Rtcp::Fir(Fir::parse(body)?),
        (PSFB, 15) if Remb::is_remb(body) => Rtcp::Remb(Remb::parse(body)?),
        (XR, _) => Rtcp::Extended(ExtendedReport::parse(body)?),
        _ => Rtcp::Unknown { packet_type, count },
    })
}

/// Appends a header with a length to be filled in by [`end_packet`]; returns where the packet begins.
fn begin_packet(out: &mut Vec<u8>, count: u8, packet_type: u8) -> usize {
    let start = out.len();
    out.extend([0x80 | count & 0x1f, packet_type, 0, 0]);
    start
}

/// Fills in the length. The body is a multiple of four bytes already.
fn end_packet(out: &mut [u8], start: usize) {
    let words = ((out.len() - start) / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

/// Bytes read from the front; the reader is the slice itself.
trait ReadBytes {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ParseError>;

    fn u32(&mut self, what: &'static str) -> Result<u32, ParseError> {
        Ok(u32::from_be_bytes(self.take(what)?))
    }
}

impl ReadBytes for &[u8] {
    fn take<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], ParseError> {
        let (head, rest) = self.split_first_chunk::<N>().ok_or(ParseError::Truncated(what))?;
        *self = rest;
        Ok(*head)
    }
}

#[cfg(test)]
mod tests;
