//! Copies of a room's or a transport's packets for a capture: as they are after opening and before sealing.
//!
//! Whoever is not captured pays one look at an `Option` per packet. A capture never holds a worker up: when its queue is
//! full the copy is dropped and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use mrtc_rtp::header::RtpHeader;

use crate::addr::Dest;
use crate::id::{RoomId, TransportId};

/// Copies that wait to be written: some 0.1 s of a busy worker, at most 24 MB.
const QUEUE: usize = 16_384;

/// What is captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureScope {
    /// All transports of a room, also those that come later.
    Room(RoomId),
    /// One transport.
    Transport(TransportId),
}

/// A packet, in the clear.
#[derive(Debug)]
pub struct CapturedPacket {
    /// When it was received or sent.
    pub at: Instant,
    /// Where it came from.
    pub from: SocketAddr,
    /// Where it went to.
    pub to: SocketAddr,
    /// Its length in the clear.
    pub len: usize,
    /// The packet, or only its RTP header with extensions.
    pub bytes: Vec<u8>,
}

#[derive(Debug)]
struct Inner {
    queue: SyncSender<CapturedPacket>,
    is_headers_only: bool,
    dropped: AtomicU64,
    is_over: AtomicBool,
}

/// Where copies go. Clones are the same capture.
#[derive(Clone, Debug)]
pub struct Tap(Arc<Inner>);

impl Tap {
    /// A tap and what comes out of it. `is_headers_only`: payloads of RTP are left out; RTCP, which has no media, is whole.
    pub fn new(is_headers_only: bool) -> (Self, Receiver<CapturedPacket>) {
        let (queue, packets) = sync_channel(QUEUE);
        let inner = Inner { queue, is_headers_only, dropped: AtomicU64::new(0), is_over: AtomicBool::new(false) };
        (Self(Arc::new(inner)), packets)
    }

    /// Copies that were dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Nothing more is copied.
    pub fn end(&self) {
        self.0.is_over.store(true, Ordering::Release);
    }

    /// True after `end`.
    pub fn is_over(&self) -> bool {
        self.0.is_over.load(Ordering::Acquire)
    }

    fn put(&self, at: Instant, from: SocketAddr, to: SocketAddr, packet: &[u8], kept: usize) {
        if self.is_over() {
            return;
        }
        let copy = CapturedPacket { at, from, to, len: packet.len(), bytes: packet[..kept].to_vec() };
        if self.0.queue.try_send(copy).is_err() {
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rtp(&self, at: Instant, from: SocketAddr, to: SocketAddr, packet: &[u8]) {
        let kept = if self.0.is_headers_only { header_len(packet) } else { packet.len() };
        self.put(at, from, to, packet, kept);
    }
}

/// Bytes of header, CSRCs and extensions.
fn header_len(packet: &[u8]) -> usize {
    RtpHeader::parse(packet).ok().and_then(|h| h.payload_range(packet).ok()).map_or(12.min(packet.len()), |p| p.start)
}

/// What the shard was told to capture.
#[derive(Clone, Debug)]
pub struct Capture {
    /// Of whom.
    pub scope: CaptureScope,
    /// Where to.
    pub tap: Tap,
}

impl Capture {
    pub(crate) fn takes(&self, transport: &TransportId, room: &RoomId) -> bool {
        match &self.scope {
            CaptureScope::Room(wanted) => wanted == room,
            CaptureScope::Transport(wanted) => wanted == transport,
        }
    }
}

/// The tap of one transport.
#[derive(Debug)]
pub(crate) struct TransportTap {
    tap: Tap,
    /// Set at each flush.
    out: Option<(Instant, Dest)>,
    /// Sent RTCP in the clear, until the flush that sends it.
    rtcp: Vec<Vec<u8>>,
}

impl TransportTap {
    pub(crate) fn new(tap: Tap) -> Box<Self> {
        Box::new(Self { tap, out: None, rtcp: Vec::new() })
    }

    pub(crate) fn received_rtp(&self, at: Instant, from: SocketAddr, to: SocketAddr, packet: &[u8]) {
        self.tap.rtp(at, from, to, packet);
    }

    pub(crate) fn received_rtcp(&self, at: Instant, from: SocketAddr, to: SocketAddr, packet: &[u8]) {
        self.tap.put(at, from, to, packet, packet.len());
    }

    /// RTCP that the next flush will send.
    pub(crate) fn queued_rtcp(&mut self, packet: Vec<u8>) {
        self.rtcp.push(packet);
    }

    /// A flush begins.
    pub(crate) fn begin_flush(&mut self, at: Instant, path: Dest) {
        self.out = Some((at, path));
        for packet in self.rtcp.drain(..) {
            self.tap.put(at, path.local, path.remote, &packet, packet.len());
        }
    }

    pub(crate) fn sent_rtp(&self, packet: &[u8]) {
        if let Some((at, path)) = &self.out {
            self.tap.rtp(*at, path.local, path.remote, packet);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 24] = [
        0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, // header with an extension
        0xbe, 0xde, 0, 1, 0x10, 7, 0, 0, // one-byte extension
        1, 2, 3, 4, // payload
    ];

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn payloads_are_left_out_if_headers_are_all_that_is_wanted() {
        let (tap, packets) = Tap::new(true);
        tap.rtp(Instant::now(), addr(1), addr(2), &PACKET);
        let got = packets.try_recv().unwrap();
        assert_eq!((got.len, got.bytes.as_slice()), (24, &PACKET[..20]));
        tap.rtp(Instant::now(), addr(1), addr(2), &[0x90, 1]);
        assert_eq!(packets.try_recv().unwrap().bytes, [0x90, 1]);
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (tap, packets) = Tap::new(false);
        for _ in 0..QUEUE + 3 {
            tap.rtp(Instant::now(), addr(1), addr(2), &PACKET);
        }
        assert_eq!((tap.dropped(), packets.try_iter().count()), (3, QUEUE));
        tap.end();
        tap.rtp(Instant::now(), addr(1), addr(2), &PACKET);
        assert!(packets.try_recv().is_err());
    }
}
