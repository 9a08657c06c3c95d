//! A network of shards and str0m clients in virtual time, joined by seeded links.
#![allow(dead_code)]

pub mod client;
pub mod freeze;
pub mod media;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mrtc_core::addr::{CandidateAddr, Proto};
use mrtc_core::command::{Command, Kind, Subscription};
use mrtc_core::config::{Limits, ShardConfig};
use mrtc_core::directory::TrackDirectory;
use mrtc_core::event::{Event, Reply, SinkFrame, SlotsReply};
use mrtc_core::handshake::Certificate;
use mrtc_core::id::{CommandId, ShardIndex};
use mrtc_core::outbox::VecOutbox;
use mrtc_core::shard::Shard;
use mrtc_netem::{Link, LinkConfig, WireLen};
use mrtc_rtp::demux::{DatagramKind, classify};

pub use client::{Client, ClientSpec};

pub const STEP: Duration = Duration::from_millis(2);
pub const ROOM: &str = "app/room";

#[derive(Clone, Debug)]
pub struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

impl WireLen for Datagram {
    fn wire_len(&self) -> usize {
        self.bytes.len() + 28
    }
}

/// A shard and its place on the network.
pub struct Node {
    pub shard: Shard,
    pub addr: SocketAddr,
    pub process: usize,
    pub events: Vec<Event>,
    pub frames: Vec<SinkFrame>,
    pub runs: usize,
    pub spent: Spent,
    /// Nothing comes to it and nothing from it any more.
    pub is_dead: bool,
}

/// Real time that a shard took, by what for; for measurements.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub input: Duration,
    pub inputs: u32,
    pub timeouts: Duration,
    pub flush: Duration,
}

pub struct Net {
    pub now: Instant,
    pub start: Instant,
    pub nodes: Vec<Node>,
    pub clients: Vec<Client>,
    /// From and to each client.
    pub uplinks: Vec<Link<Datagram>>,
    pub downlinks: Vec<Link<Datagram>>,
    /// Between nodes, all alike.
    pub relay_link: Link<Datagram>,
    directories: Vec<Arc<TrackDirectory>>,
    /// Every datagram that shards sent to clients, if asked for.
    pub capture: Option<Vec<Datagram>>,
    /// Somebody on the path brings all media that clients send to every node.
    pub is_repeated: bool,
    certificate: Certificate,
    next_command: u64,
    seed: u64,
}

