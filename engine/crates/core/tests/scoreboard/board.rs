//! The board as a page: one line per scenario, the worst of its seeds where a bound matters, else their mean.

use std::fmt::Write;
use std::time::Duration;

use super::scenario::Scenario;
use super::score::Score;

/// Each scenario runs with each of these.
const SEEDS: [u64; 3] = [1, 2, 3];

const HEAD: &str = "\
# Scoreboard: subscribers behind all kinds of paths

Written by `make scoreboard` (engine/crates/core/tests/scoreboard.rs); do not edit. Virtual time, seeds 1 to 3, a whole shard.
A publisher sends sound and VP8 simulcast of 150, 500 and 1500 kbit/s with two temporal layers; a subscriber of str0m
sends transport-wide feedback and NACKs. Where nothing else is said: 25 ms each way, a quarter second of queue. *Heavy* is a
publisher of 420, 1000 and 1500 kbit/s without temporal layers: there is nothing below 420 kbit/s and sound (495 with headers).

- *frozen*, *longest*: share of the time and longest time in which the picture stands, by libwebrtc's definition, through a player
  that buffers up to 400 ms. *fps*: frames shown.
- *best layer*: share of the time after 10 s at the highest layer that fits 85 % of the path with sound and retransmissions, or above.
- *error*: median of |estimate - capacity| / capacity; only where the demand reaches the capacity.
- *below*, *near*: after capacity fell, until the estimate is below it, and within 20 % for a second. *back*: after it rose, until
  the best layer is there. *padding*: share of packets sent that only probe.

str0m asks five times within 165 ms for a lost packet and then no more, and takes none that is more than 100 packets late
(libwebrtc: ten times, and 2,048 packets); the player asks for a key frame after 3 s as libwebrtc does. So where a packet is lost
twice on a long path, the picture stands longer here than in a browser.

frozen, fps, best layer, error and padding are means of the seeds; the times are the worst.
";

/// The whole page.
pub fn render(scenarios: &[Scenario]) -> String {
    let mut page = HEAD.to_owned();
    let mut group = "";
    for scenario in scenarios {
        if scenario.group != group {
            group = scenario.group;
            let columns = "frozen | longest | fps | best layer | error | below | near | back | padding";
            let rule = "---|---:|---:|---:|---:|---:|---:|---:|---:|---:";
            writeln!(page, "\n## {group}\n\n| path | {columns} |\n|{rule}|").expect("a string takes it");
        }
        let scores: Vec<Score> = SEEDS.iter().map(|seed| Score::of(scenario, *seed)).collect();
        let row = row(scenario, &scores);
        println!("{row}");
        writeln!(page, "{row}").expect("a string takes it");
    }
    page
}

/// One line of the table.
pub fn row(scenario: &Scenario, scores: &[Score]) -> String {
    let mean = |of: &dyn Fn(&Score) -> f64| scores.iter().map(of).sum::<f64>() / scores.len() as f64;
    let worst = |of: &dyn Fn(&Score) -> Option<Duration>| scores.iter().filter_map(of).max();
    let error = scores.iter().all(|s| s.estimator_error.is_some());
    let cells = [
        scenario.name.clone(),
        percent(mean(&|s| s.freezes.share)),
        seconds(worst(&|s| Some(s.freezes.longest))),
        format!("{:.1}", mean(&|s| s.freezes.fps)),
        percent(mean(&|s| s.at_best_layer)),
        if error { percent(mean(&|s| s.estimator_error.unwrap_or_default())) } else { "–".into() },
        seconds(worst(&|s| s.below_after_fall)),
        seconds(worst(&|s| s.settled_after_fall)),
        seconds(worst(&|s| s.recovered_after_rise)),
        percent(mean(&|s| s.padding)),
    ];
    format!("| {} |", cells.join(" | "))
}

fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

fn seconds(time: Option<Duration>) -> String {
    time.map_or("–".into(), |time| format!("{:.1} s", time.as_secs_f64()))
}
