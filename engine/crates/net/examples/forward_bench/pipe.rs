//! One JSON value a line, each way, between the peers and whoever does their signaling.

use std::error::Error;
use std::io::{BufRead, Write};
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

/// Says a line on standard output.
pub fn say(value: &Value) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// Says that a part of the run begins; who measures takes its figures then.
pub fn say_phase(name: &str) -> Result<(), Box<dyn Error>> {
    say(&json!({ "phase": name }))
}

/// The lines of standard input, as they come.
pub fn hear() -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let Ok(value) = serde_json::from_str(&line) else { return };
            if sender.send(value).is_err() {
                return;
            }
        }
    });
    receiver
}
