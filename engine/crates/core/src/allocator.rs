//! Shares a subscriber's bandwidth among its subscriptions.
//!
//! Audio first, then the lowest layer of each picture by priority, then one step up for each, round by round. Down at
//! once, up only with a margin and after a while. See `docs/algorithms/allocation.md`.

mod ladder;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use crate::command::Kind;

use ladder::Ladder;

/// Spatial layers (or simulcast encodings) that are told apart.
pub const MAX_SPATIAL: usize = 4;
/// Temporal layers that are told apart.
pub const MAX_TEMPORAL: usize = 4;

/// What is known of one spatial layer or simulcast encoding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerInfo {
    /// Picture height in pixels; 0 if unknown.
    pub height: u16,
    /// Frames per second with all temporal layers; 0 if unknown.
    pub fps: u8,
    /// Number of temporal layers, at least 1.
    pub temporals: u8,
    /// Measured bit/s when forwarding up to temporal layer `i`: includes all lower temporal layers and, for SVC, the
    /// lower spatial layers that it needs. 0: never measured (a guess by height is taken).
    pub bps: [u64; MAX_TEMPORAL],
    /// Packets of it came lately.
    pub is_live: bool,
}

/// One subscription as the allocator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Demand {
    /// Names the subscription from one call to the next (a slot index); ties are broken by it, lower first.
    pub key: u32,
    /// Sound or picture.
    pub kind: Kind,
    /// Higher wins.
    pub priority: u8,
    /// Of a track whose participant speaks: goes before others of its priority.
    pub is_speaker: bool,
    /// Nothing is to be sent (paused by the subscriber, or the track is muted).
    pub is_paused: bool,
    /// Largest picture of use.
    pub max_height: Option<u32>,
    /// Largest frame rate of use.
    pub max_fps: Option<u32>,
    /// Layers, lowest first; `layer_count` are valid. A track without simulcast has one.
    pub layers: [LayerInfo; MAX_SPATIAL],
    /// How many of `layers` exist.
    pub layer_count: u8,
}

/// What a subscription may receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Target {
    /// Nothing.
    #[default]
    Paused,
    /// Up to this spatial and temporal layer.
    Layer {
        /// Index into `Demand::layers`.
        spatial: u8,
        /// Highest temporal layer.
        temporal: u8,
    },
}

/// The result of [`Allocator::allocate`].
#[derive(Clone, Debug, Default)]
pub struct Allocation {
    /// One per demand, in the order of the demands.
    pub targets: Vec<Target>,
    /// The sum of what the targets need.
    pub allocated_bps: u64,
    /// What all demands would take without a limit: how far probing makes sense.
    pub desired_bps: u64,
}

/// Targets go up only to what fits this share of the estimate.
const UP_SHARE: f64 = 0.9;
/// ... and only when that held for so long.
const UP_HOLD: Duration = Duration::from_millis(1000);
/// Until something had to go down for the first time: a call begins small, and probes say quickly what fits.
const FIRST_UP_HOLD: Duration = Duration::from_millis(200);
/// A raise after which something had to be lowered within this doubles the wait of the next one ...
const FAILED_RAISE: Duration = Duration::from_secs(10);
/// ... up to this.
const MAX_UP_HOLD: Duration = Duration::from_secs(16);
/// After so long without taking anything back, the wait is the usual one again.
const FORGIVE_AFTER: Duration = Duration::from_secs(30);
/// ... or once the estimate is this multiple of what failed: a path that became wider says nothing about its former self.
const ANOTHER_PATH: u64 = 2;

/// What is remembered of a subscription.
#[derive(Clone, Debug)]
struct Memory {
    key: u32,
    /// Step on the ladder; `None`: not even the lowest fits.
    step: Option<usize>,
    target: Target,
    /// The top of the ladder at the last call: what was asked for.
    top: Target,
    up_since: Option<Instant>,
    is_used: bool,
}

impl Memory {
    fn new(key: u32) -> Self {
        Self { key, step: None, target: Target::Paused, top: Target::Paused, up_since: None, is_used: true }
    }
}

/// How careful to be with raises. One for all subscriptions: what fails is the path, not one of them.
#[derive(Debug)]
struct Caution {
    hold: Duration,
    /// What all targets needed when a raise last failed: only that much and more is raised with care.
    failed_bps: u64,
    raised_at: Option<Instant>,
    lowered_at: Option<Instant>,
}

