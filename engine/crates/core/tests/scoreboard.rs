//! A subscriber behind many kinds of path, in virtual time: a whole shard, a publisher of three simulcast layers, a
//! receiver that sends transport-wide feedback and NACKs.
//!
//! `make scoreboard` runs them all and writes `docs/scoreboard.md`; the tests here hold a few of them to bounds.

mod board;
mod call;
mod competitor;
mod scenario;
mod score;

use std::time::Duration;

use self::call::Call;
use self::scenario::Scenario;
use self::score::Score;

const SECOND: Duration = Duration::from_secs(1);

fn run(name: &str) -> Score {
    let scenario = scenario::all().into_iter().find(|s| s.name == name).expect("a scenario of that name");
    let score = Score::of(&scenario, 1);
    println!("{}", board::row(&scenario, std::slice::from_ref(&score)));
    score
}

#[test]
fn a_fall_from_2_mbps_to_500_kbps_and_back() {
    let score = run("2 Mbit/s → 500 kbit/s → 2 Mbit/s");
    assert!(score.freezes.longest < SECOND, "{score:?}");
    assert!(score.settled_after_fall.is_some_and(|t| t < 5 * SECOND), "{score:?}");
    assert!(score.recovered_after_rise.is_some_and(|t| t < 15 * SECOND), "{score:?}");
}

#[test]
fn a_layer_that_does_not_fit_costs_one_trial_and_not_the_estimate() {
    let score = run("steady 1.5 Mbit/s");
    assert!(score.at_best_layer > 0.95 && score.freezes.longest < SECOND, "{score:?}");
    assert!(score.estimator_error.is_some_and(|e| e < 0.15), "{score:?}");
}

#[test]
fn a_path_that_just_takes_the_lowest_layer_shows_it() {
    let score = run("500 kbit/s for 420 and sound");
    assert!(score.freezes.share < 0.05 && score.freezes.longest < SECOND, "{score:?}");
}

#[test]
fn a_sudden_fall_is_seen_before_the_queue_has_overflown_for_long() {
    for name in ["2 Mbit/s → 500 kbit/s → 2 Mbit/s", "2 Mbit/s → 500 kbit/s → 2 Mbit/s, heavy"] {
        let score = run(name);
        let below = score.below_after_fall.expect("a fall");
        assert!(below <= Duration::from_millis(500), "{name}: {score:?}");
        assert!(score.freezes.longest < SECOND, "{name}: {score:?}");
    }
}

#[test]
fn a_flow_that_never_yields_is_given_room() {
    let score = run("constant 1 Mbit/s on 2.5 Mbit/s");
    assert!(score.freezes.share < 0.05, "{score:?}");
}

#[test]
fn random_loss_is_not_taken_for_a_full_path() {
    for name in ["loss 10 %", "loss 20 %"] {
        let score = run(name);
        assert!(score.at_best_layer > 0.95, "{name}: {score:?}");
    }
}

#[test]
fn the_picture_moves_at_heavy_loss_on_a_long_path() {
    // One seed each; the board has the means.
    let bounds =
        [("RTT 100 ms and loss 20 %", 0.03), ("RTT 100 ms and loss 40 %", 0.1), ("RTT 200 ms and loss 10 %", 0.06)];
    for (name, frozen) in bounds {
        let score = run(name);
        assert!(score.freezes.share < frozen, "{name}: {score:?}");
    }
}

#[test]
fn a_steady_path_is_used_and_not_overfilled() {
    for name in ["steady 200 kbit/s", "steady 1 Mbit/s", "steady 3 Mbit/s", "RTT 400 ms", "jitter 30 ms"] {
        let score = run(name);
        assert!(score.freezes.longest < SECOND, "{name}: {score:?}");
        assert!(score.at_best_layer > 0.8, "{name}: {score:?}");
    }
}

/// `TRACE='steady 1 Mbit/s' SEED=2 cargo test -p mrtc-core --test scoreboard trace -- --ignored --nocapture` prints a
/// call's course.
#[test]
#[ignore = "for looking at one scenario"]
fn trace() {
    let name = std::env::var("TRACE").expect("TRACE names the scenario");
    let seed = std::env::var("SEED").map_or(1, |seed| seed.parse().expect("a number"));
    let scenario = scenario::all().into_iter().find(|s| s.name == name).expect("a scenario of that name");
    let mut call = Call::new(&scenario, seed);
    call.run(&scenario);
    println!("{:>8} {:>8} {:>9} {:>6}; sums of", "time", "estimate", "allocated", "height");
    println!("{:>34} {:>7} {:>7} {:>7} {:>7}", "frames", "dropped", "again", "pli", "late");
    for s in &call.samples {
        let (estimate, allocated) = (s.estimate_bps / 1000, s.allocated_bps / 1000);
        print!("{:8.1} {estimate:8} {allocated:9} {:6};", s.at.as_secs_f64(), s.height);
        print!(" {:7} {:7} {:7}", s.frames_decoded, s.queue_dropped, s.retransmissions);
        println!(" {:7} {:7}", s.keyframe_requests, s.given_up);
    }
    println!("{:?}", call.viewer.report(call.net.now));
}

#[test]
#[ignore = "make scoreboard"]
fn write_the_board() {
    let path = std::env::var("SCOREBOARD").expect("SCOREBOARD names the file to write");
    let only = std::env::var("ONLY").unwrap_or_default();
    let scenarios: Vec<Scenario> = scenario::all().into_iter().filter(|s| s.name.contains(&only)).collect();
    std::fs::write(&path, board::render(&scenarios)).expect("the board is written");
}
