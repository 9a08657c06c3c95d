//! How much is repaired beyond what a receiver asks for: what its path loses, and retransmissions that go twice.
//!
//! At heavy loss a retransmission is lost like any other packet, each time for another round trip. So from some loss on
//! it is sent again shortly after, unasked, as far as the bandwidth goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Sent packets that a figure of loss is made of: half a second of a small picture.
const MIN_PACKETS: u32 = 50;
/// Weight of a new figure against what was believed.
const NEW_SHARE: f64 = 0.4;
/// From this loss on each retransmission goes twice ...
const TWICE_ABOVE: f64 = 0.12;
/// ... and from this on three times: players wait for two or three rounds at most.
const THRICE_ABOVE: f64 = 0.30;
/// On long paths a second loss of a packet costs more time than players wait, so these begin earlier: at this round trip ...
const LONG_RTT: Duration = Duration::from_millis(120);
/// ... from this loss on.
const TWICE_ABOVE_FAR: f64 = 0.03;
/// Below this, repair has room in the margins of the allocator.
pub const LITTLE_LOSS: f64 = 0.1;
/// Share of the retransmissions that room is kept for. Copies are made only where there is room; all of them planned for would
/// cost a layer at once, and what is not sent is not proven to fit.
const PLANNED: f64 = 0.4;
/// Between a retransmission and its copy: more than most bursts last, little against a round trip.
const COPY_SPACING: Duration = Duration::from_millis(10);
/// The same where no feedback tells what came of the first: a client that stood still does again what it missed.
const LATE_COPY: Duration = Duration::from_millis(150);
/// Credit for retransmissions that copies leave alone, in bytes: more than a packet.
const KEPT_CREDIT: usize = 32 * 1024;
/// Copies that wait at a time.
const MAX_COPIES: usize = 256;

/// What a receiver's path loses, told by what it asks for: the first request of a packet is a loss, a repeated one may
/// be anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct LossMeter {
    packets_before: u32,
    asked: u32,
    share: f64,
}

impl LossMeter {
    /// A packet was asked for, for the first time.
    pub fn on_asked(&mut self) {
        self.asked += 1;
    }

    /// Brings the figure up to date; `packets` were sent in all, and wrap.
    pub fn update(&mut self, packets: u32) {
        let sent = packets.wrapping_sub(self.packets_before);
        if sent < MIN_PACKETS {
            return;
        }
        let now = (f64::from(self.asked) / f64::from(sent)).min(1.0);
        // After a long time without requests the old figure says nothing.
        let weight = NEW_SHARE.max(1.0 - f64::from(4 * MIN_PACKETS) / f64::from(sent));
        self.share += (now - self.share) * weight;
        (self.packets_before, self.asked) = (packets, 0);
    }

    /// Share of packets lost lately, 0 to 1.
    pub fn share(&self) -> f64 {
        self.share
    }

    /// What is planned for repair beside the media, as a share of it. Grows smoothly, lest layers flap.
    pub fn cost(&self) -> f64 {
        if self.share < LITTLE_LOSS {
            return 0.0;
        }
        let ramp = ((self.share - LITTLE_LOSS) / (THRICE_ABOVE - LITTLE_LOSS)).min(1.0);
        PLANNED * self.share * (1.0 + 2.0 * ramp)
    }

    /// How often a retransmission goes. `spare`: bandwidth that is not needed, as a share of what is sent.
    pub fn copies(&self, spare: f64, rtt: Duration) -> u32 {
        let is_far = rtt >= LONG_RTT;
        let wanted = match self.share {
            share if share >= THRICE_ABOVE => 3,
            share if share >= TWICE_ABOVE || (is_far && share >= TWICE_ABOVE_FAR) => 2,
            _ => 1,
        };
        // Each copy costs the share that is lost.
        let affordable = 1 + (spare / self.share.max(0.01)) as u32;
        wanted.min(affordable)
    }
}

/// Retransmissions that go again a little later.
#[derive(Debug)]
pub struct Copies<T> {
    waiting: VecDeque<(Instant, T)>,
}

