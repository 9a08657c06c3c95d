//! Puts the packets of one layer of a track into order and makes access units of them.
//!
//! Missing packets are waited for up to [`MAX_WAIT`], since retransmissions may bring them. Then sound goes on behind
//! the gap, and pictures go on with the next key frame, which is asked for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mrtc_rtp::codec::PayloadInfo;
use mrtc_rtp::id::ExtSeq;
use mrtc_rtp::payload::depacketize;
use mrtc_rtp::seq::TimestampExtender;

use crate::command::{Codec, Kind};
use crate::packet::SenderReportMap;

/// How long a missing packet is waited for: several rounds of retransmission on a slow path. Delay costs a recording
/// nothing, a lost picture costs all up to the next key frame.
pub const MAX_WAIT: Duration = Duration::from_millis(400);
/// A key frame's first packet that comes without the one before it may have been overtaken by that (H.264's parameter
/// sets travel ahead of the picture): this long the other one is given.
const REORDER_WAIT: Duration = Duration::from_millis(50);
/// A key frame is asked for again after this.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(1);
/// Bounds of what is held. Ten seconds of 8 Mb/s video in packets, more than [`MAX_WAIT`] ever needs.
const MAX_HELD_PACKETS: usize = 8_192;
const MAX_HELD_BYTES: usize = 16 << 20;
/// A number this far from the expected one belongs to a new sequence.
const MAX_JUMP: u64 = 16_384;
/// Media time and time of arrival that disagree by more than this over a break belong to different clocks.
const MAX_CLOCK_STEP_S: i64 = 2;

/// One access unit, in decode order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembledFrame {
    /// A decoder can start here; always true for sound.
    pub is_keyframe: bool,
    /// Frames before this one were lost.
    pub is_discontinuous: bool,
    /// Unwrapped RTP timestamp in units of the codec's clock. Goes on over a restart of the sender.
    pub rtp_time: u64,
    /// When it was captured on this node's wall clock, Unix microseconds; see [`crate::event::SinkFrame`].
    pub captured_at_us: i64,
    /// See [`crate::event::SinkFrame`].
    pub data: Vec<u8>,
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SinkCounters {
    /// Given out.
    pub frames: u64,
    /// Whole frames that were not given out: damaged, or pictures before a key frame.
    pub frames_dropped: u64,
    /// Packets that came too late or twice.
    pub packets_late: u64,
    /// How often a missing packet was given up.
    pub gaps: u64,
}

#[derive(Debug)]
struct Held {
    timestamp: u64,
    marker: bool,
    starts_keyframe: bool,
    arrived_at: Instant,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Waits for the first packet (sound) or a key frame (pictures).
    Seeking,
    /// The packet `next` begins the next frame; up to `scanned` it is whole so far.
    Running { next: u64, scanned: u64 },
}

/// What lies at the front of the buffer.
enum Front {
    /// A whole frame up to, and without, this number.
    Whole(u64),
    /// It goes on with packets that did not come yet.
    Growing,
    /// A packet is missing; the one behind it came at this time.
    Missing(Instant),
}

/// See the module.
#[derive(Debug)]
pub struct SinkAssembler {
    codec: Codec,
    is_video: bool,
    epoch: (Instant, i64),
    held: BTreeMap<u64, Held>,
    held_bytes: usize,
    state: State,
    is_discontinuous: bool,
    keyframe_request: bool,
    keyframe_requested_at: Option<Instant>,
    timestamps: TimestampExtender,
    timeline: Timeline,
    sender_report: Option<SenderReportMap>,
    counters: SinkCounters,
}

