//! Video over lossy networks, as a viewer sees it: how long the picture stands still, and what the repair costs.

use std::time::Duration;

use crate::support::freeze::{FreezeReport, Viewer, watch};
use crate::support::media::{Vp8Source, lossy_video, run};
use crate::support::{ClientSpec, Net};
use mrtc_core::command::{Command, Kind};
use mrtc_core::event::Reply;
use mrtc_netem::{BurstLoss, LinkConfig};

const SECOND: Duration = Duration::from_secs(1);

/// Where the impairment is: on the way of the media only, or on all four ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leg {
    Up,
    Down,
    All,
}

/// What a run showed.
#[derive(Clone, Copy, Debug)]
struct Outcome {
    viewed: FreezeReport,
    /// Bytes to the subscriber by bytes of its media.
    overhead: f64,
    keyframes: u64,
}

/// A call of two: half a megabit of VP8 from a publisher to a viewer. The impairment begins when they are connected.
fn call(seed: u64, leg: Leg, link: LinkConfig, time: Duration) -> Outcome {
    let mut net = Net::new(seed);
    net.add_process(1);
    let clean = LinkConfig { delay: if leg == Leg::All { link.delay } else { link.delay / 2 }, ..Default::default() };
    let spec = |spec: ClientSpec| ClientSpec { up: clean, down: clean, ..spec };
    let alice = net.join(0, "alice", spec(ClientSpec::publisher()));
    let bob = net.join(0, "bob", spec(ClientSpec::subscriber()));
    if leg != Leg::Down {
        net.uplinks[alice].set_config(link);
    }
    if leg != Leg::Up {
        net.downlinks[bob].set_config(link);
    }
    if leg == Leg::All {
        net.downlinks[alice].set_config(link);
        net.uplinks[bob].set_config(link);
    }
    net.clients[alice].answer_all_nacks(1);
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let source = Vp8Source::new(alice, 1, None, 360);
    let mut video = Vp8Source { packets_per_frame: 2, packets_per_keyframe: Some(8), ..source };
    let mut viewer = Viewer::new(&net, bob, link.delay * 2);
    watch(&mut net, 3 * SECOND, &mut video, &mut viewer);
    let keyframes = video.keyframes;
    let mut viewer = Viewer::new(&net, bob, link.delay * 2);
    let (sent, media) = (net.nodes[0].shard.counters().tx_bytes, video.seq);
    watch(&mut net, time, &mut video, &mut viewer);
    let media = (video.seq - media) as f64 * video.payload_len as f64;
    Outcome {
        viewed: viewer.report(net.now),
        overhead: (net.nodes[0].shard.counters().tx_bytes - sent) as f64 / media,
        keyframes: video.keyframes - keyframes,
    }
}

fn lossy(loss: f64, rtt_ms: u64) -> LinkConfig {
    LinkConfig { loss, delay: Duration::from_millis(rtt_ms / 2), ..LinkConfig::default() }
}

fn bursty(mean_burst: f64, share: f64, rtt_ms: u64) -> LinkConfig {
    let to_good = 1.0 / mean_burst;
    let burst = BurstLoss { to_bad: to_good * share / (1.0 - share), to_good, loss: 1.0 };
    LinkConfig { burst_loss: Some(burst), delay: Duration::from_millis(rtt_ms / 2), ..LinkConfig::default() }
}

/// The mean of three seeds.
fn frozen(leg: Leg, link: LinkConfig) -> f64 {
    let shares = [1, 2, 3].map(|seed| call(seed, leg, link, 20 * SECOND).viewed.share);
    println!("{leg:?}: {shares:.3?}");
    shares.iter().sum::<f64>() / 3.0
}

#[test]
fn what_was_lost_before_a_key_frame_comes_all_the_same() {
    let mut net = Net::new(3);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let bob = net.join(0, "bob", ClientSpec::subscriber());
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, 2 * SECOND, &mut [], &mut video);
    let delay = ClientSpec::subscriber().down.delay;
    net.downlinks[bob].set_config(LinkConfig { delay, loss: 0.03, ..LinkConfig::default() });
    for _ in 0..60 {
        video[0].wants_keyframe = true;
        run(&mut net, Duration::from_millis(100), &mut [], &mut video);
    }
    net.downlinks[bob].set_config(LinkConfig { delay, ..LinkConfig::default() });
    run(&mut net, 2 * SECOND, &mut [], &mut video);
    let ssrc = net.clients[bob].ssrcs()[0];
    let mut numbers: Vec<u64> = net.clients[bob].sorted(ssrc).iter().map(|p| *p.seq_no).collect();
    numbers.dedup();
    let holes = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
    assert_eq!(holes, 0, "of {} packets", numbers.len());
}

#[test]
fn the_picture_moves_at_forty_percent_of_loss_to_the_viewer() {
    assert!(frozen(Leg::Down, lossy(0.4, 100)) < 0.1);
    assert!(frozen(Leg::Down, lossy(0.4, 20)) < 0.1);
}

#[test]
fn the_picture_hardly_stands_at_twenty_percent_of_loss_to_the_viewer() {
    assert!(frozen(Leg::Down, lossy(0.2, 100)) < 0.02);
    assert!(frozen(Leg::Down, lossy(0.2, 400)) < 0.15);
}

#[test]
fn the_picture_moves_at_forty_percent_of_loss_from_the_publisher() {
    assert!(frozen(Leg::Up, lossy(0.2, 100)) < 0.03);
    assert!(frozen(Leg::Up, lossy(0.4, 100)) < 0.12);
}

