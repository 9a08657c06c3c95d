//! Sinks and sources: legs that end in the process.

use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, lossy_video, run};
use crate::support::{ClientSpec, Net, ROOM};
use mrtc_core::command::{Codec, Command, Kind, SourceFrame};
use mrtc_core::error::Error;
use mrtc_core::event::Event;
use mrtc_netem::LinkConfig;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_sink_gets_whole_frames_in_order_and_in_sync() {
    let mut net = Net::new(1);
    net.add_process(2);
    let alice = net.join(0, "alice", ClientSpec::publisher().with_loss(0.03));
    net.publish(alice, "audio", 0);
    net.publish(alice, "video", 1);
    // One on the track's own shard, one on another.
    net.command(0, Command::CreateSink { sink: "sink-a".into(), track: "audio".into() }).unwrap();
    net.command(1, Command::CreateSink { sink: "sink-v".into(), track: "video".into() }).unwrap();
    let (mut audio, mut video) = ([OpusSource::new(alice, 0)], [Vp8Source::new(alice, 1, None, 360)]);
    run(&mut net, 5 * SECOND, &mut audio, &mut video);
    net.run(SECOND);
    let frames = &net.nodes[1].frames;
    assert!(frames.len() > 130, "{}", frames.len());
    assert!(frames[0].is_keyframe);
    assert!(frames.windows(2).all(|w| w[1].rtp_time > w[0].rtp_time));
    let discontinuous = frames.iter().skip(1).filter(|f| f.is_discontinuous).count();
    assert!(discontinuous <= 2, "{discontinuous}");
    let sound = &net.nodes[0].frames;
    assert!(sound.len() > 230, "{}", sound.len());
    // Both carry the publisher's clock once its reports came.
    let now_us = 1_800_000_000_000_000 + (net.now - net.start).as_micros() as i64;
    for frame in [frames.last().unwrap(), sound.last().unwrap()] {
        let age_ms = (now_us - frame.captured_at_us) / 1000;
        assert!((950..1_300).contains(&age_ms), "{age_ms}");
    }
    net.command(1, Command::CloseSink { sink: "sink-v".into() }).unwrap();
    net.nodes[1].frames.clear();
    run(&mut net, SECOND, &mut [], &mut video);
    assert!(net.nodes[1].frames.is_empty());
    let missing = Command::CreateSink { sink: "x".into(), track: "nobody".into() };
    assert!(matches!(net.command(0, missing), Err(Error::TrackNotFound(_))));
}

#[test]
fn a_sink_begins_with_a_key_frame_whose_beginning_comes_late() {
    let first_frame = |seed: u64| {
        let link = LinkConfig { loss: 0.3, delay: Duration::from_millis(20), ..LinkConfig::default() };
        let (mut net, video) = lossy_video(seed, link);
        let mut video = [video];
        net.command(0, Command::CreateSink { sink: "sink".into(), track: "video".into() }).unwrap();
        let begun = net.now;
        while net.nodes[0].frames.is_empty() {
            run(&mut net, Duration::from_millis(10), &mut [], &mut video);
        }
        net.now - begun
    };
    let times: Vec<Duration> = (1..=12).map(first_frame).collect();
    assert!(times.iter().all(|time| *time < SECOND / 2), "{times:.2?}");
}

#[test]
fn a_sink_of_a_simulcast_track_takes_the_highest_layer() {
    let mut net = Net::new(2);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::simulcast());
    net.publish(alice, "video", 1);
    net.command(0, Command::CreateSink { sink: "sink".into(), track: "video".into() }).unwrap();
    let layer = |rid, height| Vp8Source::new(alice, 1, Some(rid), height);
    let mut video = [layer("q", 180), layer("h", 360), layer("f", 720)];
    run(&mut net, 3 * SECOND, &mut [], &mut video);
    let last = net.nodes[0].frames.iter().rfind(|f| f.is_keyframe).expect("key frames");
    // VP8 key frame: start code, then width and height.
    assert_eq!(u16::from_le_bytes([last.data[8], last.data[9]]), 720);
    assert!(net.nodes[0].frames.windows(2).all(|w| w[1].rtp_time > w[0].rtp_time));
}

