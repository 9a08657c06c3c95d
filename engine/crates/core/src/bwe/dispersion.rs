//! How fast packets came that queued behind one another: at the moment of overuse that is what the bottleneck lets
//! through, also if hardly anything was sent before.
//!
//! The average of what arrives knows nothing of a path that was little used until a key frame filled its queue. Taken
//! for the capacity it would throw a stream of 100 kbit/s, switched up on a path of 1.5 Mbit/s, back to 100.

use super::sent_packets::Acked;

/// Packets that came later after each other than they were sent, weighed together; less is chance.
const MIN_PACKETS: f64 = 4.0;
/// What earlier feedback counts for.
const AGING: f64 = 0.5;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Dispersion {
    packets: f64,
    bytes: f64,
    arrival_us: f64,
    previous: Option<(i64, i64)>,
}

impl Dispersion {
    /// Takes the packets of one feedback in order of arrival.
    pub fn add(&mut self, acked: &[Acked]) {
        self.packets *= AGING;
        self.bytes *= AGING;
        self.arrival_us *= AGING;
        for packet in acked {
            let Some((sent_us, arrived_us)) = self.previous.replace((packet.sent_us, packet.arrived_us)) else {
                continue;
            };
            let (sent, arrived) = (packet.sent_us - sent_us, packet.arrived_us - arrived_us);
            if sent >= 0 && arrived > sent {
                self.packets += 1.0;
                self.bytes += f64::from(packet.size);
                self.arrival_us += arrived as f64;
            }
        }
    }

    /// The rate of arrival behind a queue, if enough was seen of it.
    pub fn bps(&self) -> Option<f64> {
        let is_known = self.packets >= MIN_PACKETS && self.arrival_us > 0.0;
        is_known.then(|| self.bytes * 8e6 / self.arrival_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn burst(from_us: i64, count: i64, bps: i64) -> Vec<Acked> {
        let gap = 1000 * 8_000_000 / bps;
        let at = |i| Acked { sent_us: from_us, arrived_us: from_us + i * gap, size: 1000, cluster: 0 };
        (0..count).map(at).collect()
    }

    #[test]
    fn a_burst_behind_a_queue_shows_its_capacity() {
        let mut dispersion = Dispersion::default();
        dispersion.add(&burst(0, 20, 1_500_000));
        let bps = dispersion.bps().expect("a rate");
        assert!((1.45e6..1.55e6).contains(&bps), "{bps}");
    }

    #[test]
    fn an_empty_path_shows_nothing() {
        let mut dispersion = Dispersion::default();
        let spaced: Vec<Acked> =
            (0..50).map(|i| Acked { sent_us: i * 5000, arrived_us: i * 5000, size: 1000, cluster: 0 }).collect();
        dispersion.add(&spaced);
        assert_eq!(dispersion.bps(), None);
    }
}
