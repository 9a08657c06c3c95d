//! The numbers of a subscriber's stream have no holes for long, whatever happens to what the stream carries: a client such
//! as aiortc waits for each number, and asks for it once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::media::{Vp8Source, run};
use crate::support::{ClientSpec, Net, wanted};
use mrtc_core::command::{Caps, Command, Kind, Subscription};
use mrtc_netem::LinkConfig;

const SECOND: Duration = Duration::from_secs(1);
const HEIGHTS: [u32; 3] = [180, 360, 720];

/// What decides a run (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % end
    }
}

/// A publisher that moves and loses packets, and a subscriber that is told of each of its incarnations.
struct Call {
    net: Net,
    chance: Chance,
    bob: usize,
    /// Transports of the publisher, oldest first; the last one is the present one.
    alices: Vec<usize>,
    sources: Vec<Vp8Source>,
    max_height: u32,
}

impl Call {
    fn new(seed: u64) -> Self {
        let mut chance = Chance(seed);
        let mut net = Net::new(seed);
        net.add_process(2);
        // Of a narrow one the pacer gives up packets again and again.
        let egress = [None, Some(700_000), Some(350_000)][chance.below(3) as usize];
        let caps = Caps { egress_bps: egress, ..Caps::default() };
        let bob = net.join(chance.below(2) as usize, "bob", ClientSpec { caps, ..ClientSpec::subscriber() });
        let mut call = Self { net, chance, bob, alices: vec![], sources: vec![], max_height: 720 };
        call.move_publisher();
        call
    }

    fn name(&self, generation: usize) -> String {
        format!("video-{generation}")
    }

    /// The publisher sends on a new transport too; the one before the former one ends.
    fn move_publisher(&mut self) {
        let generation = self.alices.len();
        let name = format!("alice-{generation}");
        let alice = self.net.join(self.chance.below(2) as usize, &name, ClientSpec::simulcast());
        self.net.publish(alice, &self.name(generation), 1);
        if generation >= 2 {
            self.end(generation - 2);
        }
        let first = 1_000 + self.chance.below(60_000);
        let layer = |rid, height, packets| Vp8Source {
            packets_per_frame: packets,
            seq: first,
            ..Vp8Source::new(alice, 1, Some(rid), height)
        };
        self.sources.extend([layer("q", 180, 1), layer("h", 360, 2), layer("f", 720, 4)]);
        self.alices.push(alice);
        self.subscribe();
    }

    fn end(&mut self, generation: usize) {
        let alice = self.alices[generation];
        self.sources.retain(|source| source.client != alice);
        let (node, name) = (self.net.clients[alice].node, self.net.clients[alice].name.clone());
        self.net.command(node, Command::CloseTransport { transport: name.as_str().into() }).expect("closed");
    }

    fn subscribe(&mut self) {
        let newest = self.alices.len() - 1;
        let subscription = Subscription {
            formers: (0..newest).map(|n| self.name(n).as_str().into()).collect(),
            max_height: Some(self.max_height),
            ..wanted(&self.name(newest), Kind::Video)
        };
        self.net.subscribe_to(self.bob, vec![subscription]);
    }

    fn set_uplink(&mut self, loss: f64) {
        let alice = *self.alices.last().expect("a publisher");
        let delay = Duration::from_millis(10 + self.chance.below(60));
        self.net.uplinks[alice].set_config(LinkConfig { delay, loss, ..LinkConfig::default() });
    }

    fn act(&mut self) {
        match self.chance.below(7) {
            0 => self.move_publisher(),
            1 | 2 => {
                self.max_height = HEIGHTS[self.chance.below(3) as usize];
                self.subscribe();
            }
            3 => drop(self.net.subscribe_to(self.bob, vec![])),
            4 => self.subscribe(),
            5 => self.set_uplink(0.3),
            _ => self.set_uplink(0.0),
        }
    }

    fn run(&mut self, time: Duration) {
        run(&mut self.net, time, &mut [], &mut self.sources);
    }

    /// Every number that came, and the longest payload under it.
    fn numbers(&self) -> Vec<BTreeMap<u64, usize>> {
        let mut streams = BTreeMap::<u32, BTreeMap<u64, usize>>::new();
        for packet in &self.net.clients[self.bob].packets {
            let numbers = streams.entry(*packet.header.ssrc).or_default();
            let len = numbers.entry(*packet.seq_no).or_default();
            assert!(*len == 0 || packet.payload.is_empty() || *len == packet.payload.len(), "one number, two packets");
            *len = (*len).max(packet.payload.len());
        }
        streams.into_values().collect()
    }
}

fn leaves_no_hole(seed: u64) {
    let mut call = Call::new(seed);
    for _ in 0..24 {
        let pause = Duration::from_millis(50 + call.chance.below(500));
        call.run(pause);
        call.act();
    }
    call.set_uplink(0.0);
    call.subscribe();
    call.run(2 * SECOND);
    call.sources.iter_mut().for_each(|source| source.wants_keyframe = true);
    call.run(2 * SECOND);
    let streams = call.numbers();
    assert!(!streams.is_empty() && streams.iter().any(|numbers| numbers.len() > 100), "seed {seed}");
    for numbers in streams {
        let all: Vec<u64> = numbers.keys().copied().collect();
        let holes: Vec<_> = all.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
        assert!(holes.is_empty(), "seed {seed}: {holes:?} of {} to {}", all[0], all[all.len() - 1]);
    }
}

#[test]
fn moves_and_switches_over_lossy_uplinks_leave_no_holes() {
    (1..=20).for_each(leaves_no_hole);
}

/// Packets around a move are lost on their way to the subscriber, and asked for when the slot carries the publisher's
/// next self.
#[test]
fn what_was_lost_around_a_move_is_answered_after_it() {
    let mut call = Call::new(100);
    call.run(SECOND);
    let set_downlink = |call: &mut Call, loss: f64| {
        let delay = Duration::from_millis(10);
        call.net.downlinks[call.bob].set_config(LinkConfig { delay, loss, ..LinkConfig::default() });
    };
    for _ in 0..12 {
        call.move_publisher();
        for _ in 0..6 {
            set_downlink(&mut call, 1.0);
            call.run(Duration::from_millis(10));
            set_downlink(&mut call, 0.0);
            call.run(Duration::from_millis(50));
        }
    }
    call.run(2 * SECOND);
    let numbers = call.numbers();
    let all: Vec<u64> = numbers[0].keys().copied().collect();
    let holes: Vec<_> = all.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert!(holes.is_empty(), "{holes:?} of {}", all.len());
}