impl SinkAssembler {
    /// For a track of `codec`. It is `unix_us_at_epoch` Unix microseconds at `epoch`.
    pub fn new(codec: Codec, epoch: Instant, unix_us_at_epoch: i64) -> Self {
        Self {
            codec,
            is_video: codec.kind() == Kind::Video,
            epoch: (epoch, unix_us_at_epoch),
            held: BTreeMap::new(),
            held_bytes: 0,
            state: State::Seeking,
            is_discontinuous: false,
            keyframe_request: false,
            keyframe_requested_at: None,
            timestamps: TimestampExtender::new(),
            timeline: Timeline::new(codec.clock_rate()),
            sender_report: None,
            counters: SinkCounters::default(),
        }
    }

    /// What became of packets so far.
    pub fn counters(&self) -> SinkCounters {
        self.counters
    }

    /// Takes a packet; an empty payload is padding, which only fills the sequence.
    pub fn push(&mut self, now: Instant, seq: ExtSeq, rtp_timestamp: u32, marker: bool, payload: &[u8]) {
        if let State::Running { next, .. } = self.state {
            if seq.0.abs_diff(next) > MAX_JUMP {
                self.restart();
            } else if seq.0 < next {
                self.counters.packets_late += 1;
                return;
            }
        }
        if self.held.contains_key(&seq.0) {
            self.counters.packets_late += 1;
            return;
        }
        let info = PayloadInfo::inspect(self.codec.into(), payload, None);
        let held = Held {
            timestamp: self.timestamps.extend(rtp_timestamp),
            marker,
            starts_keyframe: info.is_keyframe && info.is_frame_start && !payload.is_empty(),
            arrived_at: now,
            payload: payload.to_vec(),
        };
        self.held_bytes += payload.len();
        self.held.insert(seq.0, held);
    }

    /// Takes a sender report of the layer, mapped to this node's clock.
    pub fn set_sender_report(&mut self, map: SenderReportMap) {
        self.sender_report = Some(map);
    }

    /// What comes next has no relation in sequence and time to what came: the track was muted, or its layer changed.
    pub fn restart(&mut self) {
        self.held.clear();
        self.held_bytes = 0;
        self.state = State::Seeking;
        self.is_discontinuous = self.timeline.has_begun();
        self.timestamps = TimestampExtender::new();
        self.timeline.expect_break();
        self.sender_report = None;
    }

    /// True once after a key frame became necessary, and again each second until it came.
    pub fn take_keyframe_request(&mut self) -> bool {
        std::mem::take(&mut self.keyframe_request)
    }

    /// The next frame, if one is whole.
    pub fn poll(&mut self, now: Instant) -> Option<AssembledFrame> {
        loop {
            let State::Running { next, scanned } = self.state else {
                if self.seek(now) {
                    continue;
                }
                return None;
            };
            match self.front(next, scanned) {
                Front::Whole(end) => {
                    if let Some(frame) = self.take_frame(next, end) {
                        return Some(frame);
                    }
                }
                Front::Missing(behind_at) if now >= behind_at + MAX_WAIT || self.is_overfull() => self.skip_gap(),
                Front::Growing if self.is_overfull() => self.restart(),
                Front::Growing | Front::Missing(_) => return None,
            }
        }
    }

    /// When [`Self::poll`] may do something without a new packet.
    pub fn next_at(&self) -> Option<Instant> {
        match self.state {
            State::Seeking => {
                let request_at = self.keyframe_requested_at.filter(|_| self.is_video).map(|at| at + KEYFRAME_INTERVAL);
                let start_at = self.held.values().find(|h| h.starts_keyframe).map(|h| h.arrived_at + REORDER_WAIT);
                [request_at, start_at].into_iter().flatten().min()
            }
            State::Running { scanned, .. } => {
                let (_, behind) = self.held.range(scanned..).next()?;
                Some(behind.arrived_at + MAX_WAIT)
            }
        }
    }

    #[cfg(test)]
    pub(super) fn held_packets(&self) -> usize {
        self.held.len()
    }

    fn is_overfull(&self) -> bool {
        self.held.len() > MAX_HELD_PACKETS || self.held_bytes > MAX_HELD_BYTES
    }

