//! RFC 4571: datagrams on a stream, each after its length in 16 bits.

/// Longest datagram that the framing can carry.
const MAX_DATAGRAM: usize = 65_535;

/// Appends a framed datagram. False, and nothing is written, if it is empty or too long.
pub(crate) fn write_frame(datagram: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(len @ 1..) = u16::try_from(datagram.len()) else { return false };
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(datagram);
    true
}

/// Cuts a stream into datagrams; holds at most one incomplete one.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    buffer: Vec<u8>,
}

impl FrameReader {
    /// Takes bytes of the stream and gives out every datagram that is complete.
    pub(crate) fn take(&mut self, bytes: &[u8], mut on_datagram: impl FnMut(&mut [u8])) {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(&[high, low]) = self.buffer[at..].first_chunk::<2>() {
            let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
            let Some(datagram) = self.buffer.get_mut(at + 2..end) else { break };
            if !datagram.is_empty() {
                on_datagram(datagram);
            }
            at = end;
        }
        self.buffer.drain(..at);
        debug_assert!(self.buffer.len() <= MAX_DATAGRAM + 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_and_oversized_datagrams_are_not_framed() {
        let mut out = Vec::new();
        assert!(!write_frame(&[], &mut out));
        assert!(!write_frame(&vec![0; MAX_DATAGRAM + 1], &mut out));
        assert!(out.is_empty());
        assert!(write_frame(&vec![0; MAX_DATAGRAM], &mut out));
    }

    #[test]
    fn an_empty_frame_is_passed_over() {
        let mut got = Vec::new();
        FrameReader::default().take(&[0, 0, 0, 1, 7], |d| got.push(d.to_vec()));
        assert_eq!(got, [[7]]);
    }

    proptest! {
        #[test]
        fn datagrams_survive_any_cut(
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
            cut in 1usize..700,
        ) {
            let mut stream = Vec::new();
            for datagram in &datagrams {
                prop_assert!(write_frame(datagram, &mut stream));
            }
            let mut reader = FrameReader::default();
            let mut got = Vec::new();
            for chunk in stream.chunks(cut) {
                reader.take(chunk, |d| got.push(d.to_vec()));
            }
            prop_assert_eq!(got, datagrams);
        }
    }
}
