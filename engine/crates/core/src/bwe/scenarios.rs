//! The estimator, the pacer and the receive side's register together over a simulated path, in virtual time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mrtc_rtp::id::{SeqNo, Ssrc};
use mrtc_rtp::rtcp::{self, Rtcp};

use super::{PacketClass, SendSideBwe, packets_of};
use crate::pacer::Pacer;
use crate::twcc_register::TwccRegister;

const FRAME_US: i64 = 33_333;
const STEP_US: i64 = 1_000;

/// A bottleneck with a queue, a fixed delay, and random loss and jitter from a seed.
struct Path {
    capacity_bps: f64,
    delay_us: i64,
    jitter_us: i64,
    max_queue_us: i64,
    loss: f64,
    free_at_us: i64,
    last_arrival_us: i64,
    random: u64,
}

impl Path {
    fn new(capacity_bps: f64) -> Self {
        Self {
            capacity_bps,
            delay_us: 25_000,
            jitter_us: 0,
            max_queue_us: 300_000,
            loss: 0.0,
            free_at_us: 0,
            last_arrival_us: 0,
            random: 7,
        }
    }

    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as f64 / (1u64 << 31) as f64
    }

    /// When the packet arrives; `None` if it is lost.
    fn send(&mut self, bytes: usize, now_us: i64) -> Option<i64> {
        let start = self.free_at_us.max(now_us);
        if start - now_us > self.max_queue_us {
            return None;
        }
        self.free_at_us = start + (bytes as f64 * 8e6 / self.capacity_bps) as i64;
        if self.uniform() < self.loss {
            return None;
        }
        let jitter = (self.uniform() * self.jitter_us as f64) as i64;
        self.last_arrival_us = self.last_arrival_us.max(self.free_at_us + self.delay_us + jitter);
        Some(self.last_arrival_us)
    }
}

/// How the application chooses its rate.
#[derive(Clone, Copy)]
enum Media {
    /// An encoder that follows the estimate up to this.
    Adaptive(f64),
    /// The highest of these that fits the estimate, as simulcast layers do.
    Layers(&'static [f64]),
}

impl Media {
    fn bps(self, estimate: f64) -> f64 {
        match self {
            Self::Adaptive(max) => estimate.min(max),
            Self::Layers(layers) => layers.iter().copied().filter(|l| *l <= estimate).fold(layers[0], f64::max),
        }
    }

    fn desired_bps(self) -> f64 {
        match self {
            Self::Adaptive(max) => max,
            Self::Layers(layers) => layers.iter().copied().fold(0.0, f64::max),
        }
    }
}

struct Call {
    epoch: Instant,
    now_us: i64,
    bwe: SendSideBwe,
    pacer: Pacer,
    register: TwccRegister,
    path: Path,
    media: Media,
    seq: u16,
    queue: VecDeque<usize>,
    in_flight: VecDeque<(i64, u16)>,
    feedback: VecDeque<(i64, Vec<u8>)>,
    next_frame_us: i64,
    estimates: Vec<(i64, f64)>,
    max_queue_us: i64,
}

impl Call {
    fn new(path: Path, media: Media, start_bps: u64) -> Self {
        let epoch = Instant::now();
        let mut bwe = SendSideBwe::new(start_bps, 20_000_000, epoch);
        bwe.set_desired_bps(media.desired_bps() as u64);
        Self {
            epoch,
            now_us: 0,
            bwe,
            pacer: Pacer::new(start_bps, epoch),
            register: TwccRegister::new(epoch).telling_all(),
            path,
            media,
            seq: 0,
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            feedback: VecDeque::new(),
            next_frame_us: 0,
            estimates: Vec::new(),
            max_queue_us: 0,
        }
    }

    fn at(&self, us: i64) -> Instant {
        self.epoch + Duration::from_micros(us as u64)
    }

    fn run(&mut self, seconds: f64) -> &mut Self {
        let until = self.now_us + (seconds * 1e6) as i64;
        while self.now_us < until {
            self.step();
            self.now_us += STEP_US;
        }
        self
    }

    fn step(&mut self) {
        let now = self.at(self.now_us);
        self.deliver();
        if self.now_us >= self.next_frame_us {
            self.next_frame_us += FRAME_US;
            let mut bytes = (self.media.bps(self.bwe.estimate_bps() as f64) * FRAME_US as f64 / 8e6) as usize;
            while bytes > 0 {
                let packet = bytes.min(1_100);
                self.queue.push_back(packet);
                bytes -= packet;
            }
        }
        let mut budget = self.pacer.budget(now) as i64;
        while budget > 0
            && let Some(bytes) = self.queue.pop_front()
        {
            budget -= bytes as i64;
            self.send(bytes, PacketClass::Media);
        }
        while self.pacer.padding_budget(now) >= 250 {
            self.send(1_000, PacketClass::Padding);
        }
        self.estimates.push((self.now_us, self.bwe.estimate_bps() as f64));
        self.max_queue_us = self.max_queue_us.max(self.path.free_at_us - self.now_us);
    }