    /// Finds where to begin. True if found.
    fn seek(&mut self, now: Instant) -> bool {
        let start =
            if self.is_video { self.keyframe_start(now) } else { self.held.first_key_value().map(|(&seq, _)| seq) };
        if let Some(start) = start {
            self.drop_before(start);
            self.state = State::Running { next: start, scanned: start };
            self.keyframe_requested_at = None;
            return true;
        }
        if self.is_video {
            self.request_keyframe(now);
            self.drop_old(now);
        }
        false
    }

    fn keyframe_start(&self, now: Instant) -> Option<u64> {
        let (&seq, held) = self.held.iter().find(|(_, h)| h.starts_keyframe)?;
        let has_predecessor = seq.checked_sub(1).is_some_and(|before| self.held.contains_key(&before));
        (has_predecessor || now >= held.arrived_at + REORDER_WAIT).then_some(seq)
    }

    fn request_keyframe(&mut self, now: Instant) {
        if self.keyframe_requested_at.is_none_or(|at| now >= at + KEYFRAME_INTERVAL) {
            self.keyframe_requested_at = Some(now);
            self.keyframe_request = true;
        }
    }

    /// Drops what cannot become part of a key frame any more.
    fn drop_old(&mut self, now: Instant) {
        while let Some(entry) = self.held.first_entry() {
            let is_old = now >= entry.get().arrived_at + MAX_WAIT;
            if !is_old && self.held.len() <= MAX_HELD_PACKETS && self.held_bytes <= MAX_HELD_BYTES {
                return;
            }
            if let Some((_, held)) = self.held.pop_first() {
                self.held_bytes -= held.payload.len();
            }
        }
    }

    fn drop_before(&mut self, seq: u64) {
        let kept = self.held.split_off(&seq);
        let dropped = std::mem::replace(&mut self.held, kept);
        self.held_bytes -= dropped.values().map(|h| h.payload.len()).sum::<usize>();
    }

    fn front(&mut self, next: u64, scanned: u64) -> Front {
        let timestamp = self.held.range(next..scanned).find(|(_, h)| !h.payload.is_empty()).map(|(_, h)| h.timestamp);
        let mut timestamp = timestamp;
        let mut expected = scanned;
        for (&seq, held) in self.held.range(scanned..) {
            if seq != expected {
                self.state = State::Running { next, scanned: expected };
                return Front::Missing(held.arrived_at);
            }
            expected += 1;
            if held.payload.is_empty() {
                if timestamp.is_none() {
                    return Front::Whole(expected);
                }
                continue;
            }
            // Without a marker, a new timestamp ends the frame before it.
            if timestamp.is_some_and(|t| t != held.timestamp) {
                return Front::Whole(seq);
            }
            if held.marker || !self.is_video {
                return Front::Whole(expected);
            }
            timestamp = Some(held.timestamp);
        }
        self.state = State::Running { next, scanned: expected };
        Front::Growing
    }

    /// Gives up what is missing.
    fn skip_gap(&mut self) {
        let State::Running { scanned, .. } = self.state else { return };
        self.counters.gaps += 1;
        self.is_discontinuous = true;
        let behind = self.held.range(scanned..).next().map(|(&seq, _)| seq);
        self.drop_before(behind.unwrap_or(scanned));
        self.state = match behind {
            Some(seq) if !self.is_video => State::Running { next: seq, scanned: seq },
            _ => State::Seeking,
        };
    }

