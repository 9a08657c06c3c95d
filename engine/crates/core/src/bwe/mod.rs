//! How much a subscriber's path takes: Google congestion control, sending side.
//!
//! One [`SendSideBwe`] per subscriber transport. Transport-wide feedback drives it; a client without that is followed by
//! REMB, one without either by the loss in its receiver reports. See `docs/algorithms/bandwidth.md`.
//!
//! The algorithms are those of libwebrtc's `goog_cc` (BSD) as seen also in str0m's `bwe` (MIT or Apache-2.0), written
//! anew for a server: no allocation per packet, everything costly at feedback time.

mod acked_bitrate;
mod alr;
mod arrival_groups;
mod dispersion;
mod loss;
mod probe_control;
mod probe_estimator;
mod rate_control;
mod receive_side;
#[cfg(test)]
mod scenarios;
mod sent_packets;
mod trendline;

use std::time::{Duration, Instant};

use mrtc_rtp::rtcp::twcc::{TICK_US, TransportCc};

use crate::prefetch::Prefetch;
use acked_bitrate::AckedBitrate;
use alr::AlrDetector;
use arrival_groups::ArrivalGroups;
use dispersion::Dispersion;
use loss::{LossModel, ReportedLoss};
use probe_control::{ProbeControl, ProbeInput};
use probe_estimator::ProbeEstimator;
use rate_control::RateControl;
pub(crate) use receive_side::ReceiveSideBwe;
use sent_packets::{Acked, SentPackets};
use trendline::{Trendline, Usage};

/// No estimate falls below: sound and some signalling must go on.
pub const MIN_BPS: u64 = 30_000;
/// Used while the round trip is unknown.
const DEFAULT_RTT: Duration = Duration::from_millis(100);
/// While packets go out and no feedback comes for this long, the path is taken for full or broken ...
const SILENCE_US: i64 = 1_500_000;
/// ... and the estimate falls by this share ...
const SILENCE_SHARE: f64 = 0.8;
/// ... this often.
const SILENCE_STEP_US: i64 = 500_000;
/// Loss alone does not touch the estimate so early: the first probes overshoot and lose packets by design.
const STARTUP_US: i64 = 2_000_000;
/// After little was sent, a drop of the estimate is taken for an artefact for so long.
const ALR_MEMORY_US: i64 = 3_000_000;
/// A queue that is full no longer grows, so its trend shows nothing. It is seen by delay and loss together: this much
/// above the least round trip ...
const FULL_QUEUE: Duration = Duration::from_millis(100);
/// ... and this share lost.
const FULL_QUEUE_LOSS: f64 = 0.02;
/// Of what is lost with an empty queue, more than this is the path's.
const INHERENT: f64 = 0.05;
/// A path that suddenly takes much less is seen before the trend, which is smoothed, can tell: the round trip is this
/// much above its least ...
const SUDDEN: Duration = Duration::from_millis(80);
/// ... after it grew by this much with each of the last two feedbacks ...
const SUDDEN_GROWTH: Duration = Duration::from_millis(15);
const SUDDEN_GROWTHS: u32 = 2;
/// ... and packets that queue come at less than this share of what arrived before.
const SUDDEN_SHARE: f64 = 0.7;
/// After overuse the queue counts as drained when the round trip is this near to its least ...
const DRAINED: Duration = Duration::from_millis(30);
/// ... and after this in any case: the path may have become longer.
const MAX_DRAIN_US: i64 = 1_500_000;
/// A queue that is sent less than it lets out shrinks by this much within some round trips ...
const SHRINKS: Duration = Duration::from_millis(20);
/// ... so many of them, but not before this time. What does not shrink is no queue but a longer path.
const SHRINKS_WITHIN_RTTS: f64 = 3.0;
const SHRINKS_WITHIN_US: f64 = 500_000.0;
/// So much less than what came out of the queue must have been sent meanwhile, repairs included.
const SHRINKS_AT_SHARE: f64 = 0.85;
/// The least round trip is forgotten by this share with each feedback, so that a longer route is believed in time.
const MIN_RTT_DRIFT: f64 = 0.001;
const POLL_INTERVAL: Duration = Duration::from_millis(50);

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
    /// Marks the packets of this probe, see [`SendSideBwe::on_packet_sent`]. Never 0.
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

