//! A transport moves to another node while its client keeps DTLS and SRTP: by an ICE restart, or called by the new node.

use std::time::Duration;

use crate::support::media::{Vp8Source, run};
use crate::support::{ClientSpec, Net, ROOM};
use mrtc_core::command::{Command, Kind};
use mrtc_core::error::Error;
use mrtc_core::event::{Event, Reply};
use mrtc_core::handover::{HandoverKey, MAX_CHECKPOINT_AGE, Purpose};
use mrtc_netem::LinkConfig;
use str0m::channel::ChannelConfig;

const SECOND: Duration = Duration::from_secs(1);

fn key() -> HandoverKey {
    HandoverKey::new(&[7; 32])
}

fn export(net: &mut Net, node: usize, name: &str, purpose: Purpose) -> Result<Vec<u8>, Error> {
    let command = Command::ExportTransport { transport: name.into(), purpose, key: key() };
    net.command(node, command).map(|reply| match reply {
        Reply::TransportState(state) => state,
        other => panic!("{other:?}"),
    })
}

fn import(net: &mut Net, node: usize, name: &str, offer: &str, state: Vec<u8>) -> Result<Reply, Error> {
    let command = Command::ImportTransport {
        transport: name.into(),
        room: ROOM.into(),
        offer: offer.into(),
        caps: Default::default(),
        state,
        key: key(),
    };
    net.command(node, command)
}

/// The client restarts ICE and goes on at `node`.
fn restart_at(net: &mut Net, client: usize, node: usize) {
    let (former, name) = (net.clients[client].node, net.clients[client].name.clone());
    let (offer, pending) = net.clients[client].restart_offer();
    let state = export(net, former, &name, Purpose::GoOn).expect("exported");
    let Ok(Reply::Answer { answer, lines }) = import(net, node, &name, &offer, state) else { panic!("not imported") };
    net.clients[client].accept(pending, &answer, lines);
    net.clients[client].node = node;
}

/// True once node 1 knows that a client of node 0 sends there.
fn has_come(net: &Net, name: &str) -> bool {
    net.has_event(1, |e| matches!(e, Event::TransportConnected { transport } if transport.as_str() == name))
}

/// Node 0 lets go of a client, node 1 goes on with it.
fn go_on(net: &mut Net, name: &str) {
    let state = export(net, 0, name, Purpose::GoOn).expect("exported");
    let complete = Command::CompleteTransport { transport: name.into(), state, key: key() };
    net.command(1, complete).expect("completed");
}

fn two_nodes(seed: u64) -> Net {
    let mut net = Net::new(seed);
    net.add_process(1);
    net.add_process(1);
    net
}

/// All packets of the client's only stream, in order; fails if one is missing.
fn continuous(net: &Net, client: usize) -> usize {
    let client = &net.clients[client];
    assert_eq!(client.ssrcs().len(), 1, "the stream keeps its SSRC");
    let packets = client.sorted(client.ssrcs()[0]);
    for pair in packets.windows(2) {
        assert_eq!(*pair[1].seq_no, *pair[0].seq_no + 1, "the numbers go on");
        let ahead = pair[1].header.timestamp.wrapping_sub(pair[0].header.timestamp);
        assert!(ahead < 90_000, "the timestamps go on");
    }
    packets.len()
}