    fn send(&mut self, bytes: usize, class: PacketClass) {
        let now = self.at(self.now_us);
        self.bwe.on_packet_sent(Some(self.seq), bytes, class, self.pacer.cluster(), now);
        self.pacer.on_sent(bytes);
        self.pacer.on_probe_packet(bytes);
        if let Some(arrival) = self.path.send(bytes, self.now_us) {
            self.in_flight.push_back((arrival, self.seq));
        }
        self.seq = self.seq.wrapping_add(1);
    }

    fn deliver(&mut self) {
        let now = self.at(self.now_us);
        while self.in_flight.front().is_some_and(|(at, _)| *at <= self.now_us) {
            let (at, seq) = self.in_flight.pop_front().expect("looked at");
            self.register.on_packet(SeqNo(seq), self.epoch + Duration::from_micros(at as u64));
        }
        let mut rtcp = Vec::new();
        while self.register.write_feedback(now, Ssrc(1), Ssrc(2), &mut rtcp) {
            self.feedback.push_back((self.now_us + self.path.delay_us, std::mem::take(&mut rtcp)));
        }
        while self.feedback.front().is_some_and(|(at, _)| *at <= self.now_us) {
            let (_, rtcp) = self.feedback.pop_front().expect("looked at");
            let Some(Ok(Rtcp::TransportCc(feedback))) = rtcp::parse(&rtcp).next() else { panic!("no feedback") };
            self.bwe.on_feedback(packets_of(&feedback), now);
        }
        if self.now_us % 50_000 == 0
            && let Some(probe) = self.bwe.poll_probe(true, now)
        {
            self.pacer.start_probe(probe, now);
        }
        self.pacer.set_estimate(self.bwe.estimate_bps());
    }

    /// The least estimate of the last `seconds`.
    fn least(&self, seconds: f64) -> f64 {
        let from_us = self.now_us - (seconds * 1e6) as i64;
        self.estimates.iter().filter(|(at, _)| *at >= from_us).map(|(_, bps)| *bps).fold(f64::MAX, f64::min)
    }

    /// Mean estimate of the last `seconds`.
    fn mean(&self, seconds: f64) -> f64 {
        let from = self.now_us - (seconds * 1e6) as i64;
        let (sum, count) =
            self.estimates.iter().filter(|(at, _)| *at >= from).fold((0.0, 0), |(s, n), (_, e)| (s + e, n + 1));
        sum / f64::from(count)
    }