/// The packets that a transport-wide feedback tells about, for [`SendSideBwe::on_feedback`].
pub fn packets_of<'a>(feedback: &TransportCc<'a>) -> impl Iterator<Item = PacketFeedback> + use<'a> {
    let mut ticks = feedback.reference_ticks();
    feedback.statuses().map(move |(seq, delta)| {
        ticks += i64::from(delta.unwrap_or(0));
        PacketFeedback { seq: seq.0, arrived_at_us: delta.map(|_| ticks * TICK_US) }
    })
}

/// A queue on the path that is being emptied.
#[derive(Clone, Copy, Debug)]
struct Draining {
    /// When it was last seen to grow.
    grew_us: i64,
    /// What came out of it in the first trial, in bit/s.
    outflow_bps: Option<f64>,
    /// The trial under way: does the round trip shrink when less is sent than came out before?
    since_us: i64,
    sent_bytes: u64,
    received_bytes: u64,
    first_rtt_us: f64,
    least_rtt_us: f64,
}

impl Draining {
    fn begin(outflow_bps: Option<f64>, rtt_us: f64, now_us: i64) -> Self {
        Self {
            grew_us: now_us,
            outflow_bps,
            since_us: now_us,
            sent_bytes: 0,
            received_bytes: 0,
            first_rtt_us: rtt_us,
            least_rtt_us: rtt_us,
        }
    }

    fn is_trial_over(&self, now_us: i64) -> bool {
        let long_us = (self.first_rtt_us * SHRINKS_WITHIN_RTTS).clamp(SHRINKS_WITHIN_US, MAX_DRAIN_US as f64);
        (now_us - self.since_us) as f64 > long_us
    }

    fn bps(&self, bytes: u64, now_us: i64) -> f64 {
        bytes as f64 * 8e6 / (now_us - self.since_us).max(1) as f64
    }

    /// True if less was sent than had come out of the queue before, and the round trip stays where it is all the same.
    fn is_path_longer(&self, now_us: i64) -> bool {
        let is_less = self.outflow_bps.is_some_and(|out| self.bps(self.sent_bytes, now_us) < out * SHRINKS_AT_SHARE);
        is_less && self.first_rtt_us - self.least_rtt_us < SHRINKS.as_secs_f64() * 1e6
    }
}

/// Where the estimate comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Nothing came yet, or receiver reports only.
    Reports,
    Remb,
    Feedback,
}

/// The estimator of one subscriber.
#[derive(Debug)]
pub struct SendSideBwe {
    sending: Sending,
    max_bps: u64,
    desired_bps: u64,
    source: Source,
    remb_bps: u64,
    rtt: Option<Duration>,
    min_rtt_us: f64,
    /// Of the last feedback.
    last_rtt_us: f64,
    /// With how many feedbacks in a row it grew much.
    rtt_growths: u32,
    loss_share: f64,
    acked: Vec<Acked>,
    acked_bitrate: AckedBitrate,
    groups: ArrivalGroups,
    dispersion: Dispersion,
    trendline: Trendline,
    rate: RateControl,
    loss: LossModel,
    reported: ReportedLoss,
    probes: ProbeControl,
    probe_estimator: ProbeEstimator,
    reported_us: i64,
    first_feedback_us: Option<i64>,
}

/// What each packet touches that goes out: together, since with hundreds of subscribers it comes from memory each time.
#[derive(Debug)]
struct Sending {
    epoch: Instant,
    sent: SentPackets,
    alr: AlrDetector,
    /// From when the queue grew until it has drained.
    draining: Option<Box<Draining>>,
    /// Bytes since the last receiver report.
    reported_bytes: u64,
    /// Last feedback, or step down for want of it.
    heard_us: i64,
    has_sent_since_heard: bool,
}

