//! Plans which packets of one destination leave as one run of equal segments (one GSO message of the kernel).

use crate::outbox::{MAX_RUN_BYTES, MAX_RUN_SEGMENTS};

/// A packet is padded to the run's segment size if that adds at most one part in this many.
///
/// Browsers cut a frame into packets that differ by a byte or two, rarely by more; an eighth catches those and the
/// packets of a frame whose last one is nearly full. A packet sent in a run costs the kernel about a third of one sent
/// alone, more than the bytes of the padding are worth; more padding than this would show in a client's bandwidth.
const MAX_PADDING_PART: usize = 8;
/// RFC 3550 5.1: the last octet of the padding counts it, so there are at most 255.
const MAX_PADDING: usize = 255;

/// A run: the next `count` packets as segments of `segment_size` bytes.
///
/// All but the last are padded to `segment_size`; the last is padded if that is allowed, else it is simply shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Number of packets, at least one.
    pub count: usize,
    /// Bytes of each segment.
    pub segment_size: usize,
}

/// One packet to plan: bytes as sealed without padding, and whether padding may be added.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Bytes.
    pub size: usize,
    /// False for packets that must come out the same when sent again.
    pub is_paddable: bool,
}

/// Plans the first run of these packets. There must be at least one.
///
/// Deterministic and greedy: it takes packets as long as each fits the segment size with the allowed padding; one that
/// is smaller than that ends the run as its short last segment.
pub fn plan_run(packets: impl Iterator<Item = Segment>) -> Run {
    let mut run = Run { count: 0, segment_size: 0 };
    let mut smallest = usize::MAX;
    let mut smallest_fixed = usize::MAX;
    for packet in packets {
        if run.count == MAX_RUN_SEGMENTS {
            break;
        }
        let segment_size = run.segment_size.max(packet.size);
        if run.count > 0 && segment_size * (run.count + 1) > MAX_RUN_BYTES {
            break;
        }
        let fixed = if packet.is_paddable { smallest_fixed } else { smallest_fixed.min(packet.size) };
        if fixed < segment_size || !is_paddable(smallest.min(packet.size), segment_size) {
            // Smaller than all before: it may still be the short last segment.
            run.count += usize::from(packet.size < run.segment_size);
            break;
        }
        smallest = smallest.min(packet.size);
        smallest_fixed = fixed;
        run.segment_size = segment_size;
        run.count += 1;
    }
    run
}

/// True if a packet of `size` bytes may be padded to `segment_size`.
pub fn is_paddable(size: usize, segment_size: usize) -> bool {
    let padding = segment_size.saturating_sub(size);
    padding <= MAX_PADDING && padding * MAX_PADDING_PART <= segment_size
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(sizes: &[usize]) -> Run {
        plan_run(sizes.iter().map(|&size| Segment { size, is_paddable: true }))
    }

    #[test]
    fn equal_sizes_are_one_run() {
        assert_eq!(plan(&[1140; 7]), Run { count: 7, segment_size: 1140 });
    }

    #[test]
    fn a_byte_of_difference_is_padded_in_either_order() {
        assert_eq!(plan(&[1139, 1139, 1140, 1140]), Run { count: 4, segment_size: 1140 });
        assert_eq!(plan(&[1140, 1139, 1140]), Run { count: 3, segment_size: 1140 });
    }

    #[test]
    fn a_short_packet_ends_the_run() {
        assert_eq!(plan(&[1140, 1140, 300, 1140]), Run { count: 3, segment_size: 1140 });
    }

    #[test]
    fn a_much_larger_packet_begins_a_new_run() {
        assert_eq!(plan(&[100, 1140, 1140]), Run { count: 1, segment_size: 100 });
    }

    #[test]
    fn segments_and_bytes_are_bounded() {
        assert_eq!(plan(&[100; 100]).count, MAX_RUN_SEGMENTS);
        assert_eq!(plan(&[2000; 100]).count, MAX_RUN_BYTES / 2000);
    }

    #[test]
    fn packets_that_must_not_be_padded_join_equal_ones_only() {
        let fixed = |sizes: &[usize]| plan_run(sizes.iter().map(|&size| Segment { size, is_paddable: false }));
        assert_eq!(fixed(&[100, 100, 101]), Run { count: 2, segment_size: 100 });
        assert_eq!(fixed(&[101, 101, 100, 101]), Run { count: 3, segment_size: 101 });
    }

    proptest! {
        #[test]
        fn a_run_is_always_sendable(sizes in prop::collection::vec(40usize..1500, 1..80)) {
            let run = plan(&sizes);
            prop_assert!(run.count >= 1 && run.count <= MAX_RUN_SEGMENTS);
            prop_assert!(run.count * run.segment_size <= MAX_RUN_BYTES);
            let (last, before) = sizes[..run.count].split_last().unwrap();
            prop_assert!(*last <= run.segment_size);
            for size in before {
                prop_assert!(*size <= run.segment_size && is_paddable(*size, run.segment_size));
            }
        }
    }
}
