//! Estimator, pacer, allocator and selectors in a whole shard, over paths that are narrow, change, or lose packets.

use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, read_vp8, run};
use crate::support::{ClientSpec, Net, wanted};
use mrtc_core::command::{Caps, Kind, Subscription};
use mrtc_netem::LinkConfig;
use str0m::rtp::RtpPacket;

const SECOND: Duration = Duration::from_secs(1);

/// Some 250, 500 and 1500 kbit/s.
fn layers(client: usize) -> [Vp8Source; 3] {
    let layer =
        |rid, height, packets| Vp8Source { packets_per_frame: packets, ..Vp8Source::new(client, 1, Some(rid), height) };
    [layer("q", 180, 1), layer("h", 360, 2), layer("f", 720, 6)]
}

fn path(bps: u64) -> LinkConfig {
    LinkConfig { delay: Duration::from_millis(20), rate_bps: Some(bps), ..LinkConfig::default() }
}

/// A simulcast publisher and a subscriber of all of its tracks behind `down`.
struct Call {
    net: Net,
    bob: usize,
    audio: [OpusSource; 1],
    video: [Vp8Source; 3],
}

impl Call {
    fn new(seed: u64, down: LinkConfig) -> Self {
        let mut net = Net::new(seed);
        net.add_process(1);
        let alice = net.join(0, "alice", ClientSpec::simulcast());
        let bob = net.join(0, "bob", ClientSpec { down, ..ClientSpec::subscriber() });
        net.publish(alice, "audio", 0);
        net.publish(alice, "video", 1);
        net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
        Self { net, bob, audio: [OpusSource::new(alice, 0)], video: layers(alice) }
    }

    /// Runs and forgets what was received before. Returns the heights seen, in order, without repetition.
    fn run(&mut self, seconds: u32) -> Vec<u16> {
        self.net.clients[self.bob].packets.clear();
        run(&mut self.net, seconds * SECOND, &mut self.audio, &mut self.video);
        let mut heights: Vec<u16> = self.video_packets().map(|p| read_vp8(p).height).collect();
        heights.dedup();
        heights
    }

    fn packets(&self, pt: u8) -> impl Iterator<Item = &[u8]> {
        let received = self.net.clients[self.bob].packets.iter();
        received.filter(move |p| *p.header.payload_type == pt).map(|p| &p.payload[..])
    }

    fn video_packets(&self) -> impl Iterator<Item = &[u8]> {
        self.packets(96).filter(|p| p.len() > 20)
    }

    fn audio_packets(&self) -> usize {
        self.packets(111).count()
    }
}

#[test]
fn a_fresh_subscriber_sees_the_top_layer_within_two_seconds() {
    let mut call = Call::new(1, path(5_000_000));
    assert_eq!(call.run(2).last(), Some(&720));
    assert_eq!(call.run(5), [720]);
}

#[test]
fn the_layer_follows_the_path_down_and_up_and_sound_goes_on() {
    let mut call = Call::new(2, path(5_000_000));
    call.run(5);
    call.net.downlinks[call.bob].set_config(path(450_000));
    call.run(5);
    let narrow = call.run(10);
    assert!(!narrow.contains(&720), "{narrow:?}");
    assert!(narrow.len() <= 5, "it flaps: {narrow:?}");
    assert!(call.audio_packets() >= 490, "{}", call.audio_packets());
    call.net.downlinks[call.bob].set_config(path(5_000_000));
    call.run(15);
    assert_eq!(call.run(5), [720]);
}

#[test]
fn a_steady_path_between_two_layers_does_not_flap() {
    let mut call = Call::new(3, path(1_000_000));
    call.run(10);
    let heights = call.run(40);
    assert!(heights.len() <= 5, "{heights:?}");
    assert!(heights.contains(&360), "{heights:?}");
}

