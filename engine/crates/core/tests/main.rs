//! Whole shards in virtual time, one file for each subject: `cargo test -p mrtc-core --test scenarios moves::`.
//!
//! One program: twenty of them would link the engine twenty times.

mod bandwidth;
mod caps;
mod capture;
mod data;
mod endpoints;
mod forward;
mod handover;
mod loss;
mod moves;
mod nodes;
mod numbers;
mod recovery;
mod relay_tree;
mod robustness;
mod scoreboard;
mod simulcast;
mod sound;
mod stage;
mod support;
mod svc;
mod tracks;
