//! The steps by which one subscription can be given more: layers in order of their rate, up to what is of use.

use super::{Demand, LayerInfo, MAX_SPATIAL, MAX_TEMPORAL, Target};

/// A layer up to this much larger than asked for counts as fitting: scaling down a little looks better than scaling up
/// a lot.
const HEIGHT_SLACK: f64 = 1.25;
/// The same for frame rates.
const FPS_SLACK: f64 = 1.2;
/// Taken where the real figures are unknown.
const DEFAULT_FPS: f64 = 30.0;
const DEFAULT_AUDIO_BPS: u64 = 40_000;
/// Largest height and usual rate of a picture of that height, for layers that were never measured.
const USUAL_BPS: [(u16, u64); 6] =
    [(180, 150_000), (270, 300_000), (360, 500_000), (540, 1_000_000), (720, 1_700_000), (1080, 3_000_000)];
const LARGE_BPS: u64 = 6_000_000;
/// Heights taken while none is known: the top of a simulcast is mostly 720, each lower one half.
const TOP_HEIGHT: u16 = 720;
/// Share of the rate up to each temporal layer, for one to four of them.
const TEMPORAL_SHARES: [[f64; MAX_TEMPORAL]; MAX_TEMPORAL] =
    [[1.0; 4], [0.6, 1.0, 1.0, 1.0], [0.4, 0.6, 1.0, 1.0], [0.25, 0.4, 0.6, 1.0]];

const MAX_STEPS: usize = MAX_SPATIAL * MAX_TEMPORAL;

#[derive(Clone, Copy, Debug, Default)]
struct Step {
    spatial: u8,
    temporal: u8,
    bps: u64,
}

/// Never empty; rates grow strictly.
#[derive(Clone, Debug)]
pub(super) struct Ladder {
    steps: [Step; MAX_STEPS],
    len: usize,
}

impl Ladder {
    /// Sound has one step.
    pub fn audio(demand: &Demand) -> Self {
        let measured = demand.layers[0].bps.iter().copied().max().unwrap_or(0);
        let bps = if measured == 0 { DEFAULT_AUDIO_BPS } else { measured };
        let mut ladder = Self { steps: [Step::default(); MAX_STEPS], len: 0 };
        ladder.push(Step { spatial: 0, temporal: MAX_TEMPORAL as u8 - 1, bps });
        ladder
    }

    /// All temporal layers of the lowest picture; of the others only the upper ones, since a small smooth picture is
    /// better than a large jerky one.
    pub fn video(demand: &Demand) -> Self {
        let mut ladder = Self { steps: [Step::default(); MAX_STEPS], len: 0 };
        let count = usize::from(demand.layer_count).clamp(1, MAX_SPATIAL);
        let fitting = fitting_layers(demand, count);
        for (spatial, layer) in demand.layers[..fitting].iter().enumerate() {
            let bps = rates(layer, assumed_height(demand, spatial, count));
            let highest = highest_temporal(layer, demand.max_fps);
            let lowest = if spatial == 0 { 0 } else { highest.saturating_sub(1) };
            for (temporal, &bps) in bps.iter().enumerate().take(highest + 1).skip(lowest) {
                // Without a limit the last one means all, also those that were not seen yet.
                let is_all = temporal == highest && demand.max_fps.is_none();
                let sent = if is_all { MAX_TEMPORAL - 1 } else { temporal };
                ladder.push(Step { spatial: spatial as u8, temporal: sent as u8, bps });
            }
        }
        ladder
    }

    /// Leaves out what costs no more than the step before, but prefers it: the better picture for less.
    fn push(&mut self, step: Step) {
        while self.len > 1 && self.steps[self.len - 1].bps >= step.bps {
            self.len -= 1;
        }
        if self.len == 1 && self.steps[0].bps >= step.bps {
            self.len = 0;
        }
        self.steps[self.len] = step;
        self.len += 1;
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn bps(&self, step: usize) -> u64 {
        self.steps[step].bps
    }

    pub fn target(&self, step: usize) -> Target {
        let Step { spatial, temporal, .. } = self.steps[step];
        Target::Layer { spatial, temporal }
    }

    pub fn top(&self) -> Target {
        self.target(self.len - 1)
    }

    /// The highest step that is not above `target`; the lowest if all are.
    pub fn step_of(&self, target: Target) -> usize {
        let Target::Layer { spatial, temporal } = target else { return 0 };
        let steps = &self.steps[..self.len];
        steps.iter().rposition(|s| (s.spatial, s.temporal) <= (spatial, temporal)).unwrap_or(0)
    }
}

/// How many of the layers are of use, at least one.
fn fitting_layers(demand: &Demand, count: usize) -> usize {
    let Some(max_height) = demand.max_height else { return count };
    let limit = f64::from(max_height) * HEIGHT_SLACK;
    let heights = (0..count).map(|spatial| f64::from(assumed_height(demand, spatial, count)));
    heights.take_while(|height| *height <= limit).count().max(1)
}

/// The height of a layer that was not seen yet follows from the nearest lower one that was: browsers start upper layers
/// last, and one that were taken for too large would be switched off before it came.
fn assumed_height(demand: &Demand, spatial: usize, count: usize) -> u16 {
    let seen = (0..=spatial).rev().find(|&lower| demand.layers[lower].height > 0);
    match seen {
        Some(lower) => demand.layers[lower].height.saturating_mul(1 << (spatial - lower)),
        None => TOP_HEIGHT >> (count - 1 - spatial),
    }
}

fn highest_temporal(layer: &LayerInfo, max_fps: Option<u32>) -> usize {
    let count = usize::from(layer.temporals).clamp(1, MAX_TEMPORAL);
    let Some(max_fps) = max_fps else { return count - 1 };
    let fps = if layer.fps > 0 { f64::from(layer.fps) } else { DEFAULT_FPS };
    let limit = f64::from(max_fps) * FPS_SLACK;
    // Each temporal layer doubles the frame rate.
    (0..count).rev().find(|t| fps / f64::from(1u32 << (count - 1 - t)) <= limit).unwrap_or(0)
}

/// Bit/s up to each temporal layer: measured ones, else usual ones. They never fall.
fn rates(layer: &LayerInfo, height: u16) -> [u64; MAX_TEMPORAL] {
    let count = usize::from(layer.temporals).clamp(1, MAX_TEMPORAL);
    let measured = layer.bps.iter().copied().max().unwrap_or(0);
    let usual = USUAL_BPS.iter().find(|(limit, _)| height <= *limit).map_or(LARGE_BPS, |(_, bps)| *bps);
    let full = if measured > 0 { measured as f64 } else { usual as f64 };
    let mut bps = [0; MAX_TEMPORAL];
    let mut least = 0;
    for (temporal, rate) in bps.iter_mut().enumerate() {
        let share = match layer.bps[temporal] {
            0 => TEMPORAL_SHARES[count - 1][temporal],
            known => known as f64 / measured as f64,
        };
        least = least.max((full * share) as u64);
        *rate = least;
    }
    bps
}
