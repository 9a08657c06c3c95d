//! Media that tests can recognise: VP8 frames with picture ids, Opus packets with a number.

use std::time::{Duration, Instant};

use mrtc_netem::LinkConfig;
use mrtc_rtp::id::Pt;
use mrtc_rtp::red;

use super::{ClientSpec, Net};

/// Payload type of [`OpusSource`].
pub const OPUS_PT: u8 = 111;

/// One RTP packet to write.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub pt: u8,
    pub seq: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub audio_level: Option<i8>,
    pub payload: Vec<u8>,
}

/// A VP8 encoder's output, without a picture: descriptor, frame tag, a mark of its layer, filling.
#[derive(Clone, Debug)]
pub struct Vp8Source {
    pub client: usize,
    pub line: usize,
    pub rid: Option<&'static str>,
    pub height: u16,
    pub packets_per_frame: usize,
    /// Unset: as many as of any frame.
    pub packets_per_keyframe: Option<usize>,
    pub payload_len: usize,
    pub frame_interval: Duration,
    pub pt: u8,
    pub seq: u64,
    pub timestamp: u32,
    pub picture_id: u16,
    pub tl0: u8,
    /// Every second frame is of temporal layer 1.
    pub has_temporal_layers: bool,
    pub frames: u64,
    pub keyframes: u64,
    pub next_at: Option<Instant>,
    pub wants_keyframe: bool,
    /// Not zero: frames are as large as an encoder of this rate makes them, and its sizes and counts of packets do not count.
    pub bitrate_bps: u32,
    /// Bytes by which key frames and luck exceeded the rate; later frames pay them back.
    pub debt: f64,
    /// Frames of another seed have other sizes.
    pub seed: u64,
}

impl Vp8Source {
    pub fn new(client: usize, line: usize, rid: Option<&'static str>, height: u16) -> Self {
        Self {
            client,
            line,
            rid,
            height,
            packets_per_frame: 3,
            packets_per_keyframe: None,
            payload_len: 1000,
            frame_interval: Duration::from_millis(33),
            pt: 96,
            seq: 1_000,
            timestamp: 50_000 + u32::from(height) * 1_000,
            picture_id: height % 100,
            tl0: height as u8,
            has_temporal_layers: false,
            frames: 0,
            keyframes: 0,
            next_at: None,
            wants_keyframe: true,
            bitrate_bps: 0,
            debt: 0.0,
            seed: 0,
        }
    }

    /// Writes the frame that is due, a key frame when one was asked for.
    pub fn step(&mut self, net: &mut Net) {
        let client = &mut net.clients[self.client];
        let (mid, rid) = (client.lines[self.line].mid.clone(), self.rid.map(str::to_owned));
        let before = client.keyframe_requests.len();
        client.keyframe_requests.retain(|(m, r)| *m != mid || *r != rid);
        self.wants_keyframe |= client.keyframe_requests.len() != before;
        let next_at = *self.next_at.get_or_insert(net.now);
        if net.now < next_at {
            return;
        }
        self.next_at = Some(next_at + self.frame_interval);
        self.write_frame(net);
    }

    fn write_frame(&mut self, net: &mut Net) {
        let is_keyframe = std::mem::take(&mut self.wants_keyframe);
        let temporal = if self.has_temporal_layers && !is_keyframe { (self.frames % 2) as u8 } else { 0 };
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        self.size_frame(is_keyframe, temporal);
        self.picture_id = (self.picture_id + 1) & 0x7fff;
        self.keyframes += u64::from(is_keyframe);
        let usual = self.packets_per_frame;
        let count = if is_keyframe { self.packets_per_keyframe.unwrap_or(usual) } else { usual };
        for n in 0..count {
            let payload = self.payload(is_keyframe, temporal, n == 0);
            let packet = Outgoing {
                pt: self.pt,
                seq: self.seq,
                timestamp: self.timestamp,
                marker: n + 1 == count,
                audio_level: None,
                payload,
            };
            self.seq += 1;
            let now = net.now;
            net.clients[self.client].write(now, self.line, self.rid, &packet);
        }
        self.frames += 1;
        self.timestamp = self.timestamp.wrapping_add((self.frame_interval.as_micros() as u64 * 90 / 1000) as u32);
    }

    /// A key frame is worth four frames; the base layer gets three fifths of the rate; sizes vary by a quarter.
    fn size_frame(&mut self, is_keyframe: bool, temporal: u8) {
        if self.bitrate_bps == 0 {
            return;
        }
        let usual = f64::from(self.bitrate_bps) / 8.0 * self.frame_interval.as_secs_f64();
        let share = match (is_keyframe, self.has_temporal_layers, temporal) {
            (true, ..) => 4.0,
            (_, true, 0) => 1.2,
            (_, true, _) => 0.8,
            _ => 1.0,
        };
        let noise = 0.75 + ((self.frames + self.seed).wrapping_mul(2_654_435_761) >> 7 & 0xff) as f64 / 512.0;
        let paid_back = (self.debt * 0.1).min(usual * 0.3);
        let size = (usual * share * noise - paid_back).max(60.0);
        self.debt = (self.debt + size - usual).max(-usual);
        let count = (size / 1_100.0).ceil();
        self.payload_len = (size / count) as usize;
        self.packets_per_frame = count as usize;
    }

