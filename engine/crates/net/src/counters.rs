//! What a worker counts beside its shard.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Named figures of one worker: its shard's and its own.
pub(crate) type Figures = Vec<(&'static str, u64)>;

/// The sockets' and the thread's counters. Only ever grow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NetCounters {
    /// Turns of the worker's loop.
    pub loop_turns: u64,
    /// CPU microseconds of the thread.
    pub busy_us: u64,
    /// `recvmmsg` calls that gave something.
    pub udp_rx_batches: u64,
    /// `sendmmsg` calls.
    pub udp_tx_batches: u64,
    /// Messages given to the kernel; one may hold many datagrams.
    pub udp_tx_messages: u64,
    /// Paths on which the kernel refused segmentation offload.
    pub udp_gso_refused: u64,
    /// Datagrams that the kernel dropped before we read them: the socket's receive buffer was full.
    pub drop_udp_rx_full: u64,
    /// Datagrams dropped because the socket's buffer stayed full.
    pub drop_udp_tx_full: u64,
    /// Datagrams that the kernel refused for another reason.
    pub drop_udp_tx_error: u64,
    /// Connections taken.
    pub tcp_accepted: u64,
    /// Connections refused by a limit.
    pub tcp_refused: u64,
    /// Connections closed because no authentic check came.
    pub tcp_idle_closed: u64,
    /// Datagrams dropped because a connection's queue was full, or the connection is gone.
    pub drop_tcp_tx: u64,
    /// Batches of packets dropped because another worker's queue was full.
    pub drop_shard_queue: u64,
    /// From the kernel's time of arrival of a packet to the return of the call that sent it, once a packet and receiver.
    pub tx_delay: DelayHistogram,
}

/// Upper bounds of the buckets, microseconds, with the names that they are published by; the last one takes the rest.
/// Finest around the tick and what a large room's flush takes.
const DELAY_BOUNDS: [(u64, &str); 14] = [
    (250, "tx_delay_us_le_250"),
    (500, "tx_delay_us_le_500"),
    (1_000, "tx_delay_us_le_1000"),
    (1_500, "tx_delay_us_le_1500"),
    (2_000, "tx_delay_us_le_2000"),
    (2_500, "tx_delay_us_le_2500"),
    (3_000, "tx_delay_us_le_3000"),
    (4_000, "tx_delay_us_le_4000"),
    (5_000, "tx_delay_us_le_5000"),
    (7_500, "tx_delay_us_le_7500"),
    (10_000, "tx_delay_us_le_10000"),
    (20_000, "tx_delay_us_le_20000"),
    (100_000, "tx_delay_us_le_100000"),
    (u64::MAX, "tx_delay_us_le_inf"),
];

/// Counts delays by size. Each packet is in one bucket; readers add up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DelayHistogram {
    counts: [u64; DELAY_BOUNDS.len()],
    sum_us: u64,
}

impl DelayHistogram {
    pub(crate) fn add(&mut self, delay: Duration, packets: u64) {
        let us = delay.as_micros() as u64;
        let bucket = DELAY_BOUNDS.iter().position(|(bound, _)| us <= *bound).unwrap_or(DELAY_BOUNDS.len() - 1);
        self.counts[bucket] += packets;
        self.sum_us += us * packets;
    }

    pub(crate) fn figures(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let counts = self.counts;
        let buckets = DELAY_BOUNDS.iter().zip(counts).map(|((_, name), count)| (*name, count));
        [("tx_delay_us_sum", self.sum_us)].into_iter().chain(buckets)
    }
}

impl NetCounters {
    pub(crate) fn figures(&self) -> [(&'static str, u64); 14] {
        [
            ("loop_turns", self.loop_turns),
            ("busy_us", self.busy_us),
            ("udp_rx_batches", self.udp_rx_batches),
            ("udp_tx_batches", self.udp_tx_batches),
            ("udp_tx_messages", self.udp_tx_messages),
            ("udp_gso_refused", self.udp_gso_refused),
            ("drop_udp_rx_full", self.drop_udp_rx_full),
            ("drop_udp_tx_full", self.drop_udp_tx_full),
            ("drop_udp_tx_error", self.drop_udp_tx_error),
            ("tcp_accepted", self.tcp_accepted),
            ("tcp_refused", self.tcp_refused),
            ("tcp_idle_closed", self.tcp_idle_closed),
            ("drop_tcp_tx", self.drop_tcp_tx),
            ("drop_shard_queue", self.drop_shard_queue),
        ]
    }
}

/// The last figures that a worker published, for readers of other threads.
#[derive(Debug, Default)]
pub(crate) struct Published(Mutex<Figures>);

impl Published {
    pub(crate) fn set(&self, figures: Figures) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = figures;
    }

    pub(crate) fn get(&self) -> Figures {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
