//! The life of tracks and slots: mapping, muting, ending, codecs.

use std::time::Duration;

use crate::support::client::Codecs;
use crate::support::media::{OpusSource, Outgoing, Vp8Source, read_vp8, run};
use crate::support::{ClientSpec, Net, wanted};
use mrtc_core::command::{Command, Kind};
use mrtc_core::error::Error;
use mrtc_core::event::Event;

const SECOND: Duration = Duration::from_secs(1);

fn three(seed: u64) -> (Net, [usize; 3]) {
    let mut net = Net::new(seed);
    net.add_process(1);
    let clients = ["alice", "bob", "carol"].map(|name| {
        let spec = ClientSpec { audio_slots: 1, video_slots: 1, ..ClientSpec::publisher() };
        net.join(0, name, spec)
    });
    for (n, name) in ["alice", "bob", "carol"].iter().enumerate() {
        net.publish(clients[n], &format!("{name}-audio"), 0);
        net.publish(clients[n], &format!("{name}-video"), 1);
    }
    (net, clients)
}

#[test]
fn a_slot_goes_on_without_a_break_when_its_track_changes() {
    let (mut net, [alice, bob, carol]) = three(1);
    let mut video = [Vp8Source::new(alice, 1, None, 360), Vp8Source::new(bob, 1, None, 480)];
    net.subscribe(carol, &[("alice-video", Kind::Video)]);
    run(&mut net, SECOND, &mut [], &mut video);
    net.subscribe(carol, &[("bob-video", Kind::Video)]);
    run(&mut net, SECOND, &mut [], &mut video);
    net.subscribe(carol, &[("alice-video", Kind::Video)]);
    run(&mut net, SECOND, &mut [], &mut video);
    let client = &net.clients[carol];
    assert_eq!(client.ssrcs().len(), 1);
    let packets = client.sorted(client.ssrcs()[0]);
    let mut heights = vec![];
    for pair in packets.windows(2) {
        let (a, b) = (read_vp8(&pair[0].payload), read_vp8(&pair[1].payload));
        assert_eq!(*pair[1].seq_no, *pair[0].seq_no + 1);
        assert!((pair[1].header.timestamp.wrapping_sub(pair[0].header.timestamp) as i32) >= 0);
        if a.height != b.height {
            assert!(b.is_keyframe);
            heights.push(b.height);
        }
    }
    assert_eq!(heights, [480, 360]);
}

#[test]
fn a_track_keeps_its_slot_and_too_many_find_none() {
    let (mut net, [_, _, carol]) = three(2);
    let both = [("alice-video", Kind::Video), ("bob-video", Kind::Video)];
    let reply = net.subscribe(carol, &both);
    assert_eq!(reply.unplaced, ["bob-video".into()]);
    let reply = net.subscribe(carol, &[both[1], both[0], ("nobody", Kind::Audio)]);
    assert_eq!(reply.unplaced, ["bob-video".into()]);
    assert_eq!(reply.missing, ["nobody".into()]);
    let carried: Vec<_> = reply.slots.iter().filter_map(|(_, _, track)| track.clone()).collect();
    assert_eq!(carried, ["alice-video".into()]);
    let twice = vec![wanted("alice-video", Kind::Video), wanted("alice-video", Kind::Video)];
    let command = Command::SetSubscriptions { transport: "carol".into(), subscriptions: twice, audio_top_n: 0 };
    assert!(matches!(net.command(0, command), Err(Error::BadRequest(_))));
}

#[test]
fn a_muted_track_sends_nothing_and_comes_back_at_a_key_frame() {
    let (mut net, [alice, bob, _]) = three(3);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    let mut audio = [OpusSource::new(alice, 0)];
    net.subscribe(bob, &[("alice-video", Kind::Video), ("alice-audio", Kind::Audio)]);
    run(&mut net, SECOND, &mut audio, &mut video);
    for track in ["alice-video", "alice-audio"] {
        net.command(0, Command::SetTrackMuted { track: track.into(), is_muted: true }).unwrap();
    }
    net.run(SECOND / 10);
    let before = net.clients[bob].packets.len();
    run(&mut net, SECOND, &mut audio, &mut video);
    assert_eq!(net.clients[bob].packets.len(), before);
    for track in ["alice-video", "alice-audio"] {
        net.command(0, Command::SetTrackMuted { track: track.into(), is_muted: false }).unwrap();
    }
    run(&mut net, SECOND, &mut audio, &mut video);
    let client = &net.clients[bob];
    for ssrc in client.ssrcs() {
        let packets = client.sorted(ssrc);
        assert!(packets.windows(2).all(|w| *w[1].seq_no == *w[0].seq_no + 1));
    }
    let first = client.packets[before..].iter().find(|p| p.payload.len() > 500).expect("video goes on");
    assert!(read_vp8(&first.payload).is_keyframe);
    let times: Vec<u32> =
        client.sorted(*client.packets[before].header.ssrc).iter().map(|p| p.header.timestamp).collect();
    assert!(times.windows(2).all(|w| (w[1].wrapping_sub(w[0]) as i32) >= 0));
}

