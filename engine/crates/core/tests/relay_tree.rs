//! Tracks that nodes pass on to each other: every hop repairs itself, what receivers ask for goes up to the publisher, and
//! a node that gets the track from elsewhere shows its viewers nothing of it.

use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, read_opus, read_vp8, run};
use crate::support::{ClientSpec, Net, ROOM, wanted};
use mrtc_core::command::{Codec, Command, Kind, Subscription};
use mrtc_core::error::Error;
use mrtc_core::event::Event;
use mrtc_netem::LinkConfig;

const SECOND: Duration = Duration::from_secs(1);

fn near() -> LinkConfig {
    LinkConfig { delay: Duration::from_millis(10), ..LinkConfig::default() }
}

/// Opens a relay and lets tracks flow over it; handles count from `first`.
fn carry(net: &mut Net, from: usize, to: usize, tracks: &[(&str, Codec, &[&str])], first: u32) {
    let relay = name(from, to);
    net.open_relay(from, to, &relay);
    for (n, (track, codec, rids)) in tracks.iter().enumerate() {
        let handle = first + n as u32;
        net.command(from, export(&relay, track, handle)).unwrap();
        let import = Command::ImportTrack {
            relay: relay.as_str().into(),
            track: (*track).into(),
            room: ROOM.into(),
            handle,
            codec: *codec,
            rids: rids.iter().map(|rid| (*rid).to_owned()).collect(),
        };
        net.command(to, import).unwrap();
    }
}

fn name(from: usize, to: usize) -> String {
    format!("{from}-{to}")
}

fn export(relay: &str, track: &str, handle: u32) -> Command {
    Command::ExportTrack { relay: relay.into(), track: track.into(), handle }
}

fn move_import(relay: &str, track: &str, handle: u32) -> Command {
    Command::MoveImport { relay: relay.into(), track: track.into(), handle }
}

/// The first node sends to the second, that one to the third; alice is on the first, bob on the third.
fn chain(seed: u64, link: LinkConfig, spec: ClientSpec) -> (Net, usize, usize) {
    let rids = spec.rids.clone();
    let mut net = Net::new(seed);
    (0..3).for_each(|_| assert!(net.add_process(1) < 3));
    net.relay_link.set_config(link);
    let alice = net.join(0, "alice", spec);
    let bob = net.join(2, "bob", ClientSpec::subscriber());
    net.publish(alice, "audio", 0);
    net.publish(alice, "video", 1);
    for (from, to) in [(0, 1), (1, 2)] {
        carry(&mut net, from, to, &[("audio", Codec::Opus, &[]), ("video", Codec::Vp8, &rids)], 3);
    }
    (net, alice, bob)
}

/// The same without simulcast, and a fourth node that has the video too and could give it to the third.
fn with_another_way(seed: u64) -> (Net, usize, Vp8Source) {
    let (mut net, alice, bob) = chain(seed, near(), ClientSpec::publisher());
    let other = net.add_process(1);
    let carol = net.join(other, "carol", ClientSpec::subscriber());
    carry(&mut net, 0, other, &[("video", Codec::Vp8, &[])], 20);
    for client in [bob, carol] {
        net.subscribe(client, &[("video", Kind::Video)]);
    }
    let mut video = Vp8Source::new(alice, 1, None, 360);
    run(&mut net, 3 * SECOND, &mut [], std::slice::from_mut(&mut video));
    net.open_relay(other, 2, &name(other, 2));
    (net, bob, video)
}

/// The publisher's numbers of the video that a client received, sorted, each as often as it came.
fn received(net: &Net, client: usize) -> Vec<u64> {
    let packets = net.clients[client].packets.iter().filter(|p| p.payload.len() > 500);
    let mut numbers: Vec<u64> = packets.map(|p| read_vp8(&p.payload).source_seq).collect();
    numbers.sort_unstable();
    numbers
}

fn assert_each_once(numbers: &[u64]) {
    assert!(numbers.len() > 100);
    let wrong = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert_eq!(wrong, None);
}

fn rids_wanted(net: &Net) -> Option<Vec<String>> {
    net.nodes[0].events.iter().rev().find_map(|event| match event {
        Event::LayersWanted { rids, .. } => Some(rids.clone()),
        _ => None,
    })
}

#[test]
fn each_hop_repairs_itself() {
    let (mut net, alice, bob) = chain(21, LinkConfig { loss: 0.05, ..near() }, ClientSpec::publisher());
    net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
    let (mut audio, mut video) = ([OpusSource::new(alice, 0)], [Vp8Source::new(alice, 1, None, 360)]);
    run(&mut net, 6 * SECOND, &mut audio, &mut video);
    net.run(SECOND);
    for node in [1, 2] {
        assert!(net.nodes[node].shard.counters().rx_recovered_packets > 20, "node {node}");
    }
    let mut video = received(&net, bob);
    video.dedup();
    let sound = net.clients[bob].packets.iter().filter(|p| p.payload.len() < 100);
    let mut sound: Vec<u64> = sound.map(|p| read_opus(&p.payload)).collect();
    sound.sort_unstable();
    for numbers in [video, sound] {
        let expected = numbers.last().unwrap() - numbers[0] + 1;
        assert!(numbers.len() as f64 > 0.995 * expected as f64, "{} of {expected}", numbers.len());
    }
}

