//! Other traffic on a subscriber's path.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mrtc_netem::Link;

use crate::support::Datagram;

const PACKET: usize = 1_200;
const WIRE_PACKET: f64 = (PACKET + 28) as f64;

/// Who else sends.
#[derive(Clone, Copy, Debug)]
pub enum Competitor {
    /// At a fixed rate.
    Constant { bps: u64 },
    /// As TCP does: a packet more per round trip until one is lost, then half.
    Adaptive,
}

/// The state of a competitor.
#[derive(Debug)]
pub struct Flow {
    kind: Competitor,
    bps: f64,
    owed_bytes: f64,
    rtt: Duration,
    at: Instant,
    halved_at: Instant,
}

impl Flow {
    pub fn new(kind: Competitor, rtt: Duration, now: Instant) -> Self {
        let bps = match kind {
            Competitor::Constant { bps } => bps as f64,
            Competitor::Adaptive => 300_000.0,
        };
        Self { kind, bps, owed_bytes: 0.0, rtt: rtt.max(Duration::from_millis(10)), at: now, halved_at: now }
    }

    /// Sends what is due. What it sends is for nobody: the subscriber takes no notice.
    pub fn step(&mut self, now: Instant, addrs: (SocketAddr, SocketAddr), link: &mut Link<Datagram>) {
        let elapsed = (now - std::mem::replace(&mut self.at, now)).as_secs_f64();
        self.owed_bytes += self.bps / 8.0 * elapsed;
        while self.owed_bytes >= WIRE_PACKET {
            self.owed_bytes -= WIRE_PACKET;
            let before = link.stats().queue_dropped;
            link.send(now, Datagram { from: addrs.0, to: addrs.1, bytes: vec![0xff; PACKET] });
            let is_dropped = link.stats().queue_dropped != before;
            if is_dropped && matches!(self.kind, Competitor::Adaptive) && now - self.halved_at >= self.rtt {
                self.halved_at = now;
                self.bps /= 2.0;
            }
        }
        if matches!(self.kind, Competitor::Adaptive) {
            // The queue is part of its round trip; a quarter second when it is full.
            let rtt = (self.rtt + Duration::from_millis(125)).as_secs_f64();
            self.bps += WIRE_PACKET * 8.0 / rtt * (elapsed / rtt);
        }
    }
}
