//! The pure engine: it is fed datagrams, commands and the time, and yields datagrams and events.
//!
//! It owns no socket, thread or clock. One [`Shard`](shard::Shard) holds transports, tracks and relays outright;
//! `mrtc-net` runs one per worker thread, the tests run them in virtual time against `mrtc-netem`.

pub mod active_speaker;
pub mod addr;
pub mod allocator;
pub mod bwe;
pub mod capture;
pub mod command;
pub mod config;
pub mod counters;
pub mod data;
pub mod directory;
pub mod endpoint;
pub mod error;
pub mod event;
pub mod handover;
pub mod handshake;
pub mod id;
pub mod keyframe_throttle;
pub mod layer_selector;
pub mod nack_register;
pub mod outbox;
pub mod pacer;
pub mod packet;
pub mod prefetch;
pub mod sdp;
pub mod shard;
pub mod shard_message;
pub mod twcc_register;

mod bandwidth;
mod clock;
mod fec;
mod forwarder;
mod half_open;
mod ingress_caps;
mod ingress_ring;
mod inherent_loss;
mod keys;
mod meter;
mod protection;
mod random;
mod relay;
mod repair;
mod rtp_rewriter;
mod runs;
mod send_history;
mod slot;
mod slot_exts;
mod ssrcs;
mod stats;
mod timers;
mod track;
mod transport;
