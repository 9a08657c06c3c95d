//! One call through a shard: a publisher of three layers, a subscriber behind the scenario's path.

use std::time::{Duration, Instant};

use mrtc_core::command::{Command, Kind};
use mrtc_core::event::Reply;

use super::competitor::Flow;
use super::scenario::{Phase, Scenario};
use crate::support::freeze::Viewer;
use crate::support::media::{OPUS_PT, OpusSource, Vp8Source, read_vp8};
use crate::support::{ClientSpec, Net};

/// 60 bytes and headers each 20 ms.
pub const AUDIO_BPS: u64 = 50_000;
/// How often the engine's figures are looked at.
const SAMPLE: Duration = Duration::from_millis(100);

/// The engine's figures and what arrived, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Duration,
    pub phase: usize,
    pub estimate_bps: u64,
    pub allocated_bps: u64,
    /// Height of the newest frame that came.
    pub height: u16,
    /// Counts since the call began.
    pub frames_decoded: usize,
    pub queue_dropped: u64,
    pub retransmissions: u64,
    pub keyframe_requests: u64,
    pub given_up: u64,
}

pub struct Call {
    pub net: Net,
    pub samples: Vec<Sample>,
    pub viewer: Viewer,
    bob: usize,
    audio: [OpusSource; 1],
    video: [Vp8Source; 3],
    started_at: Instant,
    sample_at: Instant,
    looked_at: usize,
    height: u16,
}

impl Call {
    pub fn new(scenario: &Scenario, seed: u64) -> Self {
        let mut net = Net::new(seed);
        net.add_process(1);
        let alice = net.join(0, "alice", ClientSpec::simulcast());
        let down = scenario.phases[0].down;
        let spec = ClientSpec { up: scenario.up, down, audio_slots: 1, video_slots: 1, ..ClientSpec::default() };
        let bob = net.join(0, "bob", spec);
        net.publish(alice, "audio", 0);
        net.publish(alice, "video", 1);
        let video = scenario.encodings.map(|encoding| Vp8Source {
            bitrate_bps: encoding.bps,
            has_temporal_layers: encoding.has_temporal_layers,
            seed: seed - 1,
            ..Vp8Source::new(alice, 1, Some(encoding.rid), encoding.height)
        });
        net.subscribe(bob, &[("audio", Kind::Audio), ("video", Kind::Video)]);
        Self {
            viewer: Viewer::new(&net, bob, scenario.rtt()),
            samples: vec![],
            bob,
            audio: [OpusSource::new(alice, 0)],
            video,
            started_at: net.now,
            sample_at: net.now,
            looked_at: 0,
            height: 0,
            net,
        }
    }

    pub fn run(&mut self, scenario: &Scenario) {
        for (index, phase) in scenario.phases.iter().enumerate() {
            self.net.downlinks[self.bob].set_config(phase.down);
            self.run_phase(index, phase, scenario.rtt());
        }
    }

    fn run_phase(&mut self, index: usize, phase: &Phase, rtt: Duration) {
        let end = self.net.now + phase.lasts;
        let mut flow = phase.competitor.map(|kind| Flow::new(kind, rtt, self.net.now));
        let addrs = (self.net.nodes[0].addr, self.net.clients[self.bob].addr);
        while self.net.now < end {
            self.audio.iter_mut().for_each(|s| s.step(&mut self.net));
            self.video.iter_mut().for_each(|s| s.step(&mut self.net));
            if let Some(flow) = &mut flow {
                flow.step(self.net.now, addrs, &mut self.net.downlinks[self.bob]);
            }
            self.net.step();
            self.viewer.step(&mut self.net);
            self.look();
            if self.net.now >= self.sample_at {
                self.sample_at += SAMPLE;
                let sample = self.sample(index);
                self.samples.push(sample);
            }
        }
    }

    fn look(&mut self) {
        let packets = &self.net.clients[self.bob].packets;
        let fresh = packets[self.looked_at..].iter().rev();
        let mut video = fresh.filter(|p| *p.header.payload_type != OPUS_PT && p.payload.len() > 20);
        if let Some(packet) = video.next() {
            self.height = read_vp8(&packet.payload).height;
        }
        self.looked_at = packets.len();
    }

    /// Share of the packets sent to the subscriber that are neither media, nor copies of it, nor sent again.
    pub fn padding(&mut self) -> f64 {
        let stats = self.stats();
        let sum = |name: &str| {
            let slots = stats["slots"].as_array().into_iter().flatten();
            slots.filter_map(|slot| slot[name].as_u64()).sum::<u64>() as f64
        };
        let sent = stats["tx_packets"].as_u64().unwrap_or_default().max(1) as f64;
        let copies = self.net.nodes[0].shard.counters().tx_audio_copies as f64;
        ((sent - sum("packets") - sum("retransmissions") - copies) / sent).max(0.0)
    }

    /// The engine's figures of the subscriber; null once it is gone.
    fn stats(&mut self) -> serde_json::Value {
        let command = Command::Stats { transports: vec!["bob".into()] };
        let Ok(Reply::Json(json)) = self.net.command(0, command) else { panic!("no figures") };
        let mut stats: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        stats["transports"][0].take()
    }

    fn sample(&mut self, phase: usize) -> Sample {
        let stats = self.stats();
        let counters = self.net.nodes[0].shard.counters();
        let figure = |name: &str| stats[name].as_u64().unwrap_or_default();
        Sample {
            at: self.net.now - self.started_at,
            phase,
            estimate_bps: figure("estimate_bps"),
            allocated_bps: figure("allocated_bps"),
            height: self.height,
            frames_decoded: self.viewer.decoded_frames(),
            queue_dropped: self.net.downlinks[self.bob].stats().queue_dropped,
            retransmissions: counters.tx_retransmissions,
            keyframe_requests: counters.tx_keyframe_requests,
            given_up: counters.drop_pacer,
        }
    }
}
