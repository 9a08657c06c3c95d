//! What a transport receives and sends per second, measured from report to report.

use std::time::Instant;

/// Counts since the transport was opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
}

/// The same per second. All zero before the second report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rates {
    at: Instant,
    counts: Counts,
    per_second: Counts,
}

impl Rates {
    pub(crate) fn new(now: Instant) -> Self {
        Self { at: now, counts: Counts::default(), per_second: Counts::default() }
    }

    /// Takes the counts of this moment.
    pub(crate) fn measure(&mut self, now: Instant, counts: Counts) {
        let us = now.saturating_duration_since(self.at).as_micros() as u64;
        if us == 0 {
            return;
        }
        let rate = |new: u64, old: u64| new.saturating_sub(old).saturating_mul(1_000_000) / us;
        self.per_second = Counts {
            rx_packets: rate(counts.rx_packets, self.counts.rx_packets),
            rx_bytes: rate(counts.rx_bytes, self.counts.rx_bytes),
            tx_packets: rate(counts.tx_packets, self.counts.tx_packets),
            tx_bytes: rate(counts.tx_bytes, self.counts.tx_bytes),
        };
        (self.at, self.counts) = (now, counts);
    }

    /// As of the last report, which is a second old at most.
    pub(crate) fn per_second(&self) -> Counts {
        self.per_second
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn rates_are_of_the_last_interval() {
        let start = Instant::now();
        let mut rates = Rates::new(start);
        rates.measure(start, Counts { tx_bytes: 5, ..Counts::default() });
        assert_eq!(rates.per_second().tx_bytes, 0);
        rates.measure(start + Duration::from_secs(2), Counts { tx_bytes: 2_000, tx_packets: 10, ..Counts::default() });
        assert_eq!((rates.per_second().tx_bytes, rates.per_second().tx_packets), (1_000, 5));
        rates.measure(start + Duration::from_secs(3), Counts { tx_bytes: 2_500, tx_packets: 10, ..Counts::default() });
        assert_eq!((rates.per_second().tx_bytes, rates.per_second().tx_packets), (500, 0));
    }
}
