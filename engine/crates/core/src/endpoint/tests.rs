//! Sources to sinks over a seeded lossy link, and the sink's rules one by one.

use std::time::{Duration, Instant};

use mrtc_netem::{Link, LinkConfig, WireLen};
use mrtc_rtp::id::ExtSeq;

use super::sink::{AssembledFrame, MAX_WAIT, SinkAssembler};
use super::source::{MAX_QUEUED_FRAMES, SourcePacket, SourcePacketizer};
use crate::command::{Codec, SourceFrame};
use crate::packet::SenderReportMap;

const MS: Duration = Duration::from_millis(1);
const UNIX_US: i64 = 1_700_000_000_000_000;

#[derive(Clone)]
struct Wire(SourcePacket);

impl WireLen for Wire {
    fn wire_len(&self) -> usize {
        self.0.payload.len()
    }
}

/// An access unit of `codec` that carries its number.
fn unit(codec: Codec, number: u8, is_keyframe: bool, len: usize) -> Vec<u8> {
    let body = vec![number | 1; len];
    match codec {
        Codec::H264 if is_keyframe => {
            [&[0, 0, 0, 1, 0x67, 9, 0, 0, 0, 1, 0x68, 9, 0, 0, 0, 1, 0x65, 0x88], &body[..]].concat()
        }
        Codec::H264 => [&[0, 0, 0, 1, 0x41, 0x9a], &body[..]].concat(),
        Codec::Vp8 => [&[u8::from(!is_keyframe), 0, 0], &body[..]].concat(),
        Codec::Vp9 => [&[if is_keyframe { 0x82 } else { 0x86 }], &body[..]].concat(),
        Codec::Av1 => {
            let mut frame = vec![0x12, 0];
            if is_keyframe {
                frame.extend([0x0a, 1, 0]);
            }
            frame.push(0x32);
            mrtc_rtp::codec::av1::write_leb128(len as u64, &mut frame);
            frame.extend(&body);
            frame
        }
        _ => body,
    }
}

fn frame(codec: Codec, number: u32, gap_us: u64, keyframe_every: u32, len: usize) -> SourceFrame {
    let is_keyframe = number.is_multiple_of(keyframe_every);
    SourceFrame {
        pts_us: 5_000 + u64::from(number) * gap_us,
        is_keyframe,
        data: unit(codec, number as u8, is_keyframe, len),
    }
}

/// All frames through a source, a link and a sink; keyframe requests are counted.
fn run(codec: Codec, config: LinkConfig, frames: Vec<SourceFrame>) -> (Vec<AssembledFrame>, u32, SinkAssembler) {
    let start = Instant::now();
    let mut source = SourcePacketizer::new(codec);
    let mut link = Link::new(42, config);
    let mut sink = SinkAssembler::new(codec, start, UNIX_US);
    let mut frames = frames.into_iter();
    let (mut now, mut out, mut requests) = (start, Vec::new(), 0);
    for _ in 0..20_000 {
        if source.queued_frames() < 10 {
            assert_eq!(source.push(now, frames.by_ref().take(1)), 0);
        }
        while let Some(packet) = source.poll(now) {
            link.send(now, Wire(packet));
        }
        while let Some(Wire(p)) = link.poll(now) {
            sink.push(now, p.ext_seq, p.rtp_timestamp, p.marker, &p.payload);
        }
        out.extend(std::iter::from_fn(|| sink.poll(now)));
        requests += u32::from(sink.take_keyframe_request());
        now += MS;
    }
    (out, requests, sink)
}

const CODECS: [Codec; 5] = [Codec::Opus, Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1];

