//! Tells protocols apart that share one port (RFC 7983, RFC 5761), by the first bytes only.

/// What a datagram is, as far as its first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DatagramKind {
    Stun,
    Dtls,
    Rtp,
    Rtcp,
    /// From another node; see [`crate::relay`].
    Relay,
    Unknown,
}

const STUN_MAGIC: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const STUN_HEADER_LEN: usize = 20;
const STUN_ATTR_USERNAME: u16 = 0x0006;

/// Tells what `datagram` is. First byte 192 to 255 is ours: node-to-node (RFC 7983 leaves that range free).
pub fn classify(datagram: &[u8]) -> DatagramKind {
    let Some(&first) = datagram.first() else { return DatagramKind::Unknown };
    match first {
        0..=3 if is_stun(datagram) => DatagramKind::Stun,
        20..=63 if datagram.len() >= 13 => DatagramKind::Dtls,
        128..=191 => classify_rtp(datagram),
        192..=255 => DatagramKind::Relay,
        _ => DatagramKind::Unknown,
    }
}

/// RFC 5761 section 4: payload types 64 to 95 with the marker bit are RTCP packet types 192 to 223.
fn classify_rtp(datagram: &[u8]) -> DatagramKind {
    match datagram.get(1) {
        Some(192..=223) if datagram.len() >= 8 => DatagramKind::Rtcp,
        Some(_) if datagram.len() >= 12 => DatagramKind::Rtp,
        _ => DatagramKind::Unknown,
    }
}

fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= STUN_HEADER_LEN && datagram[4..8] == STUN_MAGIC
}

/// The two halves of the USERNAME of a STUN request (RFC 8445 section 7.2.2): the receiver's ICE ufrag and the sender's.
///
/// Finds the transport of a request from an unknown address. Nothing is authenticated here.
pub fn stun_username(datagram: &[u8]) -> Option<(&str, &str)> {
    if !is_stun(datagram) {
        return None;
    }
    let declared = usize::from(u16::from_be_bytes([datagram[2], datagram[3]]));
    let mut rest = datagram.get(STUN_HEADER_LEN..STUN_HEADER_LEN + declared)?;
    while let [t0, t1, l0, l1, body @ ..] = rest {
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        if u16::from_be_bytes([*t0, *t1]) == STUN_ATTR_USERNAME {
            return std::str::from_utf8(body.get(..len)?).ok()?.split_once(':');
        }
        rest = body.get(len.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stun(attributes: &[u8]) -> Vec<u8> {
        let mut b = vec![0, 1];
        b.extend((attributes.len() as u16).to_be_bytes());
        b.extend(STUN_MAGIC);
        b.extend([9; 12]);
        b.extend(attributes);
        b
    }

    #[test]
    fn kinds() {
        let mut rtp = [0u8; 12];
        rtp[0] = 0x80;
        rtp[1] = 96;
        assert_eq!(classify(&rtp), DatagramKind::Rtp);
        rtp[1] = 0x80 | 111;
        assert_eq!(classify(&rtp), DatagramKind::Rtp);
        rtp[1] = 200;
        assert_eq!(classify(&rtp), DatagramKind::Rtcp);
        assert_eq!(classify(&stun(&[])), DatagramKind::Stun);
        assert_eq!(classify(&[22; 13]), DatagramKind::Dtls);
        assert_eq!(classify(&[0xc1]), DatagramKind::Relay);
        for bad in [&[][..], &[0x80], &[1; 20], &[22; 12], &[70; 30], &[0x80, 96, 0]] {
            assert_eq!(classify(bad), DatagramKind::Unknown);
        }
    }

    #[test]
    fn username_after_another_attribute() {
        let mut a = vec![0x80, 0x22, 0, 3, b'a', b'b', b'c', 0];
        a.extend([0, 6, 0, 9]);
        a.extend(b"here:them\0\0\0");
        assert_eq!(stun_username(&stun(&a)), Some(("here", "them")));
    }

    #[test]
    fn username_missing_or_broken() {
        assert_eq!(stun_username(&stun(&[])), None);
        assert_eq!(stun_username(&stun(&[0, 6, 0, 200, b'a'])), None);
        assert_eq!(stun_username(&stun(&[0, 6, 0, 4, 0xff, b':', 0, 0])), None);
        assert_eq!(stun_username(&stun(&[0, 6, 0, 4, b'a', b'b', b'c', b'd'])), None);
    }
}
