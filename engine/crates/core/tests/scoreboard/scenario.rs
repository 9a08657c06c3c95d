//! The paths that a subscriber is put behind.

use std::time::Duration;

use mrtc_netem::{BurstLoss, LinkConfig};

use super::competitor::Competitor;

const MS: Duration = Duration::from_millis(1);
/// Before this nothing is judged but freezes: the estimator finds its place.
pub const WARM_UP: Duration = Duration::from_secs(10);
/// How long a phase lasts.
const PHASE: Duration = Duration::from_secs(30);

/// A path for a time.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    pub lasts: Duration,
    pub down: LinkConfig,
    pub competitor: Option<Competitor>,
}

impl Phase {
    /// What of the path's rate the subscriber can have, in bit/s. Of a flow that adapts, half is its due.
    pub fn capacity_bps(&self) -> Option<u64> {
        let rate = self.down.rate_bps?;
        Some(match self.competitor {
            None => rate,
            Some(Competitor::Constant { bps }) => rate.saturating_sub(bps),
            Some(Competitor::Adaptive) => rate / 2,
        })
    }
}

/// A simulcast encoding.
#[derive(Clone, Copy, Debug)]
pub struct Encoding {
    pub rid: &'static str,
    pub height: u16,
    pub bps: u32,
    /// Two of them; else one.
    pub has_temporal_layers: bool,
}

/// Usual ones; the top one is a 720p30.
const USUAL: [Encoding; 3] = encodings([150_000, 500_000, 1_500_000], true);
/// As Chromium makes of a small picture that moves everywhere: the lowest one cannot be thinned out.
const HEAVY: [Encoding; 3] = encodings([420_000, 1_000_000, 1_500_000], false);

const fn encodings(bps: [u32; 3], has_temporal_layers: bool) -> [Encoding; 3] {
    [
        Encoding { rid: "q", height: 180, bps: bps[0], has_temporal_layers },
        Encoding { rid: "h", height: 360, bps: bps[1], has_temporal_layers },
        Encoding { rid: "f", height: 720, bps: bps[2], has_temporal_layers },
    ]
}

#[derive(Clone, Debug)]
pub struct Scenario {
    pub group: &'static str,
    pub name: String,
    pub encodings: [Encoding; 3],
    pub up: LinkConfig,
    pub phases: Vec<Phase>,
}

impl Scenario {
    fn new(group: &'static str, name: impl Into<String>, down: LinkConfig) -> Self {
        let phase = Phase { lasts: 2 * PHASE, down, competitor: None };
        Self { group, name: name.into(), encodings: USUAL, up: wire(), phases: vec![phase] }
    }

    fn steps(name: &str, lasts: Duration, rates: &[u64]) -> Self {
        let phases = rates.iter().map(|bps| Phase { lasts, down: path(*bps), competitor: None }).collect();
        Self { group: "Capacity in steps", name: name.into(), encodings: USUAL, up: wire(), phases }
    }

    fn with(mut self, competitor: Competitor) -> Self {
        self.phases.iter_mut().for_each(|p| p.competitor = Some(competitor));
        self
    }

    fn heavy(mut self) -> Self {
        self.group = "Lowest layer of 420 kbit/s that cannot be thinned out";
        self.encodings = HEAVY;
        self
    }

    fn up(mut self, up: LinkConfig) -> Self {
        self.up = up;
        self
    }

    /// Of the empty path, both ways together.
    pub fn rtt(&self) -> Duration {
        self.up.delay + self.phases[0].down.delay
    }
}

fn wire() -> LinkConfig {
    LinkConfig { delay: 25 * MS, ..LinkConfig::default() }
}

/// 50 ms of round trip, a quarter second of queue.
fn path(bps: u64) -> LinkConfig {
    LinkConfig { rate_bps: Some(bps), ..wire() }
}

/// Every scenario, in the order of the board.
pub fn all() -> Vec<Scenario> {
    let groups = [steady(), steps(), heavy(), loss(), delay(), queues(), others()];
    groups.into_iter().flatten().collect()
}

fn steady() -> Vec<Scenario> {
    let rates = [
        (200, "200 kbit/s"),
        (400, "400 kbit/s"),
        (700, "700 kbit/s"),
        (1_000, "1 Mbit/s"),
        (1_500, "1.5 Mbit/s"),
        (2_000, "2 Mbit/s"),
        (3_000, "3 Mbit/s"),
        (10_000, "10 Mbit/s"),
    ];
    rates.map(|(kbps, name)| Scenario::new("Steady capacity", format!("steady {name}"), path(kbps * 1000))).into()
}