fn vp8_frame(is_keyframe: bool, n: u64) -> SourceFrame {
    let mut data = vec![u8::from(!is_keyframe), 0, 0];
    if is_keyframe {
        data.extend([0x9d, 0x01, 0x2a, 128, 2, 104, 1]);
    }
    data.resize(3_000, n as u8);
    SourceFrame { pts_us: n * 33_333, is_keyframe, data }
}

#[test]
fn a_source_plays_to_subscribers_at_its_own_pace() {
    let mut net = Net::new(3);
    net.add_process(1);
    let bob = net.join(0, "bob", ClientSpec::subscriber());
    let create = Command::CreateSource { track: "file".into(), room: ROOM.into(), codec: Codec::Vp8 };
    net.command(0, create.clone()).unwrap();
    assert!(matches!(net.command(0, create), Err(Error::AlreadyExists(_))));
    net.subscribe(bob, &[("file", Kind::Video)]);
    let frames = (0..60).map(|n| vp8_frame(n % 30 == 0, n)).collect();
    net.command(0, Command::PushFrames { track: "file".into(), late_us: 0, frames }).unwrap();
    net.run(SECOND);
    let half = net.clients[bob].packets.len();
    assert!((80..110).contains(&half), "{half}");
    net.run(2 * SECOND);
    let packets = net.clients[bob].sorted(net.clients[bob].ssrcs()[0]);
    assert_eq!(packets.len(), 180);
    assert!(packets.windows(2).all(|w| *w[1].seq_no == *w[0].seq_no + 1));
    let span = packets[179].header.timestamp.wrapping_sub(packets[0].header.timestamp);
    assert!((176_000..178_000).contains(&span), "{span}");
    // A late joiner makes the source be asked for a key frame.
    let carol = net.join(0, "carol", ClientSpec::subscriber());
    net.subscribe(carol, &[("file", Kind::Video)]);
    net.run(SECOND / 10);
    assert!(net.has_event(0, |e| matches!(e, Event::KeyframeRequested { track } if track.as_str() == "file")));
    net.command(0, Command::UnpublishTrack { track: "file".into() }).unwrap();
    let push = Command::PushFrames { track: "file".into(), late_us: 0, frames: vec![] };
    assert!(matches!(net.command(0, push), Err(Error::TrackNotFound(_))));
}

/// The feeder of a file may be held up between the first picture and the first sound.
#[test]
fn sources_of_one_clock_stay_together_whenever_their_first_frames_come() {
    let mut net = Net::new(6);
    net.add_process(1);
    let opus = |n: u64| SourceFrame { pts_us: n * 20_000, is_keyframe: true, data: vec![0xFC, n as u8, 1] };
    for (track, codec) in [("picture", Codec::Vp8), ("sound", Codec::Opus)] {
        net.command(0, Command::CreateSource { track: track.into(), room: ROOM.into(), codec }).unwrap();
        net.command(0, Command::CreateSink { sink: track.into(), track: track.into() }).unwrap();
    }
    let frames = (0..30).map(|n| vp8_frame(n == 0, n)).collect();
    net.command(0, Command::PushFrames { track: "picture".into(), late_us: 0, frames }).unwrap();
    let held_up = Duration::from_millis(70);
    net.run(held_up);
    let late_us = held_up.as_micros() as i64;
    let frames = (0..50).map(opus).collect();
    net.command(0, Command::PushFrames { track: "sound".into(), late_us, frames }).unwrap();
    net.run(SECOND);
    let first =
        |sink: &str| net.nodes[0].frames.iter().find(|f| f.sink.as_str() == sink).expect("frames").captured_at_us;
    assert!(first("picture").abs_diff(first("sound")) < 1_000, "{}", first("picture") - first("sound"));
}
