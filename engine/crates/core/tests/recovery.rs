//! Loss on the way in and out is repaired; key-frame requests are coalesced.

use std::time::Duration;

use crate::support::media::{Vp8Source, read_vp8, run};
use crate::support::{ClientSpec, Net};
use mrtc_core::command::Kind;
use mrtc_netem::LinkConfig;

const SECOND: Duration = Duration::from_secs(1);

/// Share of the source's packets that the subscriber has, from its first on.
fn delivered(net: &Net, subscriber: usize, newest: u64) -> f64 {
    let packets = &net.clients[subscriber].packets;
    let mut numbers: Vec<u64> =
        packets.iter().filter(|p| !p.payload.is_empty()).map(|p| read_vp8(&p.payload).source_seq).collect();
    numbers.sort_unstable();
    numbers.dedup();
    let first = *numbers.first().expect("something came");
    numbers.len() as f64 / (newest - first) as f64
}

fn lossy_call(seed: u64, publisher: ClientSpec, subscriber: ClientSpec) -> (Net, f64) {
    let mut net = Net::new(seed);
    net.add_process(1);
    let alice = net.join(0, "alice", publisher);
    let bob = net.join(0, "bob", subscriber);
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, 6 * SECOND, &mut [], &mut video);
    let newest = video[0].seq;
    net.run(SECOND);
    let share = delivered(&net, bob, newest);
    (net, share)
}

#[test]
fn loss_towards_the_subscriber_is_repaired_by_rtx() {
    for seed in [1, 2, 3] {
        let (net, share) = lossy_call(seed, ClientSpec::publisher(), ClientSpec::subscriber().with_loss(0.05));
        assert!(share > 0.995, "seed {seed}: {share}");
        assert!(net.nodes[0].shard.counters().tx_retransmissions > 20);
    }
}

#[test]
fn loss_from_the_publisher_is_repaired_by_rtx() {
    for seed in [4, 5, 6] {
        let (net, share) = lossy_call(seed, ClientSpec::publisher().with_loss(0.05), ClientSpec::subscriber());
        assert!(share > 0.995, "seed {seed}: {share}");
        assert!(net.nodes[0].shard.counters().rx_recovered_packets > 20);
    }
}

#[test]
fn loss_on_both_sides_with_reordering_is_repaired() {
    let link = LinkConfig {
        delay: Duration::from_millis(25),
        jitter: Duration::from_millis(5),
        loss: 0.05,
        reorder: 0.02,
        ..LinkConfig::default()
    };
    let spec = |spec: ClientSpec| ClientSpec { up: link, down: link, ..spec };
    let (_, share) = lossy_call(7, spec(ClientSpec::publisher()), spec(ClientSpec::subscriber()));
    assert!(share > 0.99, "{share}");
}

#[test]
fn many_key_frame_requests_become_one() {
    let mut net = Net::new(8);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    net.publish(alice, "video", 1);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut video);
    let subscribers: Vec<usize> = (0..8).map(|n| net.join(0, &format!("s{n}"), ClientSpec::subscriber())).collect();
    let before = net.nodes[0].shard.counters().tx_keyframe_requests;
    for subscriber in &subscribers {
        net.subscribe(*subscriber, &[("video", Kind::Video)]);
    }
    run(&mut net, SECOND, &mut [], &mut video);
    assert_eq!(net.nodes[0].shard.counters().tx_keyframe_requests - before, 1);
    for subscriber in subscribers {
        let packets = &net.clients[subscriber].packets;
        assert!(packets.len() > 50);
        assert!(read_vp8(&packets[0].payload).is_keyframe);
    }
}

#[test]
fn a_client_without_rtx_gets_the_very_same_packet_again() {
    let mut net = Net::new(9);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let bob = net.join(0, "bob", ClientSpec { has_rtx: false, ..ClientSpec::subscriber() }.with_loss(0.05));
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    net.capture = Some(vec![]);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, SECOND, &mut [], &mut video);
    let ssrc = net.clients[bob].ssrcs()[0];
    net.clients[bob].enable_nacks(ssrc);
    run(&mut net, SECOND, &mut [], &mut video);
    net.clients[bob].packets.clear();
    run(&mut net, 4 * SECOND, &mut [], &mut video);
    let newest = video[0].seq;
    net.run(SECOND);
    assert!(net.nodes[0].shard.counters().tx_retransmissions > 10);
    assert!(delivered(&net, bob, newest) > 0.98);
    // The same SSRC and number means the same nonce: a single differing bit would give the key away.
    let mut sent = std::collections::HashMap::new();
    let mut repeated = 0;
    for datagram in net.capture.take().unwrap() {
        let b = datagram.bytes;
        let is_rtp = (128..192).contains(&b[0]) && !(192..224).contains(&b[1]);
        if datagram.to != net.clients[bob].addr || !is_rtp {
            continue;
        }
        let index = (b[8..12].to_vec(), b[2..4].to_vec());
        if let Some(before) = sent.insert(index, b.clone()) {
            assert_eq!(before, b);
            repeated += 1;
        }
    }
    assert!(repeated > 10);
}
