//! A UDP proxy that impairs what passes: real clients on one side, a media server on the other, a [`Link`] each way.
//!
//! Commands come line by line on standard input, an answer line each goes to standard output; the end of the input ends
//! the proxy. Every leg has a port of its own on loopback; `up` is from the client to the server.
//!
//! ```text
//! leg bob 127.0.0.1:7200 7     -> ok 127.0.0.1:45123      a leg to that server, its luck seeded by 7
//! set bob down loss=0.4 delay_ms=50                       -> ok      what is not named is as on a perfect wire
//! set bob up burst=0.02,0.25,1 jitter_ms=30 rate_bps=500000 queue_bytes=20000 reorder=0.1 duplicate=0.01
//! stats bob                    -> ok up sent=9 delivered=9 lost=0 queue_dropped=0 down sent=…
//! ```
//!
//! [`Link`]: mrtc_netem::Link

mod conditions;
mod leg;
mod pipe;

use std::collections::HashMap;
use std::io::{BufRead, Write};

use leg::{Direction, Leg};

/// A test needs a handful; each has threads and sockets.
const MAX_LEGS: usize = 64;

fn main() -> std::io::Result<()> {
    let mut legs = HashMap::new();
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        match obey(&mut legs, &line?) {
            Ok(answer) => writeln!(out, "ok {answer}")?,
            Err(message) => writeln!(out, "error {message}")?,
        }
        out.flush()?;
    }
    Ok(())
}

fn obey(legs: &mut HashMap<String, Leg>, line: &str) -> Result<String, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    match words[..] {
        ["leg", name, server, seed] => {
            if legs.len() >= MAX_LEGS || legs.contains_key(name) {
                return Err(format!("{name}: there is one already, or there are {MAX_LEGS}"));
            }
            let server = server.parse().map_err(|_| format!("{server}: not an address and port"))?;
            let seed = seed.parse().map_err(|_| format!("{seed}: not a seed"))?;
            let leg = Leg::open(server, seed).map_err(|e| e.to_string())?;
            let address = leg.address().to_string();
            legs.insert(name.to_owned(), leg);
            Ok(address)
        }
        ["set", name, direction, ref values @ ..] => {
            let direction = match direction {
                "up" => Direction::Up,
                "down" => Direction::Down,
                _ => return Err(format!("{direction}: up or down")),
            };
            let conditions = conditions::parse(values)?;
            find(legs, name)?.set(direction, conditions);
            Ok(String::new())
        }
        ["stats", name] => Ok(find(legs, name)?.stats()),
        _ => Err("leg NAME SERVER SEED, set NAME up|down KEY=VALUE..., or stats NAME".to_owned()),
    }
}

fn find<'a>(legs: &'a HashMap<String, Leg>, name: &str) -> Result<&'a Leg, String> {
    legs.get(name).ok_or_else(|| format!("{name}: no such leg"))
}