#[test]
fn the_codec_that_a_client_decodes_is_sent() {
    let mut net = Net::new(4);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec { video_slots: 0, ..ClientSpec::publisher() });
    let bob = net.join(0, "bob", ClientSpec { codecs: Codecs::H264Only, ..ClientSpec::publisher() });
    let vp8 = net.join(0, "vp8", ClientSpec::subscriber());
    let h264 = net.join(0, "h264", ClientSpec { codecs: Codecs::H264Only, ..ClientSpec::subscriber() });
    net.publish(alice, "cam-vp8", 1);
    net.publish(bob, "cam-h264", 1);
    let mut both = wanted("cam-vp8", Kind::Video);
    both.alternatives = vec!["cam-h264".into()];
    for client in [vp8, h264] {
        let reply = net.subscribe_to(client, vec![both.clone()]);
        assert!(reply.no_common_codec.is_empty());
        assert!(reply.slots.iter().any(|(_, _, track)| track.as_ref() == Some(&"cam-vp8".into())));
    }
    let reply = net.subscribe(h264, &[("cam-vp8", Kind::Video)]);
    assert_eq!(reply.no_common_codec, ["cam-vp8".into()]);
}

#[test]
fn tracks_end_with_their_transport() {
    let (mut net, [alice, bob, _]) = three(5);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    net.subscribe(bob, &[("alice-video", Kind::Video)]);
    run(&mut net, SECOND, &mut [], &mut video);
    net.command(0, Command::CloseTransport { transport: "alice".into() }).unwrap();
    net.run(SECOND / 10);
    assert!(net.has_event(0, |e| matches!(e, Event::TrackEnded { track } if track.as_str() == "alice-video")));
    let reply = net.subscribe(bob, &[("alice-video", Kind::Video)]);
    assert_eq!(reply.missing, ["alice-video".into()]);
    assert!(net.clients[alice].is_ended || !net.clients[alice].rtc.is_alive());
    let again = Command::PublishTrack { track: "alice-video".into(), transport: "bob".into(), mid: "nope".into() };
    assert!(matches!(net.command(0, again), Err(Error::BadRequest(_))));
}

#[test]
fn the_loudest_speaker_is_told() {
    let (mut net, [alice, bob, _]) = three(6);
    let mut audio = [OpusSource::new(alice, 0), OpusSource { level: -70, ..OpusSource::new(bob, 0) }];
    run(&mut net, 2 * SECOND, &mut audio, &mut []);
    let told = net.nodes[0].events.iter().rev().find_map(|e| match e {
        Event::ActiveSpeakers { speakers, .. } => Some(speakers.clone()),
        _ => None,
    });
    let told = told.expect("somebody speaks");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0.as_str(), "alice-audio");
}

#[test]
fn rooms_never_meet() {
    let (mut net, [_, _, _]) = three(7);
    let (mut client, offer, pending) =
        crate::support::Client::new(net.now, "mallory", 0, "10.9.9.9:1".parse().unwrap(), &ClientSpec::subscriber());
    let create = Command::CreateTransport {
        transport: "mallory".into(),
        room: "other/room".into(),
        offer,
        caps: Default::default(),
    };
    let Ok(mrtc_core::event::Reply::Answer { answer, lines }) = net.command(0, create) else { panic!() };
    client.accept(pending, &answer, lines);
    let subscriptions = vec![wanted("alice-video", Kind::Video)];
    let reply = net
        .command(0, Command::SetSubscriptions { transport: "mallory".into(), subscriptions, audio_top_n: 0 })
        .unwrap();
    let mrtc_core::event::Reply::Slots(slots) = reply else { panic!() };
    assert_eq!(slots.missing, ["alice-video".into()]);
}

#[test]
fn the_first_packets_of_a_picture_wait_a_moment_for_its_last() {
    let (mut net, [alice, _, carol]) = three(9);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    net.subscribe(carol, &[("alice-video", Kind::Video)]);
    run(&mut net, SECOND, &mut [], &mut video);
    run(&mut net, Duration::from_millis(100), &mut [], &mut []);
    let sent = |net: &Net| net.nodes[0].shard.counters().tx_rtp_packets;
    let mut write = |net: &mut Net, marker| {
        let Vp8Source { pt, seq, timestamp, .. } = video[0];
        video[0].seq += 1;
        let payload = vec![0x80, 0x80, 0x80, 0x64, 0];
        let packet = Outgoing { pt, seq, timestamp, marker, audio_level: None, payload };
        let now = net.now;
        net.clients[alice].write(now, 1, None, &packet);
    };
    // In virtual time a step is as long as the patience.
    for (markers, expected) in [(&[true][..], [1, 1]), (&[false], [0, 1]), (&[false, false, true], [3, 3])] {
        let (before, taken) = (sent(&net), net.nodes[0].shard.counters().rx_rtp_packets);
        markers.iter().for_each(|marker| write(&mut net, *marker));
        let has_come = |net: &Net| net.nodes[0].shard.counters().rx_rtp_packets > taken;
        net.run_until(SECOND, has_come);
        let at_once = sent(&net) - before;
        net.step();
        assert_eq!([at_once, sent(&net) - before], expected, "{markers:?}");
    }
}