impl<T> Default for Copies<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T: Copy> Copies<T> {
    /// Lets `item` of `size` bytes, that is sent now, go `times` times in all, as far as `credit` goes; the last part of
    /// that is kept for what was asked for. Returns how many copies wait.
    pub fn add(&mut self, now: Instant, times: u32, size: u16, credit: &mut usize, item: T) -> u64 {
        let mut added = 0;
        for copy in 1..times {
            if *credit < KEPT_CREDIT || self.waiting.len() == MAX_COPIES {
                break;
            }
            *credit -= usize::from(size);
            let at = now + COPY_SPACING * copy;
            // Nearly in order: only a third copy comes behind others' second.
            let place = self.waiting.partition_point(|(due, _)| *due <= at);
            self.waiting.insert(place, (at, item));
            added += 1;
        }
        added
    }

    /// Lets `item`, that is sent now, go once more a good while later, as far as `credit` goes.
    pub fn add_late(&mut self, now: Instant, size: u16, credit: &mut usize, item: T) {
        if *credit >= KEPT_CREDIT && self.waiting.len() < MAX_COPIES {
            *credit -= usize::from(size);
            let at = now + LATE_COPY;
            let place = self.waiting.partition_point(|(due, _)| *due <= at);
            self.waiting.insert(place, (at, item));
        }
    }

    /// The next one that is due.
    pub fn pop(&mut self, now: Instant) -> Option<T> {
        self.waiting.front().filter(|(due, _)| *due <= now)?;
        self.waiting.pop_front().map(|(_, item)| item)
    }

    /// When the next one is due.
    pub fn next_at(&self) -> Option<Instant> {
        self.waiting.front().map(|(due, _)| *due)
    }

    /// Forgets those that are not wanted any more.
    pub fn retain(&mut self, is_wanted: impl Fn(&T) -> bool) {
        self.waiting.retain(|(_, item)| is_wanted(item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter_at(asked_of_100: u32, rounds: u32) -> LossMeter {
        let mut meter = LossMeter::default();
        for round in 1..=rounds {
            (0..asked_of_100).for_each(|_| meter.on_asked());
            meter.update(round * 100);
        }
        meter
    }

    #[test]
    fn follows_the_loss_up_and_down() {
        let mut meter = meter_at(40, 6);
        assert!((0.37..0.41).contains(&meter.share()), "{meter:?}");
        meter.update(630);
        assert!(meter.share() > 0.37, "too few packets to tell");
        meter.update(5_000);
        assert!(meter.share() < 0.03, "{meter:?}");
    }

    #[test]
    fn copies_by_loss_room_and_distance() {
        let near = Duration::from_millis(50);
        let copies = |loss: u32, spare| meter_at(loss, 10).copies(spare, near);
        assert_eq!([copies(5, 1.0), copies(20, 1.0), copies(40, 1.0)], [1, 2, 3]);
        assert_eq!([copies(40, 0.5), copies(40, 0.1)], [2, 1]);
        let far = |loss| meter_at(loss, 10).copies(1.0, Duration::from_millis(200));
        assert_eq!([far(1), far(10)], [1, 2]);
    }

    #[test]
    fn repair_costs_what_is_sent_again() {
        let cost = |loss| meter_at(loss, 20).cost();
        assert_eq!(cost(5), 0.0);
        assert!((0.14..0.18).contains(&cost(20)), "{}", cost(20));
        assert!((0.44..0.52).contains(&cost(40)), "{}", cost(40));
    }

    #[test]
    fn copies_come_in_time_and_are_bounded() {
        let start = Instant::now();
        let mut copies = Copies::default();
        let mut credit = KEPT_CREDIT + 2_500;
        assert_eq!(copies.add(start, 1, 1_000, &mut credit, 'a'), 0);
        assert_eq!(copies.add(start, 3, 1_000, &mut credit, 'b'), 2);
        assert_eq!(copies.add(start, 2, 1_000, &mut credit, 'c'), 1);
        assert_eq!(copies.add(start, 2, 1_000, &mut credit, 'd'), 0, "the credit is used up");
        assert_eq!((copies.pop(start), copies.next_at()), (None, Some(start + COPY_SPACING)));
        assert_eq!(copies.pop(start + COPY_SPACING), Some('b'));
        assert_eq!(copies.pop(start + COPY_SPACING), Some('c'));
        copies.retain(|c| *c != 'b');
        assert_eq!(copies.next_at(), None);
        let mut credit = usize::MAX;
        let taken = (0..MAX_COPIES + 10).map(|_| copies.add(start, 2, 100, &mut credit, 'e')).sum::<u64>();
        assert_eq!(taken as usize, MAX_COPIES);
    }
}
