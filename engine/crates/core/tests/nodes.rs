//! Tracks that cross shards of one process, and nodes by relay.

use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, read_vp8, run};
use crate::support::{ClientSpec, Net, ROOM, wanted};
use mrtc_core::command::{Codec, Command, Kind, SourceFrame};
use mrtc_core::error::Error;
use mrtc_core::event::Event;
use mrtc_netem::LinkConfig;

const SECOND: Duration = Duration::from_secs(1);

fn assert_whole(net: &Net, client: usize, least: usize) {
    let client = &net.clients[client];
    assert!(!client.ssrcs().is_empty());
    for ssrc in client.ssrcs() {
        let packets = client.sorted(ssrc);
        assert!(packets.len() >= least, "{} of {least}", packets.len());
        assert!(packets.windows(2).all(|w| *w[1].seq_no == *w[0].seq_no + 1), "gap");
    }
}

#[test]
fn a_track_crosses_from_shard_to_shard_by_reference() {
    let mut net = Net::new(1);
    net.add_process(2);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let bob = net.join(1, "bob", ClientSpec::subscriber());
    net.publish(alice, "audio", 0);
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
    let (mut audio, mut video) = ([OpusSource::new(alice, 0)], [Vp8Source::new(alice, 1, None, 360)]);
    run(&mut net, 2 * SECOND, &mut audio, &mut video);
    assert_whole(&net, bob, 90);
    let shared = net.nodes[0].shard.counters().tx_shard_packets;
    assert!(shared > 200);
    // Nobody receives it any more: nothing crosses.
    net.subscribe(bob, &[]);
    net.run(SECOND / 10);
    let shared = net.nodes[0].shard.counters().tx_shard_packets;
    run(&mut net, SECOND / 2, &mut audio, &mut video);
    assert_eq!(net.nodes[0].shard.counters().tx_shard_packets, shared);
    // It ends at its origin.
    net.subscribe(bob, &[("video", Kind::Video)]);
    net.command(0, Command::UnpublishTrack { track: "video".into() }).unwrap();
    net.run(SECOND / 10);
    assert_eq!(net.subscribe(bob, &[("video", Kind::Video)]).missing, ["video".into()]);
}

#[test]
fn layers_and_key_frames_are_asked_for_across_shards() {
    let mut net = Net::new(2);
    net.add_process(2);
    let alice = net.join(0, "alice", ClientSpec::simulcast());
    let bob = net.join(1, "bob", ClientSpec::subscriber());
    net.publish(alice, "video", 1);
    let layer = |rid, height| Vp8Source::new(alice, 1, Some(rid), height);
    let mut video = [layer("q", 180), layer("h", 360), layer("f", 720)];
    let mut subscription = wanted("video", Kind::Video);
    subscription.max_height = Some(180);
    net.subscribe_to(bob, vec![subscription.clone()]);
    run(&mut net, 4 * SECOND, &mut [], &mut video);
    let told = |net: &Net| {
        net.nodes[0].events.iter().rev().find_map(|e| match e {
            Event::LayersWanted { rids, .. } => Some(rids.clone()),
            _ => None,
        })
    };
    assert_eq!(told(&net), Some(vec!["q".to_owned()]));
    subscription.max_height = Some(360);
    net.subscribe_to(bob, vec![subscription]);
    run(&mut net, 3 * SECOND, &mut [], &mut video);
    assert_eq!(read_vp8(&net.clients[bob].packets.last().unwrap().payload).height, 360);
}

