//! The SSRCs that a transport sends with.

use mrtc_rtp::id::Ssrc;

/// Gives out numbers in a row from a random one on. Two streams of one transport must never share an SSRC: they would
/// share nonces, and random ones do meet by chance when a client has hundreds of slots.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ssrcs(u32);

impl Ssrcs {
    pub(crate) fn new(random: u64) -> Self {
        Self(random as u32)
    }

    /// The one that was given last: with it as the random number another shard goes on.
    pub(crate) fn last(self) -> Ssrc {
        Ssrc(self.0)
    }

    /// The next one; never zero.
    pub(crate) fn next(&mut self) -> Ssrc {
        self.0 = self.0.wrapping_add(1).max(1);
        Ssrc(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ_and_are_never_zero() {
        let mut ssrcs = Ssrcs::new(u64::from(u32::MAX) - 1);
        let given: Vec<u32> = (0..4).map(|_| ssrcs.next().0).collect();
        assert_eq!(given, [u32::MAX, 1, 2, 3]);
    }
}
