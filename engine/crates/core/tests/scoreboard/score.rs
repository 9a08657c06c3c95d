//! What a call was like, in figures.

use std::time::Duration;

use super::call::{AUDIO_BPS, Call, Sample};
use super::scenario::{Phase, Scenario, WARM_UP};
use crate::support::freeze::FreezeReport;

/// A layer counts as fitting if it, with sound and what loss makes be sent again, takes no more of the path than this.
const FITTING_SHARE: f64 = 0.85;
/// The estimate is near a new capacity within this share of it.
const NEAR: f64 = 0.2;
/// ... for so long.
const NEAR_FOR: usize = 10;
/// Capacities above this multiple of the demand are not looked for.
const MAX_OVER_DEMAND: f64 = 1.2;

#[derive(Clone, Debug)]
pub struct Score {
    pub freezes: FreezeReport,
    /// Share of the time, after warming up, at the highest layer that fits, or above.
    pub at_best_layer: f64,
    /// Median of |estimate - capacity| / capacity, where the demand reaches the capacity.
    pub estimator_error: Option<f64>,
    /// After capacity fell: until the estimate is below it.
    pub below_after_fall: Option<Duration>,
    /// ... until it is within 20 % of it for a second.
    pub settled_after_fall: Option<Duration>,
    /// After capacity rose: until the best layer is there.
    pub recovered_after_rise: Option<Duration>,
    /// Packets beyond media, as share of all: what probes cost.
    pub padding: f64,
}

impl Score {
    pub fn of(scenario: &Scenario, seed: u64) -> Self {
        let mut call = Call::new(scenario, seed);
        call.run(scenario);
        let padding = call.padding();
        let judged: Vec<&Sample> = call.samples.iter().filter(|s| s.at >= WARM_UP).collect();
        let at_best = judged.iter().filter(|s| s.height >= best_height(scenario, &scenario.phases[s.phase])).count();
        Self {
            freezes: call.viewer.report(call.net.now),
            at_best_layer: at_best as f64 / judged.len().max(1) as f64,
            estimator_error: estimator_error(scenario, &judged),
            below_after_fall: after_step(scenario, &call.samples, Step::Fall, |s, bps| {
                s[0].estimate_bps <= (bps as f64 * 1.02) as u64
            }),
            settled_after_fall: after_step(scenario, &call.samples, Step::Fall, |s, bps| {
                let is_near = |s: &Sample| (s.estimate_bps as f64 / bps as f64 - 1.0).abs() <= NEAR;
                s.len() >= NEAR_FOR && s[..NEAR_FOR].iter().all(is_near)
            }),
            recovered_after_rise: after_step(scenario, &call.samples, Step::Rise, |s, _| {
                s[0].height >= best_height(scenario, &scenario.phases[s[0].phase])
            }),
            padding,
        }
    }
}

fn demand_bps(scenario: &Scenario) -> u64 {
    u64::from(scenario.encodings[2].bps) + AUDIO_BPS
}

/// The highest layer that fits the phase's path.
fn best_height(scenario: &Scenario, phase: &Phase) -> u16 {
    let arrives = 1.0 - phase.down.loss;
    let fits = |bps: u32| match phase.capacity_bps() {
        Some(capacity) => (u64::from(bps) + AUDIO_BPS) as f64 / arrives <= capacity as f64 * FITTING_SHARE,
        None => true,
    };
    let [lowest, ..] = scenario.encodings;
    scenario.encodings.iter().rev().find(|e| fits(e.bps)).map_or(lowest.height, |e| e.height)
}

fn estimator_error(scenario: &Scenario, judged: &[&Sample]) -> Option<f64> {
    let error = |s: &&Sample| {
        let capacity = scenario.phases[s.phase].capacity_bps()? as f64;
        let is_reached = capacity <= demand_bps(scenario) as f64 * MAX_OVER_DEMAND;
        is_reached.then(|| (s.estimate_bps as f64 - capacity).abs() / capacity)
    };
    let mut errors: Vec<f64> = judged.iter().filter_map(error).collect();
    errors.sort_by(f64::total_cmp);
    errors.get(errors.len() / 2).copied()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Fall,
    Rise,
}

/// The longest time from a step of that kind until `is_reached`; a step after which it never is counts as its phase.
fn after_step(
    scenario: &Scenario,
    samples: &[Sample],
    kind: Step,
    is_reached: impl Fn(&[Sample], u64) -> bool,
) -> Option<Duration> {
    let mut longest = None;
    let mut starts_at = Duration::ZERO;
    for (index, pair) in scenario.phases.windows(2).enumerate() {
        starts_at += pair[0].lasts;
        let (Some(before), Some(after)) = (pair[0].capacity_bps(), pair[1].capacity_bps()) else { continue };
        let step = if after < before { Step::Fall } else { Step::Rise };
        if step != kind {
            continue;
        }
        let of_phase: Vec<Sample> = samples.iter().filter(|s| s.phase == index + 1).copied().collect();
        let at = (0..of_phase.len()).find(|from| is_reached(&of_phase[*from..], after));
        let took = at.map_or(pair[1].lasts, |from| of_phase[from].at.saturating_sub(starts_at));
        longest = longest.max(Some(took));
    }
    longest
}
