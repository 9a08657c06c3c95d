//! The way out: a shard writes sealed datagrams straight into memory that the shell lends.

use std::time::Instant;

use crate::addr::Dest;
use crate::prefetch::Prefetch;

/// Most segments of one run; the kernel refuses more than 64 in one GSO message, and drivers may cut earlier.
pub const MAX_RUN_SEGMENTS: usize = 40;
/// Most bytes of one run; a GSO message must stay below 65,535 with its headers.
pub const MAX_RUN_BYTES: usize = 60_000;

/// Where a shard puts what it sends. There is one copy and one encryption per datagram: both happen in the lent memory.
///
/// The shard calls `reserve`, writes, then `commit` for what it wrote; a `reserve` without `commit` is forgotten.
/// After `commit` the bytes belong to the outbox, which must keep them until they are sent.
pub trait Outbox: Prefetch {
    /// Tells when the oldest packet of media came that the next `commit` holds, for figures of delay.
    fn note_arrival(&mut self, _at: Instant) {}

    /// Lends at least `len` (at most [`MAX_RUN_BYTES`]) writable bytes; what they hold is of no meaning.
    fn reserve(&mut self, len: usize) -> &mut [u8];

    /// Sends the first `len` bytes of the memory lent last as datagrams of `segment_size` bytes each (the last one may
    /// be shorter) to one destination. At most [`MAX_RUN_SEGMENTS`] segments.
    fn commit(&mut self, dest: Dest, len: usize, segment_size: usize);
}

/// An outbox that keeps everything as single datagrams; for tests and tools.
#[derive(Debug, Default)]
pub struct VecOutbox {
    scratch: Vec<u8>,
    /// What was sent, in order.
    pub datagrams: Vec<(Dest, Vec<u8>)>,
    /// Number of `commit` calls, which is the number of kernel messages that a shell would send.
    pub runs: usize,
}

impl Prefetch for VecOutbox {}

impl Outbox for VecOutbox {
    fn reserve(&mut self, len: usize) -> &mut [u8] {
        if self.scratch.len() < len {
            self.scratch.resize(len, 0);
        }
        &mut self.scratch
    }

    fn commit(&mut self, dest: Dest, len: usize, segment_size: usize) {
        self.runs += 1;
        for segment in self.scratch[..len].chunks(segment_size.max(1)) {
            self.datagrams.push((dest, segment.to_vec()));
        }
    }
}