#[test]
fn every_frame_survives_reordering() {
    for codec in CODECS {
        let config =
            LinkConfig { delay: 30 * MS, jitter: 20 * MS, reorder: 0.2, duplicate: 0.1, ..LinkConfig::default() };
        let frames: Vec<SourceFrame> =
            (0..200).map(|n| frame(codec, n, 33_333, 50, 200 + (n as usize * 37) % 6000)).collect();
        let (out, _, sink) = run(codec, config, frames.clone());
        let data: Vec<&[u8]> = out.iter().map(|f| f.data.as_slice()).collect();
        assert!(
            data.iter().eq(frames.iter().map(|f| &f.data[..]).collect::<Vec<_>>().iter()),
            "{codec:?} {:?}",
            sink.counters()
        );
        assert!(out.iter().all(|f| !f.is_discontinuous));
        let step = u64::from(codec.clock_rate()) / 30;
        assert!(out.windows(2).all(|w| (w[1].rtp_time - w[0].rtp_time).abs_diff(step) <= 1));
    }
}

#[test]
fn pictures_go_on_at_a_key_frame_after_loss() {
    for codec in [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1] {
        let frames: Vec<SourceFrame> = (0..400).map(|n| frame(codec, n, 33_333, 25, 3000)).collect();
        let (out, requests, sink) =
            run(codec, LinkConfig { delay: 20 * MS, loss: 0.01, ..LinkConfig::default() }, frames.clone());
        assert!(sink.counters().gaps > 3 && requests > 3, "{codec:?} {:?}", sink.counters());
        assert!(out.len() > 150 && out.len() < 400);
        assert!(out.iter().filter(|f| f.is_discontinuous).all(|f| f.is_keyframe), "{codec:?}");
        assert!(out.iter().all(|f| frames.iter().any(|s| s.data == f.data)), "{codec:?}: a frame is damaged");
        for pair in out.windows(2).filter(|w| !w[1].is_discontinuous) {
            let step = pair[1].rtp_time - pair[0].rtp_time;
            assert!(step.abs_diff(3000) <= 1, "{codec:?}: a frame is missing unsaid");
        }
    }
}

#[test]
fn sound_goes_on_behind_a_gap() {
    let frames: Vec<SourceFrame> = (0..300).map(|n| frame(Codec::Opus, n, 20_000, 1, 80)).collect();
    let (out, requests, sink) = run(Codec::Opus, LinkConfig { loss: 0.05, ..LinkConfig::default() }, frames);
    assert!(out.len() > 270 && requests == 0);
    assert_eq!(out.iter().filter(|f| f.is_discontinuous).count() as u64, sink.counters().gaps);
}

fn opus(sink: &mut SinkAssembler, now: Instant, seq: u64, timestamp: u32) {
    sink.push(now, ExtSeq(seq), timestamp, false, &[seq as u8; 10]);
}

#[test]
fn a_missing_packet_is_waited_for_and_may_come() {
    let t = Instant::now();
    let mut sink = SinkAssembler::new(Codec::Opus, t, UNIX_US);
    opus(&mut sink, t, 10, 0);
    assert_eq!(sink.poll(t).unwrap().captured_at_us, UNIX_US);
    opus(&mut sink, t + 40 * MS, 12, 1920);
    assert_eq!(sink.poll(t + 40 * MS), None);
    assert_eq!(sink.next_at(), Some(t + 40 * MS + MAX_WAIT));
    opus(&mut sink, t + 300 * MS, 11, 960);
    let late = sink.poll(t + 300 * MS).unwrap();
    assert!(!late.is_discontinuous);
    assert!(sink.poll(t + 300 * MS).is_some());
    opus(&mut sink, t + 300 * MS, 12, 1920);
    assert_eq!((sink.counters().packets_late, sink.poll(t + 300 * MS)), (1, None));
    opus(&mut sink, t + 320 * MS, 14, 2880);
    let after = sink.poll(t + 320 * MS + MAX_WAIT).unwrap();
    assert!(after.is_discontinuous);
}

#[test]
fn sender_reports_place_frames_on_the_wall_clock() {
    let t = Instant::now();
    let mut sink = SinkAssembler::new(Codec::Opus, t, UNIX_US);
    sink.set_sender_report(SenderReportMap { rtp_timestamp: 48_000, unix_us: 7_000_000 });
    opus(&mut sink, t, 1, 48_000 + 960);
    assert_eq!(sink.poll(t).unwrap().captured_at_us, 7_020_000);
}

