//! Data channels: topics that fan out to a room, in virtual time with whole str0m clients.

use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, run};
use crate::support::{ClientSpec, Net, ROOM};
use mrtc_core::command::{Command, Kind};
use mrtc_core::data::frame::{Head, PROTOCOL};
use mrtc_netem::LinkConfig;
use str0m::channel::{ChannelConfig, Reliability};

const SECOND: Duration = Duration::from_secs(1);

fn reliable(label: &str) -> ChannelConfig {
    ChannelConfig { label: label.into(), ..ChannelConfig::default() }
}

fn lossy(label: &str) -> ChannelConfig {
    let reliability = Reliability::MaxRetransmits { retransmits: 0 };
    ChannelConfig { label: label.into(), ordered: false, reliability, ..ChannelConfig::default() }
}

fn framed(label: &str) -> ChannelConfig {
    ChannelConfig { protocol: PROTOCOL.into(), ..reliable(label) }
}

/// A client with some channels; the server knows it by its name.
fn join(net: &mut Net, node: usize, name: &str, channels: Vec<ChannelConfig>, spec: ClientSpec) -> usize {
    let count = channels.len();
    let client = net.join(node, name, ClientSpec { channels, ..spec });
    allow(net, node, name, true);
    // str0m repeats an SCTP datagram after 3 s at first.
    net.run_until(60 * SECOND, |net| net.clients[client].channels.len() == count);
    client
}

fn allow(net: &mut Net, node: usize, name: &str, can_publish: bool) {
    let command = Command::SetDataAccess { transport: name.into(), identity: name.into(), can_publish };
    net.command(node, command).expect("allowed");
}

fn dull(channels: &[&str]) -> (Vec<ChannelConfig>, ClientSpec) {
    (channels.iter().map(|c| reliable(c)).collect(), ClientSpec::subscriber())
}

/// What a client was told on a topic: sender, whether something is missing before it, and the message.
fn told(net: &Net, client: usize, topic: &str) -> Vec<(String, bool, Vec<u8>)> {
    let of_topic = net.clients[client].messages.iter().filter(|(label, _)| label == topic);
    of_topic
        .map(|(_, bytes)| {
            let (head, payload) = Head::parse(bytes).expect("a framed message");
            (head.names[0].to_owned(), head.has_gap, payload.to_vec())
        })
        .collect()
}

fn counters(net: &Net, node: usize) -> mrtc_core::counters::Counters {
    net.nodes[node].shard.counters()
}

#[test]
fn what_one_says_all_others_get_with_the_senders_identity() {
    let mut net = Net::new(1);
    net.add_process(1);
    let (channels, spec) = dull(&["chat"]);
    let alice = join(&mut net, 0, "alice", channels.clone(), spec.clone());
    let bob = join(&mut net, 0, "bob", channels.clone(), spec.clone());
    let carol = join(&mut net, 0, "carol", channels, spec);
    assert!(net.clients[alice].say("chat", b"hello"));
    assert!(net.clients[bob].say("chat", b"hi"));
    net.run(SECOND);
    assert_eq!(told(&net, bob, "chat"), [("alice".into(), false, b"hello".to_vec())]);
    assert_eq!(told(&net, alice, "chat"), [("bob".into(), false, b"hi".to_vec())]);
    assert_eq!(told(&net, carol, "chat").len(), 2);
}

#[test]
fn a_message_for_some_reaches_only_them() {
    let mut net = Net::new(2);
    net.add_process(1);
    let alice = join(&mut net, 0, "alice", vec![framed("chat")], ClientSpec::subscriber());
    let bob = join(&mut net, 0, "bob", vec![reliable("x")], ClientSpec::subscriber());
    let carol = join(&mut net, 0, "carol", vec![reliable("x")], ClientSpec::subscriber());
    let message = Head { is_text: true, has_gap: false, names: vec!["carol", "dave"] }.frame("für Carol".as_bytes());
    assert!(net.clients[alice].say("chat", &message));
    net.run(SECOND);
    assert!(told(&net, bob, "chat").is_empty());
    assert_eq!(told(&net, carol, "chat"), [("alice".into(), false, "für Carol".as_bytes().to_vec())]);
    let (head, _) = Head::parse(&net.clients[carol].messages[0].1).unwrap();
    assert!(head.is_text);
}

