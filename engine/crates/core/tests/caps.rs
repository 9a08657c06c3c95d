//! What a client may be sent and may send at most: told, kept to, and enforced against who does not.

use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, read_vp8, run};
use crate::support::{ClientSpec, Net};
use mrtc_core::command::{Caps, Command, Kind};

const SECOND: Duration = Duration::from_secs(1);

/// Some 250, 500 and 1500 kbit/s.
fn layers(client: usize) -> [Vp8Source; 3] {
    let layer =
        |rid, height, packets| Vp8Source { packets_per_frame: packets, ..Vp8Source::new(client, 1, Some(rid), height) };
    [layer("q", 180, 1), layer("h", 360, 2), layer("f", 720, 6)]
}

/// A publisher in three layers, with sound, and a viewer.
struct Call {
    net: Net,
    alice: usize,
    bob: usize,
    audio: [OpusSource; 1],
    video: [Vp8Source; 3],
}

impl Call {
    fn new(seed: u64, publisher: Caps, viewer: Caps) -> Self {
        let mut net = Net::new(seed);
        net.add_process(1);
        let alice = net.join(0, "alice", ClientSpec { caps: publisher, ..ClientSpec::simulcast() });
        let bob = net.join(0, "bob", ClientSpec { caps: viewer, ..ClientSpec::subscriber() });
        net.publish(alice, "audio", 0);
        net.publish(alice, "video", 1);
        net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
        Self { net, alice, bob, audio: [OpusSource::new(alice, 0)], video: layers(alice) }
    }

    fn set(&mut self, transport: &str, caps: Caps) {
        self.net.command(0, Command::SetCaps { transport: transport.into(), caps }).expect("done");
    }

    /// Runs; what the viewer was sent meanwhile, in bit/s.
    fn run(&mut self, seconds: u32) -> u64 {
        self.net.clients[self.bob].packets.clear();
        run(&mut self.net, seconds * SECOND, &mut self.audio, &mut self.video);
        let packets = &self.net.clients[self.bob].packets;
        packets.iter().map(|p| p.payload.len() as u64 * 8).sum::<u64>() / u64::from(seconds)
    }

    /// Heights that the viewer saw in the last run.
    fn heights(&self) -> Vec<u16> {
        let packets = self.net.clients[self.bob].packets.iter();
        let mut heights: Vec<u16> = packets
            .filter(|p| *p.header.payload_type == 96 && p.payload.len() > 20)
            .map(|p| read_vp8(&p.payload).height)
            .collect();
        heights.dedup();
        heights
    }

    fn sounds(&self) -> usize {
        self.net.clients[self.bob].packets.iter().filter(|p| *p.header.payload_type == 111).count()
    }

    fn rembs(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.net.clients[self.alice].rembs)
    }

    fn dropped(&self) -> u64 {
        self.net.nodes[0].shard.counters().drop_ingress_cap
    }
}

#[test]
fn a_viewer_is_sent_no_more_than_its_cap_and_more_when_it_goes() {
    let egress = |bps| Caps { egress_bps: Some(bps), ..Caps::default() };
    let mut call = Call::new(1, Caps::default(), egress(350_000));
    call.run(5);
    let bps = call.run(10);
    assert!((150_000..350_000).contains(&bps), "{bps}");
    assert_eq!(call.heights(), [180]);
    call.set("bob", egress(800_000));
    call.run(10);
    let bps = call.run(10);
    assert!((450_000..800_000).contains(&bps), "{bps}");
    assert_eq!(call.heights(), [360]);
    call.set("bob", Caps::default());
    call.run(15);
    assert!(call.run(5) > 1_300_000);
    call.set("bob", egress(350_000));
    call.run(1);
    assert!(call.run(5) < 350_000, "at once");
}

#[test]
fn a_publisher_is_told_its_cap_while_there_is_one() {
    let capped = Caps { ingress_bps: Some(900_000), track_bps: Some(2_000_000), ..Caps::default() };
    let mut call = Call::new(2, capped, Caps::default());
    call.run(5);
    let rembs = call.rembs();
    assert!((4..=8).contains(&rembs.len()), "about once a second: {rembs:?}");
    assert!(rembs.iter().all(|bps| (890_000..=900_000).contains(bps)), "{rembs:?}");

    let own = Command::SetTrackCap { track: "video".into(), max_bps: Some(300_000) };
    call.net.command(0, own).expect("done");
    call.run(1);
    let newest = *call.rembs().last().expect("told at once");
    assert!((360_000..=364_000).contains(&newest), "its video and sound: {newest}");

    call.set("alice", Caps::default());
    call.net.command(0, Command::SetTrackCap { track: "video".into(), max_bps: None }).expect("done");
    call.run(6);
    let rembs = call.rembs();
    assert!(rembs.len() <= 6 && rembs.last().is_some_and(|bps| *bps > 900_000_000), "that it is gone: {rembs:?}");
    call.run(5);
    assert!(call.rembs().is_empty());
}

#[test]
fn a_publisher_that_does_not_follow_loses_its_highest_layers_and_keeps_its_sound() {
    let mut call = Call::new(3, Caps { ingress_bps: Some(900_000), ..Caps::default() }, Caps::default());
    call.run(3);
    assert_eq!(call.dropped(), 0, "it has time to follow");
    call.run(10);
    let bps = call.run(20);
    assert!((500_000..1_150_000).contains(&bps), "{bps}");
    assert!(call.sounds() >= 990, "{}", call.sounds());
    assert!(call.heights().iter().all(|h| *h != 180), "the middle one fits: {:?}", call.heights());
    let dropped = call.dropped();
    assert!(dropped > 1_000, "{dropped}");
    call.set("alice", Caps::default());
    call.run(5);
    assert!(call.run(5) > 1_300_000);
    assert_eq!(call.heights(), [720]);
    assert!(call.dropped() - dropped < 10);
}

#[test]
fn a_flood_on_one_track_is_bounded_and_leaves_the_others_alone() {
    let mut call = Call::new(4, Caps { track_bps: Some(200_000), ..Caps::default() }, Caps::default());
    call.run(10);
    let bps = call.run(20);
    assert!(bps < 24_000 + 250_000, "{bps}");
    assert!(call.sounds() >= 990, "{}", call.sounds());
}
