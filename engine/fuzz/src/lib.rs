//! One function per parser of foreign bytes: it reads everything that the parser lends and checks what must hold.
//!
//! `fuzz_targets/` gives them to libFuzzer. `crates/rtp/tests/mangled_input.rs` runs them on the stable compiler over
//! seeded random and mutated input.

#[path = "parsers.rs"]
mod parsers;

pub use parsers::*;

/// An offer of a client.
pub fn sdp_offer(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = mrtc_core::sdp::Offer::parse(text);
    }
}
