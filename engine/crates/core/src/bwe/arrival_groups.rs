//! Gathers packets that left together, and yields how much later than its predecessor each group left and arrived
//! (draft-ietf-rmcat-gcc-02 section 5.2).

use super::sent_packets::Acked;

/// Packets that left within this belong together.
const GROUP_US: i64 = 5_000;
/// Packets that arrive within this of each other, faster than they left, were held up and released together.
const BURST_US: i64 = 5_000;
/// But no group lasts longer than this.
const MAX_BURST_US: i64 = 100_000;
/// A receiver's clock that jumps by more than this starts us afresh.
const MAX_CLOCK_JUMP_US: i64 = 3_000_000;

/// From one group to the next, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct GroupDelta {
    pub send_ms: f64,
    pub arrival_ms: f64,
    /// Of the later group, on the receiver's clock.
    pub arrived_ms: f64,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent_us: i64,
    last_sent_us: i64,
    first_arrived_us: i64,
    last_arrived_us: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct ArrivalGroups {
    previous: Option<Group>,
    current: Option<Group>,
}

impl ArrivalGroups {
    /// Takes packets in order of arrival; a delta comes out when a group is complete.
    pub fn add(&mut self, packet: &Acked) -> Option<GroupDelta> {
        let sent_us = round_to_ms(packet.sent_us);
        let started = Group {
            first_sent_us: sent_us,
            last_sent_us: sent_us,
            first_arrived_us: packet.arrived_us,
            last_arrived_us: packet.arrived_us,
        };
        let Some(current) = &mut self.current else {
            self.current = Some(started);
            return None;
        };
        if (packet.arrived_us - current.last_arrived_us).abs() > MAX_CLOCK_JUMP_US {
            *self = Self { previous: None, current: Some(started) };
            return None;
        }
        if sent_us < current.first_sent_us {
            // Overtaken by a later group: it says nothing about the queue now.
            return None;
        }
        if current.takes(sent_us, packet.arrived_us) {
            current.last_sent_us = current.last_sent_us.max(sent_us);
            current.last_arrived_us = current.last_arrived_us.max(packet.arrived_us);
            return None;
        }
        let complete = *current;
        self.current = Some(started);
        let previous = self.previous.replace(complete)?;
        Some(GroupDelta {
            send_ms: (complete.last_sent_us - previous.last_sent_us) as f64 / 1e3,
            arrival_ms: (complete.last_arrived_us - previous.last_arrived_us) as f64 / 1e3,
            arrived_ms: complete.last_arrived_us as f64 / 1e3,
        })
    }
}

impl Group {
    fn takes(&self, sent_us: i64, arrived_us: i64) -> bool {
        let send_delta = sent_us - self.last_sent_us;
        if send_delta == 0 {
            return true;
        }
        let arrival_delta = arrived_us - self.last_arrived_us;
        let is_burst = arrival_delta < send_delta
            && arrival_delta <= BURST_US
            && arrived_us - self.first_arrived_us < MAX_BURST_US;
        is_burst || sent_us - self.first_sent_us <= GROUP_US
    }
}

/// libwebrtc works with send times in whole milliseconds. It matters: packets of one burst must have equal times.
fn round_to_ms(us: i64) -> i64 {
    (us + 500) / 1000 * 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sent_us: i64, arrived_us: i64) -> Acked {
        Acked { sent_us, arrived_us, size: 1000, cluster: 0 }
    }

    #[test]
    fn a_burst_is_one_group_measured_at_its_last_packet() {
        let mut groups = ArrivalGroups::default();
        let mut deltas = Vec::new();
        for frame in 0..3 {
            for i in 0..4 {
                let sent = frame * 33_000;
                deltas.extend(groups.add(&packet(sent, 1_000_000 + sent + i * 6_000)));
            }
        }
        deltas.extend(groups.add(&packet(99_000, 1_099_000)));
        let expected = GroupDelta { send_ms: 33.0, arrival_ms: 33.0, arrived_ms: 1_051.0 };
        assert_eq!(deltas[0], expected);
        assert_eq!(deltas.len(), 2);
    }

    #[test]
    fn a_growing_queue_shows_as_arrival_beyond_send() {
        let mut groups = ArrivalGroups::default();
        let deltas: Vec<_> = (0..10).filter_map(|i| groups.add(&packet(i * 20_000, i * 25_000))).collect();
        assert!(deltas.iter().all(|d| d.send_ms == 20.0 && d.arrival_ms == 25.0));
        assert_eq!(deltas.len(), 8);
    }

    #[test]
    fn a_released_burst_counts_as_one_group() {
        let mut groups = ArrivalGroups::default();
        for i in 0..5 {
            // Left 10 ms apart, came 1 ms apart: a radio link delivered them together.
            assert_eq!(groups.add(&packet(i * 10_000, 500_000 + i * 1_000)), None);
        }
    }

    #[test]
    fn a_jump_of_the_remote_clock_starts_afresh() {
        let mut groups = ArrivalGroups::default();
        for i in 0..5 {
            groups.add(&packet(i * 20_000, i * 20_000));
        }
        assert_eq!(groups.add(&packet(100_000, 10_000_000)), None);
        assert_eq!(groups.add(&packet(120_000, 10_020_000)), None);
        assert!(groups.add(&packet(140_000, 10_040_000)).is_some());
    }
}