#[test]
fn without_reports_jitter_is_taken_out() {
    let t = Instant::now();
    let mut sink = SinkAssembler::new(Codec::Opus, t, UNIX_US);
    let mut captured = Vec::new();
    for (i, delay) in [(0, 50), (1, 55), (2, 90), (3, 52)] {
        let now = t + (20 * i + delay) * MS;
        opus(&mut sink, now, 1 + u64::from(i), 960 * i);
        captured.push((sink.poll(now).unwrap().captured_at_us - UNIX_US) / 1000);
    }
    assert_eq!(captured, [50, 70, 90, 110]);
}

#[test]
fn timestamps_unwrap_and_go_on_over_a_restart() {
    let t = Instant::now();
    let mut sink = SinkAssembler::new(Codec::Opus, t, UNIX_US);
    opus(&mut sink, t, 1, u32::MAX - 959);
    opus(&mut sink, t, 2, 0);
    let (a, b) = (sink.poll(t).unwrap(), sink.poll(t).unwrap());
    assert_eq!(b.rtp_time - a.rtp_time, 960);
    // The same clock after a mute of a second.
    sink.restart();
    opus(&mut sink, t + 1000 * MS, 50, 48_000);
    let c = sink.poll(t + 1000 * MS).unwrap();
    assert!(c.is_discontinuous);
    assert_eq!(c.rtp_time - b.rtp_time, 48_000);
    // Another clock.
    sink.restart();
    opus(&mut sink, t + 2000 * MS, 7, 0x8000_0000);
    assert_eq!(sink.poll(t + 2000 * MS).unwrap().rtp_time - c.rtp_time, 48_000);
}

#[test]
fn a_jump_in_sequence_is_a_new_sequence() {
    let t = Instant::now();
    let mut sink = SinkAssembler::new(Codec::Opus, t, UNIX_US);
    opus(&mut sink, t, 100_000, 0);
    assert!(sink.poll(t).is_some());
    for seq in [5u64, 200_000] {
        opus(&mut sink, t, seq, 960);
        assert!(sink.poll(t).unwrap().is_discontinuous);
    }
}

#[test]
fn padding_fills_the_sequence() {
    let t = Instant::now();
    let mut sink = SinkAssembler::new(Codec::Vp8, t, UNIX_US);
    let key = [0x10, 0x00, 1, 2];
    let delta = [0x10, 0x01, 1, 2];
    sink.push(t, ExtSeq(9), 0, true, &[]);
    sink.push(t, ExtSeq(10), 0, true, &key);
    sink.push(t, ExtSeq(11), 0, false, &[]);
    sink.push(t, ExtSeq(12), 0, false, &[]);
    sink.push(t, ExtSeq(13), 3000, true, &delta);
    assert!(sink.poll(t).unwrap().is_keyframe);
    assert!(!sink.poll(t).unwrap().is_keyframe);
    assert_eq!(sink.poll(t), None);
}

#[test]
fn a_frame_without_marker_ends_with_the_next_timestamp() {
    let t = Instant::now();
    let mut sink = SinkAssembler::new(Codec::Vp8, t, UNIX_US);
    sink.push(t, ExtSeq(10), 0, false, &[0x10, 0x00, 1]);
    sink.push(t, ExtSeq(11), 0, false, &[0x00, 5]);
    assert_eq!(sink.poll(t + 100 * MS), None);
    sink.push(t, ExtSeq(12), 3000, false, &[0x10, 0x01, 1]);
    assert_eq!(sink.poll(t + 100 * MS).unwrap().data, [0, 1, 5]);
}

#[test]
fn memory_is_bounded_whatever_comes() {
    let t = Instant::now();
    let mut sink = SinkAssembler::new(Codec::Vp8, t, UNIX_US);
    sink.push(t, ExtSeq(1), 0, false, &[0x10, 0x00, 1]);
    for seq in 2..12_000u64 {
        sink.push(t + 100 * MS, ExtSeq(seq), 0, false, &[0x00, 5]);
        sink.poll(t + 100 * MS);
    }
    assert!(sink.held_packets() <= 8_193);
    let mut sink = SinkAssembler::new(Codec::Vp8, t, UNIX_US);
    for seq in 0..12_000u64 {
        sink.push(t, ExtSeq(2 * seq), 0, false, &[0x00, 5]);
        sink.poll(t);
    }
    assert!(sink.held_packets() <= 8_193 && sink.take_keyframe_request());
}

