//! Sound under loss: redundancy both ways, NACK, packets sent again before they are asked for.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::support::media::{OpusSource, read_opus, run};
use crate::support::{ClientSpec, Net};
use mrtc_core::command::{Command, Kind};
use mrtc_netem::LinkConfig;
use mrtc_rtp::id::Pt;
use mrtc_rtp::red::Red;

const SECOND: Duration = Duration::from_secs(1);
/// 100 ms round trip.
const ONE_WAY: Duration = Duration::from_millis(50);
const SEEDS: [u64; 3] = [1, 2, 3];

fn link(loss: f64) -> LinkConfig {
    LinkConfig { delay: ONE_WAY, jitter: Duration::from_millis(4), loss, ..LinkConfig::default() }
}

/// Alice speaks to Bob, who has one slot for sound.
fn call(seed: u64, up: f64, down: f64, spec: &ClientSpec) -> (Net, OpusSource, usize) {
    let mut net = Net::new(seed);
    net.add_process(1);
    let has_red = spec.has_red;
    let calm = ClientSpec { up: link(0.0), down: link(0.0), ..spec.clone() };
    let speaker = ClientSpec { sends_audio: true, ..calm.clone() };
    let listener = ClientSpec { audio_slots: 1, ..calm };
    let alice = net.join(0, "alice", speaker);
    let bob = net.join(0, "bob", listener);
    net.publish(alice, "audio", 0);
    net.subscribe(bob, &[("audio", Kind::Audio)]);
    net.uplinks[alice].set_config(link(up));
    net.downlinks[bob].set_config(link(down));
    let source = OpusSource { redundancy: usize::from(has_red), ..OpusSource::new(alice, 0) };
    (net, source, bob)
}

fn with_red() -> ClientSpec {
    ClientSpec { has_red: true, ..ClientSpec::default() }
}

/// Lets the subscriber ask for what it lacks; str0m does so for sound only when told to.
fn let_ask(net: &mut Net, client: usize) {
    let ssrc = net.clients[client].ssrcs()[0];
    net.clients[client].enable_nacks(ssrc);
}

/// When each of the source's packets came first, by its number: itself or inside another.
fn arrivals(net: &Net, client: usize) -> BTreeMap<u64, Duration> {
    let mut arrivals = BTreeMap::new();
    for packet in &net.clients[client].packets {
        let at = packet.timestamp - net.start;
        let mut take = |payload: &[u8]| {
            arrivals.entry(read_opus(payload)).or_insert(at);
        };
        match *packet.header.payload_type {
            111 => take(&packet.payload),
            63 => {
                let red = Red::parse(&packet.payload, Pt(111)).expect("well formed");
                red.earlier().iter().for_each(|e| take(&packet.payload[e.payload.clone()]));
                take(&packet.payload[red.primary]);
            }
            other => panic!("payload type {other}"),
        }
    }
    arrivals
}

/// Share of packets that a jitter buffer of this depth misses. The first packets are left out: protection needs a moment
/// to see the loss.
fn missed(net: &Net, client: usize, source: &OpusSource, depth: Duration) -> f64 {
    let first = source.seq - 1_000;
    let sent_at = |seq: u64| Duration::from_millis(20) * (seq - first) as u32;
    let arrivals = arrivals(net, client);
    // Least delay of the path.
    let offset = arrivals.range(first..).map(|(seq, at)| *at - sent_at(*seq).min(*at)).min().expect("something came");
    let last = source.seq - 50;
    let is_in_time = |seq: &u64| arrivals.get(seq).is_some_and(|at| *at <= offset + sent_at(*seq) + depth);
    1.0 - (first..last).filter(is_in_time).count() as f64 / (last - first) as f64
}

fn speak(net: &mut Net, source: &mut OpusSource, seconds: u32) {
    run(net, SECOND * seconds, std::slice::from_mut(source), &mut []);
}

fn counter(net: &Net, name: &str) -> u64 {
    net.nodes[0].shard.counters().iter().find(|(n, _)| *n == name).expect("a counter").1
}

#[test]
fn loss_from_the_speaker_is_mended_by_the_redundancy_that_it_sends() {
    for seed in SEEDS {
        let (mut net, mut source, bob) = call(seed, 0.2, 0.0, &with_red());
        speak(&mut net, &mut source, 25);
        assert!(counter(&net, "rx_restored_packets") > 100);
        let missed = missed(&net, bob, &source, Duration::from_millis(60));
        assert!(missed < 0.06, "seed {seed}: {missed}");
        // The track carries plain Opus.
        assert!(net.clients[bob].packets.iter().all(|p| *p.header.payload_type == 111));
    }
}

