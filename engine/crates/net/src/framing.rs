//! RFC 4571: datagrams on a stream, each after its length in 16 bits.

/// Longest datagram that is read. Clients keep to the path's MTU over TCP too; a longer one is somebody who wants memory.
const MAX_DATAGRAM: usize = 8_192;

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
    /// Takes bytes of the stream and gives out every datagram that is complete. False if the stream makes no sense.
    pub(crate) fn take(&mut self, bytes: &[u8], mut on_datagram: impl FnMut(&mut [u8])) -> bool {
        self.buffer.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(&[high, low]) = self.buffer[at..].first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            if len > MAX_DATAGRAM {
                return false;
            }
            let end = at + 2 + len;
            let Some(datagram) = self.buffer.get_mut(at + 2..end) else { break };
            if !datagram.is_empty() {
                on_datagram(datagram);
            }
            at = end;
        }
        self.buffer.drain(..at);
        self.buffer.shrink_to(MAX_DATAGRAM);
        true
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
        assert!(!write_frame(&vec![0; 65_536], &mut out));
        assert!(out.is_empty());
        assert!(write_frame(&vec![0; 65_535], &mut out));
    }

    #[test]
    fn a_stream_of_long_datagrams_is_refused() {
        let mut reader = FrameReader::default();
        assert!(reader.take(&[0x20, 0x00, 1], |_| panic!()));
        assert!(!FrameReader::default().take(&[0x20, 0x01], |_| panic!()));
    }

    #[test]
    fn an_empty_frame_is_passed_over() {
        let mut got = Vec::new();
        assert!(FrameReader::default().take(&[0, 0, 0, 1, 7], |d| got.push(d.to_vec())));
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
                prop_assert!(reader.take(chunk, |d| got.push(d.to_vec())));
            }
            prop_assert_eq!(got, datagrams);
        }
    }
}