/// Two processes, joined by a relay with this link; alice publishes on one, bob receives on the other.
fn relayed(seed: u64, link: LinkConfig) -> (Net, usize, usize) {
    let mut net = Net::new(seed);
    let (a, b) = (net.add_process(1), net.add_process(1));
    net.relay_link.set_config(link);
    let alice = net.join(a, "alice", ClientSpec::publisher());
    let bob = net.join(b, "bob", ClientSpec::subscriber());
    net.publish(alice, "audio", 0);
    net.publish(alice, "video", 1);
    net.open_relay(a, b, "a-b");
    net.run_until(2 * SECOND, |net| (0..2).all(|node| net.has_event(node, |e| matches!(e, Event::RelayUp { .. }))));
    carry(&mut net, a, b, "audio", 7, Codec::Opus);
    carry(&mut net, a, b, "video", 8, Codec::Vp8);
    (net, alice, bob)
}

fn carry(net: &mut Net, a: usize, b: usize, track: &str, handle: u32, codec: Codec) {
    carry_by(net, "a-b", a, b, track, handle, codec);
}

fn carry_by(net: &mut Net, relay: &str, a: usize, b: usize, track: &str, handle: u32, codec: Codec) {
    let import = Command::ImportTrack {
        relay: relay.into(),
        track: track.into(),
        room: ROOM.into(),
        handle,
        codec,
        rids: vec![],
    };
    net.command(b, import).unwrap();
    net.command(a, Command::ExportTrack { relay: relay.into(), track: track.into(), handle }).unwrap();
}

#[test]
fn a_relay_carries_tracks_between_nodes() {
    let (mut net, alice, bob) = relayed(3, LinkConfig { delay: SECOND / 100, ..LinkConfig::default() });
    net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
    let (mut audio, mut video) = ([OpusSource::new(alice, 0)], [Vp8Source::new(alice, 1, None, 360)]);
    run(&mut net, 2 * SECOND, &mut audio, &mut video);
    assert_whole(&net, bob, 90);
    // The far side wants nothing: nothing flows.
    net.subscribe(bob, &[]);
    run(&mut net, 4 * SECOND, &mut audio, &mut video);
    let sent = net.nodes[0].shard.counters().tx_relay_datagrams;
    run(&mut net, SECOND, &mut audio, &mut video);
    let sent = net.nodes[0].shard.counters().tx_relay_datagrams - sent;
    assert!(sent < 10, "{sent} datagrams");
    net.subscribe(bob, &[("video", Kind::Video)]);
    let before = net.clients[bob].packets.len();
    run(&mut net, SECOND, &mut audio, &mut video);
    assert!(net.clients[bob].packets.len() > before + 50);
}

/// Two hundred on three nodes, with an association from the publisher's node to each other one.
#[test]
fn a_storm_of_subscribers_over_nodes_costs_few_key_frames() {
    const SUBSCRIBERS: usize = 200;
    let mut net = Net::new(12);
    let nodes = [net.add_process(1), net.add_process(1), net.add_process(1)];
    let alice = net.join(nodes[0], "alice", ClientSpec::publisher());
    net.publish(alice, "video", 1);
    for (handle, node) in [(7, nodes[1]), (8, nodes[2])] {
        let relay = format!("to-{node}");
        net.open_relay(nodes[0], node, &relay);
        carry_by(&mut net, &relay, nodes[0], node, "video", handle, Codec::Vp8);
    }
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut video);
    let asked = |net: &Net, node: usize| net.nodes[node].shard.counters().tx_keyframe_requests;
    let before = nodes.map(|node| asked(&net, node));
    // They come within a third of a second, and each needs a key frame when it is connected.
    let began = net.now;
    let mut crowd = vec![];
    while crowd.len() < SUBSCRIBERS {
        let spec = ClientSpec { video_slots: 1, ..ClientSpec::default() };
        crowd.push(net.add_client(nodes[crowd.len() % 3], &format!("s{}", crowd.len()), spec));
        net.subscribe(crowd[crowd.len() - 1], &[("video", Kind::Video)]);
        if crowd.len() % 3 == 0 {
            run(&mut net, SECOND / 200, &mut [], &mut video);
        }
    }
    while !crowd.iter().all(|&client| net.clients[client].packets.len() > 10) {
        assert!(net.now < began + 3 * SECOND, "somebody receives nothing");
        run(&mut net, SECOND / 100, &mut [], &mut video);
    }
    // A request of each node in three tenths of a second at most, and as many at the publisher, whoever asks.
    let windows = (net.now - began).as_millis() as u64 / 300 + 1;
    for (node, before) in nodes.into_iter().zip(before) {
        let asked = asked(&net, node) - before;
        assert!((1..=windows).contains(&asked), "node {node}: {asked} in {windows}");
    }
    for client in crowd {
        assert!(read_vp8(&net.clients[client].packets[0].payload).is_keyframe);
    }
}