impl SendSideBwe {
    /// Begins at `start_bps` and never estimates more than `max_bps`.
    pub fn new(start_bps: u64, max_bps: u64, now: Instant) -> Self {
        let start = start_bps.clamp(MIN_BPS, max_bps.max(MIN_BPS)) as f64;
        Self {
            sending: Sending {
                epoch: now,
                sent: SentPackets::default(),
                alr: AlrDetector::new(),
                draining: None,
                reported_bytes: 0,
                heard_us: 0,
                has_sent_since_heard: false,
            },
            max_bps: max_bps.max(MIN_BPS),
            desired_bps: 0,
            source: Source::Reports,
            remb_bps: 0,
            rtt: None,
            min_rtt_us: f64::MAX,
            last_rtt_us: 0.0,
            rtt_growths: 0,
            loss_share: 0.0,
            acked: Vec::new(),
            acked_bitrate: AckedBitrate::new(),
            groups: ArrivalGroups::default(),
            dispersion: Dispersion::default(),
            trendline: Trendline::new(),
            rate: RateControl::new(start, MIN_BPS as f64),
            loss: LossModel::new(),
            reported: ReportedLoss::new(start),
            probes: ProbeControl::new(),
            probe_estimator: ProbeEstimator::default(),
            reported_us: 0,
            first_feedback_us: None,
        }
    }

    /// A packet is recorded soon: this struct's part of it.
    pub(crate) fn prefetch_sent(&self, cache: &impl Prefetch) {
        cache.prefetch(&self.sending);
    }

    /// The `count` records from `seq` on are used soon.
    pub(crate) fn prefetch_records(&self, seq: u16, count: u16, cache: &impl Prefetch) {
        self.sending.sent.prefetch(seq, count, cache);
    }

    /// Changes the upper limit (a cap of the app or of the participant).
    pub fn set_max_bps(&mut self, max_bps: u64) {
        self.max_bps = max_bps.max(MIN_BPS);
    }

    /// Begins anew at `start_bps`; only before anything was sent.
    pub fn set_start_bps(&mut self, start_bps: u64, now: Instant) {
        *self = Self { desired_bps: self.desired_bps, ..Self::new(start_bps, self.max_bps, now) };
    }

    /// What the allocator could use in all; probing goes little further than that. Zero: no probes.
    pub fn set_desired_bps(&mut self, bps: u64) {
        self.desired_bps = bps;
    }

    fn us(&self, now: Instant) -> i64 {
        now.saturating_duration_since(self.sending.epoch).as_micros() as i64
    }

    fn rtt_ms(&self) -> f64 {
        self.rtt.unwrap_or(DEFAULT_RTT).as_secs_f64() * 1e3
    }

    /// Records a packet that goes out now. `seq` is its transport-wide number, `None` if the client takes none. `size`
    /// is the UDP payload. `cluster` is [`Pacer::cluster`](crate::pacer::Pacer::cluster) at that time.
    pub fn on_packet_sent(
        &mut self,
        seq: Option<u16>,
        size: usize,
        class: PacketClass,
        cluster: Option<u8>,
        now: Instant,
    ) {
        let now_us = self.us(now);
        let sending = &mut self.sending;
        sending.reported_bytes += size as u64;
        if let Some(draining) = &mut sending.draining {
            draining.sent_bytes += size as u64;
        }
        if class == PacketClass::Media {
            sending.alr.on_sent(size);
        }
        let Some(seq) = seq else { return };
        if !sending.has_sent_since_heard {
            sending.has_sent_since_heard = true;
            sending.heard_us = now_us;
        }
        sending.sent.record(seq, size, cluster.unwrap_or(0), now_us);
    }