/// Two speak in turn on the first node; of them only the louder one is heard on the third.
#[test]
fn levels_arrive_over_every_hop() {
    let (mut net, alice, bob) = chain(29, near(), ClientSpec::publisher());
    let carol = net.join(0, "carol", ClientSpec::publisher());
    net.publish(carol, "other", 0);
    for (from, to) in [(0, 1), (1, 2)] {
        carry(&mut net, from, to, &[("other", Codec::Opus, &[])], 40);
    }
    net.listen(bob, vec![wanted("audio", Kind::Audio), wanted("other", Kind::Audio)], 1);
    let mut audio = [OpusSource::new(alice, 0), OpusSource { seq: 90_000, ..OpusSource::new(carol, 0) }];
    for speaker in [1, 0, 1] {
        for (n, source) in audio.iter_mut().enumerate() {
            source.level = if n == speaker { -30 } else { -110 };
        }
        run(&mut net, 3 * SECOND, &mut audio, &mut []);
        let newest = net.clients[bob].packets.last().unwrap();
        assert_eq!(usize::from(read_opus(&newest.payload) >= 90_000), speaker);
    }
}

#[test]
fn a_key_frame_that_leaves_ask_for_reaches_the_publisher_once() {
    let (mut net, alice, bob) = chain(22, near(), ClientSpec::publisher());
    let carol = net.join(1, "carol", ClientSpec::subscriber());
    for client in [bob, carol] {
        net.subscribe(client, &[("video", Kind::Video)]);
    }
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, 3 * SECOND, &mut [], &mut video);
    let asked = |net: &Net| net.nodes[0].shard.counters().tx_keyframe_requests;
    let before = (video[0].keyframes, asked(&net));
    for client in [bob, carol] {
        let ssrc =
            *net.clients[client].ssrcs().iter().max_by_key(|ssrc| net.clients[client].sorted(**ssrc).len()).unwrap();
        net.clients[client].request_keyframe(ssrc);
    }
    run(&mut net, SECOND, &mut [], &mut video);
    assert_eq!((video[0].keyframes, asked(&net)), (before.0 + 1, before.1 + 1));
    let newest = net.clients[bob].packets.iter().rev().find(|p| read_vp8(&p.payload).is_keyframe);
    assert!(read_vp8(&newest.unwrap().payload).source_seq > 1_000 + 3 * 90 - 20);
}

#[test]
fn layers_that_no_leaf_wants_are_off_at_the_publisher() {
    let (mut net, alice, bob) = chain(23, near(), ClientSpec::simulcast());
    let layer = |rid, height| Vp8Source::new(alice, 1, Some(rid), height);
    let mut video = [layer("q", 180), layer("h", 360), layer("f", 720)];
    let mut want = |net: &mut Net, height: Option<u32>, time: Duration| {
        let video_of = |height| Subscription { max_height: Some(height), ..wanted("video", Kind::Video) };
        net.subscribe_to(bob, height.map(video_of).into_iter().collect());
        run(net, time, &mut [], &mut video);
    };
    let height = |net: &Net| {
        let newest = net.clients[bob].packets.iter().rev().find(|p| p.payload.len() > 500).unwrap();
        read_vp8(&newest.payload).height
    };
    want(&mut net, Some(180), 8 * SECOND);
    assert_eq!(rids_wanted(&net), Some(vec!["q".to_owned()]));
    assert_eq!(height(&net), 180);
    want(&mut net, Some(720), 3 * SECOND);
    assert_eq!(height(&net), 720);
    assert!(rids_wanted(&net).unwrap().contains(&"f".to_owned()));
    want(&mut net, None, 9 * SECOND);
    assert_eq!(rids_wanted(&net), Some(vec![]));
    let crossed = |net: &Net| [0, 1].map(|node: usize| net.nodes[node].shard.counters().tx_relay_datagrams);
    let before = crossed(&net);
    want(&mut net, None, SECOND);
    let after = crossed(&net);
    // Pings, wishes and times.
    assert!((0..2).all(|node| after[node] - before[node] < 30), "{before:?} {after:?}");
}

