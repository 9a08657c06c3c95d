//! The head of a message: who said it, or for whom it is.
//!
//! | bytes | field |
//! |---|---|
//! | 1 | flags: 1 text, 2 gap; other bits are 0 when written and passed over when read |
//! | 1 | number of names |
//! | 1 + n, each | a name: its length (1 to 128), an identity in UTF-8 |
//! | rest | payload |
//!
//! From the server there is one name, the sender. From a client (on channels of protocol [`PROTOCOL`] only) the names are
//! the identities that the message is for; none: everybody. `gap` comes from the server only: messages of this topic
//! before this one were given up, since this client (or a link between nodes) took them too slowly.

use mrtc_rtp::ParseError;

/// DCEP protocol of channels whose messages have this head.
pub const PROTOCOL: &str = "mrtc.data.v1";
/// Most addressees of a message.
pub const MAX_NAMES: usize = 100;
/// Longest identity in bytes.
pub const MAX_NAME_BYTES: usize = 128;
const TEXT: u8 = 1;
const GAP: u8 = 2;

/// The head of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// The payload is UTF-8 text.
    pub is_text: bool,
    /// Messages before this one were given up.
    pub has_gap: bool,
    /// Sender, or addressees.
    pub names: Vec<&'a str>,
}

impl<'a> Head<'a> {
    /// Reads a head; returns it with the payload.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), ParseError> {
        let [flags, count, rest @ ..] = bytes else { return Err(ParseError::Truncated("data message")) };
        if usize::from(*count) > MAX_NAMES {
            return Err(ParseError::Malformed("data message names"));
        }
        let mut rest = rest;
        let mut names = Vec::with_capacity(usize::from(*count));
        for _ in 0..*count {
            let name;
            (name, rest) = take_name(rest)?;
            names.push(name);
        }
        Ok((Self { is_text: flags & TEXT != 0, has_gap: flags & GAP != 0, names }, rest))
    }

    /// Head and payload as they go over the wire. At most [`MAX_NAMES`] names, each of at most [`MAX_NAME_BYTES`].
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let names: usize = self.names.iter().map(|n| 1 + n.len()).sum();
        let mut out = Vec::with_capacity(2 + names + payload.len());
        out.push(if self.is_text { TEXT } else { 0 } | if self.has_gap { GAP } else { 0 });
        out.push(self.names.len() as u8);
        for name in &self.names {
            out.push(name.len() as u8);
            out.extend(name.as_bytes());
        }
        out.extend(payload);
        out
    }
}

/// The same message, told that others before it are missing.
pub fn with_gap(framed: &[u8]) -> Vec<u8> {
    let mut copy = framed.to_vec();
    if let Some(flags) = copy.first_mut() {
        *flags |= GAP;
    }
    copy
}

fn take_name(bytes: &[u8]) -> Result<(&str, &[u8]), ParseError> {
    let (len, rest) = bytes.split_first().ok_or(ParseError::Truncated("data message"))?;
    let len = usize::from(*len);
    if !(1..=MAX_NAME_BYTES).contains(&len) {
        return Err(ParseError::Malformed("data message name"));
    }
    let (name, rest) = rest.split_at_checked(len).ok_or(ParseError::Truncated("data message"))?;
    let name = std::str::from_utf8(name).map_err(|_| ParseError::Malformed("data message name"))?;
    Ok((name, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_names_the_sender() {
        let framed = Head { is_text: true, has_gap: false, names: vec!["alice"] }.frame(b"hi");
        assert_eq!(framed, b"\x01\x01\x05alicehi");
        let with_gap = with_gap(&framed);
        let (head, payload) = Head::parse(&with_gap).unwrap();
        assert!(head.has_gap && head.is_text && head.names == ["alice"] && payload == b"hi");
    }

    #[test]
    fn empty_names_and_too_many_are_refused() {
        assert!(Head::parse(b"\x00\x01\x00x").is_err());
        assert!(Head::parse(b"\x00\x02\x01a").is_err());
        assert!(Head::parse(&[0, 101]).is_err());
        assert!(Head::parse(b"\x00").is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            is_text: bool, has_gap: bool, names in prop::collection::vec("[a-z]{1,128}", 0..100), payload: Vec<u8>,
        ) {
            let head = Head { is_text, has_gap, names: names.iter().map(String::as_str).collect() };
            let framed = head.frame(&payload);
            prop_assert_eq!(Head::parse(&framed), Ok((head, &payload[..])));
        }

        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>) {
            let _ = Head::parse(&bytes);
        }
    }
}
