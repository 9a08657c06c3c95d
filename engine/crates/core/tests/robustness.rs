//! Garbage, replays, wraps, restarts and silence.

use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, read_vp8, run};
use crate::support::{ClientSpec, Net};
use mrtc_core::addr::Proto;
use mrtc_core::command::{Command, Kind};
use mrtc_core::error::Error;
use mrtc_core::event::{CloseReason, Event, Reply};
use mrtc_netem::{LinkConfig, Rng};

const SECOND: Duration = Duration::from_secs(1);

fn call(seed: u64) -> (Net, usize, usize) {
    let mut net = Net::new(seed);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let bob = net.join(0, "bob", ClientSpec::subscriber());
    net.publish(alice, "audio", 0);
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
    (net, alice, bob)
}

#[test]
fn garbage_changes_nothing() {
    let (mut net, alice, bob) = call(1);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, SECOND / 2, &mut [], &mut video);
    let mut rng = Rng::new(9);
    let to = net.nodes[0].addr;
    let sources = [net.clients[alice].addr, net.clients[bob].addr, "10.77.0.1:9".parse().unwrap()];
    for n in 0..20_000u32 {
        let len = (rng.next_u64() % 200) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        if let Some(first) = bytes.first_mut() {
            // Every protocol's share.
            *first = [0x00, 0x01, 0x16, 0x80, 0x90, 0xb0, 0xc1, 0xff][n as usize % 8];
        }
        let now = net.now;
        net.nodes[0].shard.handle_datagram(now, Proto::Udp, sources[n as usize % 3], to, &mut bytes);
        if n % 64 == 0 {
            net.drain(0);
        }
    }
    let before = net.clients[bob].packets.len();
    run(&mut net, SECOND, &mut [], &mut video);
    let client = &net.clients[bob];
    assert!(client.packets.len() > before + 80);
    let packets = client.sorted(client.ssrcs()[0]);
    assert!(packets.windows(2).all(|w| *w[1].seq_no == *w[0].seq_no + 1));
    let counters = net.nodes[0].shard.counters();
    assert!(counters.drop_unauthentic > 1_000 && counters.drop_unknown_source > 1_000);
}

#[test]
fn media_too_large_for_a_datagram_is_dropped() {
    let (mut net, alice, bob) = call(8);
    let (now, from, to) = (net.now, net.clients[alice].addr, net.nodes[0].addr);
    for first in [0x90, 0xc1] {
        let mut bytes = vec![first; 60_000];
        net.nodes[0].shard.handle_datagram(now, Proto::Tcp, from, to, &mut bytes);
    }
    assert_eq!(net.nodes[0].shard.counters().drop_too_large, 2);
    assert!(net.clients[bob].packets.is_empty());
}

#[test]
fn replayed_and_damaged_packets_are_dropped() {
    let (mut net, alice, bob) = call(2);
    net.uplinks[alice].set_config(LinkConfig { duplicate: 0.5, ..LinkConfig::default() });
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut video);
    assert!(net.nodes[0].shard.counters().drop_replayed > 20);
    let client = &net.clients[bob];
    let numbers: Vec<u64> = client.packets.iter().map(|p| read_vp8(&p.payload).source_seq).collect();
    assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1));
}

#[test]
fn sequence_numbers_and_timestamps_wrap() {
    let (mut net, alice, bob) = call(3);
    let mut video = [Vp8Source { seq: 65_500, timestamp: u32::MAX - 20_000, ..Vp8Source::new(alice, 1, None, 360) }];
    let mut audio = [OpusSource { seq: 65_500, ..OpusSource::new(alice, 0) }];
    net.downlinks[bob].set_config(LinkConfig { loss: 0.03, delay: SECOND / 100, ..LinkConfig::default() });
    run(&mut net, 2 * SECOND, &mut audio, &mut video);
    net.run(SECOND);
    let client = &net.clients[bob];
    let video: Vec<_> = client.packets.iter().filter(|p| p.payload.len() > 500).collect();
    let mut numbers: Vec<u64> = video.iter().map(|p| read_vp8(&p.payload).source_seq).collect();
    numbers.sort_unstable();
    assert!(numbers[0] < 65_536 && *numbers.last().unwrap() > 65_600);
    let expected = numbers.last().unwrap() - numbers[0] + 1;
    assert!(numbers.len() as u64 * 100 > expected * 99, "{} of {expected}", numbers.len());
}