#[test]
fn what_has_one_layer_does_not_cross_either_if_no_leaf_wants_it() {
    let (mut net, alice, bob) = chain(24, near(), ClientSpec::publisher());
    net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
    let (mut audio, mut video) = ([OpusSource::new(alice, 0)], [Vp8Source::new(alice, 1, None, 360)]);
    run(&mut net, 2 * SECOND, &mut audio, &mut video);
    net.subscribe(bob, &[]);
    run(&mut net, 6 * SECOND, &mut audio, &mut video);
    let crossed = |net: &Net| net.nodes[0].shard.counters().tx_relay_datagrams;
    let before = crossed(&net);
    run(&mut net, SECOND, &mut audio, &mut video);
    assert!(crossed(&net) - before < 10, "{}", crossed(&net) - before);
    // It is there again as soon as it is wanted.
    net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
    let before = net.clients[bob].packets.len();
    run(&mut net, SECOND, &mut audio, &mut video);
    assert!(net.clients[bob].packets.len() > before + 110);
}

#[test]
fn a_track_that_comes_from_another_node_from_now_on_has_no_gap() {
    let (mut net, bob, mut video) = with_another_way(25);
    let keyframes = video.keyframes;
    net.command(3, export("3-2", "video", 30)).unwrap();
    net.command(2, move_import("3-2", "video", 30)).unwrap();
    // Said again after a lost reply.
    net.command(2, move_import("3-2", "video", 30)).unwrap();
    run(&mut net, SECOND / 2, &mut [], std::slice::from_mut(&mut video));
    let twice = net.nodes[2].shard.counters().drop_duplicate;
    assert!(twice > 20, "both send: {twice}");
    for node in [2, 1] {
        net.command(node, Command::UnexportTrack { relay: "1-2".into(), track: "video".into() }).unwrap();
    }
    run(&mut net, SECOND / 10, &mut [], std::slice::from_mut(&mut video));
    let twice = net.nodes[2].shard.counters().drop_duplicate;
    run(&mut net, SECOND, &mut [], std::slice::from_mut(&mut video));
    assert!(net.nodes[2].shard.counters().drop_duplicate - twice < 5, "one sends");
    assert_each_once(&received(&net, bob));
    assert_eq!(video.keyframes, keyframes, "nobody had to begin anew");
    let came: Vec<_> = net.clients[bob].packets.iter().map(|p| p.timestamp).collect();
    let gap = came.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(gap < SECOND / 20, "{gap:?}");
    // The former relay is of no matter any more, the new one is.
    net.command(2, Command::CloseRelay { relay: "1-2".into() }).unwrap();
    let is_video_over = |e: &Event| matches!(e, Event::TrackEnded { track } if track.as_str() == "video");
    assert!(!net.has_event(2, is_video_over));
    net.command(2, Command::CloseRelay { relay: "3-2".into() }).unwrap();
    assert!(net.has_event(2, is_video_over));
}

#[test]
fn what_lacks_since_a_node_died_is_asked_for_at_the_next_one() {
    let (mut net, bob, mut video) = with_another_way(26);
    // It says nothing more, and nobody is told.
    net.command(1, Command::CloseRelay { relay: "1-2".into() }).unwrap();
    run(&mut net, SECOND, &mut [], std::slice::from_mut(&mut video));
    let before = net.clients[bob].packets.len();
    net.command(3, export("3-2", "video", 30)).unwrap();
    net.command(2, move_import("3-2", "video", 30)).unwrap();
    run(&mut net, SECOND / 4, &mut [], std::slice::from_mut(&mut video));
    assert!(net.clients[bob].packets.len() > before + 100, "a second and a quarter of video");
    assert_each_once(&received(&net, bob));
}

#[test]
fn a_hole_that_nobody_can_fill_is_over_at_a_key_frame() {
    let (mut net, bob, mut video) = with_another_way(27);
    net.command(1, Command::CloseRelay { relay: "1-2".into() }).unwrap();
    // Longer than what is kept of gaps.
    run(&mut net, 4 * SECOND, &mut [], std::slice::from_mut(&mut video));
    let keyframes = video.keyframes;
    net.command(3, export("3-2", "video", 30)).unwrap();
    net.command(2, move_import("3-2", "video", 30)).unwrap();
    run(&mut net, SECOND / 2, &mut [], std::slice::from_mut(&mut video));
    assert!(video.keyframes > keyframes);
    let newest = net.clients[bob].packets.iter().rev().find(|p| read_vp8(&p.payload).is_keyframe).unwrap();
    assert!(net.now - newest.timestamp < SECOND / 2);
}

#[test]
fn only_what_comes_over_a_relay_of_the_worker_can_move() {
    let (mut net, ..) = chain(28, near(), ClientSpec::publisher());
    let not_there = net.command(2, move_import("1-2", "none", 30));
    assert!(matches!(not_there, Err(Error::TrackNotFound(_))));
    assert!(matches!(net.command(2, move_import("none", "video", 30)), Err(Error::RelayNotFound(_))));
    assert!(matches!(net.command(0, move_import("0-1", "video", 30)), Err(Error::BadRequest(_))));
    assert!(matches!(net.command(2, move_import("1-2", "video", 3)), Err(Error::AlreadyExists(_))));
}