#[test]
fn key_frames_are_asked_for_again() {
    let t = Instant::now();
    let mut sink = SinkAssembler::new(Codec::Vp8, t, UNIX_US);
    sink.push(t, ExtSeq(1), 0, true, &[0x10, 0x01]);
    sink.poll(t);
    assert!(sink.take_keyframe_request() && !sink.take_keyframe_request());
    sink.poll(t + 900 * MS);
    assert!(!sink.take_keyframe_request());
    let again_at = sink.next_at().unwrap();
    assert_eq!(again_at, t + 1000 * MS);
    sink.poll(again_at);
    assert!(sink.take_keyframe_request());
}

#[test]
fn a_source_releases_frames_when_due_and_spreads_large_ones() {
    let t = Instant::now();
    let mut source = SourcePacketizer::new(Codec::Vp8);
    let frames = (0..3).map(|n| frame(Codec::Vp8, n, 40_000, 10, 20_000));
    assert_eq!(source.push(t, frames), 0);
    let (mut now, mut sent) = (t, Vec::new());
    while let Some(at) = source.next_at() {
        now = now.max(at);
        sent.extend(source.poll(now).map(|p| (now - t, p)));
    }
    let first: Vec<_> = sent.iter().filter(|(_, p)| p.rtp_timestamp == 0).collect();
    assert!(first.len() >= 17 && first.last().unwrap().0 >= 4 * MS && first.last().unwrap().0 < 9 * MS);
    assert!(first.last().unwrap().1.marker && first.iter().filter(|(_, p)| p.marker).count() == 1);
    let second = sent.iter().find(|(_, p)| p.rtp_timestamp == 3600).unwrap();
    assert_eq!((second.0, second.1.is_frame_start, second.1.is_keyframe), (40 * MS, true, false));
    assert!(sent.windows(2).all(|w| w[1].1.ext_seq == w[0].1.ext_seq.next()));
}

#[test]
fn a_paused_feeder_shifts_the_clock() {
    let t = Instant::now();
    let mut source = SourcePacketizer::new(Codec::Opus);
    let sound = |pts_us| SourceFrame { pts_us, is_keyframe: true, data: vec![1; 40] };
    source.push(t, [sound(0)]);
    assert_eq!(source.poll(t).unwrap().rtp_timestamp, 0);
    // Pushed two seconds late: sent at once, the next one 20 ms later, and the RTP clock went on meanwhile.
    source.push(t + 2020 * MS, [sound(20_000), sound(40_000)]);
    let late = source.poll(t + 2020 * MS).unwrap();
    assert_eq!(late.rtp_timestamp, 2_020 * 48);
    assert_eq!(source.poll(t + 2020 * MS), None);
    assert_eq!(source.next_at(), Some(t + 2040 * MS));
    assert_eq!(source.poll(t + 2040 * MS).unwrap().rtp_timestamp, 2_040 * 48);
    assert_eq!(source.counters().pauses, 1);
}

#[test]
fn a_source_refuses_what_is_too_much_and_drops_what_is_malformed() {
    let t = Instant::now();
    let mut source = SourcePacketizer::new(Codec::H264);
    let many = (0..MAX_QUEUED_FRAMES as u32 + 7).map(|n| frame(Codec::H264, n, 20_000, 10, 10));
    assert_eq!(source.push(t, many), 7);
    let mut source = SourcePacketizer::new(Codec::H264);
    source.push(t, [SourceFrame { pts_us: 0, is_keyframe: true, data: b"not annex b".to_vec() }]);
    assert_eq!((source.poll(t), source.counters().frames_malformed), (None, 1));
    assert_eq!(source.next_at(), None);
}
