//! How a subscriber sees a VP8 stream: a decoder's view of frames and a player's view of freezes.
//!
//! A frame is decodable when all its packets came and the frame that it refers to was decodable. It is shown after a
//! wait that adapts to how late frames come, as browsers do, but never grows beyond [`MAX_WAIT`] and a round trip. A
//! freeze is a gap between shown frames as libwebrtc's `freezeCount` has it: longer than three frame intervals and
//! than one interval and 150 ms.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use str0m::rtp::RtpPacket;

use super::Net;
use super::media::{Vp8Source, read_vp8};

/// Most that a player waits beyond a round trip.
const MAX_WAIT: Duration = Duration::from_millis(400);
/// The wait shrinks by this share with each frame.
const WAIT_DECAY: f64 = 0.005;
/// libwebrtc asks for a key frame after so long without a decodable frame.
const MAX_SILENCE: Duration = Duration::from_millis(3_000);
/// ... and again after this.
const KEYFRAME_RETRY: Duration = Duration::from_millis(200);

#[derive(Debug)]
struct Frame {
    seqs: BTreeMap<u64, Instant>,
    first: Option<u64>,
    last: Option<u64>,
    tl0: u8,
    temporal: u8,
    is_keyframe: bool,
}

impl Frame {
    /// When its last packet came, if all did.
    fn complete_at(&self) -> Option<Instant> {
        let (first, last) = (self.first?, self.last?);
        let is_complete = self.seqs.len() as u64 == last - first + 1;
        is_complete.then(|| self.seqs.values().max().copied()).flatten()
    }
}

/// A frame that was decoded.
#[derive(Clone, Copy, Debug)]
struct Decoded {
    /// Of the sender's clock, in 90 kHz units from the first frame on.
    media_time: u64,
    at: Instant,
}

/// What a viewer saw.
#[derive(Clone, Copy, Debug, Default)]
pub struct FreezeReport {
    /// Share of the time in which the picture stood still.
    pub share: f64,
    pub longest: Duration,
    pub freezes: usize,
    /// Frames shown per second.
    pub fps: f64,
    /// Key frames that the viewer asked for.
    pub keyframe_requests: usize,
}

/// Watches what one subscriber gets on one slot, frame by frame.
#[derive(Debug)]
pub struct Viewer {
    client: usize,
    rtt: Duration,
    started_at: Instant,
    seen_packets: usize,
    /// By timestamp, extended; frames that are not yet decoded or given up.
    frames: BTreeMap<u64, Frame>,
    newest_timestamp: Option<u64>,
    /// Media time and tl0 of the frame decoded last, and of the last one of temporal layer 0.
    decoded_to: Option<(u64, u8)>,
    decoded: Vec<Decoded>,
    progress_at: Instant,
    asked_at: Option<Instant>,
    keyframe_requests: usize,
}

impl Viewer {
    /// Of the only video slot of `client`; `rtt` is what the player's wait may exceed by [`MAX_WAIT`].
    pub fn new(net: &Net, client: usize, rtt: Duration) -> Self {
        Self {
            client,
            rtt,
            started_at: net.now,
            seen_packets: net.clients[client].packets.len(),
            frames: BTreeMap::new(),
            newest_timestamp: None,
            decoded_to: None,
            decoded: Vec::new(),
            progress_at: net.now,
            asked_at: None,
            keyframe_requests: 0,
        }
    }

    /// Looks at what came since the last call, and asks for a key frame where libwebrtc would.
    pub fn step(&mut self, net: &mut Net) {
        let client = &mut net.clients[self.client];
        for packet in &client.packets[self.seen_packets..] {
            if packet.header.payload_type != super::media::OPUS_PT.into() && !packet.payload.is_empty() {
                self.take(packet);
            }
        }
        self.seen_packets = client.packets.len();
        self.decode(net.now);
        let is_silent = net.now - self.progress_at >= MAX_SILENCE;
        let may_ask = self.asked_at.is_none_or(|at| net.now - at >= KEYFRAME_RETRY);
        if is_silent
            && may_ask
            && let Some(packet) =
                client.packets.iter().rev().find(|p| p.header.payload_type != super::media::OPUS_PT.into())
        {
            let ssrc = *packet.header.ssrc;
            client.request_keyframe(ssrc);
            self.asked_at = Some(net.now);
            self.keyframe_requests += 1;
        }
    }

