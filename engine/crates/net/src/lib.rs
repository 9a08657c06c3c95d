//! Sockets and threads around the core: one worker thread per shard, nothing shared between them but bounded queues.
//!
//! A worker owns one UDP socket, one ICE-TCP listener and one [`Shard`](mrtc_core::shard::Shard). [`Engine`] starts the
//! workers, routes commands to the one that has the thing they name, and collects what the shards tell. All hand-written
//! unsafe code of the suite is in this crate, in the files whose names end in `_linux`.

#[cfg(not(target_os = "linux"))]
compile_error!("mrtc-net speaks to the Linux kernel: recvmmsg, sendmmsg, UDP_SEGMENT, eventfd, epoll");

mod cache_linux;
mod capture;
mod config;
mod counters;
mod egress;
mod engine;
mod eventfd_linux;
mod framing;
mod gather;
mod outgoing;
mod pcapng;
mod poll_linux;
mod router;
mod shard_link;
mod tcp;
mod thread_linux;
mod udp_linux;
mod worker;

pub use capture::{CaptureConfig, CaptureFigures};
pub use config::{EngineConfig, TcpPort};
pub use engine::{Engine, SubmitError};