#[test]
fn a_client_that_falls_silent_is_closed() {
    let (mut net, alice, _) = call(4);
    net.uplinks[alice].set_config(LinkConfig { loss: 1.0, ..LinkConfig::default() });
    net.run(12 * SECOND);
    let closed = |e: &Event| matches!(e, Event::TransportClosed { transport, reason: CloseReason::IceTimeout } if transport.as_str() == "alice");
    assert!(!net.has_event(0, closed));
    net.run(8 * SECOND);
    assert!(net.has_event(0, closed));
    assert!(net.has_event(0, |e| matches!(e, Event::TrackEnded { .. })));
    assert_eq!(net.nodes[0].shard.transport_count(), 1);
}

#[test]
fn a_client_that_never_connects_is_closed() {
    let mut net = Net::new(5);
    net.add_process(1);
    let dead = LinkConfig { loss: 1.0, ..LinkConfig::default() };
    net.add_client(0, "ghost", ClientSpec { up: dead, ..ClientSpec::publisher() });
    net.run(31 * SECOND);
    assert!(net.has_event(0, |e| matches!(e, Event::TransportClosed { reason: CloseReason::IceTimeout, .. })));
    assert_eq!(net.nodes[0].shard.transport_count(), 0);
}

#[test]
fn ice_restarts_and_media_goes_on() {
    let (mut net, alice, bob) = call(6);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut video);
    let (offer, pending) = net.clients[bob].restart_offer();
    let Ok(Reply::Answer { answer, lines }) = net.command(0, Command::Negotiate { transport: "bob".into(), offer })
    else {
        panic!("no answer")
    };
    net.clients[bob].accept(pending, &answer, lines);
    // From another address, as after a change of network.
    net.clients[bob].move_to("10.200.9.9:7000".parse().unwrap());
    let before = net.clients[bob].packets.len();
    run(&mut net, 3 * SECOND, &mut [], &mut video);
    let client = &net.clients[bob];
    assert!(client.packets.len() > before + 150, "{} {before}", client.packets.len());
    let packets = client.sorted(client.ssrcs()[0]);
    assert!(packets.windows(2).all(|w| w[1].seq_no > w[0].seq_no));
}

#[test]
fn wrong_commands_are_refused_and_repeated_ones_are_not() {
    let (mut net, alice, _) = call(7);
    let create = |offer: &str| Command::CreateTransport {
        transport: "new".into(),
        room: "r".into(),
        offer: offer.into(),
        caps: Default::default(),
    };
    assert!(matches!(net.command(0, create("nonsense")), Err(Error::BadOffer(_))));
    let publish = |track: &str, transport: &str, mid: String| Command::PublishTrack {
        track: track.into(),
        transport: transport.into(),
        mid,
    };
    let mid = net.clients[alice].lines[1].mid.clone();
    assert!(matches!(net.command(0, publish("video", "alice", mid.clone())), Ok(Reply::Track(_))));
    assert!(matches!(net.command(0, publish("other", "alice", mid.clone())), Err(Error::AlreadyExists(_))));
    assert!(matches!(net.command(0, publish("video", "nobody", mid)), Err(Error::TransportNotFound(_))));
    for command in [
        Command::CloseTransport { transport: "nobody".into() },
        Command::UnpublishTrack { track: "nobody".into() },
        Command::CloseSink { sink: "nobody".into() },
        Command::CloseRelay { relay: "nobody".into() },
    ] {
        assert!(matches!(net.command(0, command), Ok(Reply::Done)));
    }
    let mute = Command::SetTrackMuted { track: "nobody".into(), is_muted: true };
    assert!(matches!(net.command(0, mute), Err(Error::TrackNotFound(_))));
    let Ok(Reply::Json(json)) = net.command(0, Command::Stats { transports: vec!["nobody".into(), "alice".into()] })
    else {
        panic!()
    };
    assert!(json.contains("\"id\":\"alice\"") && !json.contains("\"id\":\"bob\""));
    let Ok(Reply::Json(json)) = net.command(0, Command::DumpRoom { room: crate::support::ROOM.into() }) else {
        panic!()
    };
    assert!(json.contains("\"origin\":\"transport\""));
    for field in ["rx_pps", "tx_bps", "queued_bytes", "nacks", "keyframe_requests", "jitter_ms", "is_waiting"] {
        assert!(json.contains(&format!("\"{field}\":")), "{field} is missing in {json}");
    }
}
