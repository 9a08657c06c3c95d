//! A seeded simulated network link for tests: loss, bursts of loss, delay, jitter, reordering, a rate with a queue.
//!
//! A [`Link`] carries packets of any type one way, in virtual time: it is given the time and never reads a clock. The
//! same seed, configuration and calls give the same deliveries.

mod rng;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

pub use rng::Rng;

/// What a link does to packets. The default is a perfect wire.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LinkConfig {
    /// Probability that a packet is lost, 0 to 1, each by itself.
    pub loss: f64,
    /// Losses that come in bursts, on top of `loss`.
    pub burst_loss: Option<BurstLoss>,
    /// Time that every packet takes.
    pub delay: Duration,
    /// Up to this much more, evenly distributed. Packets stay in order unless `reorder` says otherwise.
    pub jitter: Duration,
    /// Probability that a packet is held back by `reorder_delay`, so that later ones overtake it.
    pub reorder: f64,
    /// How long such a packet is held back; zero means 20 ms.
    pub reorder_delay: Duration,
    /// Bits per second that leave the queue; `None` has no queue.
    pub rate_bps: Option<u64>,
    /// Bytes that wait at most when there is a rate; what does not fit is dropped. 0 means a quarter second of the rate.
    pub queue_bytes: usize,
    /// Probability that a packet arrives twice.
    pub duplicate: f64,
}

/// The Gilbert-Elliott model: a good state without loss and a bad one, with a chance to change at every packet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BurstLoss {
    /// Chance to turn bad, per packet.
    pub to_bad: f64,
    /// Chance to turn good, per packet; the mean burst has 1 / `to_good` packets.
    pub to_good: f64,
    /// Loss in the bad state.
    pub loss: f64,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Given to [`Link::send`].
    pub sent: u64,
    /// Given out by [`Link::poll`].
    pub delivered: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Dropped since the queue was full.
    pub queue_dropped: u64,
}

const DEFAULT_REORDER_DELAY: Duration = Duration::from_millis(20);

/// One direction of a simulated link.
#[derive(Debug)]
pub struct Link<T> {
    config: LinkConfig,
    rng: Rng,
    is_bad: bool,
    flying: BinaryHeap<Reverse<Flying<T>>>,
    /// When the queue will have sent all that it holds.
    free_at: Option<Instant>,
    /// Latest arrival of a packet that was not held back: the next one comes no earlier.
    last_arrival: Option<Instant>,
    order: u64,
    stats: LinkStats,
}

#[derive(Debug)]
struct Flying<T> {
    arrives_at: Instant,
    order: u64,
    packet: T,
}

impl<T> PartialEq for Flying<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Flying<T> {}

impl<T> PartialOrd for Flying<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Flying<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.arrives_at, self.order).cmp(&(other.arrives_at, other.order))
    }
}

/// The length of a packet on the wire: what takes time and room in the queue.
pub trait WireLen {
    /// In bytes.
    fn wire_len(&self) -> usize;
}

impl WireLen for Vec<u8> {
    fn wire_len(&self) -> usize {
        self.len()
    }
}

impl<M> WireLen for (M, Vec<u8>) {
    fn wire_len(&self) -> usize {
        self.1.len()
    }
}

impl<T: WireLen + Clone> Link<T> {
    /// A link that decides by `seed`.
    pub fn new(seed: u64, config: LinkConfig) -> Self {
        Self {
            config,
            rng: Rng::new(seed),
            is_bad: false,
            flying: BinaryHeap::new(),
            free_at: None,
            last_arrival: None,
            order: 0,
            stats: LinkStats::default(),
        }
    }

    /// Changes the link; what is on its way arrives as it would have.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// What became of packets so far.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// Packets on their way, duplicates counted.
    pub fn flying(&self) -> usize {
        self.flying.len()
    }

    /// Sends a packet. `now` never goes back.
    pub fn send(&mut self, now: Instant, packet: T) {
        self.stats.sent += 1;
        // Drawn in this order and always, so that one probability does not shift the luck of the others.
        let is_lost = self.rng.chance(self.config.loss) | self.draw_burst();
        let is_held_back = self.rng.chance(self.config.reorder);
        let is_doubled = self.rng.chance(self.config.duplicate);
        let jitter = self.config.jitter.mul_f64(self.rng.unit());
        let Some(left_at) = self.pass_queue(now, packet.wire_len()) else {
            self.stats.queue_dropped += 1;
            return;
        };
        if is_lost {
            self.stats.lost += 1;
            return;
        }
        let mut arrives_at = left_at + self.config.delay + jitter;
        if is_held_back {
            arrives_at += match self.config.reorder_delay {
                Duration::ZERO => DEFAULT_REORDER_DELAY,
                delay => delay,
            };
        } else {
            arrives_at = self.last_arrival.map_or(arrives_at, |last| last.max(arrives_at));
            self.last_arrival = Some(arrives_at);
        }
        if is_doubled {
            self.fly(arrives_at, packet.clone());
        }
        self.fly(arrives_at, packet);
    }