    /// Takes one transport-wide feedback packet, in order of its sequence numbers.
    pub fn on_feedback(&mut self, packets: impl Iterator<Item = PacketFeedback>, now: Instant) {
        let now_us = self.us(now);
        let mut acked = std::mem::take(&mut self.acked);
        let sums = self.sending.sent.resolve(packets, &mut acked);
        if sums.received + sums.lost > 0 {
            self.source = Source::Feedback;
            self.sending.heard_us = now_us;
            self.sending.has_sent_since_heard = false;
            self.first_feedback_us.get_or_insert(now_us);
            self.take_rtt(&acked, now_us);
            let loss = f64::from(sums.lost) / f64::from(sums.received + sums.lost);
            self.loss_share += (loss - self.loss_share) / 4.0;
            for packet in &acked {
                self.acked_bitrate.add(packet.arrived_us, packet.size);
                if let Some(delta) = self.groups.add(packet) {
                    self.trendline.add(delta);
                }
            }
            self.dispersion.add(&acked);
            self.control_rate(&acked, now_us);
            let is_startup = now_us - self.first_feedback_us.unwrap_or(now_us) < STARTUP_US;
            if !is_startup || sums.lost == 0 {
                let is_queue_empty = self.sending.draining.is_none() && self.is_drained();
                let acked_bps = self.acked_bitrate.bps();
                self.loss.update(&sums, self.rate.estimate_bps(), acked_bps, is_queue_empty, now_us);
            }
        }
        self.acked = acked;
    }

    fn take_rtt(&mut self, acked: &[Acked], now_us: i64) {
        // The newest packet waited least for the feedback to be sent.
        let Some(newest_us) = acked.iter().map(|a| a.sent_us).max() else { return };
        let sample_us = (now_us - newest_us).max(0);
        self.smooth_rtt(Duration::from_micros(sample_us as u64));
        let drifted = self.min_rtt_us + self.min_rtt_us.min(1e6) * MIN_RTT_DRIFT;
        let has_grown = sample_us as f64 - self.last_rtt_us > SUDDEN_GROWTH.as_secs_f64() * 1e6;
        self.rtt_growths = if has_grown { self.rtt_growths + 1 } else { 0 };
        self.last_rtt_us = sample_us as f64;
        self.min_rtt_us = drifted.min(sample_us as f64);
    }

    fn is_queue_full(&self) -> bool {
        self.loss_share > FULL_QUEUE_LOSS && self.last_rtt_us - self.min_rtt_us > FULL_QUEUE.as_secs_f64() * 1e6
    }

    fn has_fallen_suddenly(&self) -> bool {
        let is_late = self.last_rtt_us - self.min_rtt_us > SUDDEN.as_secs_f64() * 1e6;
        let comes_slowly = match (self.dispersion.bps(), self.acked_bitrate.bps()) {
            (Some(queued), Some(acked)) => queued < acked * SUDDEN_SHARE,
            _ => false,
        };
        is_late && self.rtt_growths >= SUDDEN_GROWTHS && comes_slowly
    }

    fn usage(&self) -> Usage {
        if self.is_queue_full() || self.has_fallen_suddenly() { Usage::Overuse } else { self.trendline.usage() }
    }

    /// RFC 6298: an eighth of each new sample.
    fn smooth_rtt(&mut self, sample: Duration) {
        self.rtt = Some(self.rtt.map_or(sample, |rtt| (rtt * 7 + sample) / 8));
    }

    fn control_rate(&mut self, acked: &[Acked], now_us: i64) {
        self.sending.alr.update(self.rate.estimate_bps(), now_us);
        let acked_bps = self.acked_bitrate.bps();
        let usage = self.usage();
        self.note_draining(usage, acked, now_us);
        let probed = self.probe_estimator.update(acked);
        match probed {
            Some(bps) if usage != Usage::Overuse => {
                self.probes.on_result(bps);
                self.take_probed(bps, acked_bps, now_us);
            }
            _ => {
                self.rate.update(usage, self.arriving_bps(usage), self.sending.alr.is_limited(), self.rtt_ms(), now_us)
            }
        }
        // What nobody may use is not estimated: else a cap that is lifted would let go a flood.
        if self.rate.estimate_bps() > self.max_bps as f64 {
            self.rate.set(self.max_bps as f64, now_us);
        }
    }

