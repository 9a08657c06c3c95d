//! What forwarding costs: publishers and subscribers, whole str0m peers with NACK and transport-wide feedback, against a
//! real engine on loopback.
//!
//! `cargo run --release -p mrtc-net --example forward_bench -- --subscribers 200 --seconds 20`
//!
//! The engine runs in this process with one worker on the first usable core, without services; the peers run in a child
//! on the others. Prints one JSON line with the names that `tests/bench/README.md` describes. `--load` runs the child
//! alone: it says its offers on standard output and takes answers on standard input, so that anybody can do the
//! signaling (`tests/bench/peers.py` does it through the real services).

mod client;
mod flood;
mod load;
mod pipe;
mod server;
mod video;

use std::process::ExitCode;

/// How the peers are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// One picture of one layer to all.
    FanOut,
    /// The same of three layers.
    Simulcast,
    /// Each subscriber loses a part of what it is sent.
    Loss,
    /// Many join at once while the others receive.
    Storm,
    /// They join with slots and nobody sends anything.
    Idle,
    /// One picture to all, while strangers send garbage to the port of media.
    Flood,
}

/// The command line.
#[derive(Clone, Debug)]
struct Options {
    shape: Shape,
    subscribers: usize,
    seconds: u64,
    /// Of `Loss` percent, of `Storm` participants, of `Flood` datagrams a second.
    extra: usize,
}

impl Options {
    fn read() -> Option<Self> {
        let shape = match arg("--shape").as_deref() {
            None | Some("fan-out") => Shape::FanOut,
            Some("simulcast") => Shape::Simulcast,
            Some("loss") => Shape::Loss,
            Some("storm") => Shape::Storm,
            Some("idle") => Shape::Idle,
            Some("flood") => Shape::Flood,
            Some(_) => return None,
        };
        let number = |name, default| arg(name).map_or(Some(default), |text| text.parse().ok());
        Some(Self {
            shape,
            subscribers: number("--subscribers", 50)?,
            seconds: number("--seconds", 20)? as u64,
            extra: number("--extra", 0)?,
        })
    }
}

/// `--name value` of the command line.
fn arg(name: &str) -> Option<String> {
    std::env::args().skip_while(|a| a != name).nth(1)
}

fn main() -> ExitCode {
    let Some(options) = Options::read() else {
        eprintln!(
            "forward_bench: --shape fan-out|simulcast|loss|storm|idle|flood --subscribers N --seconds N --extra N"
        );
        return ExitCode::FAILURE;
    };
    let result = if std::env::args().any(|a| a == "--load") {
        load::run(&options)
    } else {
        server::run(&options).map(|line| println!("{line}"))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward_bench: {error}");
            ExitCode::FAILURE
        }
    }
}