    /// Seconds from `from_s` until the estimate first satisfies `is_there`.
    fn time_until(&self, from_s: f64, is_there: impl Fn(f64) -> bool) -> f64 {
        let from = (from_s * 1e6) as i64;
        let hit = self.estimates.iter().find(|(at, e)| *at >= from && is_there(*e));
        hit.map_or(f64::INFINITY, |(at, _)| (at - from) as f64 / 1e6)
    }
}

#[test]
fn a_fresh_subscriber_ramps_up_by_probes() {
    let mut call = Call::new(Path::new(5e6), Media::Layers(&[150e3, 500e3, 1.7e6]), 300_000);
    call.run(5.0);
    let ramp = call.time_until(0.0, |e| e >= 1.7e6);
    println!("ramp to 1.7 Mbit/s: {ramp:.2} s, estimate after 5 s {:.0} kbit/s", call.mean(0.5) / 1e3);
    assert!(ramp < 1.5, "{ramp}");
    assert!(call.mean(1.0) >= 1.7e6);
}

#[test]
fn follows_two_megabit_to_half_and_back() {
    let mut call = Call::new(Path::new(2e6), Media::Adaptive(3e6), 300_000);
    call.run(20.0);
    let before = call.mean(5.0);
    call.path.capacity_bps = 500e3;
    call.max_queue_us = 0;
    call.run(20.0);
    let reaction = call.time_until(20.0, |e| e <= 500e3);
    let during = call.mean(10.0);
    let queue_ms = call.max_queue_us / 1000;
    call.path.capacity_bps = 2e6;
    call.run(30.0);
    let recovery = call.time_until(40.0, |e| e >= 1.6e6);
    let after = call.mean(5.0);
    println!(
        "2 Mbit/s: {:.0} kbit/s; 500 kbit/s: {:.0} after {reaction:.2} s (queue {queue_ms} ms); back: {:.0} after {recovery:.1} s",
        before / 1e3,
        during / 1e3,
        after / 1e3
    );
    assert!((1.5e6..2.1e6).contains(&before), "{before}");
    assert!(reaction < 1.5, "{reaction}");
    assert!((350e3..520e3).contains(&during), "{during}");
    assert!(recovery < 15.0, "{recovery}");
    assert!((1.5e6..2.1e6).contains(&after), "{after}");
}

#[test]
fn layers_far_apart_are_reached_again_by_probes() {
    let layers: &[f64] = &[150e3, 500e3, 1.7e6];
    let mut call = Call::new(Path::new(3e6), Media::Layers(layers), 300_000);
    call.run(10.0);
    call.path.capacity_bps = 300e3;
    call.run(15.0);
    let low = call.mean(5.0);
    call.path.capacity_bps = 3e6;
    call.run(30.0);
    let recovery = call.time_until(25.0, |e| e >= 1.7e6);
    println!("layers: {:.0} kbit/s when 300 fit; the top layer again after {recovery:.1} s", low / 1e3);
    assert!((150e3..400e3).contains(&low), "{low}");
    assert!(recovery < 20.0, "{recovery}");
}

#[test]
fn random_loss_does_not_starve_a_call() {
    for (loss, least) in [(0.02, 1.2e6), (0.1, 500e3), (0.4, 180e3)] {
        let mut path = Path::new(3e6);
        path.loss = loss;
        let mut call = Call::new(path, Media::Adaptive(2e6), 300_000);
        call.run(30.0);
        let mean = call.mean(10.0);
        println!("{:.0} % random loss: {:.0} kbit/s", loss * 100.0, mean / 1e3);
        assert!(mean >= least, "{loss}: {mean}");
    }
}

/// A client that moves to a far and lossy network: the longer way is not taken for a queue that is full.
#[test]
fn a_longer_path_with_loss_is_not_a_full_queue() {
    for loss in [0.05, 0.2] {
        let mut path = Path::new(3e6);
        path.delay_us = 500;
        let mut call = Call::new(path, Media::Adaptive(1e6), 300_000);
        call.run(5.0);
        call.path.delay_us = 50_000;
        call.path.loss = loss;
        call.run(15.0);
        let (least, mean) = (call.least(10.0), call.mean(5.0));
        println!("{loss}: least {least}, mean {mean}");
        assert!(least > 300_000.0, "{loss}: {least}");
        assert!(mean > 700_000.0, "{loss}: {mean}");
    }
}

#[test]
fn jitter_of_a_radio_link_is_not_taken_for_congestion() {
    let mut path = Path::new(5e6);
    path.jitter_us = 15_000;
    let mut call = Call::new(path, Media::Adaptive(2e6), 300_000);
    call.run(30.0);
    let mean = call.mean(10.0);
    println!("15 ms of jitter: {:.0} kbit/s of 2000 wanted", mean / 1e3);
    assert!(mean > 1.5e6, "{mean}");
}

#[test]
fn an_idle_subscriber_keeps_its_estimate() {
    let mut call = Call::new(Path::new(5e6), Media::Adaptive(2e6), 300_000);
    call.run(10.0);
    let busy = call.mean(1.0);
    call.media = Media::Adaptive(100e3);
    call.run(30.0);
    assert!(call.mean(1.0) > busy * 0.8, "{} of {busy}", call.mean(1.0));
}

#[test]
fn silence_lowers_and_feedback_restores() {
    let mut call = Call::new(Path::new(5e6), Media::Adaptive(2e6), 300_000);
    call.run(10.0);
    let before = call.mean(1.0);
    call.path.loss = 1.0;
    call.run(6.0);
    let during = call.bwe.estimate_bps() as f64;
    call.path.loss = 0.0;
    call.run(15.0);
    println!("outage of 6 s: {:.0} -> {:.0} -> {:.0} kbit/s", before / 1e3, during / 1e3, call.mean(1.0) / 1e3);
    assert!(during < before / 2.0);
    assert!(call.mean(1.0) > before * 0.7);
}

#[test]
fn without_probes_it_still_grows() {
    let mut call = Call::new(Path::new(3e6), Media::Adaptive(2e6), 1_000_000);
    call.bwe.set_desired_bps(0);
    call.run(20.0);
    assert!(call.mean(1.0) > 1.7e6, "{}", call.mean(1.0));
}

#[test]
fn remb_and_reports_serve_clients_without_feedback() {
    let now = Instant::now();
    let mut bwe = SendSideBwe::new(600_000, 3_000_000, now);
    assert_eq!(bwe.estimate_bps(), 600_000);
    bwe.on_receiver_report(64, Some(Duration::from_millis(40)), now + Duration::from_secs(1));
    assert_eq!(bwe.estimate_bps(), 525_000);
    bwe.on_remb(2_000_000, now);
    assert_eq!(bwe.estimate_bps(), 2_000_000);
    bwe.on_remb(9_000_000, now);
    assert_eq!(bwe.estimate_bps(), 3_000_000);
    bwe.set_max_bps(1_000_000);
    assert_eq!(bwe.estimate_bps(), 1_000_000);
    assert_eq!(bwe.rtt(), Some(Duration::from_millis(40)));
}

#[test]
fn the_estimate_never_leaves_its_bounds() {
    let mut call = Call::new(Path::new(20e6), Media::Adaptive(9e6), 300_000);
    call.bwe.set_max_bps(1_500_000);
    call.run(10.0);
    assert!(call.estimates.iter().all(|(_, e)| (30e3..=1.5e6).contains(e)));
    assert!(call.mean(1.0) > 1.3e6);
}