    fn fly(&mut self, arrives_at: Instant, packet: T) {
        self.order += 1;
        self.flying.push(Reverse(Flying { arrives_at, order: self.order, packet }));
    }

    fn draw_burst(&mut self) -> bool {
        let Some(burst) = self.config.burst_loss else { return false };
        let change = if self.is_bad { burst.to_good } else { burst.to_bad };
        if self.rng.chance(change) {
            self.is_bad = !self.is_bad;
        }
        self.rng.chance(burst.loss) && self.is_bad
    }

    /// When the packet has left the queue; `None` if it found no room.
    fn pass_queue(&mut self, now: Instant, len: usize) -> Option<Instant> {
        let Some(rate_bps) = self.config.rate_bps else { return Some(now) };
        let rate = rate_bps.max(1) as f64 / 8.0;
        let starts_at = self.free_at.map_or(now, |at| at.max(now));
        let waiting = (starts_at - now).as_secs_f64() * rate;
        let limit = if self.config.queue_bytes == 0 { rate / 4.0 } else { self.config.queue_bytes as f64 };
        // A packet always passes an empty queue, however long it is.
        if waiting > 0.0 && waiting + len as f64 > limit {
            return None;
        }
        let left_at = starts_at + Duration::from_secs_f64(len as f64 / rate);
        self.free_at = Some(left_at);
        Some(left_at)
    }

    /// The next packet that arrived by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<T> {
        if self.next_at()? > now {
            return None;
        }
        self.stats.delivered += 1;
        self.flying.pop().map(|Reverse(flying)| flying.packet)
    }

    /// When the next packet arrives.
    pub fn next_at(&self) -> Option<Instant> {
        self.flying.peek().map(|Reverse(flying)| flying.arrives_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(seed: u64, config: LinkConfig, count: u32, gap: Duration) -> (Vec<(u32, Duration)>, LinkStats) {
        let start = Instant::now();
        let mut link = Link::new(seed, config);
        for i in 0..count {
            link.send(start + gap * i, (i, vec![0; 1000]));
        }
        let mut arrived = Vec::new();
        while let Some(at) = link.next_at() {
            arrived.extend(link.poll(at).map(|(i, _)| (i, at - start)));
        }
        (arrived, link.stats())
    }

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn perfect_wire() {
        let (arrived, stats) = run(1, LinkConfig { delay: 30 * MS, ..Default::default() }, 10, MS);
        assert!(arrived.iter().enumerate().all(|(i, a)| *a == (i as u32, MS * (i as u32 + 30))));
        assert_eq!((stats.sent, stats.delivered), (10, 10));
    }

    #[test]
    fn same_seed_same_fate() {
        let config = LinkConfig { loss: 0.2, jitter: 10 * MS, reorder: 0.1, duplicate: 0.1, ..Default::default() };
        assert_eq!(run(7, config, 500, MS), run(7, config, 500, MS));
        assert_ne!(run(7, config, 500, MS), run(8, config, 500, MS));
    }

    #[test]
    fn loss_is_near_its_probability() {
        let (_, stats) = run(3, LinkConfig { loss: 0.3, ..Default::default() }, 20_000, MS);
        assert!((5_700..6_300).contains(&stats.lost), "{stats:?}");
    }

    #[test]
    fn bursts_are_longer_than_chance_makes_them() {
        let burst = BurstLoss { to_bad: 0.01, to_good: 0.2, loss: 1.0 };
        let (arrived, stats) = run(3, LinkConfig { burst_loss: Some(burst), ..Default::default() }, 20_000, MS);
        let bursts = arrived.windows(2).filter(|w| w[1].0 - w[0].0 > 1).count() as u64;
        let mean = stats.lost as f64 / bursts as f64;
        assert!((3.5..6.5).contains(&mean), "{mean}");
    }

    #[test]
    fn jitter_keeps_order_and_reorder_does_not() {
        let in_order = |a: &[(u32, Duration)]| a.windows(2).all(|w| w[0].0 < w[1].0);
        let (arrived, _) = run(5, LinkConfig { jitter: 50 * MS, ..Default::default() }, 500, MS);
        assert!(in_order(&arrived));
        let (arrived, _) = run(5, LinkConfig { reorder: 0.1, ..Default::default() }, 500, MS);
        assert!(!in_order(&arrived) && arrived.len() == 500);
    }

    #[test]
    fn rate_delays_and_full_queue_drops() {
        // 1000 bytes each ms are 8 Mb/s into 4 Mb/s with 10 packets of queue.
        let config = LinkConfig { rate_bps: Some(4_000_000), queue_bytes: 10_000, ..Default::default() };
        let (arrived, stats) = run(1, config, 1000, MS);
        assert!((480..520).contains(&arrived.len()) && stats.queue_dropped + stats.delivered == 1000);
        let longest = arrived.iter().map(|(i, at)| *at - MS * *i).max().unwrap();
        assert!(longest <= 20 * MS, "{longest:?}");
    }
}
