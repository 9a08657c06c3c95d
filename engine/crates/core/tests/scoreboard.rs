//! A subscriber behind many kinds of path, in virtual time: a whole shard, a publisher of three simulcast layers, a
//! receiver that sends transport-wide feedback and NACKs.
//!
//! `make scoreboard` runs them all and writes `docs/scoreboard.md`; the tests here hold a few of them to bounds.

mod scoreboard {
    pub mod board;
    pub mod call;
    pub mod competitor;
    pub mod scenario;
    pub mod score;
}
mod support;

use std::time::Duration;

use scoreboard::board;
use scoreboard::call::Call;
use scoreboard::scenario::{self, Scenario};
use scoreboard::score::Score;

const SECOND: Duration = Duration::from_secs(1);

fn run(name: &str) -> Score {
    let scenario = scenario::all().into_iter().find(|s| s.name == name).expect("a scenario of that name");
    let score = Score::of(&scenario, 1);
    println!("{}", board::row(&scenario, std::slice::from_ref(&score)));
    score
}

#[test]
fn a_steady_path_is_used_and_not_overfilled() {
    for name in ["steady 1 Mbit/s", "steady 3 Mbit/s", "RTT 400 ms", "jitter 30 ms"] {
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
    for s in call.samples.iter().step_by(5) {
        let (estimate, allocated) = (s.estimate_bps / 1000, s.allocated_bps / 1000);
        println!("{:6.1} s: {estimate:5} kbit/s, {allocated:5} allocated, {:4} high", s.at.as_secs_f64(), s.height);
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
