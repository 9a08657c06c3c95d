//! What one subscriber's path takes and how it is shared: estimator, pacer and allocator of a transport together.

use std::time::{Duration, Instant};

use mrtc_rtp::id::SeqNo;
use mrtc_rtp::rtcp::TransportCc;
use mrtc_rtp::rtcp::twcc::TICK_US;

use crate::allocator::{Allocation, Allocator, Demand};
use crate::bwe::{PacketClass, PacketFeedback, SendSideBwe};
use crate::command::Kind;
use crate::pacer::Pacer;
use crate::prefetch::Prefetch;

/// Where the estimate begins for clients without transport-wide feedback: it grows slowly, so a small picture fits at once.
const START_BPS: u64 = 1_000_000;
/// ... and with it: probes find more within a quarter second, and what a mobile path of 200 kbit/s must first let go is
/// seen for seconds.
const START_WITH_FEEDBACK_BPS: u64 = 300_000;
/// Used where the application sets no cap.
const DEFAULT_MAX_BPS: u64 = 50_000_000;
/// Assumed until a receiver report tells.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
/// Targets go up only over time, so they are looked at this often.
const ALLOCATE_INTERVAL: Duration = Duration::from_millis(200);
/// The same without pictures: sound has one target only, and is never paused for want of bandwidth.
const SOUND_ALLOCATE_INTERVAL: Duration = Duration::from_secs(1);

/// A fall of the estimate to less than this is answered at once, if what was allocated does not fit any more.
const FALLEN_PERCENT: u64 = 80;
/// What the estimate must exceed unmet demand by: a little more than the allocator's own margin.
const UP_MARGIN_PERCENT: u64 = 30;

/// Bandwidth of one transport.
#[derive(Debug)]
pub(crate) struct Bandwidth {
    bwe: SendSideBwe,
    pacer: Pacer,
    allocator: Allocator,
    allocate_at: Instant,
    /// An estimate below this does not carry what was allocated, and is far from what was shared then.
    reallocate_below: u64,
    has_feedback: bool,
    /// What data channels used lately; media has so much less.
    data_bps: u64,
    told: Told,
    has_sent: bool,
}

/// What transport-wide feedback told since it was asked for. Numbers that no feedback names count as lost: some clients
/// begin each with the first packet that came.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    newest: Option<SeqNo>,
    numbers: u32,
    received: u32,
}

impl Told {
    fn take(&mut self, seq: SeqNo, is_received: bool) {
        let ahead = self.newest.map_or(1, |newest| seq.distance(newest));
        if ahead > 0 {
            self.newest = Some(seq);
            self.numbers += ahead as u32;
        }
        self.received += u32::from(is_received);
    }
}

impl Bandwidth {
    pub(crate) fn new(now: Instant, max_bps: Option<u64>) -> Self {
        let max_bps = max_bps.unwrap_or(DEFAULT_MAX_BPS);
        let bwe = SendSideBwe::new(START_BPS, max_bps, now);
        Self {
            pacer: Pacer::new(bwe.estimate_bps(), now),
            bwe,
            allocator: Allocator::new(),
            allocate_at: now,
            reallocate_below: 0,
            has_feedback: false,
            data_bps: 0,
            told: Told::default(),
            has_sent: false,
        }
    }

    /// Changes the cap of all that is sent.
    pub(crate) fn set_max_bps(&mut self, max_bps: Option<u64>) {
        self.bwe.set_max_bps(max_bps.unwrap_or(DEFAULT_MAX_BPS));
        self.pacer.set_estimate(self.bwe.estimate_bps());
    }

    /// The client agreed to transport-wide feedback. No effect once something was sent.
    pub(crate) fn expect_feedback(&mut self, now: Instant) {
        if !self.has_sent {
            self.bwe.set_start_bps(START_WITH_FEEDBACK_BPS, now);
            self.pacer.set_estimate(self.bwe.estimate_bps());
        }
    }

    /// Begins with what another node had found out of the same path's end.
    pub(crate) fn resume(&mut self, now: Instant, estimate_bps: u64) {
        self.bwe.set_start_bps(estimate_bps.max(START_WITH_FEEDBACK_BPS), now);
        self.pacer.set_estimate(self.bwe.estimate_bps());
    }

    /// Packets are sent soon.
    pub(crate) fn prefetch_sent(&self, cache: &impl Prefetch) {
        cache.prefetch(&self.pacer);
        self.bwe.prefetch_sent(cache);
    }

    /// The `count` records from `seq` on are used soon.
    pub(crate) fn prefetch_records(&self, seq: u16, count: u16, cache: &impl Prefetch) {
        self.bwe.prefetch_records(seq, count, cache);
    }

    pub(crate) fn rtt(&self) -> Duration {
        self.bwe.rtt().unwrap_or(DEFAULT_RTT)
    }

    /// Only if it was measured.
    pub(crate) fn known_rtt(&self) -> Option<Duration> {
        self.bwe.rtt()
    }

    /// Bandwidth that is not needed for what is sent, as a share of that. Nothing while a queue grows.
    pub(crate) fn spare_share(&self) -> f64 {
        let allocated = self.allocation().allocated_bps;
        if allocated == 0 || self.bwe.is_overusing() {
            return 0.0;
        }
        self.bwe.estimate_bps().saturating_sub(allocated) as f64 / allocated as f64
    }

    pub(crate) fn estimate_bps(&self) -> u64 {
        self.bwe.estimate_bps()
    }

