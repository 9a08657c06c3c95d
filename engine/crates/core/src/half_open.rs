//! Handshakes under way, counted per client address and in total, so that nobody can make us do them without end.

use std::net::IpAddr;

use hashbrown::HashMap;

/// Who has begun to connect and is not connected yet.
#[derive(Debug, Default)]
pub(crate) struct HalfOpen {
    per_address: HashMap<IpAddr, usize>,
    total: usize,
}

impl HalfOpen {
    /// Counts one more of this address. False, and nothing is counted, if it or all together have reached their limit.
    pub(crate) fn begin(&mut self, address: IpAddr, max_per_address: usize, max_total: usize) -> bool {
        if self.total >= max_total {
            return false;
        }
        let count = self.per_address.entry(address).or_default();
        let is_taken = *count < max_per_address;
        *count += usize::from(is_taken);
        self.total += usize::from(is_taken);
        is_taken
    }

    /// One of this address is connected, or gone.
    pub(crate) fn end(&mut self, address: IpAddr) {
        let Some(count) = self.per_address.get_mut(&address) else { return };
        *count -= 1;
        self.total -= 1;
        if *count == 0 {
            self.per_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_all_together_are_limited() {
        let [a, b, c] = [1, 2, 3].map(|n| IpAddr::from([192, 0, 2, n]));
        let mut half_open = HalfOpen::default();
        assert!(half_open.begin(a, 2, 3) && half_open.begin(a, 2, 3));
        assert!(!half_open.begin(a, 2, 3), "of one address");
        assert!(half_open.begin(b, 2, 3));
        assert!(!half_open.begin(c, 2, 3), "in total");
        half_open.end(a);
        assert!(half_open.begin(c, 2, 3));
        for address in [a, b, c] {
            half_open.end(address);
        }
        assert!(half_open.per_address.is_empty() && half_open.total == 0);
    }
}
