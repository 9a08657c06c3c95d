//! What a client sends here while another node still has it: kept sealed until that one has let go, and opened with what it
//! saw last. So no packet is taken at both, and none is lost in between.

/// The time between the client's coming and the other node's last state is some round trips between services: a second of
/// 2 Mb/s is far more.
const MAX_DATAGRAMS: usize = 512;
const MAX_BYTES: usize = 256 * 1024;

/// Datagrams of SRTP and SRTCP, in order.
#[derive(Debug, Default)]
pub(super) struct Held {
    datagrams: Vec<Vec<u8>>,
    bytes: usize,
}

impl Held {
    /// False if there is no room for it.
    pub(super) fn push(&mut self, datagram: &[u8]) -> bool {
        let has_room = self.datagrams.len() < MAX_DATAGRAMS && self.bytes + datagram.len() <= MAX_BYTES;
        if has_room {
            self.bytes += datagram.len();
            self.datagrams.push(datagram.to_vec());
        }
        has_room
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    pub(super) fn into_datagrams(self) -> Vec<Vec<u8>> {
        self.datagrams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_bounded_by_number_and_size() {
        let mut small = Held::default();
        assert!(small.is_empty() && (0..MAX_DATAGRAMS).all(|_| small.push(&[128])) && !small.push(&[128]));
        let mut large = Held::default();
        assert!((0..4).all(|_| large.push(&[128; MAX_BYTES / 4])) && !large.push(&[128]));
        assert_eq!(large.into_datagrams().len(), 4);
    }
}
