//! The recent packets of one layer: what subscribers are sent from, now and when they ask again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mrtc_rtp::id::ExtSeq;

use crate::packet::Packet;

/// Packets are kept this long: longer than a client asks for a lost packet (libwebrtc gives up after about a second).
const MAX_AGE: Duration = Duration::from_millis(1_200);
/// Buffers kept for reuse; what a burst needed beyond it goes back to the allocator.
const MAX_FREE: usize = 32;

/// A ring indexed by sequence number. Memory follows the layer's packet rate, not the capacity.
#[derive(Debug)]
pub struct IngressRing {
    slots: Vec<Option<Arc<Packet>>>,
    /// Oldest that may be present.
    tail: u64,
    /// Newest that was stored.
    head: Option<u64>,
    free: Vec<Arc<Packet>>,
}

impl IngressRing {
    /// An empty ring of `capacity` packets; a power of two.
    pub fn new(capacity: usize) -> Self {
        debug_assert!(capacity.is_power_of_two());
        let mut slots = Vec::new();
        slots.resize_with(capacity, || None);
        Self { slots, tail: 0, head: None, free: Vec::new() }
    }

    fn index(&self, seq: u64) -> usize {
        seq as usize & (self.slots.len() - 1)
    }

    /// The packet, if it is still here.
    pub fn get(&self, seq: ExtSeq) -> Option<&Arc<Packet>> {
        self.slots[self.index(seq.0)].as_ref().filter(|p| p.seq == seq)
    }

    /// True if a packet of this number can be stored: it is not here and not older than the ring reaches.
    pub fn accepts(&self, seq: ExtSeq) -> bool {
        seq.0 >= self.tail && self.get(seq).is_none()
    }

    /// The newest number stored.
    pub fn newest(&self) -> Option<ExtSeq> {
        self.head.map(ExtSeq)
    }

    /// A packet to fill, with a buffer that was used before if there is one.
    pub fn take_free(&mut self) -> Option<Arc<Packet>> {
        self.free.pop()
    }

    /// Stores a packet for which `accepts` is true and lets old ones go.
    pub fn insert(&mut self, packet: Arc<Packet>) {
        let seq = packet.seq.0;
        let now = packet.arrived_at;
        if self.head.is_none() {
            // Late ones before the first may still come.
            self.tail = seq.saturating_sub(self.slots.len() as u64 / 2);
        }
        if self.head.is_none_or(|head| seq > head) {
            self.head = Some(seq);
        }
        self.evict(now, seq);
        let index = self.index(seq);
        self.slots[index] = Some(packet);
    }

    /// Forgets everything; numbers start anew.
    pub fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| *slot = None);
        self.head = None;
        self.tail = 0;
    }

    fn evict(&mut self, now: Instant, newest: u64) {
        let capacity = self.slots.len() as u64;
        let must = (newest + 1).saturating_sub(capacity);
        if must > self.tail + capacity {
            // A jump over more than the ring: all of it is old.
            self.slots.iter_mut().for_each(|slot| *slot = None);
            self.tail = must;
            return;
        }
        while self.tail < newest {
            let index = self.index(self.tail);
            let is_old = match &self.slots[index] {
                Some(packet) => self.tail < must || now.saturating_duration_since(packet.arrived_at) > MAX_AGE,
                None => self.tail < must || self.tail + capacity / 2 < newest,
            };
            if !is_old {
                break;
            }
            if let Some(packet) = self.slots[index].take() {
                self.recycle(packet);
            }
            self.tail += 1;
        }
    }

    fn recycle(&mut self, mut packet: Arc<Packet>) {
        if self.free.len() < MAX_FREE && Arc::get_mut(&mut packet).is_some() {
            self.free.push(packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::packet;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn keeps_what_is_recent_and_reuses_the_rest() {
        let start = Instant::now();
        let mut ring = IngressRing::new(64);
        for n in 0..50u64 {
            ring.insert(Arc::new(packet(1000 + n, at(start, n * 50))));
        }
        assert!(ring.get(ExtSeq(1049)).is_some());
        assert!(ring.get(ExtSeq(1030)).is_some());
        assert!(ring.get(ExtSeq(1010)).is_none());
        assert!(ring.take_free().is_some());
        assert!(!ring.accepts(ExtSeq(1049)));
        assert!(!ring.accepts(ExtSeq(1010)));
    }

    #[test]
    fn late_packets_find_their_place() {
        let start = Instant::now();
        let mut ring = IngressRing::new(64);
        ring.insert(Arc::new(packet(70_000, start)));
        assert!(ring.accepts(ExtSeq(69_999)));
        ring.insert(Arc::new(packet(69_999, start)));
        assert!(ring.get(ExtSeq(69_999)).is_some());
        assert_eq!(ring.newest(), Some(ExtSeq(70_000)));
    }

    #[test]
    fn a_shared_packet_is_not_reused() {
        let start = Instant::now();
        let mut ring = IngressRing::new(64);
        let shared = Arc::new(packet(1, start));
        ring.insert(shared.clone());
        ring.insert(Arc::new(packet(2, at(start, 5_000))));
        assert!(ring.take_free().is_none());
        assert_eq!(shared.seq, ExtSeq(1));
    }

    #[test]
    fn a_jump_empties_the_ring() {
        let start = Instant::now();
        let mut ring = IngressRing::new(64);
        ring.insert(Arc::new(packet(1, start)));
        ring.insert(Arc::new(packet(100_000, start)));
        assert!(ring.get(ExtSeq(1)).is_none());
        assert!(ring.get(ExtSeq(100_000)).is_some());
        assert!(!ring.accepts(ExtSeq(2)));
    }
}
