//! Remembers which packet numbers were seen, so that none is taken twice (RFC 3711 section 3.3.2).

/// Numbers below the highest that are remembered. RFC 3711 asks for 64; a plain (not RTX) retransmission comes back
/// with its old number and must still fit after a round trip: 1024 packets are a second of 8 Mb/s video.
pub const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// A sliding window of seen numbers.
#[derive(Clone, Debug, Default)]
pub struct ReplayWindow {
    /// One more than the highest number seen; 0 before the first.
    end: u64,
    /// Bit `n % WINDOW` tells whether n was seen.
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// Nothing seen yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All numbers to `highest` count as seen: of a window of which only that is known.
    pub fn all_seen(highest: u64) -> Self {
        Self { end: highest.saturating_add(1), seen: [u64::MAX; WORDS] }
    }

    /// The highest number seen.
    pub fn highest(&self) -> Option<u64> {
        self.end.checked_sub(1)
    }

    /// True if `n` was not seen and is not too old to know.
    pub fn is_fresh(&self, n: u64) -> bool {
        n >= self.end || (self.end - n <= WINDOW && !self.bit(n))
    }

    /// Marks `n` as seen; true if it was fresh. Only to be called when the packet is authentic.
    pub fn accept(&mut self, n: u64) -> bool {
        if !self.is_fresh(n) {
            return false;
        }
        if n >= self.end {
            if n - self.end >= WINDOW {
                self.seen = [0; WORDS];
            } else {
                for passed in self.end..n {
                    self.seen[word(passed)] &= !mask(passed);
                }
            }
            self.end = n.saturating_add(1);
        }
        self.seen[word(n)] |= mask(n);
        true
    }

    fn bit(&self, n: u64) -> bool {
        self.seen[word(n)] & mask(n) != 0
    }
}

fn word(n: u64) -> usize {
    (n / 64) as usize % WORDS
}

fn mask(n: u64) -> u64 {
    1 << (n % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn each_number_once() {
        let mut w = ReplayWindow::new();
        assert!(w.accept(5) && !w.accept(5));
        assert!(w.accept(0) && !w.accept(0));
        assert!(w.accept(5 + WINDOW - 1) && !w.is_fresh(5));
        assert!(w.accept(6) && !w.accept(6));
        assert!(w.accept(5 + WINDOW) && !w.is_fresh(5));
        assert!(w.accept(1 << 40) && !w.is_fresh(7));
        assert_eq!(w.highest(), Some(1 << 40));
    }

    #[test]
    fn what_was_before_a_takeover_is_not_fresh() {
        let mut w = ReplayWindow::all_seen(70_000);
        assert_eq!(w.highest(), Some(70_000));
        assert!([0, 70_000 - WINDOW, 70_000 - WINDOW + 1, 69_999, 70_000].iter().all(|n| !w.is_fresh(*n)));
        assert!(w.accept(70_003) && w.accept(70_001) && !w.accept(70_001) && !w.is_fresh(70_000));
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec(-1500i64..1500, 1..400)) {
            let (mut w, mut seen, mut highest, mut at) = (ReplayWindow::new(), HashSet::new(), 0u64, 5000i64);
            for step in steps {
                at = (at + step).max(0);
                let n = at as u64;
                let is_known = n > highest || highest - n < WINDOW;
                prop_assert_eq!(w.accept(n), is_known && seen.insert(n));
                highest = highest.max(n);
            }
        }
    }
}
