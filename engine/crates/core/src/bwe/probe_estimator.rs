//! What a probe found: the rate at which its packets left and arrived (libwebrtc's `ProbeBitrateEstimator`).

use super::Probe;
use super::sent_packets::Acked;

/// Probes whose feedback is awaited at a time.
const MAX_CLUSTERS: usize = 4;
/// Shares of the planned packets and bytes that must have arrived.
const MIN_RECEIVED: f64 = 0.8;
const MIN_PACKETS: usize = 4;
/// A probe that took longer says nothing.
const MAX_INTERVAL_US: i64 = 1_000_000;
/// Arrival faster than departure by more than this is an artefact of batching.
const MAX_RATIO: f64 = 2.0;
/// Arrival slower than this share of departure: the path was full, and the rate of arrival is its capacity ...
const SATURATED_RATIO: f64 = 0.9;
/// ... of which we take a little less.
const TARGET_UTILISATION: f64 = 0.95;
/// Feedback later than this is not awaited.
const EXPIRY_US: i64 = 3_000_000;

#[derive(Clone, Copy, Debug)]
struct Cluster {
    probe: Probe,
    started_us: i64,
    packets: usize,
    bytes: u64,
    first_sent_us: i64,
    last_sent_us: i64,
    /// Bytes that left at the last moment: they end the interval and are not carried by it.
    last_sent_bytes: u64,
    first_arrived_us: i64,
    first_arrived_bytes: u64,
    last_arrived_us: i64,
}

impl Cluster {
    fn new(probe: Probe, started_us: i64) -> Self {
        Self {
            probe,
            started_us,
            packets: 0,
            bytes: 0,
            first_sent_us: i64::MAX,
            last_sent_us: i64::MIN,
            last_sent_bytes: 0,
            first_arrived_us: i64::MAX,
            first_arrived_bytes: 0,
            last_arrived_us: i64::MIN,
        }
    }

    fn take(&mut self, packet: &Acked) {
        let bytes = u64::from(packet.size);
        self.packets += 1;
        self.bytes += bytes;
        self.first_sent_us = self.first_sent_us.min(packet.sent_us);
        if packet.sent_us > self.last_sent_us {
            self.last_sent_us = packet.sent_us;
            self.last_sent_bytes = 0;
        }
        if packet.sent_us == self.last_sent_us {
            self.last_sent_bytes += bytes;
        }
        if packet.arrived_us < self.first_arrived_us {
            self.first_arrived_us = packet.arrived_us;
            self.first_arrived_bytes = bytes;
        }
        self.last_arrived_us = self.last_arrived_us.max(packet.arrived_us);
    }

    fn result_bps(&self) -> Option<f64> {
        let min_packets = ((self.probe.min_packets as f64 * MIN_RECEIVED) as usize).max(MIN_PACKETS);
        if self.packets < min_packets || (self.bytes as f64) < self.probe.min_bytes as f64 * MIN_RECEIVED {
            return None;
        }
        let send_us = self.last_sent_us - self.first_sent_us;
        let arrive_us = self.last_arrived_us - self.first_arrived_us;
        if !(1..=MAX_INTERVAL_US).contains(&send_us) || !(1..=MAX_INTERVAL_US).contains(&arrive_us) {
            return None;
        }
        let send_bps = (self.bytes - self.last_sent_bytes) as f64 * 8e6 / send_us as f64;
        let arrive_bps = (self.bytes - self.first_arrived_bytes) as f64 * 8e6 / arrive_us as f64;
        if send_bps <= 0.0 || arrive_bps > send_bps * MAX_RATIO {
            return None;
        }
        if arrive_bps < send_bps * SATURATED_RATIO {
            return Some(arrive_bps * TARGET_UTILISATION);
        }
        Some(send_bps.min(arrive_bps))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ProbeEstimator {
    clusters: Vec<Cluster>,
}

impl ProbeEstimator {
    /// A probe begins.
    pub fn start(&mut self, probe: Probe, now_us: i64) {
        self.clusters.retain(|c| now_us - c.started_us < EXPIRY_US);
        if self.clusters.len() == MAX_CLUSTERS {
            self.clusters.remove(0);
        }
        self.clusters.push(Cluster::new(probe, now_us));
    }

    /// Takes the packets of a feedback; the rate of the last probe that became complete or better known by them.
    pub fn update(&mut self, acked: &[Acked]) -> Option<f64> {
        if self.clusters.is_empty() {
            return None;
        }
        let mut touched = None;
        for packet in acked.iter().filter(|p| p.cluster != 0) {
            if let Some(index) = self.clusters.iter().position(|c| c.probe.cluster == packet.cluster) {
                self.clusters[index].take(packet);
                touched = Some(index);
            }
        }
        self.clusters[touched?].result_bps()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROBE: Probe = Probe { cluster: 3, bps: 2_000_000, min_bytes: 5_000, min_packets: 5 };

    /// Six packets of 1000 bytes that left at `send_gap` and arrived at `arrive_gap`.
    fn run(send_gap: i64, arrive_gap: i64, count: i64) -> Option<f64> {
        let mut estimator = ProbeEstimator::default();
        estimator.start(PROBE, 0);
        let acked: Vec<Acked> = (0..count)
            .map(|i| Acked { sent_us: i * send_gap, arrived_us: 70_000 + i * arrive_gap, size: 1000, cluster: 3 })
            .collect();
        estimator.update(&acked)
    }

    #[test]
    fn an_unsaturated_path_gives_the_rate_sent() {
        assert_eq!(run(4_000, 4_000, 6), Some(2e6));
    }

    #[test]
    fn a_saturated_path_gives_a_little_less_than_its_capacity() {
        assert_eq!(run(4_000, 8_000, 6), Some(0.95e6));
    }

    #[test]
    fn too_few_packets_or_no_interval_give_nothing() {
        assert_eq!(run(4_000, 4_000, 3), None);
        assert_eq!(run(0, 4_000, 6), None);
        assert_eq!(run(4_000, 1_000, 6), None);
    }

    #[test]
    fn packets_of_one_tick_do_not_exaggerate_the_rate() {
        let mut estimator = ProbeEstimator::default();
        estimator.start(PROBE, 0);
        let acked: Vec<Acked> = (0..12)
            .map(|i| Acked { sent_us: i / 3 * 12_000, arrived_us: i / 3 * 12_000 + i % 3, size: 1000, cluster: 3 })
            .collect();
        assert_eq!(estimator.update(&acked), Some(2e6));
    }

    #[test]
    fn other_packets_do_not_count() {
        let mut estimator = ProbeEstimator::default();
        estimator.start(PROBE, 0);
        let foreign = Acked { sent_us: 0, arrived_us: 0, size: 1000, cluster: 0 };
        assert_eq!(estimator.update(&[foreign; 20]), None);
    }
}