    fn take(&mut self, packet: &RtpPacket) {
        let seen = read_vp8(&packet.payload);
        let timestamp = self.extend(packet.header.timestamp);
        if self.decoded_to.is_some_and(|(to, _)| timestamp <= to) {
            return;
        }
        let seq = *packet.seq_no;
        let frame = self.frames.entry(timestamp).or_insert_with(|| Frame {
            seqs: BTreeMap::new(),
            first: None,
            last: None,
            tl0: seen.tl0,
            temporal: seen.temporal,
            is_keyframe: false,
        });
        frame.seqs.entry(seq).or_insert(packet.timestamp);
        frame.is_keyframe |= seen.is_keyframe;
        if seen.is_first {
            frame.first = Some(seq);
        }
        if packet.header.marker {
            frame.last = Some(seq);
        }
    }

    fn extend(&mut self, timestamp: u32) -> u64 {
        let newest = *self.newest_timestamp.get_or_insert(u64::from(timestamp) + (1 << 32));
        let extended = newest.wrapping_add_signed(i64::from(timestamp.wrapping_sub(newest as u32) as i32));
        self.newest_timestamp = Some(newest.max(extended));
        extended
    }

    fn decode(&mut self, now: Instant) {
        while let Some((timestamp, tl0)) = self.next_decodable() {
            self.decoded_to = Some((timestamp, tl0));
            self.decoded.push(Decoded { media_time: timestamp, at: now });
            self.frames = self.frames.split_off(&(timestamp + 1));
            self.progress_at = now;
            self.asked_at = None;
        }
    }

    /// The next complete frame whose reference was decoded; else a complete key frame further on.
    fn next_decodable(&self) -> Option<(u64, u8)> {
        let complete = || self.frames.iter().filter(|(_, f)| f.complete_at().is_some());
        let refers_to = |f: &Frame, tl0: u8| match f.temporal {
            0 => f.tl0 == tl0.wrapping_add(1),
            _ => f.tl0 == tl0,
        };
        let next = self.decoded_to.and_then(|(_, tl0)| complete().find(|(_, f)| f.is_keyframe || refers_to(f, tl0)));
        next.or_else(|| complete().find(|(_, f)| f.is_keyframe)).map(|(timestamp, f)| (*timestamp, f.tl0))
    }

    /// How many frames could be decoded so far.
    pub fn decoded_frames(&self) -> usize {
        self.decoded.len()
    }

    /// What was seen from the first decoded frame until `now`.
    pub fn report(&self, now: Instant) -> FreezeReport {
        let mut shown = self.shown();
        let Some(start) = shown.first().copied() else {
            return FreezeReport { share: 1.0, longest: now - self.started_at, freezes: 1, ..Default::default() };
        };
        let total = (now.max(start) - start).as_secs_f64().max(1e-3);
        let fps = shown.len() as f64 / total;
        shown.push(now);
        let mut report = FreezeReport { fps, keyframe_requests: self.keyframe_requests, ..Default::default() };
        let mut frozen = Duration::ZERO;
        let mut usual = Duration::from_millis(33);
        for pair in shown.windows(2) {
            let gap = pair[1].saturating_duration_since(pair[0]);
            if gap > (usual * 3).max(usual + Duration::from_millis(150)) {
                frozen += gap;
                report.freezes += 1;
                report.longest = report.longest.max(gap);
            } else {
                usual = usual.mul_f64(0.95) + gap.mul_f64(0.05);
            }
        }
        report.share = frozen.as_secs_f64() / total;
        report
    }

    /// When each frame is shown.
    fn shown(&self) -> Vec<Instant> {
        let Some(first) = self.decoded.first() else { return vec![] };
        let since = |d: &Decoded| Duration::from_secs_f64((d.media_time - first.media_time) as f64 / 90_000.0);
        // A frame that comes by the fastest way of all is as late as zero.
        let fastest = self.decoded.iter().map(|d| (d.at - first.at).as_secs_f64() - since(d).as_secs_f64());
        let fastest = fastest.fold(0.0, f64::min);
        let mut wait = 0.0_f64;
        let mut shown: Vec<Instant> = Vec::with_capacity(self.decoded.len());
        for decoded in &self.decoded {
            let late = (decoded.at - first.at).as_secs_f64() - since(decoded).as_secs_f64() - fastest;
            wait = (wait * (1.0 - WAIT_DECAY)).max(late).min((MAX_WAIT + self.rtt).as_secs_f64());
            let due = first.at + Duration::from_secs_f64((since(decoded).as_secs_f64() + fastest + wait).max(0.0));
            let at = due.max(decoded.at);
            shown.push(shown.last().map_or(at, |last| at.max(*last)));
        }
        shown
    }
}

/// Runs the network with one video and its viewer.
pub fn watch(net: &mut Net, time: Duration, video: &mut Vp8Source, viewer: &mut Viewer) {
    let end = net.now + time;
    while net.now < end {
        video.step(net);
        net.step();
        viewer.step(net);
    }
}