#[test]
fn what_the_publishers_path_loses_is_not_sent_twice_to_the_viewer() {
    let overhead = |loss| call(1, Leg::Up, lossy(loss, 100), 20 * SECOND).overhead;
    let (whole, repaired) = (overhead(0.0), overhead(0.2));
    assert!(repaired < whole * 1.04, "{repaired:.3} instead of {whole:.3}");
}

#[test]
fn a_key_frame_whose_beginning_comes_late_is_sent_whole() {
    let first_picture = |seed: u64| {
        let (mut net, mut video) = lossy_video(seed, lossy(0.3, 100));
        let bob = net.join(0, "bob", ClientSpec::subscriber());
        net.subscribe(bob, &[("video", Kind::Video)]);
        let (begun, mut viewer) = (net.now, Viewer::new(&net, bob, Duration::ZERO));
        while viewer.decoded_frames() == 0 {
            watch(&mut net, Duration::from_millis(10), &mut video, &mut viewer);
        }
        net.now - begun
    };
    let times: Vec<Duration> = (1..=12).map(first_picture).collect();
    assert!(times.iter().all(|time| *time < SECOND), "{times:.2?}");
}

#[test]
fn bursts_of_loss_are_got_over() {
    assert!(frozen(Leg::Down, bursty(8.0, 0.1, 100)) < 0.1);
    assert!(frozen(Leg::Up, bursty(8.0, 0.1, 100)) < 0.1);
}

#[test]
fn jitter_reordering_and_duplicates_cost_nothing() {
    let link = LinkConfig {
        delay: Duration::from_millis(40),
        jitter: Duration::from_millis(30),
        reorder: 0.02,
        reorder_delay: Duration::from_millis(8),
        duplicate: 0.05,
        ..LinkConfig::default()
    };
    for seed in [1, 2, 3] {
        let outcome = call(seed, Leg::All, link, 20 * SECOND);
        assert!(outcome.viewed.share < 0.01, "{outcome:?}");
        assert!(outcome.overhead < 1.12, "{outcome:?}");
    }
}

#[test]
fn an_outage_of_the_publisher_ends_with_a_key_frame_that_no_viewer_asks_for() {
    let mut net = Net::new(21);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let bob = net.join(0, "bob", ClientSpec::subscriber());
    net.publish(alice, "video", 1);
    net.subscribe(bob, &[("video", Kind::Video)]);
    let mut video = Vp8Source::new(alice, 1, None, 360);
    let mut viewer = Viewer::new(&net, bob, Duration::ZERO);
    watch(&mut net, 2 * SECOND, &mut video, &mut viewer);
    // What was lost in the outage is answered with silence: the publisher kept none of it.
    let clean = ClientSpec::publisher().up;
    net.uplinks[alice].set_config(LinkConfig { loss: 1.0, ..clean });
    watch(&mut net, 2 * SECOND, &mut video, &mut viewer);
    net.clients[alice].forget_sent(1);
    net.uplinks[alice].set_config(clean);
    watch(&mut net, 6 * SECOND, &mut video, &mut viewer);
    let seen = viewer.report(net.now);
    assert!(seen.longest < Duration::from_millis(3_400), "{seen:?}");
    assert_eq!(seen.keyframe_requests, 0, "{seen:?}");
}

#[test]
fn the_round_trip_to_a_client_that_only_sends_is_known() {
    let mut net = Net::new(22);
    net.add_process(1);
    let link = LinkConfig { delay: Duration::from_millis(60), ..LinkConfig::default() };
    let alice = net.join(0, "alice", ClientSpec { up: link, down: link, ..ClientSpec::publisher() });
    net.publish(alice, "video", 1);
    let mut video = [Vp8Source::new(alice, 1, None, 360)];
    run(&mut net, 4 * SECOND, &mut [], &mut video);
    let Ok(Reply::Json(stats)) = net.command(0, Command::Stats { transports: vec![] }) else { panic!("no stats") };
    let (_, rest) = stats.split_once("\"rtt_ms\":").expect("a round trip");
    let rtt_ms: f64 = rest.split(',').next().and_then(|n| n.parse().ok()).expect("a number");
    assert!((115.0..135.0).contains(&rtt_ms), "{rtt_ms}");
}

/// Prints the table of docs/algorithms/loss.md: `cargo test -p mrtc-core --test loss -- --ignored --nocapture sweep`.
#[test]
#[ignore = "prints a table; takes minutes"]
fn sweep() {
    println!("| leg | loss | RTT ms | frozen % | longest ms | fps | sent/media | key frames |");
    let row = |leg: Leg, name: &str, rtt: u64, link: LinkConfig| {
        let outcomes: Vec<Outcome> = (1..=2).map(|seed| call(seed, leg, link, 20 * SECOND)).collect();
        let mean = |f: &dyn Fn(&Outcome) -> f64| outcomes.iter().map(f).sum::<f64>() / outcomes.len() as f64;
        let longest = outcomes.iter().map(|o| o.viewed.longest.as_millis()).max().unwrap_or(0);
        println!(
            "| {leg:?} | {name} | {rtt} | {:.1} | {longest} | {:.1} | {:.2} | {:.1} |",
            mean(&|o| o.viewed.share * 100.0),
            mean(&|o| o.viewed.fps),
            mean(&|o| o.overhead),
            mean(&|o| o.keyframes as f64)
        );
    };
    for leg in [Leg::Down, Leg::Up, Leg::All] {
        for rtt in [20, 100, 400] {
            for percent in [5, 10, 20, 30, 40, 50] {
                row(leg, &format!("{percent} %"), rtt, lossy(f64::from(percent) / 100.0, rtt));
            }
            row(leg, "10 % in bursts of 8", rtt, bursty(8.0, 0.1, rtt));
        }
    }
}