    /// True if next to nothing waits on the path.
    pub(crate) fn is_drained(&self) -> bool {
        self.last_rtt_us - self.min_rtt_us < DRAINED.as_secs_f64() * 1e6
    }

    fn note_draining(&mut self, usage: Usage, acked: &[Acked], now_us: i64) {
        let rtt_us = self.last_rtt_us;
        if usage == Usage::Overuse {
            self.sending.draining.get_or_insert_with(|| Box::new(Draining::begin(None, rtt_us, now_us))).grew_us =
                now_us;
        }
        let Some(draining) = &mut self.sending.draining else { return };
        draining.least_rtt_us = draining.least_rtt_us.min(rtt_us);
        draining.received_bytes += acked.iter().map(|packet| u64::from(packet.size)).sum::<u64>();
        let draining = **draining;
        let is_trial_over = draining.is_trial_over(now_us);
        if self.is_queue_full() && is_trial_over && draining.is_path_longer(now_us) {
            // Loss that comes with it is no sign of a full queue.
            self.min_rtt_us = draining.least_rtt_us;
            self.sending.draining = None;
        } else if usage != Usage::Overuse && (self.is_drained() || now_us - draining.grew_us > MAX_DRAIN_US) {
            self.sending.draining = None;
        } else if is_trial_over {
            let outflow_bps = draining.outflow_bps.unwrap_or_else(|| draining.bps(draining.received_bytes, now_us));
            let next = Draining::begin(Some(outflow_bps), rtt_us, now_us);
            self.sending.draining = Some(Box::new(Draining { grew_us: draining.grew_us, ..next }));
        }
    }

    /// What the path is known to take: the average, or, while a queue grows, what comes out of it if that is more.
    fn arriving_bps(&self, usage: Usage) -> Option<f64> {
        let acked = self.acked_bitrate.bps()?;
        let queued = self.dispersion.bps().filter(|bps| usage == Usage::Overuse && !self.is_shared(*bps));
        // Behind a full queue, and after a fall, the average still tells of the time before.
        let is_average_old = self.loss_share > FULL_QUEUE_LOSS || self.has_fallen_suddenly();
        Some(queued.map_or(acked, |bps| if is_average_old { bps } else { bps.max(acked) }))
    }

    /// True if a queue that lets out more than is sent stays full all the same: others fill it too, and what they leave
    /// of it is what arrives on average. Those who yield when they lose something do not fill it for long.
    fn is_shared(&self, queued_bps: f64) -> bool {
        let has_lasted = self.sending.draining.as_ref().is_some_and(|draining| draining.outflow_bps.is_some());
        has_lasted && self.is_queue_full() && queued_bps * rate_control::BETA > self.rate.estimate_bps()
    }

    /// A probe raises the estimate. It lowers it only to what arrives at least: a probe's few packets are no proof
    /// against media that arrives at a higher rate.
    fn take_probed(&mut self, bps: f64, acked_bps: Option<f64>, now_us: i64) {
        let floor = acked_bps.unwrap_or(0.0).min(self.rate.estimate_bps());
        let probed = bps.max(floor);
        self.rate.set_probed(probed, now_us);
        self.loss.set_probed(probed);
    }