#[test]
fn a_path_that_narrows_shows_the_smaller_picture_soon() {
    let mut call = Call::new(7, path(5_000_000));
    // An encoder's key frame takes its time.
    call.net.uplinks[0].set_config(LinkConfig { delay: Duration::from_millis(100), ..LinkConfig::default() });
    call.run(5);
    call.net.downlinks[call.bob].set_config(path(450_000));
    call.net.clients[call.bob].packets.clear();
    let began = call.net.now;
    run(&mut call.net, 3 * SECOND, &mut call.audio, &mut call.video);
    let is_picture = |p: &&RtpPacket| *p.header.payload_type == 96 && p.payload.len() > 20;
    let mut pictures = call.net.clients[call.bob].packets.iter().filter(is_picture);
    let smaller = pictures.find(|p| read_vp8(&p.payload).height < 720).expect("the smaller picture");
    let after = smaller.timestamp - began;
    assert!(after < Duration::from_millis(850), "{after:?}");
}

#[test]
fn what_is_given_up_leaves_no_hole_in_the_numbers() {
    let mut net = Net::new(6);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let caps = Caps { egress_bps: Some(400_000), ..Caps::default() };
    let cap = ClientSpec { caps, ..ClientSpec::subscriber() };
    let bob = net.join(0, "bob", cap);
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let mut video = [Vp8Source { packets_per_frame: 6, ..Vp8Source::new(alice, 1, None, 720) }];
    run(&mut net, 30 * SECOND, &mut [], &mut video);
    let given_up = net.nodes[0].shard.counters().drop_pacer;
    assert!(given_up > 100, "{given_up}");
    // Nothing is lost on the way: each number between the first and the last one comes, and none twice.
    let media = net.clients[bob].packets.iter().filter(|p| *p.header.payload_type == 96);
    let numbers: Vec<u64> = media.map(|p| *p.seq_no).collect();
    assert!(numbers.len() > 200, "{}", numbers.len());
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a hole, or one number twice");
}

#[test]
fn forty_percent_of_loss_leaves_a_usable_call() {
    let mut call = Call::new(4, path(5_000_000));
    call.run(2);
    call.net.downlinks[call.bob].set_config(LinkConfig { loss: 0.4, ..path(5_000_000) });
    call.run(15);
    let sources = call.video[0].frames;
    call.run(15);
    let frames = call.video[0].frames - sources;
    let mut seen: Vec<u16> = call.video_packets().map(|p| read_vp8(p).picture_id).collect();
    seen.sort_unstable();
    seen.dedup();
    println!("{} of {frames} pictures, {} of 750 sounds", seen.len(), call.audio_packets());
    assert!(seen.len() as u64 * 10 >= frames * 8, "{} of {frames} pictures", seen.len());
    assert!(call.audio_packets() >= 400, "{}", call.audio_packets());
}

#[test]
fn the_more_important_picture_keeps_its_quality() {
    let mut net = Net::new(5);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::simulcast());
    let carol = net.join(0, "carol", ClientSpec::simulcast());
    let bob = net.join(0, "bob", ClientSpec { down: path(900_000), ..ClientSpec::subscriber() });
    net.publish(alice, "first", 1);
    net.publish(carol, "second", 1);
    let subscription = |track, priority| Subscription { priority, ..wanted(track, Kind::Video) };
    net.subscribe_to(bob, vec![subscription("first", 10), subscription("second", 200)]);
    // The second one's heights are odd, to tell them apart.
    let odd = layers(carol).map(|layer| Vp8Source { height: layer.height + 1, ..layer });
    let mut video: Vec<Vp8Source> = layers(alice).into_iter().chain(odd).collect();
    run(&mut net, 20 * SECOND, &mut [], &mut video);
    net.clients[bob].packets.clear();
    run(&mut net, 30 * SECOND, &mut [], &mut video);
    let heights = |parity: u16| {
        let received = net.clients[bob].packets.iter().filter(|p| p.payload.len() > 20);
        let heights = received.map(|p| read_vp8(&p.payload).height).filter(move |h| h % 2 == parity);
        heights.collect::<Vec<u16>>()
    };
    let (less, more) = (heights(0), heights(1));
    let share =
        |heights: &[u16], least: u16| heights.iter().filter(|h| **h >= least).count() as f64 / heights.len() as f64;
    println!("above the lowest layer: {:.2} and {:.2}", share(&less, 300), share(&more, 300));
    assert!(!less.is_empty(), "both are seen");
    assert!(share(&more, 300) > 0.8, "the more important one has the better layer");
    assert!(share(&less, 300) < 0.3, "the less important one has not");
}
