//! What forwarding costs a shard, without sockets: `cargo run --release -p mrtc-core --example shard_cost -- 400 sound`.
//!
//! A call of one publisher in virtual time, with whole str0m clients that give feedback; only the shard's own calls are
//! timed. The clients run in between and leave nothing of the shard's state in the cache, as the kernel does in a server.
//! Prints microseconds per packet that was sent.

#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Duration;

use mrtc_core::command::Kind;
use support::media::{OpusSource, Vp8Source};
use support::{ClientSpec, Net, Spent};

/// Clients that join together.
const AT_ONCE: usize = 25;
const WARM_UP: Duration = Duration::from_secs(4);
const MEASURED: Duration = Duration::from_secs(6);

fn main() {
    let mut args = std::env::args().skip(1);
    let count = args.next().and_then(|n| n.parse().ok()).unwrap_or(200);
    let kind = if args.next().as_deref() == Some("sound") { Kind::Audio } else { Kind::Video };
    let mut net = Net::new(7);
    let node = net.add_process(1);
    let publisher = net.join(node, "publisher", ClientSpec::publisher());
    net.publish(publisher, "track", usize::from(kind == Kind::Video));
    let (audio_slots, video_slots) = (usize::from(kind == Kind::Audio), usize::from(kind == Kind::Video));
    let spec = ClientSpec { audio_slots, video_slots, ..ClientSpec::default() };
    let names: Vec<String> = (0..count).map(|n| format!("subscriber-{n}")).collect();
    for names in names.chunks(AT_ONCE) {
        let clients: Vec<usize> = names.iter().map(|name| net.add_client(node, name, spec.clone())).collect();
        net.run_until(Duration::from_secs(5), |net| clients.iter().all(|c| net.clients[*c].is_connected));
        clients.iter().for_each(|c| drop(net.subscribe(*c, &[("track", kind)])));
    }
    let mut sound = OpusSource::new(publisher, 0);
    let mut picture = Vp8Source::new(publisher, 1, None, 720);
    (picture.packets_per_frame, picture.payload_len) = (7, 1_100);
    let mut run = |net: &mut Net, time: Duration| {
        let end = net.now + time;
        while net.now < end {
            if kind == Kind::Audio {
                sound.step(net)
            } else {
                picture.step(net)
            }
            net.step();
            net.clients.iter_mut().for_each(|c| c.packets.clear());
        }
    };
    run(&mut net, WARM_UP);
    let (before, sent_before) = (net.nodes[node].spent, net.nodes[node].shard.counters().tx_rtp_packets);
    run(&mut net, MEASURED);
    let sent = net.nodes[node].shard.counters().tx_rtp_packets - sent_before;
    let Spent { input, inputs, timeouts, flush } = net.nodes[node].spent;
    let us = |now: Duration, before: Duration| (now - before).as_secs_f64() * 1e6 / sent as f64;
    let (input, timeouts, flush) = (us(input, before.input), us(timeouts, before.timeouts), us(flush, before.flush));
    let inputs = f64::from(inputs - before.inputs) / sent as f64;
    println!(
        "{sent} packets: {:.3} us each: flush {flush:.3}, input {input:.3} ({inputs:.2} datagrams), timers {timeouts:.3}",
        flush + input + timeouts
    );
}
