//! How much a subscriber's path takes: Google congestion control, sending side.
//!
//! One [`SendSideBwe`] per subscriber transport. Transport-wide feedback drives it; a client without that is followed by
//! REMB, one without either by the loss in its receiver reports. See `docs/algorithms/bandwidth.md`.

use std::time::{Duration, Instant};

/// What a packet was sent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketClass {
    /// Media, or a retransmission that a receiver asked for.
    Media,
    /// Padding, or a retransmission that nobody asked for: only sent to probe.
    Padding,
}

/// A burst that finds out whether the path takes `bps`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Marks the packets of this probe, see [`SendSideBwe::on_packet_sent`].
    pub cluster: u8,
    /// The rate to send at.
    pub bps: u64,
    /// It ends after this many bytes ...
    pub min_bytes: usize,
    /// ... and this many packets.
    pub min_packets: usize,
}

/// One packet of a transport-wide feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketFeedback {
    /// Transport-wide sequence number.
    pub seq: u16,
    /// Arrival on the receiver's clock in microseconds; `None`: not received (yet). May wrap with the 24 bits of the
    /// feedback's reference time.
    pub arrived_at_us: Option<i64>,
}

/// The estimator of one subscriber.
#[derive(Debug)]
pub struct SendSideBwe {
    estimate_bps: u64,
    max_bps: u64,
    desired_bps: u64,
    rtt: Option<Duration>,
}

impl SendSideBwe {
    /// Begins at `start_bps` and never estimates more than `max_bps`.
    pub fn new(start_bps: u64, max_bps: u64, _now: Instant) -> Self {
        Self { estimate_bps: start_bps.min(max_bps), max_bps, desired_bps: 0, rtt: None }
    }

    /// Changes the upper limit (a cap of the app or of the participant).
    pub fn set_max_bps(&mut self, max_bps: u64) {
        self.max_bps = max_bps;
    }

    /// What the allocator could use in all; probing goes no further than that.
    pub fn set_desired_bps(&mut self, bps: u64) {
        self.desired_bps = bps;
    }

    /// Records a packet that carries the transport-wide number `seq`. `size` counts the whole datagram's payload.
    /// `cluster` is [`Pacer::cluster`](crate::pacer::Pacer::cluster) at that time.
    pub fn on_packet_sent(&mut self, _seq: u16, _size: usize, _class: PacketClass, _cluster: Option<u8>, _now: Instant) {}

    /// Takes one transport-wide feedback packet, in order of its sequence numbers.
    pub fn on_feedback(&mut self, _packets: impl Iterator<Item = PacketFeedback>, _now: Instant) {}

    /// Takes a report block: `fraction_lost` as in RFC 3550 (of 256), the round trip if it could be computed.
    pub fn on_receiver_report(&mut self, _fraction_lost: u8, rtt: Option<Duration>, _now: Instant) {
        self.rtt = rtt.or(self.rtt);
    }

    /// Takes a REMB; ignored as soon as transport-wide feedback came.
    pub fn on_remb(&mut self, bps: u64, _now: Instant) {
        self.estimate_bps = bps.min(self.max_bps);
    }

    /// What the path takes now, in bit/s of datagram payload.
    pub fn estimate_bps(&self) -> u64 {
        self.estimate_bps
    }

    /// Smoothed round trip, if known.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Call at [`SendSideBwe::next_timeout`] or later, and after each feedback: a probe to begin now, to be handed to
    /// [`Pacer::start_probe`](crate::pacer::Pacer::start_probe). `None` most of the time.
    pub fn poll_probe(&mut self, _now: Instant) -> Option<Probe> {
        None
    }

    /// When `poll_probe` should be called at the latest.
    pub fn next_timeout(&self, now: Instant) -> Instant {
        now + Duration::from_millis(100)
    }
}
