//! The pure engine: it is fed datagrams, commands and the time, and yields datagrams and events.
//!
//! It owns no socket, thread or clock. One [`Shard`](shard::Shard) holds transports, tracks and relays outright;
//! `mrtc-net` runs one per worker thread, the tests run them in virtual time against `mrtc-netem`.

pub mod addr;
pub mod command;
pub mod counters;
pub mod directory;
pub mod error;
pub mod event;
pub mod id;
pub mod outbox;