    /// The estimate, and what media leaves of it.
    pub(crate) fn left_over(&self) -> (u64, u64) {
        let estimate = self.bwe.estimate_bps();
        (estimate, estimate.saturating_sub(self.allocator.allocation().allocated_bps))
    }

    /// Tells what data channels use.
    pub(crate) fn set_data_bps(&mut self, bps: u64) {
        self.data_bps = bps;
    }

    /// Nothing waits for the budget any more.
    pub(crate) fn on_queue_empty(&mut self) {
        self.pacer.end_catching_up();
    }

    pub(crate) fn media_budget(&mut self, now: Instant) -> usize {
        self.pacer.budget(now)
    }

    pub(crate) fn padding_budget(&mut self, now: Instant) -> usize {
        self.pacer.padding_budget(now)
    }

    pub(crate) fn max_queue_bytes(&self) -> usize {
        self.pacer.max_queue_bytes()
    }

    pub(crate) fn next_media_at(&self) -> Option<Instant> {
        self.pacer.next_media_at()
    }

    pub(crate) fn next_probe_at(&self, now: Instant) -> Option<Instant> {
        self.pacer.next_probe_at(now)
    }

    pub(crate) fn on_packet_sent(&mut self, now: Instant, number: Option<u16>, bytes: usize, class: PacketClass) {
        self.has_sent = true;
        let cluster = self.pacer.cluster();
        self.bwe.on_packet_sent(number, bytes, class, cluster, now);
        self.pacer.on_sent(bytes);
        if cluster.is_some() {
            self.pacer.on_probe_packet(bytes);
        }
    }

    /// Takes transport-wide feedback.
    pub(crate) fn on_transport_cc(&mut self, now: Instant, feedback: &TransportCc<'_>) {
        self.has_feedback = true;
        let mut ticks = feedback.reference_ticks();
        let mut told = self.told;
        let packets = feedback.statuses().map(|(seq, delta)| {
            let arrived_at_us = delta.map(|delta| {
                ticks += i64::from(delta);
                ticks * TICK_US
            });
            told.take(seq, delta.is_some());
            PacketFeedback { seq: seq.0, arrived_at_us }
        });
        self.bwe.on_feedback(packets, now);
        self.told = told;
        self.follow(now);
    }

    /// Share of packets lost since the last call by transport-wide feedback, if that told of enough of them.
    pub(crate) fn take_loss(&mut self) -> Option<f32> {
        const ENOUGH: u32 = 20;
        let Told { newest, numbers, received } = self.told;
        self.told = Told { newest, ..Told::default() };
        (numbers >= ENOUGH).then(|| 1.0 - received.min(numbers) as f32 / numbers as f32)
    }

    pub(crate) fn on_receiver_report(&mut self, now: Instant, fraction_lost: u8, rtt: Option<Duration>) {
        self.bwe.on_receiver_report(fraction_lost, rtt, now);
        self.follow(now);
    }

    pub(crate) fn on_remb(&mut self, now: Instant, bps: u64) {
        self.bwe.on_remb(bps, now);
        self.follow(now);
    }

    fn follow(&mut self, now: Instant) {
        if let Some(probe) = self.bwe.poll_probe(self.has_feedback, now) {
            self.pacer.start_probe(probe, now);
        }
        self.pacer.set_estimate(self.bwe.estimate_bps());
        self.pacer.set_draining(self.bwe.is_draining());
        if self.bwe.loses_anyway() {
            self.pacer.end_catching_up();
        }
    }

    /// True while the queue on the path is to empty.
    pub(crate) fn is_draining(&self) -> bool {
        self.bwe.is_draining()
    }

    /// True if the estimate has fallen so far that what is sent fills the path until targets are looked at again.
    pub(crate) fn has_fallen(&self) -> bool {
        self.bwe.estimate_bps() < self.reallocate_below
    }

    /// When targets are to be looked at next.
    pub(crate) fn allocate_at(&self) -> Instant {
        self.allocate_at
    }

    /// The last result of `allocate`.
    pub(crate) fn allocation(&self) -> &Allocation {
        self.allocator.allocation()
    }

    /// Shares the estimate among the demands. `repair_cost`: what is sent again, as a share of what is sent.
    pub(crate) fn allocate(&mut self, now: Instant, demands: &[Demand], repair_cost: f64) -> &Allocation {
        let has_pictures = demands.iter().any(|d| d.kind == Kind::Video && !d.is_paused);
        self.allocate_at = now + if has_pictures { ALLOCATE_INTERVAL } else { SOUND_ALLOCATE_INTERVAL };
        self.follow(now);
        // Data never has more than media leaves, but for its least share: at most that is taken from media.
        let data_bps = self.data_bps.min(self.bwe.estimate_bps() / 8);
        let left_bps = (self.bwe.estimate_bps() - data_bps) as f64 / (1.0 + repair_cost);
        let allocation = self.allocator.allocate(now, left_bps as u64, demands);
        // The allocator goes up only with a margin, so an estimate that just covers the demand is not enough.
        let is_met = allocation.allocated_bps >= allocation.desired_bps;
        let margin = if is_met { 0 } else { allocation.desired_bps * UP_MARGIN_PERCENT / 100 };
        self.bwe.set_desired_bps(((allocation.desired_bps + margin) as f64 * (1.0 + repair_cost)) as u64);
        self.pacer.set_floor(if self.has_feedback { 0 } else { allocation.allocated_bps });
        let fallen_bps = self.bwe.estimate_bps() * FALLEN_PERCENT / 100;
        self.reallocate_below = fallen_bps.min(allocation.allocated_bps);
        allocation
    }
}