impl Default for Caution {
    fn default() -> Self {
        Self { hold: FIRST_UP_HOLD, failed_bps: u64::MAX, raised_at: None, lowered_at: None }
    }
}

impl Caution {
    /// Something of what needed `allocated_bps` in all has to go down.
    fn on_lowered(&mut self, now: Instant, allocated_bps: u64) {
        if self.raised_at.take().is_some_and(|at| now < at + FAILED_RAISE) {
            self.hold = (self.hold.max(UP_HOLD) * 2).min(MAX_UP_HOLD);
            self.failed_bps = allocated_bps;
        }
        self.lowered_at = Some(now);
    }

    /// How long a raise to `wanted_bps` in all must have been possible.
    fn hold(&mut self, now: Instant, wanted_bps: u64, estimate_bps: u64) -> Duration {
        let Some(lowered_at) = self.lowered_at else { return self.hold };
        let is_another_path = estimate_bps >= self.failed_bps.saturating_mul(ANOTHER_PATH);
        if is_another_path || now >= lowered_at + FORGIVE_AFTER {
            (self.hold, self.failed_bps) = (UP_HOLD, u64::MAX);
        }
        if wanted_bps < self.failed_bps { UP_HOLD } else { self.hold }
    }
}

/// One subscription during a call.
#[derive(Clone, Debug)]
struct Entry {
    demand: usize,
    memory: usize,
    ladder: Ladder,
    is_audio: bool,
    is_fresh: bool,
    step: Option<usize>,
}

/// The allocator of one subscriber; remembers targets for its hysteresis.
#[derive(Debug, Default)]
pub struct Allocator {
    memories: Vec<Memory>,
    caution: Caution,
    /// In order of importance, audio first; paused ones are not in it.
    entries: Vec<Entry>,
    full: Vec<Option<usize>>,
    cautious: Vec<Option<usize>>,
    allocation: Allocation,
}

impl Allocator {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shares `estimate_bps` among `demands`. Call when the estimate or a demand changed, and each 200 ms or so, since
    /// going up takes time. Costs no allocation once warm.
    ///
    /// The sum of the targets stays within the estimate, but for sound, which is never paused for want of bandwidth, and
    /// for the lowest layer of the most important picture: a subscriber gets at least that.
    pub fn allocate(&mut self, now: Instant, estimate_bps: u64, demands: &[Demand]) -> &Allocation {
        self.begin(demands);
        let mut full = std::mem::take(&mut self.full);
        let mut cautious = std::mem::take(&mut self.cautious);
        self.share(estimate_bps, &mut full);
        self.share((estimate_bps as f64 * UP_SHARE) as u64, &mut cautious);
        // With less to share, somebody may get more than with all of it: such a raise would be taken back at once.
        cautious.iter_mut().zip(&full).for_each(|(cautious, full)| *cautious = (*cautious).min(*full));
        self.lower_or_keep(now, &full, &cautious);
        self.raise(now, estimate_bps, &cautious);
        (self.full, self.cautious) = (full, cautious);
        self.finish(demands.len());
        &self.allocation
    }

    /// The last result.
    pub fn allocation(&self) -> &Allocation {
        &self.allocation
    }

    fn begin(&mut self, demands: &[Demand]) {
        self.entries.clear();
        self.memories.iter_mut().for_each(|m| m.is_used = false);
        for (index, demand) in demands.iter().enumerate().filter(|(_, d)| !d.is_paused) {
            let found = self.memories.iter().position(|m| m.key == demand.key);
            let memory = found.unwrap_or_else(|| {
                self.memories.push(Memory::new(demand.key));
                self.memories.len() - 1
            });
            let is_audio = demand.kind == Kind::Audio;
            self.memories[memory].is_used = true;
            let ladder = if is_audio { Ladder::audio(demand) } else { Ladder::video(demand) };
            self.entries.push(Entry { demand: index, memory, ladder, is_audio, is_fresh: found.is_none(), step: None });
        }
        self.entries.sort_by_key(|e| {
            let demand = &demands[e.demand];
            (!e.is_audio, u8::MAX - demand.priority, !demand.is_speaker, demand.key)
        });
    }

