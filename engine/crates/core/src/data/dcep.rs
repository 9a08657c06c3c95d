//! The Data Channel Establishment Protocol (RFC 8832): the first message of a channel, and its answer.

use mrtc_rtp::ParseError;

use super::{Delivery, Reliability};

const OPEN: u8 = 0x03;
/// The answer to an `Open` (section 5.2).
pub const ACK: [u8; 1] = [0x02];
const UNORDERED: u8 = 0x80;
const HEAD_LEN: usize = 12;

/// `DATA_CHANNEL_OPEN` (section 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// What the channel promises.
    pub delivery: Delivery,
    /// The topic.
    pub label: &'a str,
    /// How messages are framed: [`super::frame::PROTOCOL`], or anything else for not at all.
    pub protocol: &'a str,
}

impl<'a> Open<'a> {
    /// Reads one. What follows it is no error, as in other stacks.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (head, rest) = bytes.split_first_chunk::<HEAD_LEN>().ok_or(ParseError::Truncated("DCEP open"))?;
        let [OPEN, kind, _, _, p0, p1, p2, p3, l0, l1, q0, q1] = *head else {
            return Err(ParseError::Malformed("DCEP message type"));
        };
        let parameter = u32::from_be_bytes([p0, p1, p2, p3]);
        let reliability = match kind & !UNORDERED {
            0 => Reliability::Reliable,
            1 => Reliability::Retransmits(parameter),
            2 => Reliability::Lifetime(parameter),
            _ => return Err(ParseError::Malformed("DCEP channel type")),
        };
        let (label, rest) = text(rest, u16::from_be_bytes([l0, l1]))?;
        let (protocol, _) = text(rest, u16::from_be_bytes([q0, q1]))?;
        let delivery = Delivery { is_ordered: kind & UNORDERED == 0, reliability };
        Ok(Self { delivery, label, protocol })
    }

    /// Writes one. Label and protocol have at most 65,535 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (kind, parameter) = match self.delivery.reliability {
            Reliability::Reliable => (0, 0),
            Reliability::Retransmits(count) => (1, count),
            Reliability::Lifetime(ms) => (2, ms),
        };
        let mut out = vec![OPEN, kind | if self.delivery.is_ordered { 0 } else { UNORDERED }, 0, 0];
        out.extend(parameter.to_be_bytes());
        out.extend((self.label.len() as u16).to_be_bytes());
        out.extend((self.protocol.len() as u16).to_be_bytes());
        out.extend(self.label.as_bytes());
        out.extend(self.protocol.as_bytes());
        out
    }
}

fn text(bytes: &[u8], len: u16) -> Result<(&str, &[u8]), ParseError> {
    let (text, rest) = bytes.split_at_checked(usize::from(len)).ok_or(ParseError::Truncated("DCEP open"))?;
    let text = std::str::from_utf8(text).map_err(|_| ParseError::Malformed("DCEP text"))?;
    Ok((text, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_open_as_chromium_sends_it() {
        let bytes = b"\x03\x81\x01\x00\x00\x00\x00\x00\x00\x07\x00\x00pointer";
        let open = Open::parse(bytes).unwrap();
        assert_eq!(open, Open { delivery: Delivery::LOSSY, label: "pointer", protocol: "" });
    }

    #[test]
    fn what_is_short_or_of_another_kind_is_refused() {
        assert!(Open::parse(b"\x02").is_err());
        assert!(Open::parse(b"\x03\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00poin").is_err());
        assert!(Open::parse(b"\x03\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00").is_err());
    }

    fn deliveries() -> impl Strategy<Value = Delivery> {
        let reliability = prop_oneof![
            Just(Reliability::Reliable),
            any::<u32>().prop_map(Reliability::Retransmits),
            any::<u32>().prop_map(Reliability::Lifetime),
        ];
        (any::<bool>(), reliability).prop_map(|(is_ordered, reliability)| Delivery { is_ordered, reliability })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(delivery in deliveries(), label in ".{0,80}", protocol in ".{0,20}") {
            let open = Open { delivery, label: &label, protocol: &protocol };
            let bytes = open.to_bytes();
            prop_assert_eq!(Open::parse(&bytes), Ok(open));
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Open::parse(&bytes);
        }
    }
}
