//! A transport moves to another node while its client keeps DTLS and SRTP: by an ICE restart, or called by the new node.

mod support;

use std::time::Duration;

use mrtc_core::command::{Command, Kind};
use mrtc_core::error::Error;
use mrtc_core::event::{Event, Reply};
use mrtc_core::handover::HandoverKey;
use mrtc_netem::LinkConfig;
use str0m::channel::ChannelConfig;
use support::media::{Vp8Source, run};
use support::{ClientSpec, Net, ROOM};

const SECOND: Duration = Duration::from_secs(1);

fn key() -> HandoverKey {
    HandoverKey::new(&[7; 32])
}

fn export(net: &mut Net, node: usize, name: &str, is_final: bool) -> Result<Vec<u8>, Error> {
    let command = Command::ExportTransport { transport: name.into(), is_final, key: key() };
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
    let state = export(net, former, &name, true).expect("exported");
    let Ok(Reply::Answer { answer, lines }) = import(net, node, &name, &offer, state) else { panic!("not imported") };
    net.clients[client].accept(pending, &answer, lines);
    net.clients[client].node = node;
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
fn a_publisher_is_heard_at_both_nodes_on_its_way() {
    let mut net = two_nodes(2);
    let alice = net.join(0, "alice", ClientSpec::simulcast());
    net.publish(alice, "video", 1);
    let layers = |client| ["q", "h", "f"].map(|rid| Vp8Source::new(client, 1, Some(rid), 360));
    let mut sent = layers(alice);
    run(&mut net, SECOND, &mut [], &mut sent);
    let bob = net.join(1, "bob", ClientSpec { video_slots: 1, ..ClientSpec::default() });
    restart_at(&mut net, alice, 1);
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let before = net.nodes[0].shard.counters().rx_rtp_packets;
    run(&mut net, SECOND, &mut [], &mut sent);
    let [old, new] = [0, 1].map(|node| net.nodes[node].shard.counters());
    assert!(old.rx_rtp_packets > before, "until the client has the new path, the former node takes what it sends");
    assert_eq!(old.drop_unauthentic + new.drop_unauthentic + new.drop_replayed + new.drop_unknown_ssrc, 0);
    assert!(continuous(&net, bob) > 20, "layers are known by their SSRCs alone");
}

#[test]
fn a_client_is_called_by_the_other_node() {
    let mut net = two_nodes(3);
    let bob = net.join(0, "bob", ClientSpec { video_slots: 1, ..ClientSpec::default() });
    let near = net.join(0, "near", ClientSpec::publisher());
    let far = net.join(1, "far", ClientSpec::publisher());
    net.publish(near, "video", 1);
    net.publish(far, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let mut both = [Vp8Source::new(near, 1, None, 360), Vp8Source::new(far, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut both);
    // The new node meets the client, while the former goes on.
    let offer = net.clients[bob].first_offer.clone();
    let state = export(&mut net, 0, "bob", false).expect("exported");
    import(&mut net, 1, "bob", &offer, state).expect("imported");
    let before = continuous(&net, bob);
    run(&mut net, SECOND, &mut [], &mut both);
    assert!(net.has_event(1, |e| matches!(e, Event::TransportConnected { transport } if transport.as_str() == "bob")));
    assert!(continuous(&net, bob) > before + 20);
    let complete = |state: Vec<u8>| Command::CompleteTransport { transport: "bob".into(), state, key: key() };
    let early = export(&mut net, 0, "bob", false).expect("exported");
    assert!(matches!(net.command(1, complete(early)), Err(Error::BadRequest(_))), "not the final state");
    let state = export(&mut net, 0, "bob", true).expect("exported");
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
fn what_cannot_move_is_refused() {
    let mut net = two_nodes(4);
    let lossless = LinkConfig { delay: Duration::from_millis(1), ..LinkConfig::default() };
    let spec = ClientSpec { channels: vec![ChannelConfig::default()], up: lossless, ..ClientSpec::subscriber() };
    net.join(0, "talker", spec);
    let bob = net.join(0, "bob", ClientSpec::subscriber());
    assert!(matches!(export(&mut net, 0, "nobody", true), Err(Error::TransportNotFound(_))));
    assert!(
        matches!(export(&mut net, 0, "talker", true), Err(Error::BadRequest(why)) if why.contains("data channels"))
    );
    net.add_client(0, "unanswered", ClientSpec::subscriber());
    assert!(
        matches!(export(&mut net, 0, "unanswered", true), Err(Error::BadRequest(why)) if why.contains("not connected"))
    );
    let offer = net.clients[bob].first_offer.clone();
    let state = export(&mut net, 0, "bob", true).expect("exported");
    assert!(matches!(export(&mut net, 0, "bob", true), Err(Error::BadRequest(why)) if why.contains("before")));
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