    /// Audio, then the lowest step of each picture, then a step more for each, round by round.
    fn share(&self, budget_bps: u64, steps: &mut Vec<Option<usize>>) {
        steps.clear();
        let mut left = budget_bps;
        let mut has_picture = false;
        for entry in &self.entries {
            let lowest = entry.ladder.bps(0);
            let is_due = entry.is_audio || !has_picture || lowest <= left;
            has_picture |= !entry.is_audio;
            steps.push(is_due.then_some(0));
            left = left.saturating_sub(if is_due { lowest } else { 0 });
        }
        let mut is_raised = true;
        while is_raised {
            is_raised = false;
            for (entry, step) in self.entries.iter().zip(steps.iter_mut()) {
                let Some(current) = *step else { continue };
                if current + 1 >= entry.ladder.len() {
                    continue;
                }
                let more = entry.ladder.bps(current + 1) - entry.ladder.bps(current);
                if more <= left {
                    left -= more;
                    *step = Some(current + 1);
                    is_raised = true;
                }
            }
        }
    }

    /// What no longer fits goes down at once; the rest stays where it was for now.
    fn lower_or_keep(&mut self, now: Instant, full: &[Option<usize>], cautious: &[Option<usize>]) {
        for (index, entry) in self.entries.iter_mut().enumerate() {
            let memory = &mut self.memories[entry.memory];
            if entry.is_fresh {
                entry.step = cautious[index];
                continue;
            }
            let current = memory.step.map(|_| entry.ladder.step_of(memory.target));
            entry.step = current.min(full[index]);
            if entry.step < current {
                memory.up_since = None;
                self.caution.on_lowered(now, self.allocation.allocated_bps);
            }
        }
    }

    /// What fits with a margin, for long enough, goes up; at once if more is asked for than before.
    fn raise(&mut self, now: Instant, estimate_bps: u64, cautious: &[Option<usize>]) {
        let wanted = self.entries.iter().zip(cautious).map(|(e, step)| step.map_or(0, |step| e.ladder.bps(step)));
        let hold = self.caution.hold(now, wanted.sum(), estimate_bps);
        let mut is_somebody_waiting = false;
        let cost = |e: &Entry| e.step.map_or(0, |step| e.ladder.bps(step));
        let mut total: u64 = self.entries.iter().map(cost).sum();
        for (entry, &wanted) in self.entries.iter_mut().zip(cautious) {
            let memory = &mut self.memories[entry.memory];
            if entry.is_fresh || wanted <= entry.step {
                memory.up_since = None;
                continue;
            }
            let is_asked_for = entry.ladder.top() != memory.top && entry.step.is_some();
            // Nobody overtakes a more important one that still waits.
            let is_waiting = now < *memory.up_since.get_or_insert(now) + hold || is_somebody_waiting;
            if is_waiting && !is_asked_for {
                is_somebody_waiting = true;
                continue;
            }
            let others = total - cost(entry);
            let first = entry.step.map_or(0, |step| step + 1);
            let last = wanted.unwrap_or(0);
            let best = (first..=last).rev().find(|&step| others + entry.ladder.bps(step) <= estimate_bps);
            if let Some(step) = best {
                entry.step = Some(step);
                total = others + entry.ladder.bps(step);
                self.caution.raised_at = Some(now);
                memory.up_since = None;
            }
        }
    }

    fn finish(&mut self, demand_count: usize) {
        let Self { memories, entries, allocation, .. } = self;
        allocation.targets.clear();
        allocation.targets.resize(demand_count, Target::Paused);
        (allocation.allocated_bps, allocation.desired_bps) = (0, 0);
        for entry in entries.iter() {
            let memory = &mut memories[entry.memory];
            memory.step = entry.step;
            memory.top = entry.ladder.top();
            memory.target = entry.step.map_or(Target::Paused, |step| entry.ladder.target(step));
            allocation.targets[entry.demand] = memory.target;
            allocation.allocated_bps += entry.step.map_or(0, |step| entry.ladder.bps(step));
            allocation.desired_bps += entry.ladder.bps(entry.ladder.len() - 1);
        }
        memories.retain(|m| m.is_used);
    }
}
