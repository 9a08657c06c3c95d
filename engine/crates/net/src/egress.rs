//! The way out of a worker: runs are collected in a slab and leave in batches.

use std::time::Instant;

use mrtc_core::addr::{Dest, Proto};
use mrtc_core::outbox::{MAX_RUN_BYTES, Outbox};
use mrtc_core::prefetch::Prefetch;

use crate::cache_linux::Cache;
use crate::counters::NetCounters;
use crate::tcp::TcpServer;
use crate::udp_linux::{Run, TX_BATCH, UdpSocket};

/// Room for some runs of a picture: what is written here is read again by the kernel while it is still in the
/// second-level cache, beside what the kernel makes of it. With a megabyte it had left it.
const SLAB: usize = 128 * 1024;

/// The slab and what lies in it. Outlives the [`Sender`]s that fill it.
pub(crate) struct Egress {
    slab: Vec<u8>,
    used: usize,
    runs: Vec<Run>,
    /// Of the run that is committed next.
    arrived_at: Option<Instant>,
}

impl Egress {
    pub(crate) fn new() -> Self {
        Self { slab: vec![0; SLAB], used: 0, runs: Vec::with_capacity(TX_BATCH), arrived_at: None }
    }
}

/// Lends the slab to a shard for one flush and sends what it commits.
pub(crate) struct Sender<'a> {
    pub egress: &'a mut Egress,
    pub udp: &'a mut UdpSocket,
    pub tcp: Option<&'a mut TcpServer>,
    pub counters: &'a mut NetCounters,
}

impl Sender<'_> {
    /// Sends all that is collected.
    pub(crate) fn finish(&mut self) {
        self.send_udp();
        if let Some(tcp) = &mut self.tcp {
            tcp.flush();
        }
    }

    fn send_udp(&mut self) {
        let Egress { slab, used, runs, .. } = &mut *self.egress;
        if !runs.is_empty() {
            self.udp.send(runs, slab, self.counters);
            runs.clear();
        }
        *used = 0;
    }
}

impl Prefetch for Sender<'_> {
    fn prefetch<T>(&self, value: &T) {
        Cache.prefetch(value);
    }

    fn prefetch_behind<T>(&self, value: &T, len: usize) {
        Cache.prefetch_behind(value, len);
    }
}

impl Outbox for Sender<'_> {
    fn note_arrival(&mut self, at: Instant) {
        self.egress.arrived_at = Some(at);
    }

    fn reserve(&mut self, len: usize) -> &mut [u8] {
        debug_assert!(len <= MAX_RUN_BYTES);
        if self.egress.used + len > SLAB || self.egress.runs.len() == TX_BATCH {
            self.send_udp();
        }
        let start = self.egress.used;
        &mut self.egress.slab[start..start + len]
    }

    fn commit(&mut self, dest: Dest, len: usize, segment_size: usize) {
        let Egress { slab, used, runs, arrived_at } = &mut *self.egress;
        let arrived_at = arrived_at.take();
        let (start, segment) = (*used, segment_size.max(1));
        match (dest.proto, &mut self.tcp) {
            (Proto::Udp, _) => {
                runs.push(Run { dest, start, len, segment, arrived_at });
                *used += len;
            }
            (Proto::Tcp, Some(tcp)) => {
                for datagram in slab[start..start + len].chunks(segment) {
                    self.counters.drop_tcp_tx += u64::from(!tcp.send(dest.remote, datagram));
                }
            }
            (Proto::Tcp, None) => self.counters.drop_tcp_tx += len.div_ceil(segment) as u64,
        }
    }
}