fn steps() -> Vec<Scenario> {
    vec![
        Scenario::steps("2 Mbit/s → 500 kbit/s → 2 Mbit/s", PHASE, &[2_000_000, 500_000, 2_000_000]),
        Scenario::steps("5 Mbit/s → 300 kbit/s → 5 Mbit/s", PHASE, &[5_000_000, 300_000, 5_000_000]),
        Scenario::steps("3 Mbit/s → 1 Mbit/s → 3 Mbit/s", PHASE, &[3_000_000, 1_000_000, 3_000_000]),
        Scenario::steps("1 Mbit/s → 250 kbit/s → 1 Mbit/s", PHASE, &[1_000_000, 250_000, 1_000_000]),
        Scenario::steps("300 kbit/s → 5 Mbit/s", PHASE, &[300_000, 5_000_000]),
        Scenario::steps("up and down each 10 s", PHASE / 3, &[3_000_000, 800_000, 3_000_000, 800_000, 3_000_000]),
    ]
}

fn heavy() -> Vec<Scenario> {
    let steady = [(400, "400 kbit/s"), (450, "450 kbit/s"), (500, "500 kbit/s"), (600, "600 kbit/s")]
        .map(|(kbps, name)| Scenario::new("", format!("{name} for 420 and sound"), path(kbps * 1000)).heavy());
    let step = |name, bps| Scenario::steps(name, PHASE, &[2_000_000, bps, 2_000_000]).heavy();
    let steps = [
        step("2 Mbit/s → 500 kbit/s → 2 Mbit/s, heavy", 500_000),
        step("2 Mbit/s → 600 kbit/s → 2 Mbit/s, heavy", 600_000),
    ];
    steady.into_iter().chain(steps).collect()
}

fn loss() -> Vec<Scenario> {
    let random = [1, 2, 5, 10, 20, 30, 40, 50].map(|percent| {
        let down = LinkConfig { loss: f64::from(percent) / 100.0, ..path(5_000_000) };
        Scenario::new("Loss (5 Mbit/s)", format!("loss {percent} %"), down)
    });
    let bursts = BurstLoss { to_bad: 0.01, to_good: 0.2, loss: 1.0 };
    let lossy = |loss, bps| LinkConfig { loss, ..path(bps) };
    let mut all: Vec<Scenario> = random.into();
    all.extend([
        Scenario::new(
            "Loss (5 Mbit/s)",
            "bursts of 5 packets, 5 % in all",
            LinkConfig { burst_loss: Some(bursts), ..path(5_000_000) },
        ),
        Scenario::new("Loss (5 Mbit/s)", "loss 10 % both ways", lossy(0.1, 5_000_000)).up(lossy(0.1, 5_000_000)),
        Scenario::new("Loss (5 Mbit/s)", "loss 10 % on 1 Mbit/s", lossy(0.1, 1_000_000)),
        Scenario::new("Loss (5 Mbit/s)", "loss 30 % on 1 Mbit/s", lossy(0.3, 1_000_000)),
    ]);
    all
}

fn delay() -> Vec<Scenario> {
    let group = "Delay, jitter, order (3 Mbit/s)";
    let far = |ms: u32| LinkConfig { delay: MS * ms / 2, ..path(3_000_000) };
    let delays = [0, 100, 200, 400].map(|ms| {
        let up = LinkConfig { delay: MS * ms / 2, ..wire() };
        Scenario::new(group, format!("RTT {ms} ms"), far(ms)).up(up)
    });
    let jitters = [10, 30, 60].map(|ms| {
        let down = LinkConfig { jitter: MS * ms, ..path(3_000_000) };
        Scenario::new(group, format!("jitter {ms} ms"), down)
    });
    let reorders = [1, 5].map(|percent| {
        let down = LinkConfig { reorder: f64::from(percent) / 100.0, ..path(3_000_000) };
        Scenario::new(group, format!("{percent} % overtaken by 20 ms"), down)
    });
    let lossy = [(100, 20), (100, 40), (200, 10)].map(|(ms, percent)| {
        let up = LinkConfig { delay: MS * ms / 2, ..wire() };
        let down = LinkConfig { loss: f64::from(percent) / 100.0, ..far(ms) };
        Scenario::new(group, format!("RTT {ms} ms and loss {percent} %"), down).up(up)
    });
    delays.into_iter().chain(jitters).chain(reorders).chain(lossy).collect()
}

fn queues() -> Vec<Scenario> {
    let queue = |ms: usize, bps: u64| LinkConfig { queue_bytes: bps as usize / 8 * ms / 1000, ..path(bps) };
    vec![
        Scenario::new("Queues", "queue of 50 ms at 1 Mbit/s", queue(50, 1_000_000)),
        Scenario::new("Queues", "queue of 1 s at 1 Mbit/s", queue(1_000, 1_000_000)),
    ]
}

fn others() -> Vec<Scenario> {
    let group = "Other flows on the path";
    vec![
        Scenario::new(group, "constant 1 Mbit/s on 2.5 Mbit/s", path(2_500_000))
            .with(Competitor::Constant { bps: 1_000_000 }),
        Scenario::new(group, "loss-driven flow on 4 Mbit/s", path(4_000_000)).with(Competitor::Adaptive),
    ]
}