#[test]
fn reliable_arrives_whole_and_in_order_at_20_percent_loss() {
    let mut net = Net::new(3);
    net.add_process(1);
    let alice = join(&mut net, 0, "alice", vec![reliable("file")], ClientSpec::subscriber());
    let bob = join(&mut net, 0, "bob", vec![reliable("x")], ClientSpec::subscriber());
    // Not on alice's way up: there str0m repeats, which waits up to a minute.
    let link = LinkConfig { delay: SECOND / 50, loss: 0.2, ..LinkConfig::default() };
    net.uplinks[bob].set_config(link);
    net.downlinks[bob].set_config(link);
    let sent: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; 200 + 97 * usize::from(n)]).collect();
    for message in &sent {
        while !net.clients[alice].say("file", message) {
            net.step();
        }
        net.run(SECOND / 10);
    }
    net.run_until(120 * SECOND, |net| told(net, bob, "file").len() == sent.len());
    let got: Vec<Vec<u8>> = told(&net, bob, "file").into_iter().map(|(_, _, message)| message).collect();
    assert_eq!(got, sent);
}

#[test]
fn lossy_messages_do_not_wait_for_each_other() {
    let mut net = Net::new(4);
    net.add_process(1);
    let alice = join(&mut net, 0, "alice", vec![lossy("pointer")], ClientSpec::subscriber());
    let bob = join(&mut net, 0, "bob", vec![reliable("x")], ClientSpec::subscriber());
    let link = LinkConfig { delay: Duration::from_millis(20), loss: 0.15, ..LinkConfig::default() };
    net.uplinks[alice].set_config(link);
    net.downlinks[bob].set_config(link);
    let (mut seen, mut late) = (0, 0);
    for n in 0..400u32 {
        net.clients[alice].say("pointer", &n.to_be_bytes());
        net.run(Duration::from_millis(20));
        let got = told(&net, bob, "pointer");
        for (_, _, message) in &got[seen..] {
            late += u32::from(n - u32::from_be_bytes(message.as_slice().try_into().unwrap()) > 20);
        }
        seen = got.len();
    }
    assert!((180..400).contains(&seen), "{seen} of 400");
    assert!(late * 10 < seen as u32, "{late} of {seen} came late");
}

#[test]
fn nobody_speaks_before_he_is_known_or_without_the_grant() {
    let mut net = Net::new(5);
    net.add_process(1);
    let bob = join(&mut net, 0, "bob", vec![reliable("x")], ClientSpec::subscriber());
    let spec = ClientSpec { channels: vec![reliable("chat")], ..ClientSpec::subscriber() };
    let alice = net.join(0, "alice", spec);
    // The channel itself opens only when the server knows whose it is.
    net.run(SECOND);
    allow(&mut net, 0, "alice", false);
    net.run_until(5 * SECOND, |net| net.clients[alice].channels.len() == 1);
    net.clients[alice].say("chat", b"let me");
    net.run(SECOND);
    assert!(told(&net, bob, "chat").is_empty());
    assert_eq!(counters(&net, 0).drop_data_forbidden, 1);
    // It still receives; and may speak once it is allowed to.
    net.clients[bob].say("x", b"psst");
    allow(&mut net, 0, "alice", true);
    net.clients[alice].say("chat", b"at last");
    net.run(SECOND);
    assert_eq!(told(&net, alice, "x").len(), 1);
    assert_eq!(told(&net, bob, "chat").len(), 1);
}

#[test]
fn data_crosses_from_shard_to_shard() {
    let mut net = Net::new(6);
    net.add_process(3);
    let (channels, spec) = dull(&["chat"]);
    let alice = join(&mut net, 0, "alice", channels.clone(), spec.clone());
    let bob = join(&mut net, 1, "bob", channels.clone(), spec.clone());
    net.clients[alice].say("chat", b"hello");
    net.run(SECOND);
    assert_eq!(told(&net, bob, "chat").len(), 1);
    // Only to shards with somebody who receives.
    assert_eq!(counters(&net, 0).tx_shard_data, 1);
    let carol = join(&mut net, 2, "carol", channels, spec);
    net.command(1, Command::CloseTransport { transport: "bob".into() }).unwrap();
    net.clients[alice].say("chat", b"again");
    net.run(SECOND);
    assert_eq!(told(&net, carol, "chat").len(), 1);
    assert_eq!(counters(&net, 0).tx_shard_data, 2);
}

