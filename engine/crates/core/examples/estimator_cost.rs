//! What the bandwidth estimator costs: `cargo run --release -p mrtc-core --example estimator_cost`.
//!
//! Prints nanoseconds per packet, sent and told about by feedback each 20 packets; all in the first-level cache.

use std::time::{Duration, Instant};

use mrtc_core::bwe::{PacketClass, PacketFeedback, SendSideBwe};

const PACKETS: u32 = 1_000_000;
const PER_FEEDBACK: u32 = 20;
const SPACING_US: u32 = 5_000;

fn main() {
    let start = Instant::now();
    let mut bwe = SendSideBwe::new(2_000_000, 20_000_000, start);
    let began = Instant::now();
    for number in 0..PACKETS {
        let now = start + Duration::from_micros(SPACING_US.into()) * number;
        bwe.on_packet_sent(Some(number as u16), 1_100, PacketClass::Media, None, now);
        if number % PER_FEEDBACK == PER_FEEDBACK - 1 {
            let told = number + 1 - PER_FEEDBACK..=number;
            bwe.on_feedback(told.map(arrived), now);
        }
    }
    println!(
        "{} ns per packet, estimate {} bit/s",
        began.elapsed().as_nanos() / u128::from(PACKETS),
        bwe.estimate_bps()
    );
}

/// On a receiver's clock that wraps as the feedback's does.
fn arrived(number: u32) -> PacketFeedback {
    let at_us = i64::from(number) * i64::from(SPACING_US) % (64_000 << 24);
    PacketFeedback { seq: number as u16, arrived_at_us: Some(at_us) }
}
