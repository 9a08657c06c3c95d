//! Layers of a simulcast track: switching, continuity, and which ones the publisher is asked for.

use std::time::Duration;

use crate::support::media::{Vp8Seen, Vp8Source, read_vp8, run};
use crate::support::{ClientSpec, Net, wanted};
use mrtc_core::command::Kind;
use mrtc_core::event::Event;

const SECOND: Duration = Duration::from_secs(1);

fn layers(client: usize) -> [Vp8Source; 3] {
    let layer =
        |rid, height, packets| Vp8Source { packets_per_frame: packets, ..Vp8Source::new(client, 1, Some(rid), height) };
    [layer("q", 180, 1), layer("h", 360, 2), layer("f", 720, 4)]
}

fn call(seed: u64) -> (Net, usize, usize) {
    let mut net = Net::new(seed);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::simulcast());
    let bob = net.join(0, "bob", ClientSpec::subscriber());
    net.publish(alice, "video", 1);
    (net, alice, bob)
}

fn ask(net: &mut Net, subscriber: usize, height: u32) {
    let mut subscription = wanted("video", Kind::Video);
    subscription.max_height = Some(height);
    net.subscribe_to(subscriber, vec![subscription]);
}

fn seen(net: &Net, subscriber: usize) -> Vec<(u64, u32, Vp8Seen)> {
    let client = &net.clients[subscriber];
    let ssrc = client.ssrcs()[0];
    client.sorted(ssrc).iter().map(|p| (*p.seq_no, p.header.timestamp, read_vp8(&p.payload))).collect()
}

fn assert_continuous(seen: &[(u64, u32, Vp8Seen)]) {
    for pair in seen.windows(2) {
        let ((seq, time, a), (next_seq, next_time, b)) = (&pair[0], &pair[1]);
        assert_eq!(*next_seq, seq + 1, "sequence has a gap");
        let step = next_time.wrapping_sub(*time) as i32;
        assert!((0..30_000).contains(&step), "timestamp steps by {step}");
        let pictures = b.picture_id.wrapping_sub(a.picture_id) & 0x7fff;
        assert_eq!(pictures, u16::from(step > 0), "picture id");
        if a.height != b.height {
            assert!(b.is_keyframe, "switched without a key frame");
        }
        if step > 0 && b.temporal == 0 {
            assert_eq!(b.tl0, a.tl0.wrapping_add(1));
        }
    }
}

#[test]
fn the_picture_follows_the_size_that_is_asked_for() {
    let (mut net, alice, bob) = call(1);
    let mut video = layers(alice);
    ask(&mut net, bob, 180);
    run(&mut net, 2 * SECOND, &mut [], &mut video);
    assert_eq!(seen(&net, bob).last().unwrap().2.height, 180);
    ask(&mut net, bob, 720);
    run(&mut net, 4 * SECOND, &mut [], &mut video);
    assert_eq!(seen(&net, bob).last().unwrap().2.height, 720);
    ask(&mut net, bob, 360);
    run(&mut net, 2 * SECOND, &mut [], &mut video);
    let all = seen(&net, bob);
    assert_eq!(all.last().unwrap().2.height, 360);
    assert_continuous(&all);
}

#[test]
fn layers_that_nobody_wants_are_told_to_be_off() {
    let (mut net, alice, bob) = call(2);
    let mut video = layers(alice);
    ask(&mut net, bob, 180);
    run(&mut net, 4 * SECOND, &mut [], &mut video);
    let told = |net: &Net| {
        net.nodes[0].events.iter().rev().find_map(|e| match e {
            Event::LayersWanted { rids, .. } => Some(rids.clone()),
            _ => None,
        })
    };
    assert_eq!(told(&net), Some(vec!["q".to_owned()]));
    ask(&mut net, bob, 720);
    run(&mut net, 3 * SECOND, &mut [], &mut video);
    assert!(told(&net).unwrap().contains(&"f".to_owned()));
}

#[test]
fn a_narrow_path_gets_the_layer_that_fits() {
    let (mut net, alice, bob) = call(3);
    let mut video = layers(alice);
    ask(&mut net, bob, 720);
    run(&mut net, 6 * SECOND, &mut [], &mut video);
    assert_eq!(seen(&net, bob).last().unwrap().2.height, 720);
    let narrow = mrtc_netem::LinkConfig {
        delay: Duration::from_millis(20),
        rate_bps: Some(700_000),
        ..mrtc_netem::LinkConfig::default()
    };
    net.downlinks[bob].set_config(narrow);
    run(&mut net, 10 * SECOND, &mut [], &mut video);
    let height = seen(&net, bob).last().unwrap().2.height;
    assert!(height < 720, "{height}");
    let before = net.clients[bob].packets.len();
    run(&mut net, 3 * SECOND, &mut [], &mut video);
    assert!(net.clients[bob].packets.len() > before + 60, "the picture goes on");
}

#[test]
fn temporal_layers_are_left_out_without_a_trace() {
    let (mut net, alice, bob) = call(4);
    let mut video = [Vp8Source { has_temporal_layers: true, ..Vp8Source::new(alice, 1, Some("q"), 180) }];
    let mut subscription = wanted("video", Kind::Video);
    subscription.max_fps = Some(15);
    net.subscribe_to(bob, vec![subscription]);
    run(&mut net, 4 * SECOND, &mut [], &mut video);
    let all = seen(&net, bob);
    assert_continuous(&all);
    let late = &all[all.len() / 2..];
    assert!(late.iter().all(|(_, _, v)| v.temporal == 0), "temporal layer 1 is left out");
}