#[test]
fn a_slow_receiver_is_told_of_the_gap_and_slows_nobody() {
    let mut net = Net::new(7);
    net.add_process(1);
    let alice = join(&mut net, 0, "alice", vec![reliable("file")], ClientSpec::subscriber());
    let slow = LinkConfig { delay: SECOND / 50, rate_bps: Some(100_000), ..LinkConfig::default() };
    let bob = join(&mut net, 0, "bob", vec![reliable("x")], ClientSpec { down: slow, ..ClientSpec::subscriber() });
    let carol = join(&mut net, 0, "carol", vec![reliable("x")], ClientSpec::subscriber());
    for n in 0..60u8 {
        while !net.clients[alice].say("file", &[n; 20_000]) {
            net.step();
        }
        net.run(SECOND / 10);
    }
    net.run_until(10 * SECOND, |net| told(net, carol, "file").len() == 60);
    assert!(told(&net, carol, "file").iter().all(|(_, has_gap, _)| !has_gap));
    assert!(counters(&net, 0).drop_data_slow > 20);
    net.downlinks[bob].set_config(LinkConfig::default());
    net.run(10 * SECOND);
    net.clients[alice].say("file", b"the last");
    net.run(SECOND);
    let got = told(&net, bob, "file");
    assert!(got.len() > 5 && got.len() < 50, "{}", got.len());
    assert!(got.windows(2).all(|w| w[0].2[0] < w[1].2[0]));
    // Wherever numbers are missing, and only there, a message says so.
    for pair in got.windows(2) {
        let is_next = pair[1].2[0] == pair[0].2[0] + 1;
        assert_eq!(pair[1].1, !is_next);
    }
}

#[test]
fn a_flood_is_held_back_or_dropped_and_what_is_too_long_is_not_passed_on() {
    let mut net = Net::new(8);
    net.add_process(1);
    let channels = vec![reliable("much"), lossy("more")];
    let alice = join(&mut net, 0, "alice", channels, ClientSpec::subscriber());
    let bob = join(&mut net, 0, "bob", vec![reliable("x")], ClientSpec::subscriber());
    assert!(net.clients[alice].say("more", &[1; 15_001]));
    assert!(net.clients[alice].say("much", &[1; 64_001]));
    net.run(SECOND);
    assert_eq!(counters(&net, 0).drop_data_too_large, 2);
    assert!(told(&net, bob, "much").is_empty() && told(&net, bob, "more").is_empty());
    let mut said = 0;
    for _ in 0..2_000 {
        said += usize::from(net.clients[alice].say("more", b"."));
        net.step();
    }
    net.run(SECOND);
    let got = told(&net, bob, "more").len();
    assert!(got < 1_100, "{got}");
    assert_eq!(counters(&net, 0).drop_data_rate as usize + got, said);
    // What is reliable waits in the sender and then arrives: none is lost.
    let mut said = 0;
    for _ in 0..1_000 {
        said += usize::from(net.clients[alice].say("much", &[2; 2_000]));
        net.step();
    }
    net.run_until(30 * SECOND, |net| told(net, bob, "much").len() == said);
    assert_eq!(counters(&net, 0).drop_data_slow, 0);
}

#[test]
fn bad_topics_and_too_many_channels_are_closed() {
    let mut net = Net::new(9);
    net.add_process(1);
    let mut channels: Vec<ChannelConfig> = (0..33).map(|n| reliable(&format!("topic-{n}"))).collect();
    channels.push(reliable("no spaces please"));
    channels.push(reliable(""));
    let spec = ClientSpec { channels, ..ClientSpec::subscriber() };
    let alice = net.join(0, "alice", spec);
    allow(&mut net, 0, "alice", true);
    net.run(3 * SECOND);
    assert_eq!(net.clients[alice].channels.len(), 32);
    assert_eq!(counters(&net, 0).drop_data_channels, 1);
    assert_eq!(counters(&net, 0).drop_data_malformed, 2);
}

#[test]
fn the_server_itself_can_speak() {
    let mut net = Net::new(10);
    net.add_process(2);
    let (channels, spec) = dull(&["x"]);
    let alice = join(&mut net, 0, "alice", channels.clone(), spec.clone());
    let bob = join(&mut net, 1, "bob", channels, spec);
    let send = |topic: &str, to: Vec<String>| Command::SendData {
        room: ROOM.into(),
        sender: "the host".into(),
        topic: topic.into(),
        is_reliable: true,
        is_text: true,
        to,
        payload: b"welcome".to_vec(),
    };
    net.command(0, send("news", vec![])).unwrap();
    net.command(0, send("news", vec!["bob".into()])).unwrap();
    assert!(net.command(0, send("no spaces", vec![])).is_err());
    net.run(SECOND);
    assert_eq!(told(&net, alice, "news").len(), 1);
    assert_eq!(told(&net, bob, "news").len(), 2);
    assert_eq!(told(&net, bob, "news")[0].0, "the host");
}