#[test]
fn a_subscriber_restarts_ice_at_another_node() {
    let mut net = two_nodes(1);
    let bob = net.join(0, "bob", ClientSpec { video_slots: 1, ..ClientSpec::default() });
    let near = net.join(0, "near", ClientSpec::publisher());
    net.publish(near, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let mut sent = [Vp8Source::new(near, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut sent);
    let before = continuous(&net, bob);
    assert!(before > 20);
    // The same picture is at the other node too.
    let far = net.join(1, "far", ClientSpec::publisher());
    net.publish(far, "video", 1);
    restart_at(&mut net, bob, 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let [former] = sent;
    let mut both = [former, Vp8Source::new(far, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut both);
    let after = continuous(&net, bob);
    assert!(after > before + 20, "{before} packets, then {after}");
    assert_eq!(net.nodes[1].shard.counters().drop_unauthentic, 0);
    // The former node lets go, and nobody hears of it.
    net.command(0, Command::CloseTransport { transport: "bob".into() }).expect("closed");
    run(&mut net, SECOND, &mut [], &mut both[1..]);
    assert!(!net.clients[bob].is_ended && continuous(&net, bob) > after + 20);
    // And back again.
    restart_at(&mut net, bob, 0);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let [former, _] = both;
    run(&mut net, SECOND, &mut [], &mut [former]);
    assert!(continuous(&net, bob) > after + 60);
}

#[test]
fn a_publisher_is_heard_where_it_sends() {
    let mut net = two_nodes(2);
    let alice = net.join(0, "alice", ClientSpec::simulcast());
    net.publish(alice, "video", 1);
    let layers = |client| ["q", "h", "f"].map(|rid| Vp8Source::new(client, 1, Some(rid), 360));
    let mut sent = layers(alice);
    run(&mut net, SECOND, &mut [], &mut sent);
    let bob = net.join(1, "bob", ClientSpec { video_slots: 1, ..ClientSpec::default() });
    let before = net.nodes[0].shard.counters().rx_rtp_packets;
    // It restarts ICE; until it has the new path, the former node has it.
    let (offer, pending) = net.clients[alice].restart_offer();
    let state = export(&mut net, 0, "alice", Purpose::Meet).expect("exported");
    let Ok(Reply::Answer { answer, lines }) = import(&mut net, 1, "alice", &offer, state) else {
        panic!("not imported")
    };
    net.clients[alice].accept(pending, &answer, lines);
    net.clients[alice].node = 1;
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    for _ in 0..50 {
        run(&mut net, SECOND / 50, &mut [], &mut sent);
        if has_come(&net, "alice") {
            break;
        }
    }
    assert!(has_come(&net, "alice"));
    run(&mut net, SECOND / 10, &mut [], &mut sent);
    assert_eq!(net.clients[bob].packets.len(), 0, "what it sends here is not opened yet");
    go_on(&mut net, "alice");
    run(&mut net, SECOND, &mut [], &mut sent);
    let [old, new] = [0, 1].map(|node| net.nodes[node].shard.counters());
    assert!(old.rx_rtp_packets > before, "until the client has the new path, the former node takes what it sends");
    assert_eq!(old.drop_unauthentic + new.drop_unauthentic + new.drop_replayed + new.drop_unknown_ssrc, 0);
    assert_eq!(old.drop_no_keys + new.drop_no_keys, 0, "nothing comes where it is not taken");
    assert!(continuous(&net, bob) > 20, "layers are known by their SSRCs alone");
}

/// Alice, who sends pictures to node 0 and is called by node 1, where Bob waits for them. Returns them and the source.
fn called_publisher(net: &mut Net) -> (usize, usize, [Vp8Source; 1]) {
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let bob = net.join(1, "bob", ClientSpec { video_slots: 1, ..ClientSpec::default() });
    net.publish(alice, "video", 1);
    let mut sent = [Vp8Source::new(alice, 1, None, 360)];
    run(net, SECOND, &mut [], &mut sent);
    let offer = net.clients[alice].first_offer.clone();
    let state = export(net, 0, "alice", Purpose::Meet).expect("exported");
    import(net, 1, "alice", &offer, state).expect("imported");
    net.clients[alice].node = 1;
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    (alice, bob, sent)
}

/// Packets that the nodes opened.
fn taken(net: &Net) -> u64 {
    net.nodes.iter().map(|node| node.shard.counters().rx_rtp_packets).sum()
}

#[test]
fn nothing_is_lost_between_the_nodes() {
    let mut net = two_nodes(5);
    let (_, bob, mut sent) = called_publisher(&mut net);
    // It takes long until the former node lets go.
    run(&mut net, Duration::from_millis(700), &mut [], &mut sent);
    assert!(has_come(&net, "alice"));
    go_on(&mut net, "alice");
    run(&mut net, Duration::from_millis(100), &mut [], &mut sent);
    assert!(continuous(&net, bob) > 3, "the key frame is asked for as soon as it can be");
    net.run(SECOND / 5);
    assert_eq!(taken(&net), sent[0].seq - 1_000, "all that was sent since its first number");
    assert_eq!(net.nodes.iter().map(|node| node.shard.counters().drop_no_keys).sum::<u64>(), 0);
}

#[test]
fn nothing_is_taken_twice_whoever_repeats_it() {
    let mut net = two_nodes(6);
    net.is_repeated = true;
    let (_, _, mut sent) = called_publisher(&mut net);
    for _ in 0..10 {
        run(&mut net, Duration::from_millis(20), &mut [], &mut sent);
    }
    assert!(has_come(&net, "alice"));
    let before = net.nodes[1].shard.counters().drop_replayed;
    go_on(&mut net, "alice");
    run(&mut net, SECOND, &mut [], &mut sent);
    net.run(SECOND / 5);
    let [old, new] = [0, 1].map(|node| net.nodes[node].shard.counters());
    assert_eq!(taken(&net), sent[0].seq - 1_000, "each once, at one of the nodes");
    assert!(new.drop_replayed > before, "what the former node had taken waited at this one too");
    assert!(old.drop_no_keys > 20, "and what this one takes came there");
    assert_eq!(old.drop_unauthentic + new.drop_unauthentic, 0);
}

/// Bob receives a track at the first node, which the second has too, from another publisher.
fn player(seed: u64) -> (Net, usize, [Vp8Source; 2]) {
    let mut net = two_nodes(seed);
    let bob = net.join(0, "bob", ClientSpec { video_slots: 1, ..ClientSpec::default() });
    let publishers = [net.join(0, "near", ClientSpec::publisher()), net.join(1, "far", ClientSpec::publisher())];
    for publisher in publishers {
        net.publish(publisher, "video", 1);
    }
    net.subscribe(bob, &[("video", Kind::Video)]);
    let mut both = publishers.map(|publisher| Vp8Source::new(publisher, 1, None, 360));
    run(&mut net, SECOND, &mut [], &mut both);
    (net, bob, both)
}

#[test]
fn a_client_is_called_by_the_other_node() {
    let (mut net, bob, mut both) = player(3);
    // The new node meets the client, while the former goes on.
    let offer = net.clients[bob].first_offer.clone();
    let state = export(&mut net, 0, "bob", Purpose::Meet).expect("exported");
    import(&mut net, 1, "bob", &offer, state).expect("imported");
    let before = continuous(&net, bob);
    run(&mut net, SECOND, &mut [], &mut both);
    assert!(has_come(&net, "bob"));
    assert!(continuous(&net, bob) > before + 20);
    let complete = |state: Vec<u8>| Command::CompleteTransport { transport: "bob".into(), state, key: key() };
    let early = export(&mut net, 0, "bob", Purpose::Meet).expect("exported");
    assert!(matches!(net.command(1, complete(early)), Err(Error::BadRequest(_))), "not the final state");
    let state = export(&mut net, 0, "bob", Purpose::GoOn).expect("exported");
    net.command(1, complete(state.clone())).expect("completed");
    assert!(matches!(net.command(1, complete(state)), Err(Error::BadRequest(_))), "used once");
    net.command(0, Command::CloseTransport { transport: "bob".into() }).expect("closed");
    net.clients[bob].node = 1;
    net.subscribe(bob, &[("video", Kind::Video)]);
    let before = continuous(&net, bob);
    run(&mut net, SECOND, &mut [], &mut both);
    assert!(continuous(&net, bob) > before + 20, "the stream goes on");
    assert!(!net.clients[bob].is_ended);
}

#[test]
fn a_restart_of_ice_during_the_call_leads_to_the_caller() {
    let (mut net, bob, mut both) = player(7);
    let first_offer = net.clients[bob].first_offer.clone();
    let state = export(&mut net, 0, "bob", Purpose::Meet).expect("exported");
    import(&mut net, 1, "bob", &first_offer, state).expect("imported");
    let (offer, pending) = net.clients[bob].restart_offer();
    let negotiated = net.command(1, Command::Negotiate { transport: "bob".into(), offer });
    let Ok(Reply::Answer { answer, lines }) = negotiated else { panic!("not negotiated") };
    net.clients[bob].accept(pending, &answer, lines);
    let before = continuous(&net, bob);
    run(&mut net, SECOND, &mut [], &mut both);
    assert!(has_come(&net, "bob"));
    assert!(continuous(&net, bob) > before + 20, "the former node sends meanwhile");
    go_on(&mut net, "bob");
    net.clients[bob].node = 1;
    net.subscribe(bob, &[("video", Kind::Video)]);
    let before = continuous(&net, bob);
    run(&mut net, SECOND, &mut [], &mut both);
    assert!(continuous(&net, bob) > before + 20, "the stream goes on");
}

#[test]
fn who_is_called_and_not_handed_over_is_given_up() {
    let mut net = two_nodes(8);
    let bob = net.join(0, "bob", ClientSpec::subscriber());
    let offer = net.clients[bob].first_offer.clone();
    let state = export(&mut net, 0, "bob", Purpose::Meet).expect("exported");
    import(&mut net, 1, "bob", &offer, state).expect("imported");
    net.run(29 * SECOND);
    assert!(has_come(&net, "bob"));
    assert_eq!(net.nodes[1].shard.transport_count(), 1);
    net.run(3 * SECOND);
    assert_eq!(net.nodes[1].shard.transport_count(), 0);
}

#[test]
fn what_cannot_move_is_refused() {
    let mut net = two_nodes(4);
    let lossless = LinkConfig { delay: Duration::from_millis(1), ..LinkConfig::default() };
    let spec = ClientSpec { channels: vec![ChannelConfig::default()], up: lossless, ..ClientSpec::subscriber() };
    net.join(0, "talker", spec);
    let bob = net.join(0, "bob", ClientSpec::subscriber());
    assert!(matches!(export(&mut net, 0, "nobody", Purpose::GoOn), Err(Error::TransportNotFound(_))));
    assert!(
        matches!(export(&mut net, 0, "talker", Purpose::GoOn), Err(Error::BadRequest(why)) if why.contains("data channels"))
    );
    net.add_client(0, "unanswered", ClientSpec::subscriber());
    assert!(
        matches!(export(&mut net, 0, "unanswered", Purpose::GoOn), Err(Error::BadRequest(why)) if why.contains("not connected"))
    );
    let offer = net.clients[bob].first_offer.clone();
    let state = export(&mut net, 0, "bob", Purpose::GoOn).expect("exported");
    assert!(matches!(export(&mut net, 0, "bob", Purpose::GoOn), Err(Error::BadRequest(why)) if why.contains("before")));
    let mut changed = state.clone();
    changed[20] ^= 1;
    assert!(matches!(import(&mut net, 1, "bob", &offer, changed), Err(Error::BadRequest(_))));
    let stranger = net.add_client(1, "stranger", ClientSpec::subscriber());
    let other = net.clients[stranger].first_offer.clone();
    assert!(matches!(import(&mut net, 1, "bob", &other, state.clone()), Err(Error::BadOffer(_))), "its certificate");
    import(&mut net, 1, "bob", &offer, state.clone()).expect("the refused ones changed nothing");
    assert!(matches!(import(&mut net, 1, "bob", &offer, state.clone()), Err(Error::AlreadyExists(_))));
    assert!(matches!(import(&mut net, 1, "bob-2", &offer, state), Err(Error::AlreadyExists(_))), "same credentials");
}

/// Checkpoints of a client of node 0, a second apart: the newest one.
fn checkpoint(net: &mut Net, name: &str, sent: &mut [Vp8Source]) -> Vec<u8> {
    let first = export(net, 0, name, Purpose::Checkpoint);
    assert!(matches!(first, Err(Error::BadRequest(_))), "how quickly it sends is not known yet");
    run(net, SECOND, &mut [], sent);
    export(net, 0, name, Purpose::Checkpoint).expect("a checkpoint")
}

#[test]
fn a_player_goes_on_from_a_checkpoint_when_its_node_has_died() {
    let (mut net, bob, mut both) = player(9);
    let offer = net.clients[bob].first_offer.clone();
    let state = checkpoint(&mut net, "bob", &mut both);
    // What is sent from now on the checkpoint does not know; the client has it.
    run(&mut net, MAX_CHECKPOINT_AGE, &mut [], &mut both);
    let ssrc = net.clients[bob].ssrcs()[0];
    let before = net.clients[bob].sorted(ssrc).len();
    net.nodes[0].is_dead = true;
    import(&mut net, 1, "bob", &offer, state).expect("imported");
    net.clients[bob].node = 1;
    net.subscribe(bob, &[("video", Kind::Video)]);
    run(&mut net, 2 * SECOND, &mut [], &mut both[1..]);
    let packets = net.clients[bob].sorted(ssrc);
    assert!(has_come(&net, "bob") && packets.len() > before + 40, "{before}, then {}", packets.len());
    let [last, first] = [before - 1, before].map(|n| *packets[n].seq_no);
    assert!((1 << 13..1 << 14).contains(&(first - last)), "no number is used twice: {last}, then {first}");
    assert_eq!(net.clients[bob].ssrcs(), [ssrc]);
}

#[test]
fn a_publisher_goes_on_from_a_checkpoint_when_its_node_has_died() {
    let mut net = two_nodes(10);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let bob = net.join(1, "bob", ClientSpec { video_slots: 1, ..ClientSpec::default() });
    net.publish(alice, "video", 1);
    let mut sent = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut sent);
    let offer = net.clients[alice].first_offer.clone();
    let state = checkpoint(&mut net, "alice", &mut sent);
    run(&mut net, MAX_CHECKPOINT_AGE, &mut [], &mut sent);
    net.nodes[0].is_dead = true;
    import(&mut net, 1, "alice", &offer, state).expect("imported");
    net.clients[alice].node = 1;
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    run(&mut net, 2 * SECOND, &mut [], &mut sent);
    assert!(continuous(&net, bob) > 40);
    let counters = net.nodes[1].shard.counters();
    assert_eq!(counters.drop_unauthentic + counters.drop_unknown_ssrc, 0);
}

#[test]
fn who_sends_too_quickly_has_no_checkpoint() {
    let (mut net, _, mut both) = player(11);
    checkpoint(&mut net, "bob", &mut both);
    // 1,800 packets a second, of which twice as many as now would be more than are left free.
    both[0].packets_per_frame = 60;
    both[0].payload_len = 100;
    run(&mut net, SECOND, &mut [], &mut both);
    let refused = export(&mut net, 0, "bob", Purpose::Checkpoint);
    assert!(matches!(refused, Err(Error::BadRequest(why)) if why.contains("quickly")));
    both[0].packets_per_frame = 3;
    run(&mut net, SECOND, &mut [], &mut both);
    assert!(export(&mut net, 0, "bob", Purpose::Checkpoint).is_ok());
}