#[test]
fn layers_switch_over_a_relay_and_unwanted_ones_do_not_cross() {
    let mut net = Net::new(8);
    let (a, b) = (net.add_process(1), net.add_process(1));
    let alice = net.join(a, "alice", ClientSpec::simulcast());
    let bob = net.join(b, "bob", ClientSpec::subscriber());
    net.publish(alice, "video", 1);
    net.open_relay(a, b, "a-b");
    let import = Command::ImportTrack {
        relay: "a-b".into(),
        track: "video".into(),
        room: ROOM.into(),
        handle: 3,
        codec: Codec::Vp8,
        rids: ["q", "h", "f"].map(String::from).to_vec(),
    };
    net.command(b, import).unwrap();
    net.command(a, Command::ExportTrack { relay: "a-b".into(), track: "video".into(), handle: 3 }).unwrap();
    net.command(b, Command::CreateSink { sink: "sink".into(), track: "video".into() }).unwrap();
    let layer = |rid, height| Vp8Source::new(alice, 1, Some(rid), height);
    let mut video = [layer("q", 180), layer("h", 360), layer("f", 720)];
    let mut ask = |net: &mut Net, height| {
        let mut subscription = wanted("video", Kind::Video);
        subscription.max_height = Some(height);
        net.subscribe_to(bob, vec![subscription]);
        run(net, 4 * SECOND, &mut [], &mut video);
        let before = net.nodes[0].shard.counters().tx_relay_datagrams;
        run(net, SECOND, &mut [], &mut video);
        let crossed = net.nodes[0].shard.counters().tx_relay_datagrams - before;
        (read_vp8(&net.clients[bob].packets.last().unwrap().payload).height, crossed)
    };
    let (height, crossed) = ask(&mut net, 180);
    assert_eq!(height, 180);
    // The subscriber's layer and the sink's: two of three, some 90 packets a second each.
    assert!((150..240).contains(&crossed), "{crossed}");
    net.command(b, Command::CloseSink { sink: "sink".into() }).unwrap();
    let (height, crossed) = ask(&mut net, 180);
    assert!(height == 180 && crossed < 130, "{crossed}");
    assert_eq!(ask(&mut net, 720).0, 720);
    assert_eq!(ask(&mut net, 360).0, 360);
    assert_whole(&net, bob, 500);
    let asked = net.nodes[1].shard.counters().drop_duplicate;
    assert!(asked < 20, "{asked} packets crossed twice");
}

#[test]
fn a_lossy_relay_repairs_itself() {
    let link = LinkConfig { delay: SECOND / 50, jitter: SECOND / 200, loss: 0.1, ..LinkConfig::default() };
    let (mut net, alice, bob) = relayed(4, link);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, 4 * SECOND, &mut [], &mut video);
    net.run(SECOND);
    let client = &net.clients[bob];
    let packets = client.sorted(client.ssrcs()[0]);
    let mut numbers: Vec<u64> = packets.iter().map(|p| read_vp8(&p.payload).source_seq).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let expected = numbers.last().unwrap() - numbers[0] + 1;
    assert!(numbers.len() as f64 > 0.995 * expected as f64, "{} of {expected}", numbers.len());
    assert!(net.nodes[1].shard.counters().rx_recovered_packets > 20);
}