    /// Makes a frame of the packets in front of `end`. `None` for padding and what cannot be put together.
    fn take_frame(&mut self, next: u64, end: u64) -> Option<AssembledFrame> {
        let behind = self.held.split_off(&end);
        let packets = std::mem::replace(&mut self.held, behind);
        self.held_bytes -= packets.values().map(|h| h.payload.len()).sum::<usize>();
        debug_assert!(packets.keys().copied().eq(next..end));
        self.state = State::Running { next: end, scanned: end };
        let first = packets.values().find(|h| !h.payload.is_empty())?;
        let mut data = Vec::new();
        let payloads = packets.values().map(|h| h.payload.as_slice());
        let Ok(is_keyframe) = depacketize(self.codec.into(), payloads, &mut data) else {
            self.counters.frames_dropped += 1;
            self.is_discontinuous = true;
            if self.is_video {
                self.state = State::Seeking;
            }
            return None;
        };
        self.counters.frames += 1;
        let arrived_us = self.unix_us(first.arrived_at);
        let (rtp_time, by_arrival_us) = self.timeline.place(first.timestamp, arrived_us);
        let by_report = self.sender_report.map(|r| r.unix_us_of(first.timestamp as u32, self.codec.clock_rate()));
        Some(AssembledFrame {
            is_keyframe,
            is_discontinuous: std::mem::take(&mut self.is_discontinuous),
            rtp_time,
            captured_at_us: by_report.unwrap_or(by_arrival_us),
            data,
        })
    }

    fn unix_us(&self, at: Instant) -> i64 {
        self.epoch.1 + at.saturating_duration_since(self.epoch.0).as_micros() as i64
    }
}

/// Media time that goes on over restarts, and a guess of the time of capture for as long as no sender report came.
#[derive(Debug)]
struct Timeline {
    clock_rate: i64,
    /// Added to timestamps.
    offset: u64,
    /// (media time, time of arrival) of the last frame.
    last: Option<(u64, i64)>,
    /// (media time, time of arrival) of the frame with the least delay.
    anchor: Option<(u64, i64)>,
    is_break_expected: bool,
}

impl Timeline {
    fn new(clock_rate: u32) -> Self {
        Self { clock_rate: i64::from(clock_rate), offset: 0, last: None, anchor: None, is_break_expected: false }
    }

    fn has_begun(&self) -> bool {
        self.last.is_some()
    }

    fn expect_break(&mut self) {
        self.is_break_expected = true;
    }

    /// (media time, time of capture as far as arrivals tell) of a frame.
    fn place(&mut self, timestamp: u64, arrived_us: i64) -> (u64, i64) {
        if std::mem::take(&mut self.is_break_expected) {
            self.mend_break(timestamp, arrived_us);
        }
        let time = timestamp.wrapping_add(self.offset);
        self.last = Some((time, arrived_us));
        (time, self.capture_time(time, arrived_us))
    }

    /// Keeps the media time if the clock is the same as before the break, else lets it go on by the time of arrival.
    fn mend_break(&mut self, timestamp: u64, arrived_us: i64) {
        let Some((last_time, last_arrived_us)) = self.last else { return };
        let elapsed = (arrived_us - last_arrived_us).max(0) * self.clock_rate / 1_000_000;
        let wanted = last_time.wrapping_add(elapsed.max(1) as u64);
        // The timestamp was unwrapped anew: only its low 32 bits count.
        let kept = mrtc_rtp::seq::nearest(wanted, timestamp.wrapping_add(self.offset) & 0xffff_ffff, 32);
        let is_same_clock = kept.abs_diff(wanted) <= (MAX_CLOCK_STEP_S * self.clock_rate) as u64 && kept > last_time;
        let time = if is_same_clock { kept } else { wanted };
        self.offset = time.wrapping_sub(timestamp);
        if !is_same_clock {
            self.anchor = None;
        }
    }

    fn capture_time(&mut self, time: u64, arrived_us: i64) -> i64 {
        let (anchor_time, anchor_us) = *self.anchor.get_or_insert((time, arrived_us));
        let ticks = time.wrapping_sub(anchor_time) as i64;
        let expected_us = anchor_us + ticks.saturating_mul(1_000_000) / self.clock_rate;
        let is_astray = arrived_us - expected_us > MAX_CLOCK_STEP_S * 1_000_000;
        if arrived_us < expected_us || is_astray {
            self.anchor = Some((time, arrived_us));
            return arrived_us;
        }
        expected_us
    }
}