#[test]
fn loss_to_the_listener_is_mended_by_redundancy_of_our_own() {
    for (loss, depth_ms, most) in [(0.2, 80, 0.007), (0.4, 120, 0.02)] {
        let (mut net, mut source, bob) = call(7, 0.0, loss, &with_red());
        speak(&mut net, &mut source, 25);
        assert!(counter(&net, "tx_red_packets") > 500);
        let missed = missed(&net, bob, &source, Duration::from_millis(depth_ms));
        assert!(missed < most, "loss {loss}: {missed}");
    }
}

#[test]
fn without_loss_no_packet_is_larger_or_sent_twice() {
    let (mut net, mut source, bob) = call(8, 0.0, 0.0, &with_red());
    speak(&mut net, &mut source, 5);
    assert_eq!((counter(&net, "tx_red_packets"), counter(&net, "tx_audio_copies")), (0, 0));
    assert!(net.clients[bob].packets.iter().all(|p| *p.header.payload_type == 111));
}

#[test]
fn redundancy_ends_when_the_path_is_well_again() {
    let (mut net, mut source, bob) = call(9, 0.0, 0.2, &with_red());
    speak(&mut net, &mut source, 6);
    assert!(counter(&net, "tx_red_packets") > 100);
    net.downlinks[bob].set_config(link(0.0));
    speak(&mut net, &mut source, 60);
    net.clients[bob].packets.clear();
    speak(&mut net, &mut source, 3);
    assert!(net.clients[bob].packets.iter().all(|p| *p.header.payload_type == 111));
}

#[test]
fn a_listener_without_redundancy_gets_copies_at_heavy_loss() {
    for (loss, most) in [(0.2, 0.06), (0.4, 0.09)] {
        let (mut net, mut source, bob) = call(10, 0.0, loss, &ClientSpec::default());
        speak(&mut net, &mut source, 25);
        assert!(counter(&net, "tx_audio_copies") > 500);
        let missed = missed(&net, bob, &source, Duration::from_millis(80));
        assert!(missed < most, "loss {loss}: {missed}");
    }
}

#[test]
fn lost_sound_is_asked_for_and_sent_again_on_both_legs() {
    for (up, down, has_audio_rtx) in [(0.0, 0.1, true), (0.0, 0.1, false)] {
        let (mut net, mut source, bob) = call(11, up, down, &ClientSpec { has_audio_rtx, ..ClientSpec::default() });
        speak(&mut net, &mut source, 1);
        let_ask(&mut net, bob);
        speak(&mut net, &mut source, 24);
        let missed = missed(&net, bob, &source, Duration::from_millis(300));
        assert!(missed < 0.01, "{up} up, {down} down: {missed}");
    }
}

#[test]
fn what_is_sent_again_under_its_number_is_the_same_to_the_bit() {
    let (mut net, mut source, bob) = call(12, 0.1, 0.4, &with_red());
    net.capture = Some(vec![]);
    speak(&mut net, &mut source, 1);
    let_ask(&mut net, bob);
    speak(&mut net, &mut source, 20);
    let mut sent: HashMap<(Vec<u8>, Vec<u8>), Vec<u8>> = HashMap::new();
    let mut repeated = 0;
    for datagram in net.capture.take().expect("captured") {
        let b = datagram.bytes;
        let is_rtp = (128..192).contains(&b[0]) && !(192..224).contains(&b[1]);
        if datagram.to != net.clients[bob].addr || !is_rtp {
            continue;
        }
        if let Some(before) = sent.insert((b[8..12].to_vec(), b[2..4].to_vec()), b.clone()) {
            assert_eq!(before, b);
            repeated += 1;
        }
    }
    assert!(repeated > 100, "{repeated}");
}

#[test]
fn a_recording_gains_from_the_speaker_s_redundancy() {
    let (mut net, mut source, _) = call(13, 0.2, 0.0, &with_red());
    net.command(0, Command::CreateSink { sink: "sink".into(), track: "audio".into() }).expect("made");
    speak(&mut net, &mut source, 20);
    let numbers: Vec<u64> = net.nodes[0].frames.iter().map(|f| read_opus(&f.data)).collect();
    assert!(numbers.is_sorted());
    let share = numbers.len() as f64 / (numbers[numbers.len() - 1] - numbers[0] + 1) as f64;
    // Of a fifth lost, what was lost with its neighbour. str0m sends sound again on no request.
    assert!(share > 0.94, "{share}");
}