impl Net {
    pub fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            nodes: Vec::new(),
            clients: Vec::new(),
            uplinks: Vec::new(),
            downlinks: Vec::new(),
            relay_link: Link::new(seed, LinkConfig { delay: Duration::from_millis(5), ..LinkConfig::default() }),
            directories: Vec::new(),
            capture: None,
            is_repeated: false,
            certificate: Certificate::generate().expect("a certificate"),
            next_command: 0,
            seed,
        }
    }

    /// A process of `shards` shards; returns the index of its first node.
    pub fn add_process(&mut self, shards: u16) -> usize {
        let directory = Arc::new(TrackDirectory::new());
        let process = self.directories.len();
        self.directories.push(directory.clone());
        let first = self.nodes.len();
        for index in 0..shards {
            let addr: SocketAddr = format!("10.{process}.0.1:{}", 5000 + index).parse().unwrap();
            let config = ShardConfig {
                index: ShardIndex(index),
                shard_count: shards,
                candidates: vec![CandidateAddr { proto: Proto::Udp, addr }],
                certificate: self.certificate.clone(),
                directory: directory.clone(),
                limits: Limits::default(),
                wall_clock_offset_us: 1_800_000_000_000_000,
                seed: self.seed,
            };
            let shard = Shard::new(config, self.now);
            self.nodes.push(Node {
                shard,
                addr,
                process,
                events: vec![],
                frames: vec![],
                runs: 0,
                spent: Spent::default(),
                is_dead: false,
            });
        }
        first
    }

    /// Carries out a command and returns its reply.
    pub fn command(&mut self, node: usize, command: Command) -> Result<Reply, mrtc_core::error::Error> {
        self.next_command += 1;
        let id = CommandId(self.next_command);
        let now = self.now;
        self.nodes[node].shard.handle_command(now, id, command);
        self.drain(node);
        let at =
            self.nodes[node].events.iter().position(|e| matches!(e, Event::Reply { command, .. } if *command == id));
        match self.nodes[node].events.remove(at.expect("a reply")) {
            Event::Reply { result, .. } => result,
            _ => unreachable!(),
        }
    }

    /// Adds a client and runs until it is connected.
    pub fn join(&mut self, node: usize, name: &str, spec: ClientSpec) -> usize {
        let client = self.add_client(node, name, spec);
        self.run_until(Duration::from_secs(5), |net| net.clients[client].is_connected);
        client
    }

    /// Adds a client whose offer is answered.
    pub fn add_client(&mut self, node: usize, name: &str, spec: ClientSpec) -> usize {
        let index = self.clients.len();
        let addr: SocketAddr = format!("10.200.{}.{}:6000", index / 250, index % 250 + 1).parse().unwrap();
        let (mut client, offer, pending) = Client::new(self.now, name, node, addr, &spec);
        let offer_command = Command::CreateTransport {
            transport: name.into(),
            room: ROOM.into(),
            offer: if spec.has_rtx { offer } else { without_rtx(&offer) },
            caps: spec.caps,
        };
        let Ok(Reply::Answer { answer, lines }) = self.command(node, offer_command) else { panic!("no answer") };
        client.accept(pending, &answer, lines);
        self.clients.push(client);
        self.uplinks.push(Link::new(self.seed + 100 + index as u64, spec.up));
        self.downlinks.push(Link::new(self.seed + 500 + index as u64, spec.down));
        index
    }

    pub fn publish(&mut self, client: usize, track: &str, line: usize) {
        let (node, mid, name) = {
            let c = &self.clients[client];
            (c.node, c.lines[line].mid.clone(), c.name.clone())
        };
        let command = Command::PublishTrack { track: track.into(), transport: name.as_str().into(), mid };
        self.command(node, command).expect("published");
    }

    pub fn subscribe(&mut self, client: usize, tracks: &[(&str, Kind)]) -> SlotsReply {
        self.subscribe_to(client, tracks.iter().map(|(track, kind)| wanted(track, *kind)).collect())
    }

    pub fn subscribe_to(&mut self, client: usize, subscriptions: Vec<Subscription>) -> SlotsReply {
        self.listen(client, subscriptions, 0)
    }

    /// The same; of sound only the loudest `audio_top_n` are heard, if that is not zero.
    pub fn listen(&mut self, client: usize, subscriptions: Vec<Subscription>, audio_top_n: usize) -> SlotsReply {
        let (node, name) = (self.clients[client].node, self.clients[client].name.clone());
        let command = Command::SetSubscriptions { transport: name.as_str().into(), subscriptions, audio_top_n };
        match self.command(node, command).expect("subscribed") {
            Reply::Slots(slots) => slots,
            other => panic!("{other:?}"),
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    #[track_caller]
    pub fn run_until(&mut self, limit: Duration, is_done: impl Fn(&Self) -> bool) {
        let end = self.now + limit;
        while !is_done(self) {
            assert!(self.now < end, "not reached within {limit:?} (seed {})", self.seed);
            self.step();
        }
    }

    pub fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        for index in 0..self.clients.len() {
            self.clients[index].step(now);
            self.collect_client(index);
        }
        for index in 0..self.clients.len() {
            while let Some(datagram) = self.uplinks[index].poll(now) {
                self.give_node(datagram);
            }
        }
        while let Some(datagram) = self.relay_link.poll(now) {
            self.give_node(datagram);
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].shard.next_timeout() <= now {
                let began = Instant::now();
                self.nodes[node].shard.handle_timeout(now);
                self.nodes[node].spent.timeouts += began.elapsed();
            }
            self.drain(node);
        }
        // Messages between shards make new datagrams.
        for node in 0..self.nodes.len() {
            self.drain(node);
        }
        for index in 0..self.clients.len() {
            while let Some(datagram) = self.downlinks[index].poll(now) {
                self.clients[index].receive(now, &datagram);
            }
            self.collect_client(index);
        }
    }

    fn collect_client(&mut self, index: usize) {
        let now = self.now;
        for datagram in std::mem::take(&mut self.clients[index].outbox) {
            self.uplinks[index].send(now, datagram);
        }
    }

    fn give_node(&mut self, datagram: Datagram) {
        if self.is_repeated && classify(&datagram.bytes) == DatagramKind::Rtp {
            let others: Vec<_> = self.nodes.iter().map(|n| n.addr).filter(|addr| *addr != datagram.to).collect();
            others.into_iter().for_each(|to| self.give(Datagram { to, ..datagram.clone() }));
        }
        self.give(datagram);
    }

    fn give(&mut self, datagram: Datagram) {
        let now = self.now;
        let Some(node) = self.nodes.iter_mut().find(|n| n.addr == datagram.to && !n.is_dead) else { return };
        let mut bytes = datagram.bytes;
        let began = Instant::now();
        node.shard.handle_datagram(now, Proto::Udp, datagram.from, datagram.to, &mut bytes);
        node.spent.input += began.elapsed();
        node.spent.inputs += 1;
    }

    /// Flushes a node and distributes what it yields.
    pub fn drain(&mut self, index: usize) {
        let now = self.now;
        let node = &mut self.nodes[index];
        let mut out = VecOutbox::default();
        let began = Instant::now();
        node.shard.flush(now, &mut out);
        node.spent.flush += began.elapsed();
        node.runs += out.runs;
        while let Some(event) = node.shard.poll_event() {
            node.events.push(event);
        }
        while let Some(frame) = node.shard.poll_frame() {
            node.frames.push(frame);
        }
        let from = node.addr;
        if node.is_dead {
            return;
        }
        for (dest, bytes) in out.datagrams {
            self.route(Datagram { from, to: dest.remote, bytes });
        }
        let (process, first) = (self.nodes[index].process, self.first_of(index));
        let me = ShardIndex((index - first) as u16);
        while let Some((to, message)) = self.nodes[index].shard.poll_shard_message() {
            let target = first + usize::from(to.0);
            assert_eq!(self.nodes[target].process, process);
            assert_ne!(target, index);
            self.nodes[target].shard.handle_shard_message(now, me, message);
        }
    }

    fn first_of(&self, node: usize) -> usize {
        let process = self.nodes[node].process;
        self.nodes.iter().position(|n| n.process == process).unwrap()
    }

    fn route(&mut self, datagram: Datagram) {
        if let Some(client) = self.clients.iter().position(|c| c.addr == datagram.to) {
            if let Some(capture) = &mut self.capture {
                capture.push(datagram.clone());
            }
            self.downlinks[client].send(self.now, datagram);
        } else if self.nodes.iter().any(|n| n.addr == datagram.to) {
            self.relay_link.send(self.now, datagram);
        }
    }

    pub fn has_event(&self, node: usize, is_wanted: impl Fn(&Event) -> bool) -> bool {
        self.nodes[node].events.iter().any(is_wanted)
    }

    /// Associates two nodes both ways.
    pub fn open_relay(&mut self, a: usize, b: usize, relay: &str) {
        use mrtc_core::command::RelayKey;
        let key = |n: u8| RelayKey { key: [n; 16], salt: [n; 12] };
        let (addr_a, addr_b) = (self.nodes[a].addr, self.nodes[b].addr);
        let open = |remote, tx, rx| Command::OpenRelay { relay: relay.into(), remote, tx, rx };
        self.command(a, open(addr_b, key(1), key(2))).expect("opened");
        self.command(b, open(addr_a, key(2), key(1))).expect("opened");
    }
}

/// The offer of a client that knows no RTX.
fn without_rtx(offer: &str) -> String {
    let rtx: Vec<&str> = offer
        .lines()
        .filter(|line| line.contains(" rtx/90000"))
        .filter_map(|line| line.strip_prefix("a=rtpmap:")?.split(' ').next())
        .collect();
    let of_rtx = |line: &str| {
        let pt = line.split([':', ' ']).nth(1).unwrap_or_default();
        line.starts_with("a=") && rtx.contains(&pt) || line.contains("ssrc-group:FID")
    };
    let mut text = String::new();
    for line in offer.lines().filter(|line| !of_rtx(line)) {
        let kept: Vec<&str> = match line.starts_with("m=video") {
            true => line.split(' ').filter(|word| !rtx.contains(word)).collect(),
            false => vec![line],
        };
        text += &kept.join(" ");
        text += "\r\n";
    }
    text
}

pub fn wanted(track: &str, kind: Kind) -> Subscription {
    Subscription {
        track: track.into(),
        kind,
        alternatives: vec![],
        formers: vec![],
        max_height: None,
        max_fps: None,
        is_paused: false,
        priority: 128,
    }
}
