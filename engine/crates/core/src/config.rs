//! Settings of a shard.

use std::sync::Arc;

use crate::addr::CandidateAddr;
use crate::directory::TrackDirectory;
use crate::handshake::Certificate;
use crate::id::ShardIndex;

/// What a shard is made of.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// This shard.
    pub index: ShardIndex,
    /// How many there are in the process.
    pub shard_count: u16,
    /// Addresses put into answers. At least one.
    pub candidates: Vec<CandidateAddr>,
    /// DTLS certificate, one per process.
    pub certificate: Certificate,
    /// Which shard has which track; shared by all shards of the process.
    pub directory: Arc<TrackDirectory>,
    /// Upper bounds of what clients can grow.
    pub limits: Limits,
    /// Unix time minus shard time, in microseconds, where shard time is counted from the `now` that `Shard::new` gets.
    /// It is the Unix time at which the shard was made.
    pub wall_clock_offset_us: i64,
    /// Seeds everything random that is not a secret (SSRCs, first sequence numbers).
    pub seed: u64,
}

/// Upper bounds; reaching one refuses or drops, and counts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Transports of one shard.
    pub max_transports: usize,
    /// Transports of one shard whose client has begun to connect (with a check that names them) and is not connected yet.
    pub max_half_open: usize,
    /// The same of one client address (of IPv6: one /64 network): an office that comes back after an outage, not a flood.
    pub max_half_open_per_address: usize,
    /// M-lines of one transport.
    pub max_lines: usize,
    /// Inbound SSRCs of one transport (RTX streams included).
    pub max_ssrcs: usize,
    /// Tracks of one shard, mirrors included.
    pub max_tracks: usize,
    /// Relays of one shard.
    pub max_relays: usize,
    /// Sinks of one shard.
    pub max_sinks: usize,
    /// Packets of one track that wait for the next flush; beyond it the newest are dropped.
    pub max_pending: usize,
    /// Entries of one `SetSubscriptions`.
    pub max_subscriptions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_transports: 10_000,
            max_half_open: 4_000,
            max_half_open_per_address: 1_000,
            max_lines: 512,
            max_ssrcs: 256,
            max_tracks: 20_000,
            max_relays: 1_000,
            max_sinks: 1_000,
            max_pending: 1_024,
            max_subscriptions: 512,
        }
    }
}