#[test]
fn bulk_data_leaves_media_its_bandwidth() {
    let mut net = Net::new(11);
    net.add_process(1);
    let publisher = ClientSpec { channels: vec![reliable("file")], ..ClientSpec::publisher() };
    let alice = net.join(0, "alice", publisher);
    allow(&mut net, 0, "alice", true);
    let down =
        LinkConfig { delay: SECOND / 50, rate_bps: Some(3_000_000), queue_bytes: 60_000, ..LinkConfig::default() };
    let bob = join(&mut net, 0, "bob", vec![reliable("x")], ClientSpec { down, ..ClientSpec::subscriber() });
    net.publish(alice, "audio", 0);
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
    let (mut audio, mut video) = ([OpusSource::new(alice, 0)], [Vp8Source::new(alice, 1, None, 360)]);
    run(&mut net, 5 * SECOND, &mut audio, &mut video);
    let before = net.clients[bob].packets.len();
    for _ in 0..50 {
        net.clients[alice].say("file", &[1; 40_000]);
        run(&mut net, SECOND / 10, &mut audio, &mut video);
    }
    let during = net.clients[bob].packets.len() - before;
    assert!(during as f64 > 0.95 * before as f64, "{during} packets in 5 s, {before} in the 5 s before");
    assert!(told(&net, bob, "file").len() > 5);
}

/// Two processes with two shards each, and a relay each way that carries the room's data.
fn two_nodes(seed: u64, link: LinkConfig) -> (Net, usize, usize) {
    let mut net = Net::new(seed);
    let (a, b) = (net.add_process(2), net.add_process(2));
    net.relay_link.set_config(link);
    for (from, to, relay) in [(a, b, "a-b"), (b, a, "b-a")] {
        net.open_relay(from, to, relay);
        let (relay, room, handle) = (relay.into(), ROOM.into(), 7);
        net.command(to, Command::ImportData { relay, room, handle }).unwrap();
        let (relay, room) = (if from == a { "a-b" } else { "b-a" }.into(), ROOM.into());
        net.command(from, Command::ExportData { relay, room, handle }).unwrap();
    }
    net.run(SECOND);
    (net, a, b)
}

#[test]
fn data_crosses_between_nodes_once_and_does_not_come_back() {
    let (mut net, a, b) = two_nodes(20, LinkConfig { delay: SECOND / 100, ..LinkConfig::default() });
    let (channels, spec) = dull(&["chat"]);
    // None of them sits on the shard of a relay.
    let alice = join(&mut net, a + 1, "alice", channels.clone(), spec.clone());
    let carol = join(&mut net, a, "carol", channels.clone(), spec.clone());
    let bob = join(&mut net, b + 1, "bob", channels, spec);
    net.clients[alice].say("chat", b"hello");
    net.clients[bob].say("chat", b"hi");
    net.run(SECOND);
    assert_eq!(told(&net, bob, "chat"), [("alice".into(), false, b"hello".to_vec())]);
    assert_eq!(told(&net, alice, "chat"), [("bob".into(), false, b"hi".to_vec())]);
    assert_eq!(told(&net, carol, "chat").len(), 2);
    // The room no longer spans the nodes.
    net.command(a, Command::StopData { relay: "a-b".into(), room: ROOM.into() }).unwrap();
    net.clients[alice].say("chat", b"anybody?");
    net.run(SECOND);
    assert_eq!(told(&net, bob, "chat").len(), 1);
}

#[test]
fn what_is_reliable_survives_a_lossy_relay_and_a_new_key_tells_of_a_gap() {
    let (mut net, a, b) = two_nodes(21, LinkConfig::default());
    let (channels, spec) = dull(&["file"]);
    let alice = join(&mut net, a, "alice", channels.clone(), spec.clone());
    let bob = join(&mut net, b, "bob", channels, spec);
    net.relay_link.set_config(LinkConfig { delay: SECOND / 50, loss: 0.1, ..LinkConfig::default() });
    for n in 0..30u8 {
        net.clients[alice].say("file", &[n; 5_000]);
        net.run(SECOND / 10);
    }
    net.run_until(60 * SECOND, |net| told(net, bob, "file").len() == 30);
    assert!(told(&net, bob, "file").iter().enumerate().all(|(n, m)| m.2[0] == n as u8 && !m.1));
    net.relay_link.set_config(LinkConfig::default());
    // Both nodes agree on new keys, as after a loss of the relay: the association begins anew.
    use mrtc_core::command::RelayKey;
    let key = |n: u8| RelayKey { key: [n; 16], salt: [n; 12] };
    let (addr_a, addr_b) = (net.nodes[a].addr, net.nodes[b].addr);
    let open = |remote, tx, rx| Command::OpenRelay { relay: "a-b".into(), remote, tx, rx };
    net.command(a, open(addr_b, key(3), key(4))).unwrap();
    net.command(b, open(addr_a, key(4), key(3))).unwrap();
    net.run(3 * SECOND);
    net.clients[alice].say("file", b"again");
    net.run(2 * SECOND);
    let last = told(&net, bob, "file").pop().unwrap();
    assert_eq!((last.1, last.2), (true, b"again".to_vec()));
}
