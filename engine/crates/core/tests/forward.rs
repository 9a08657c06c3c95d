//! One client publishes, others receive through a shard.

use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, read_vp8, run};
use crate::support::{ClientSpec, Net};
use mrtc_core::command::Kind;

const SECOND: Duration = Duration::from_secs(1);

fn call(seed: u64, publisher: ClientSpec, subscriber: ClientSpec) -> (Net, usize, usize) {
    let mut net = Net::new(seed);
    net.add_process(1);
    let alice = net.join(0, "alice", publisher);
    let bob = net.join(0, "bob", subscriber);
    net.publish(alice, "alice-audio", 0);
    net.publish(alice, "alice-video", 1);
    let slots = net.subscribe(bob, &[("alice-audio", Kind::Audio), ("alice-video", Kind::Video)]);
    assert!(slots.unplaced.is_empty() && slots.missing.is_empty() && slots.no_common_codec.is_empty());
    (net, alice, bob)
}

#[test]
fn audio_and_video_reach_a_subscriber_whole_and_in_order() {
    let (mut net, alice, bob) = call(1, ClientSpec::publisher(), ClientSpec::subscriber());
    let mut audio = [OpusSource::new(alice, 0)];
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, 3 * SECOND, &mut audio, &mut video);
    net.run(Duration::from_millis(200));
    let bob = &net.clients[bob];
    let ssrcs = bob.ssrcs();
    assert_eq!(ssrcs.len(), 2, "{:?}", net.nodes[0].shard.counters());
    for ssrc in ssrcs {
        let packets = bob.sorted(ssrc);
        assert!(packets.windows(2).all(|w| *w[1].seq_no == *w[0].seq_no + 1), "sequence has a gap");
        let is_video = packets[0].payload.len() > 500;
        if is_video {
            assert!(packets.len() > 250, "{}", packets.len());
            assert!(read_vp8(&packets[0].payload).is_keyframe);
            let numbers: Vec<u64> = packets.iter().map(|p| read_vp8(&p.payload).source_seq).collect();
            assert!(numbers.windows(2).all(|w| w[1] == w[0] + 1));
        } else {
            assert!(packets.len() > 140, "{}", packets.len());
        }
    }
}