#[test]
fn a_silent_relay_is_told_and_comes_back() {
    let (mut net, _, _) = relayed(5, LinkConfig::default());
    net.relay_link.set_config(LinkConfig { loss: 1.0, ..LinkConfig::default() });
    net.nodes[1].events.clear();
    net.run(5 * SECOND);
    assert!(net.has_event(1, |e| matches!(e, Event::RelayLost { .. })));
    net.nodes[1].events.clear();
    net.relay_link.set_config(LinkConfig::default());
    net.run(3 * SECOND);
    assert!(net.has_event(1, |e| matches!(e, Event::RelayUp { .. })));
}

#[test]
fn the_same_order_again_does_not_use_a_key_anew() {
    let (mut net, alice, bob) = relayed(7, LinkConfig::default());
    net.subscribe(bob, &[("video", Kind::Video)]);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut video);
    // Were packet numbers to begin anew, the other side would take them for replayed.
    net.open_relay(0, 1, "a-b");
    let before = net.nodes[1].shard.counters().drop_replayed;
    run(&mut net, SECOND, &mut [], &mut video);
    assert_eq!(net.nodes[1].shard.counters().drop_replayed, before);
    assert_whole(&net, bob, 150);
}

#[test]
fn a_relayed_track_ends_with_its_origin_or_its_relay() {
    let (mut net, _, _) = relayed(6, LinkConfig::default());
    net.command(0, Command::UnpublishTrack { track: "video".into() }).unwrap();
    net.run(SECOND / 10);
    assert!(net.has_event(1, |e| matches!(e, Event::TrackEnded { track } if track.as_str() == "video")));
    net.command(1, Command::CloseRelay { relay: "a-b".into() }).unwrap();
    assert!(net.has_event(1, |e| matches!(e, Event::TrackEnded { track } if track.as_str() == "audio")));
    let export = Command::ExportTrack { relay: "none".into(), track: "audio".into(), handle: 1 };
    assert!(matches!(net.command(1, export), Err(Error::RelayNotFound(_))));
}

/// A relay that opens long after both began, over a path that jitters: their distance is kept from the start.
#[test]
fn sources_keep_their_distance_over_a_relay() {
    const APART_US: i64 = 250_000;
    let mut net = Net::new(8);
    let (a, b) = (net.add_process(1), net.add_process(1));
    let (delay, jitter) = (SECOND / 25, SECOND / 50);
    net.relay_link.set_config(LinkConfig { delay, jitter, ..LinkConfig::default() });
    net.open_relay(a, b, "a-b");
    // A frame's number is in its second byte.
    let frame = |n: u64| SourceFrame { pts_us: n * 20_000, is_keyframe: true, data: vec![0xFC, n as u8, 1] };
    for track in ["first", "second"] {
        net.command(a, Command::CreateSource { track: track.into(), room: ROOM.into(), codec: Codec::Opus }).unwrap();
        let frames = (0..250).map(frame).collect();
        net.command(a, Command::PushFrames { track: track.into(), late_us: 0, frames }).unwrap();
        net.run(Duration::from_micros(APART_US as u64));
    }
    net.run(SECOND);
    for (handle, track) in [(1, "first"), (2, "second")] {
        carry(&mut net, a, b, track, handle, Codec::Opus);
        net.command(b, Command::CreateSink { sink: track.into(), track: track.into() }).unwrap();
    }
    net.run(2 * SECOND);
    // Where each one's number zero lies on the far node's clock.
    let zeros = |sink: &str| -> Vec<i64> {
        let frames = net.nodes[b].frames.iter().filter(|f| f.sink.as_str() == sink);
        frames.map(|f| f.captured_at_us - i64::from(f.data[1]) * 20_000).collect()
    };
    let (first, second) = (zeros("first"), zeros("second"));
    assert!(first.len() > 80 && second.len() > 80);
    for (first, second) in first.iter().zip(&second) {
        assert!((second - first - APART_US).abs() < 10_000, "{}", second - first - APART_US);
    }
}