    fn payload(&self, is_keyframe: bool, temporal: u8, is_first: bool) -> Vec<u8> {
        // RFC 7741 4.2: X and S; I, L and T present; 15-bit picture id; TL0PICIDX; TID with Y.
        let mut p = vec![0x80 | u8::from(is_first) << 4, 0xe0];
        p.extend((0x8000 | self.picture_id).to_be_bytes());
        p.push(self.tl0);
        p.push(temporal << 6 | 0x20);
        if is_first {
            p.extend([u8::from(!is_keyframe), 0, 0]);
            if is_keyframe {
                p.extend([0x9d, 0x01, 0x2a]);
                p.extend((self.height * 16 / 9).to_le_bytes());
                p.extend(self.height.to_le_bytes());
            }
        }
        p.extend(self.height.to_be_bytes());
        p.extend(self.seq.to_be_bytes());
        p.resize(self.payload_len, self.height as u8);
        p
    }
}

/// What a received VP8 payload tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vp8Seen {
    pub picture_id: u16,
    pub tl0: u8,
    pub temporal: u8,
    pub is_first: bool,
    pub is_keyframe: bool,
    pub height: u16,
    pub source_seq: u64,
}

pub fn read_vp8(p: &[u8]) -> Vp8Seen {
    let is_first = p[0] & 0x10 != 0;
    let is_keyframe = is_first && p[6] & 1 == 0;
    let at = 6 + if is_keyframe {
        10
    } else if is_first {
        3
    } else {
        0
    };
    Vp8Seen {
        picture_id: u16::from_be_bytes([p[2], p[3]]) & 0x7fff,
        tl0: p[4],
        temporal: p[5] >> 6,
        is_first,
        is_keyframe,
        height: u16::from_be_bytes([p[at], p[at + 1]]),
        source_seq: u64::from_be_bytes(p[at + 2..at + 10].try_into().unwrap()),
    }
}

/// Opus packets with their number in the payload.
#[derive(Clone, Debug)]
pub struct OpusSource {
    pub client: usize,
    pub line: usize,
    pub level: i8,
    pub seq: u64,
    /// Packets that travel inside the next ones.
    pub redundancy: usize,
    /// It says nothing: as Opus with DTX, a packet of silence each 400 ms.
    pub is_silent: bool,
    /// 20 ms frames that were not sent.
    pub skipped: u64,
    pub next_at: Option<Instant>,
}

/// Frames that one packet of silence stands for.
pub const DTX_FRAMES: u64 = 20;

impl OpusSource {
    pub fn new(client: usize, line: usize) -> Self {
        Self { client, line, level: -20, seq: 500, redundancy: 0, is_silent: false, skipped: 0, next_at: None }
    }

    pub fn step(&mut self, net: &mut Net) {
        let next_at = *self.next_at.get_or_insert(net.now);
        if net.now < next_at {
            return;
        }
        let frames = if self.is_silent { DTX_FRAMES } else { 1 };
        self.next_at = Some(next_at + Duration::from_millis(20) * frames as u32);
        let (pt, payload) = match self.redundancy {
            _ if self.is_silent => (OPUS_PT, vec![0xf8]),
            0 => (OPUS_PT, opus_payload(self.seq)),
            n => (63, self.red_payload(n as u64)),
        };
        let packet = Outgoing {
            pt,
            seq: self.seq,
            timestamp: ((self.seq + self.skipped) * 960) as u32,
            marker: false,
            audio_level: Some(self.level),
            payload,
        };
        let now = net.now;
        net.clients[self.client].write(now, self.line, None, &packet);
        self.seq += 1;
        self.skipped += frames - 1;
    }

    fn red_payload(&self, count: u64) -> Vec<u8> {
        let earlier: Vec<_> = (1..=count).rev().map(|n| (n as u32 * 960, opus_payload(self.seq - n))).collect();
        let mut payload = Vec::new();
        let blocks = earlier.iter().map(|(offset, payload)| (*offset, &payload[..]));
        red::write(Pt(111), blocks, &opus_payload(self.seq), &mut payload);
        payload
    }
}

fn opus_payload(seq: u64) -> Vec<u8> {
    let mut payload = vec![0xfc; 60];
    payload[1..9].copy_from_slice(&seq.to_be_bytes());
    payload
}

/// The number of a packet of [`OpusSource`].
pub fn read_opus(payload: &[u8]) -> u64 {
    u64::from_be_bytes(payload[1..9].try_into().unwrap())
}

/// A process in which alice has published `video` for a second, in key frames of eight packets. Her way there is `up` from
/// when she is connected on.
pub fn lossy_video(seed: u64, up: LinkConfig) -> (Net, Vp8Source) {
    let mut net = Net::new(seed);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    net.uplinks[alice].set_config(up);
    net.clients[alice].answer_all_nacks(1);
    net.publish(alice, "video", 1);
    let mut video = Vp8Source { packets_per_keyframe: Some(8), ..Vp8Source::new(alice, 1, None, 360) };
    run(&mut net, Duration::from_secs(1), &mut [], std::slice::from_mut(&mut video));
    (net, video)
}

/// Runs the network with these sources.
pub fn run(net: &mut Net, time: Duration, audio: &mut [OpusSource], video: &mut [Vp8Source]) {
    let end = net.now + time;
    while net.now < end {
        audio.iter_mut().for_each(|s| s.step(net));
        video.iter_mut().for_each(|s| s.step(net));
        net.step();
    }
}