    /// Takes a report block: `fraction_lost` as in RFC 3550 (of 256), the round trip if it could be computed.
    pub fn on_receiver_report(&mut self, fraction_lost: u8, rtt: Option<Duration>, now: Instant) {
        if let Some(rtt) = rtt {
            self.smooth_rtt(rtt);
        }
        if self.source == Source::Feedback {
            return;
        }
        let now_us = self.us(now);
        let elapsed_us = now_us - self.reported_us;
        if elapsed_us < 100_000 {
            // Several streams report in one compound: their loss is one and the same path's. The first one counts.
            return;
        }
        let sent_bps = self.sending.reported_bytes as f64 * 8e6 / elapsed_us as f64;
        self.reported_us = now_us;
        self.sending.reported_bytes = 0;
        let rtt_us = self.rtt.unwrap_or(DEFAULT_RTT).as_micros() as i64;
        self.reported.update(f64::from(fraction_lost) / 256.0, sent_bps, rtt_us, now_us);
    }

    /// Takes a REMB; ignored as soon as transport-wide feedback came.
    pub fn on_remb(&mut self, bps: u64, _now: Instant) {
        if self.source != Source::Feedback {
            self.source = Source::Remb;
            self.remb_bps = bps;
        }
    }

    /// What the path takes now, in bit/s of UDP payload.
    pub fn estimate_bps(&self) -> u64 {
        let bps = match self.source {
            Source::Feedback => {
                let delay = self.rate.estimate_bps();
                self.loss.limit_bps().map_or(delay, |loss| loss.min(delay)) as u64
            }
            Source::Remb => self.remb_bps,
            Source::Reports => self.reported.bps() as u64,
        };
        bps.clamp(MIN_BPS, self.max_bps)
    }

    /// What arrives per second, if transport-wide feedback tells.
    pub fn acked_bps(&self) -> Option<u64> {
        self.acked_bitrate.bps().map(|bps| bps as u64)
    }

    /// Smoothed round trip, if known.
    pub fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// True from overuse until the queue on the path has emptied: send without bursts.
    pub fn is_draining(&self) -> bool {
        self.sending.draining.is_some()
    }

    /// True if the path loses much at any rate.
    pub(crate) fn loses_anyway(&self) -> bool {
        self.loss.seen_inherent() > INHERENT
    }

    /// True while the queue on the path grows: send nothing that is not needed.
    pub fn is_overusing(&self) -> bool {
        self.usage() == Usage::Overuse
    }

    /// Call at [`SendSideBwe::next_timeout`] or later, and after each feedback: a probe to begin now, to be handed to
    /// [`Pacer::start_probe`](crate::pacer::Pacer::start_probe). `None` most of the time, and always for a client
    /// without transport-wide feedback (`can_probe` false).
    pub fn poll_probe(&mut self, can_probe: bool, now: Instant) -> Option<Probe> {
        let now_us = self.us(now);
        self.fall_if_silent(now_us);
        if !can_probe {
            return None;
        }
        let estimate_bps = self.estimate_bps() as f64;
        self.sending.alr.update(estimate_bps, now_us);
        let input = ProbeInput {
            estimate_bps,
            desired_bps: self.desired_bps as f64,
            max_bps: self.max_bps as f64,
            is_overusing: self.is_overusing(),
            is_loss_limited: self.loss.is_limiting(),
            was_application_limited: self.sending.alr.was_limited_within(ALR_MEMORY_US, now_us),
        };
        let probe = self.probes.poll(&input, now_us)?;
        self.probe_estimator.start(probe, now_us);
        Some(probe)
    }

    /// Packets go out and nothing comes back: the path is full, or the feedback is lost with the rest.
    fn fall_if_silent(&mut self, now_us: i64) {
        let is_silent = self.source == Source::Feedback && self.sending.has_sent_since_heard;
        if is_silent && now_us - self.sending.heard_us >= SILENCE_US {
            self.sending.heard_us += SILENCE_STEP_US;
            self.rate.set(self.estimate_bps() as f64 * SILENCE_SHARE, now_us);
        }
    }

    /// When `poll_probe` should be called at the latest.
    pub fn next_timeout(&self, now: Instant) -> Instant {
        now + POLL_INTERVAL
    }
}
