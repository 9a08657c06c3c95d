//! Counters that wrap, unwrapped: sequence numbers and timestamps.

use crate::id::{ExtSeq, SeqNo};

/// Extends 16-bit sequence numbers to 64 bits by nearness to the highest one seen (RFC 3711 appendix A).
///
/// The first number gets roll-over counter 1, not 0, so that packets that were sent before it but arrive after it
/// still have a place below it. SRTP, where the counter is part of the key stream, has its own estimate in
/// [`crate::srtp`].
#[derive(Clone, Copy, Debug, Default)]
pub struct SeqExtender {
    highest: Option<u64>,
}

impl SeqExtender {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Extends `seq` and remembers it if it is the highest.
    pub fn extend(&mut self, seq: SeqNo) -> ExtSeq {
        let ext = self.peek(seq);
        if self.highest.is_none_or(|h| ext.0 > h) {
            self.highest = Some(ext.0);
        }
        ext
    }

    /// Extends `seq` and remembers nothing.
    pub fn peek(&self, seq: SeqNo) -> ExtSeq {
        match self.highest {
            Some(h) => ExtSeq(nearest(h, u64::from(seq.0), 16)),
            None => ExtSeq::new(1, seq),
        }
    }

    /// The highest one seen.
    pub fn highest(&self) -> Option<ExtSeq> {
        self.highest.map(ExtSeq)
    }
}

/// Unwraps 32-bit RTP timestamps to 64 bits by nearness to the last one. The first one gets the high word 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct TimestampExtender {
    last: Option<u64>,
}

impl TimestampExtender {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Unwraps `timestamp` and remembers it.
    pub fn extend(&mut self, timestamp: u32) -> u64 {
        let ext = self.peek(timestamp);
        self.last = Some(ext);
        ext
    }

    /// Unwraps `timestamp` and remembers nothing.
    pub fn peek(&self, timestamp: u32) -> u64 {
        match self.last {
            Some(last) => nearest(last, u64::from(timestamp), 32),
            None => 1 << 32 | u64::from(timestamp),
        }
    }
}

/// The number nearest to `reference` whose low `bits` bits are `low`; saturates at 0.
pub fn nearest(reference: u64, low: u64, bits: u32) -> u64 {
    let modulus = 1u64 << bits;
    let mask = modulus - 1;
    let forward = low.wrapping_sub(reference) & mask;
    if forward < modulus / 2 {
        return reference.saturating_add(forward);
    }
    match reference.checked_sub(modulus - forward) {
        Some(behind) => behind,
        // There is nothing below 0: the only number with these low bits nearby is the one ahead.
        None => reference.saturating_add(forward),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_number_leaves_room_below() {
        let mut e = SeqExtender::new();
        assert_eq!(e.extend(SeqNo(0)), ExtSeq(65_536));
        assert_eq!(e.extend(SeqNo(65_535)), ExtSeq(65_535));
        assert_eq!(e.highest(), Some(ExtSeq(65_536)));
    }

    #[test]
    fn goes_on_over_the_wrap() {
        let mut e = SeqExtender::new();
        assert_eq!(e.extend(SeqNo(65_534)), ExtSeq(131_070));
        assert_eq!(e.extend(SeqNo(1)), ExtSeq(131_073));
        assert_eq!(e.extend(SeqNo(65_535)), ExtSeq(131_071));
    }

    #[test]
    fn timestamps_unwrap() {
        let mut e = TimestampExtender::new();
        let a = e.extend(u32::MAX - 99);
        assert_eq!(e.extend(100) - a, 200);
    }

    proptest! {
        #[test]
        fn nearest_keeps_low_bits_and_is_near(reference in 0u64..1 << 48, low in 0u64..1 << 16) {
            let n = nearest(reference, low, 16);
            prop_assert_eq!(n & 0xffff, low);
            prop_assert!(n.abs_diff(reference) <= 1 << 15 || reference < 1 << 16);
        }

        #[test]
        fn a_true_sequence_is_recovered(start in any::<u16>(), steps in prop::collection::vec(-200i64..300, 1..200)) {
            let mut e = SeqExtender::new();
            let first = e.extend(SeqNo(start));
            let mut truth = first.0 as i64;
            let mut highest = truth;
            for step in steps {
                truth = (highest + step).max(0);
                prop_assert_eq!(e.extend(SeqNo(truth as u16)).0 as i64, truth);
                highest = highest.max(truth);
            }
        }
    }
}
