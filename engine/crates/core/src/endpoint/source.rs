//! Turns access units of this process into packets and releases them when they are due.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mrtc_rtp::id::ExtSeq;
use mrtc_rtp::payload::Packetizer;

use crate::command::{Codec, Kind, SourceFrame};

/// Largest RTP payload. With header, extensions, RTX number, tag, UDP and IP it stays below 1280 bytes, IPv6's least MTU.
pub const MAX_PAYLOAD: usize = 1_150;
/// Frames that wait at most: ten seconds of video at 50 frames/s and of sound alike.
pub const MAX_QUEUED_FRAMES: usize = 512;
/// Bytes that wait at most.
pub const MAX_QUEUED_BYTES: usize = 16 << 20;
/// A frame that is due since longer means that the feeder paused: the source's clock is shifted, so that the frames
/// behind it are not sent in one burst.
const MAX_LATE: Duration = Duration::from_millis(500);
/// The packets of a frame are spread at this distance...
const PACKET_SPACING: Duration = Duration::from_micros(250);
/// ...but over no more than this, well below a frame's duration.
const MAX_SPREAD: Duration = Duration::from_millis(8);

/// One RTP packet of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePacket {
    /// Counts the packets of the source.
    pub ext_seq: ExtSeq,
    /// Time since the first frame on the codec's clock.
    pub rtp_timestamp: u32,
    /// Last packet of a picture; never set for sound.
    pub marker: bool,
    /// Of a key frame.
    pub is_keyframe: bool,
    /// First packet of its frame.
    pub is_frame_start: bool,
    /// When its frame was due, which may be a little before it could be sent.
    pub frame_due_at: Instant,
    /// RTP payload.
    pub payload: Vec<u8>,
}

/// What became of frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceCounters {
    /// Sent.
    pub frames: u64,
    /// Refused, since too many wait.
    pub frames_refused: u64,
    /// Not in the codec's form.
    pub frames_malformed: u64,
    /// How often the clock was shifted after a pause.
    pub pauses: u64,
}

#[derive(Debug)]
struct Outgoing {
    due_at: Instant,
    packet: SourcePacket,
}

/// Where the source's time lies on ours.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// Presentation time of the first frame.
    pts_us: u64,
    /// When the first frame was due.
    at: Instant,
    /// Pauses since then.
    shift: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct SourcePacketizer {
    codec: Codec,
    packetizer: Packetizer,
    start: Option<Start>,
    frames: VecDeque<SourceFrame>,
    queued_bytes: usize,
    outgoing: VecDeque<Outgoing>,
    next_seq: ExtSeq,
    counters: SourceCounters,
}

impl SourcePacketizer {
    /// For a track of `codec`.
    pub fn new(codec: Codec) -> Self {
        Self {
            codec,
            packetizer: Packetizer::new(codec.into(), MAX_PAYLOAD),
            start: None,
            frames: VecDeque::new(),
            queued_bytes: 0,
            outgoing: VecDeque::new(),
            next_seq: ExtSeq::new(1, mrtc_rtp::id::SeqNo(0)),
            counters: SourceCounters::default(),
        }
    }

    /// What became of frames so far.
    pub fn counters(&self) -> SourceCounters {
        self.counters
    }

    /// Queues frames in decode order. The very first one is due at `first_due_at`, the others by their distance to it in
    /// presentation time. Returns how many found no room; those are the last ones, and are not kept.
    pub fn push(&mut self, first_due_at: Instant, frames: impl IntoIterator<Item = SourceFrame>) -> usize {
        let mut refused = 0;
        for frame in frames {
            let is_full =
                self.frames.len() >= MAX_QUEUED_FRAMES || self.queued_bytes + frame.data.len() > MAX_QUEUED_BYTES;
            // Once one is refused the rest is: a hole in decode order helps nobody.
            if is_full || refused > 0 {
                refused += 1;
                continue;
            }
            self.start.get_or_insert(Start { pts_us: frame.pts_us, at: first_due_at, shift: Duration::ZERO });
            self.queued_bytes += frame.data.len();
            self.frames.push_back(frame);
        }
        self.counters.frames_refused += refused as u64;
        refused
    }

    /// Frames that wait.
    pub fn queued_frames(&self) -> usize {
        self.frames.len()
    }

    /// The next packet that is due.
    pub fn poll(&mut self, now: Instant) -> Option<SourcePacket> {
        loop {
            if let Some(front) = self.outgoing.front() {
                return if front.due_at <= now { self.outgoing.pop_front().map(|o| o.packet) } else { None };
            }
            if self.frame_due_at()? > now {
                return None;
            }
            self.release_frame(now);
        }
    }

    /// When the next packet is due.
    pub fn next_at(&self) -> Option<Instant> {
        self.outgoing.front().map(|o| o.due_at).or_else(|| self.frame_due_at())
    }

    fn frame_due_at(&self) -> Option<Instant> {
        let (frame, start) = (self.frames.front()?, self.start?);
        let media_time = Duration::from_micros(frame.pts_us.saturating_sub(start.pts_us));
        Some(start.at + start.shift + media_time)
    }

    fn release_frame(&mut self, now: Instant) {
        let (Some(due_at), Some(frame), Some(mut start)) = (self.frame_due_at(), self.frames.pop_front(), self.start)
        else {
            return;
        };
        self.queued_bytes -= frame.data.len();
        let late = now.saturating_duration_since(due_at);
        let mut frame_due_at = due_at;
        if late > MAX_LATE {
            frame_due_at = now;
            start.shift += late;
            self.start = Some(start);
            self.counters.pauses += 1;
        }
        let Ok(payloads) = self.packetizer.packetize(&frame.data) else {
            self.counters.frames_malformed += 1;
            return;
        };
        self.counters.frames += 1;
        let rtp_timestamp = self.rtp_timestamp(frame.pts_us, start);
        let is_video = self.codec.kind() == Kind::Video;
        let count = payloads.len();
        let spacing = PACKET_SPACING.min(MAX_SPREAD / count as u32);
        for (i, payload) in payloads.into_iter().enumerate() {
            let packet = SourcePacket {
                ext_seq: self.next_seq,
                rtp_timestamp,
                marker: is_video && i + 1 == count,
                is_keyframe: frame.is_keyframe || !is_video,
                is_frame_start: i == 0,
                frame_due_at,
                payload,
            };
            self.next_seq = self.next_seq.next();
            self.outgoing.push_back(Outgoing { due_at: now + spacing * i as u32, packet });
        }
    }

    /// Presentation time, pauses included, on the codec's clock. Frames before the first in presentation order (pictures
    /// that were reordered by the encoder) wrap below zero, as RTP's timestamps do.
    fn rtp_timestamp(&self, pts_us: u64, start: Start) -> u32 {
        let us = i128::from(pts_us) - i128::from(start.pts_us) + start.shift.as_micros() as i128;
        (us * i128::from(self.codec.clock_rate())).div_euclid(1_000_000) as u32
    }
}
