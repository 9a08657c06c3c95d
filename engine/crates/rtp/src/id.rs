//! Numbers and short names of RTP as types of their own.

use std::fmt;
use std::str::FromStr;

use crate::error::ParseError;

/// A synchronisation source (RFC 3550 section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ssrc(pub u32);

/// A sequence number as on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SeqNo(pub u16);

/// A payload type, 0 to 127.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pt(pub u8);

/// A sequence number extended by the roll-over counter: `roc << 16 | seq`. The SRTP packet index (48 bits used).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExtSeq(pub u64);

impl SeqNo {
    /// Distance from `other` to `self` on the circle, -32768 to 32767; positive if `self` is newer.
    pub fn distance(self, other: Self) -> i16 {
        self.0.wrapping_sub(other.0) as i16
    }
}

impl std::ops::Add<u16> for SeqNo {
    type Output = Self;

    /// The number `n` further on, over the wrap.
    fn add(self, n: u16) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

impl ExtSeq {
    /// Of a roll-over counter and a sequence number.
    pub fn new(roc: u32, seq: SeqNo) -> Self {
        Self(u64::from(roc) << 16 | u64::from(seq.0))
    }

    /// The 16 bits that are on the wire.
    pub fn seq_no(self) -> SeqNo {
        SeqNo(self.0 as u16)
    }

    /// The roll-over counter.
    pub fn roc(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The next one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Ssrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Pt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<u32> for Ssrc {
    fn from(v: u32) -> Self {
        Self(v)
    }
}

/// Longest mid or rid that is kept. A one-byte header extension (RFC 8285) holds 16 bytes.
pub const MAX_NAME_LEN: usize = 16;

macro_rules! short_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name {
            len: u8,
            bytes: [u8; MAX_NAME_LEN],
        }

        impl $name {
            /// Of the bytes of a header extension or of SDP: 1 to 16 visible ASCII characters.
            pub fn from_bytes(raw: &[u8]) -> Option<Self> {
                if raw.is_empty() || raw.len() > MAX_NAME_LEN || !raw.iter().all(u8::is_ascii_graphic) {
                    return None;
                }
                let mut bytes = [0; MAX_NAME_LEN];
                bytes[..raw.len()].copy_from_slice(raw);
                Some(Self { len: raw.len() as u8, bytes })
            }

            /// Of a text, as [`Self::from_bytes`].
            pub fn new(text: &str) -> Option<Self> {
                Self::from_bytes(text.as_bytes())
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                // Only ASCII is ever stored, so this never takes the default.
                std::str::from_utf8(self.as_bytes()).unwrap_or_default()
            }

            /// The text's bytes.
            pub fn as_bytes(&self) -> &[u8] {
                &self.bytes[..usize::from(self.len)]
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                Self::new(text).ok_or(ParseError::Malformed("mid or rid"))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.as_str())
            }
        }
    };
}

short_name!(
    /// Identification of an m-line (RFC 9143).
    Mid
);
short_name!(
    /// Identification of a simulcast encoding (RFC 8851).
    Rid
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_distance_wraps() {
        assert_eq!(SeqNo(2).distance(SeqNo(65_534)), 4);
        assert_eq!(SeqNo(65_534).distance(SeqNo(2)), -4);
    }

    #[test]
    fn ext_seq_splits_into_roc_and_seq() {
        let e = ExtSeq::new(7, SeqNo(9));
        assert_eq!((e.roc(), e.seq_no()), (7, SeqNo(9)));
        assert_eq!(ExtSeq::new(0, SeqNo(65_535)).next(), ExtSeq::new(1, SeqNo(0)));
    }

    #[test]
    fn names_are_short_visible_ascii() {
        assert_eq!(Mid::new("audio0").unwrap().as_str(), "audio0");
        assert!(Mid::new("").is_none());
        assert!(Mid::new("12345678901234567").is_none());
        assert!(Rid::from_bytes(b"a b").is_none());
        assert!(Rid::from_bytes(&[0xff]).is_none());
    }
}
