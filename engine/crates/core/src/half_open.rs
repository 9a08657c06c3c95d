//! Handshakes under way, counted per client address and in total, so that nobody can make us do them without end.
//!
//! Of IPv6 a whole /64 counts as one address: it is what one network is given (RFC 6177), and any host in it may use all of
//! its 2^64 (RFC 8981 makes that usual).

use std::net::{IpAddr, Ipv6Addr};

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
        let count = self.per_address.entry(network_of(address)).or_default();
        let is_taken = *count < max_per_address;
        *count += usize::from(is_taken);
        self.total += usize::from(is_taken);
        is_taken
    }

    /// One of this address is connected, or gone.
    pub(crate) fn end(&mut self, address: IpAddr) {
        let network = network_of(address);
        let Some(count) = self.per_address.get_mut(&network) else { return };
        *count -= 1;
        self.total -= 1;
        if *count == 0 {
            self.per_address.remove(&network);
        }
    }
}

/// What counts as one address.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
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

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let [a, b, other, mapped] =
            ["2001:db8:1:2::1", "2001:db8:1:2:ffff:eeee:dddd:cccc", "2001:db8:1:3::1", "::ffff:192.0.2.1"]
                .map(|text| text.parse::<IpAddr>().unwrap());
        let mut half_open = HalfOpen::default();
        assert!(half_open.begin(a, 1, 9));
        assert!(!half_open.begin(b, 1, 9), "another host of the same network");
        assert!(half_open.begin(other, 1, 9));
        assert!(half_open.begin(mapped, 1, 9));
        assert!(!half_open.begin(IpAddr::from([192, 0, 2, 1]), 1, 9), "the same address in two notations");
        assert!(half_open.begin(IpAddr::from([192, 0, 2, 2]), 1, 9), "IPv4 is counted by address");
        half_open.end(b);
        assert!(half_open.begin(a, 1, 9));
    }
}
