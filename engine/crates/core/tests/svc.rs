//! Layers inside one encoding (SVC): who is sent which, and how many the publisher is asked for.

use std::time::Duration;

use crate::support::client::Codecs;
use crate::support::media::Outgoing;
use crate::support::{ClientSpec, Net, wanted};
use mrtc_core::command::Kind;
use mrtc_core::event::Event;

const SECOND: Duration = Duration::from_secs(1);
const HEIGHTS: [u16; 3] = [135, 270, 540];

/// An encoder of VP9 in mode L3T1_KEY: a packet per layer and picture.
struct Vp9Source {
    client: usize,
    seq: u64,
    picture: u16,
    wants_keyframe: bool,
}

impl Vp9Source {
    fn run(&mut self, net: &mut Net, time: Duration) {
        let end = net.now + time;
        let mut next_at = net.now;
        while net.now < end {
            self.wants_keyframe |= !std::mem::take(&mut net.clients[self.client].keyframe_requests).is_empty();
            if net.now >= next_at {
                next_at += Duration::from_millis(40);
                self.write_picture(net);
            }
            net.step();
        }
    }

    fn write_picture(&mut self, net: &mut Net) {
        let is_key = std::mem::take(&mut self.wants_keyframe);
        self.picture = (self.picture + 1) & 0x7fff;
        for spatial in 0..3u8 {
            let packet = Outgoing {
                pt: VP9_PT,
                seq: self.seq,
                timestamp: u32::from(self.picture) * 3_600,
                marker: spatial == 2,
                audio_level: None,
                payload: self.payload(is_key, spatial),
            };
            self.seq += 1;
            let now = net.now;
            net.clients[self.client].write(now, 0, None, &packet);
        }
    }

    /// RFC 9628 section 4.2: I, P unless of a key picture, L, B, E, V with the sizes at the key picture's first layer.
    fn payload(&self, is_key: bool, spatial: u8) -> Vec<u8> {
        let has_structure = is_key && spatial == 0;
        let mut p = vec![0xac | u8::from(!is_key) << 6 | u8::from(has_structure) << 1];
        p.extend((0x8000 | self.picture).to_be_bytes());
        p.extend([spatial << 1 | u8::from(is_key && spatial > 0), 0]);
        if has_structure {
            p.push(2 << 5 | 0x10);
            HEIGHTS.iter().for_each(|h| p.extend([(h * 16 / 9).to_be_bytes(), h.to_be_bytes()].concat()));
        }
        p.push(spatial);
        p.resize(100 + 300 * usize::from(spatial), spatial);
        p
    }
}

/// As str0m numbers it.
const VP9_PT: u8 = 98;

fn call(seed: u64) -> (Net, Vp9Source, usize) {
    let mut net = Net::new(seed);
    net.add_process(1);
    let vp9 = || ClientSpec { codecs: Codecs::Vp9Only, ..ClientSpec::default() };
    let alice = net.join(0, "alice", ClientSpec { sends_video: true, ..vp9() });
    let bob = net.join(0, "bob", ClientSpec { video_slots: 1, ..vp9() });
    net.publish(alice, "video", 0);
    (net, Vp9Source { client: alice, seq: 100, picture: 0, wants_keyframe: true }, bob)
}

fn show(net: &mut Net, viewer: usize, height: u32) {
    let mut subscription = wanted("video", Kind::Video);
    subscription.max_height = Some(height);
    net.subscribe_to(viewer, vec![subscription]);
}

/// Spatial layers that came since the last look.
fn seen(net: &mut Net, viewer: usize) -> Vec<u8> {
    let packets = std::mem::take(&mut net.clients[viewer].packets);
    let mut layers: Vec<u8> = packets.iter().filter(|p| p.payload.len() > 4).map(|p| p.payload[3] >> 1 & 7).collect();
    layers.sort_unstable();
    layers.dedup();
    layers
}

/// (rids, spatial layers) of each time that the publisher was asked for other layers, since the last look.
fn asked(net: &mut Net) -> Vec<(usize, u8)> {
    let events = std::mem::take(&mut net.nodes[0].events);
    let wanted = events.iter().filter_map(|event| match event {
        Event::LayersWanted { rids, spatial_layers, .. } => Some((rids.len(), *spatial_layers)),
        _ => None,
    });
    wanted.collect()
}

#[test]
fn a_viewer_gets_the_layer_that_fits_and_the_publisher_is_told_how_many() {
    let (mut net, mut source, bob) = call(1);
    show(&mut net, bob, 540);
    source.run(&mut net, 5 * SECOND);
    seen(&mut net, bob);
    source.run(&mut net, SECOND);
    assert_eq!(seen(&mut net, bob), [0, 1, 2]);
    assert!(asked(&mut net).iter().all(|a| *a == (1, 0)), "nothing less than all");

    show(&mut net, bob, 270);
    source.run(&mut net, SECOND);
    assert!(asked(&mut net).is_empty(), "not at once: it may change its mind");
    source.run(&mut net, 2 * SECOND);
    assert_eq!(asked(&mut net), [(1, 2)]);
    seen(&mut net, bob);
    source.run(&mut net, SECOND);
    assert_eq!(seen(&mut net, bob), [0, 1]);

    show(&mut net, bob, 540);
    source.run(&mut net, 2 * SECOND);
    assert_eq!(asked(&mut net), [(1, 0)], "more at once");
    seen(&mut net, bob);
    source.run(&mut net, SECOND);
    assert_eq!(seen(&mut net, bob), [0, 1, 2]);

    net.subscribe_to(bob, vec![]);
    source.run(&mut net, 3 * SECOND);
    assert_eq!(asked(&mut net), [(0, 0)], "nobody watches");
}

#[test]
fn a_sink_wants_all_layers() {
    let (mut net, mut source, bob) = call(2);
    show(&mut net, bob, 135);
    net.command(0, mrtc_core::command::Command::CreateSink { sink: "rec".into(), track: "video".into() })
        .expect("made");
    source.run(&mut net, 6 * SECOND);
    assert!(asked(&mut net).iter().all(|a| *a == (1, 0)));
    assert_eq!(seen(&mut net, bob).last(), Some(&0));
}
