//! A data message between two nodes.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | handle: the room |
//! | 1 | 1 unordered, 2 limited retransmissions, 4 limited time |
//! | 4 | number of retransmissions, or milliseconds |
//! | 1 + n | topic |
//! | 1 | number of addressees, then each: 1 + n |
//! | rest | the message as clients get it (`frame`) |

use std::sync::Arc;

use bytes::Bytes;
use mrtc_rtp::ParseError;

use super::frame::{Head, MAX_NAME_BYTES, MAX_NAMES, with_gap};
use super::{DataMessage, Delivery, Reliability, is_topic};
use crate::id::RoomId;

const UNORDERED: u8 = 1;
const RETRANSMITS: u8 = 2;
const LIFETIME: u8 = 4;

/// Writes a message; `has_gap`: others before it were given up.
pub fn encode(handle: u32, message: &DataMessage, has_gap: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + message.framed.len());
    out.extend(handle.to_be_bytes());
    let (kind, parameter) = match message.delivery.reliability {
        Reliability::Reliable => (0, 0),
        Reliability::Retransmits(count) => (RETRANSMITS, count),
        Reliability::Lifetime(ms) => (LIFETIME, ms),
    };
    out.push(kind | if message.delivery.is_ordered { 0 } else { UNORDERED });
    out.extend(parameter.to_be_bytes());
    out.push(message.topic.len() as u8);
    out.extend(message.topic.as_bytes());
    // The same list as in a head: what is said of names holds for both.
    let names = Head { is_text: false, has_gap: false, names: message.to.iter().map(|n| &**n).collect() };
    out.extend(&names.frame(&[])[1..]);
    match has_gap {
        true => out.extend(with_gap(&message.framed)),
        false => out.extend(&message.framed),
    }
    out
}

/// Reads what `encode` wrote: handle and message, whose room is the caller's to fill in.
pub fn decode(bytes: &[u8]) -> Result<(u32, DataMessage), ParseError> {
    let truncated = ParseError::Truncated("relayed data");
    let (head, rest) = bytes.split_first_chunk::<10>().ok_or(truncated)?;
    let [h0, h1, h2, h3, flags, p0, p1, p2, p3, topic_len] = *head;
    let parameter = u32::from_be_bytes([p0, p1, p2, p3]);
    let reliability = match flags & !UNORDERED {
        0 => Reliability::Reliable,
        RETRANSMITS => Reliability::Retransmits(parameter),
        LIFETIME => Reliability::Lifetime(parameter),
        _ => return Err(ParseError::Malformed("relayed data")),
    };
    let (topic, rest) = rest.split_at_checked(usize::from(topic_len)).ok_or(truncated)?;
    let topic = std::str::from_utf8(topic).ok().filter(|t| is_topic(t)).ok_or(ParseError::Malformed("topic"))?;
    let (to, framed) = take_names(rest)?;
    let (said, payload) = Head::parse(framed)?;
    let delivery = Delivery { is_ordered: flags & UNORDERED == 0, reliability };
    let &[sender] = &said.names[..] else { return Err(ParseError::Malformed("relayed data sender")) };
    if payload.len() > delivery.max_payload() {
        return Err(ParseError::Malformed("relayed data length"));
    }
    let message = DataMessage {
        room: RoomId::from(""),
        sender: sender.into(),
        topic: topic.into(),
        delivery,
        to,
        framed: Bytes::copy_from_slice(framed),
        is_local: true,
    };
    Ok((u32::from_be_bytes([h0, h1, h2, h3]), message))
}

fn take_names(bytes: &[u8]) -> Result<(Vec<Arc<str>>, &[u8]), ParseError> {
    let truncated = ParseError::Truncated("relayed data");
    let (count, mut rest) = bytes.split_first().ok_or(truncated)?;
    if usize::from(*count) > MAX_NAMES {
        return Err(ParseError::Malformed("data message names"));
    }
    let mut names = Vec::with_capacity(usize::from(*count));
    for _ in 0..*count {
        let (len, after) = rest.split_first().ok_or(truncated)?;
        let len = usize::from(*len);
        if !(1..=MAX_NAME_BYTES).contains(&len) {
            return Err(ParseError::Malformed("data message name"));
        }
        let (name, after) = after.split_at_checked(len).ok_or(truncated)?;
        names.push(std::str::from_utf8(name).map_err(|_| ParseError::Malformed("data message name"))?.into());
        rest = after;
    }
    Ok((names, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Content;
    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            handle: u32, is_text: bool, topic in "[!-~]{1,64}", to in prop::collection::vec("[a-z]{1,20}", 0..20),
            is_ordered: bool, ms: u32, payload in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let to: Vec<Arc<str>> = to.iter().map(|n| n.as_str().into()).collect();
            let content = Content { is_text, to, payload: &payload };
            let delivery = Delivery { is_ordered, reliability: Reliability::Lifetime(ms) };
            let topic = topic.as_str().into();
            let message = DataMessage::new(RoomId::from(""), "alice".into(), topic, delivery, content);
            let expected = DataMessage { is_local: true, ..message.clone() };
            prop_assert_eq!(decode(&encode(handle, &message, false)), Ok((handle, expected)));
        }

        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
