//! What forwarding costs: one publisher, N subscribers, a real engine on loopback, without services.
//!
//! `cargo run --release -p mrtc-net --example forward_bench -- --subscribers 200 --seconds 20`
//!
//! The engine runs in this process with one worker on the first usable core; the clients (whole str0m peers, with NACK
//! and transport-wide feedback) run in a child on the others. Prints one JSON line with the names that `sfuload` uses.

mod load;
mod server;

use std::process::ExitCode;

/// `--name value` of the command line.
fn arg(name: &str, default: usize) -> usize {
    let mut args = std::env::args().skip_while(|a| a != name).skip(1);
    args.next().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn main() -> ExitCode {
    let subscribers = arg("--subscribers", 50);
    let seconds = arg("--seconds", 20) as u64;
    let result = if std::env::args().any(|a| a == "--load") {
        load::run(subscribers, seconds)
    } else {
        server::run(subscribers, seconds).map(|line| println!("{line}"))
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("forward_bench: {error}");
            ExitCode::FAILURE
        }
    }
}
