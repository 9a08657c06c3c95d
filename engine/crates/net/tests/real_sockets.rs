//! The engine with its threads and sockets; str0m clients talk to it over loopback, by UDP and by TCP.

mod peer;

use std::time::{Duration, Instant};

use mrtc_core::command::{Caps, Command, Kind, Subscription};
use mrtc_core::event::{CloseReason, Event, Reply};
use mrtc_core::id::CommandId;
use mrtc_net::{Engine, EngineConfig, SubmitError, TcpPort};
use peer::{Peer, Via};

const DEADLINE: Duration = Duration::from_secs(20);

struct Rig {
    engine: Engine,
    peers: Vec<Peer>,
    events: Vec<Event>,
}

impl Rig {
    fn new(config: EngineConfig) -> Self {
        Self { engine: Engine::start(config).unwrap(), peers: vec![], events: vec![] }
    }

    fn two_workers() -> Self {
        Self::new(EngineConfig { workers: 2, ..EngineConfig::default() })
    }

    /// Turns everything until the condition holds.
    fn until<T>(&mut self, what: &str, mut is_done: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + DEADLINE;
        loop {
            self.events.extend(self.engine.poll_events(1_000));
            if let Some(value) = is_done(self) {
                return value;
            }
            assert!(Instant::now() < end, "{what}: {:?}", self.events);
            for peer in &mut self.peers {
                peer.turn();
            }
        }
    }

    fn run(&mut self, command: Command) -> Reply {
        let id = self.engine.submit(command).unwrap();
        self.reply(id)
    }

    fn reply(&mut self, id: CommandId) -> Reply {
        self.until("a reply", |rig| {
            let at = rig.events.iter().position(|e| matches!(e, Event::Reply { command, .. } if *command == id))?;
            match rig.events.remove(at) {
                Event::Reply { result, .. } => Some(result.unwrap()),
                _ => None,
            }
        })
    }

    /// A connected client; the index of the peer.
    fn connect(&mut self, name: &str, via: Via, is_publisher: bool) -> usize {
        let (mut peer, offer) = Peer::new(via, is_publisher);
        let Reply::Answer { answer, .. } = self.run(Command::CreateTransport {
            transport: name.into(),
            room: "room".into(),
            offer,
            caps: Caps::default(),
        }) else {
            panic!()
        };
        peer.accept(&answer);
        self.peers.push(peer);
        let index = self.peers.len() - 1;
        self.until("connected", |rig| rig.peers[index].is_connected.then_some(()));
        index
    }

    fn publish(&mut self, name: &str) {
        let mid = self.peers.last().unwrap().mid();
        self.run(Command::PublishTrack { track: name.into(), transport: name.into(), mid });
    }

    fn subscribe(&mut self, transport: &str, track: &str) {
        let subscription = Subscription {
            track: track.into(),
            kind: Kind::Audio,
            alternatives: vec![],
            formers: vec![],
            max_height: None,
            max_fps: None,
            is_paused: false,
            priority: 1,
        };
        let Reply::Slots(slots) = self.run(Command::SetSubscriptions {
            transport: transport.into(),
            subscriptions: vec![subscription],
            audio_top_n: 0,
        }) else {
            panic!()
        };
        assert!(slots.missing.is_empty() && slots.unplaced.is_empty(), "{slots:?}");
    }

    fn counter(&self, name: &str) -> u64 {
        let figures = self.engine.counters();
        figures.iter().flatten().filter(|(n, _)| *n == name).map(|(_, value)| value).sum()
    }

    /// Sends numbered packets until the receiver has seen 50 of them in order.
    fn talk(&mut self, from: usize, to: usize) {
        let first = self.peers[to].got.len();
        self.until("media", |rig| {
            rig.peers[from].speak();
            (rig.peers[to].got.len() >= first + 50).then_some(())
        });
        let got = &self.peers[to].got[first..];
        assert!(got.windows(2).all(|w| w[1] > w[0]), "{got:?}");
    }
}

#[test]
fn sound_goes_from_client_to_client_over_udp() {
    let mut rig = Rig::two_workers();
    let a = rig.connect("a", Via::Udp, true);
    rig.publish("a");
    let b = rig.connect("b", Via::Udp, false);
    rig.subscribe("b", "a");
    rig.talk(a, b);
    assert_eq!(rig.counter("drop_udp_tx_error"), 0);
}

#[test]
fn one_by_tcp_and_one_by_udp() {
    let mut rig = Rig::two_workers();
    let a = rig.connect("a", Via::Tcp, true);
    rig.publish("a");
    let b = rig.connect("b", Via::Udp, false);
    rig.subscribe("b", "a");
    rig.talk(a, b);
    let c = rig.connect("c", Via::Tcp, false);
    rig.subscribe("c", "a");
    rig.talk(a, c);
    // Two at least: on a busy machine somebody else may knock at a port that was theirs a moment ago.
    rig.until("counters", |rig| (rig.counter("tcp_accepted") >= 2).then_some(()));
}

#[test]
fn a_room_on_two_workers_is_one_room() {
    let mut rig = Rig::two_workers();
    let a = rig.connect("a", Via::Udp, true);
    rig.publish("a");
    // Transports that fill the room's worker, so that the next one goes to the other.
    for n in 0..20 {
        let (_, offer) = Peer::new(Via::Udp, false);
        let transport = format!("idle-{n}").into();
        rig.run(Command::CreateTransport { transport, room: "room".into(), offer, caps: Caps::default() });
    }
    let b = rig.connect("b", Via::Udp, false);
    rig.subscribe("b", "a");
    rig.talk(a, b);
    rig.until("counters", |rig| (rig.counter("tx_shard_packets") > 0).then_some(()));
}

#[test]
fn leaving_and_shutting_down_are_told() {
    let mut rig = Rig::two_workers();
    rig.connect("a", Via::Udp, true);
    rig.publish("a");
    let b = rig.connect("b", Via::Tcp, false);
    rig.peers[0].leave();
    rig.until("the end of a", |rig| {
        let is_end = |e: &Event| matches!(e, Event::TransportClosed { transport, reason: CloseReason::PeerClosed } if transport.as_str() == "a");
        rig.events.iter().any(is_end).then_some(())
    });
    assert!(rig.events.iter().any(|e| matches!(e, Event::TrackEnded { track } if track.as_str() == "a")));
    rig.engine.begin_shutdown();
    assert_eq!(rig.engine.submit(Command::DumpRoom { room: "room".into() }), Err(SubmitError::Closed));
    rig.until("b learns", |rig| (!rig.peers[b].is_alive()).then_some(()));
    rig.engine.finish_shutdown();
    assert!(!rig.engine.has_failed());
}

#[test]
fn an_idle_engine_sleeps() {
    let rig = Rig::two_workers();
    std::thread::sleep(Duration::from_millis(1_500));
    // Ten publications of figures a second and a worker, and what the shard's own timers ask for.
    let turns = rig.counter("loop_turns");
    assert!(turns < 100, "{turns} turns");
    assert!(rig.counter("busy_us") < 150_000);
}

#[test]
fn too_many_commands_are_refused_and_none_is_lost() {
    let rig = Rig::new(EngineConfig { workers: 1, tcp_port: TcpPort::Off, ..EngineConfig::default() });
    let mut taken = 0;
    let mut is_busy = false;
    // More than the command queue and the replies in flight hold, faster than one worker works.
    for _ in 0..40_000 {
        match rig.engine.submit(Command::UnpublishTrack { track: "none".into() }) {
            Ok(_) => taken += 1,
            Err(SubmitError::Busy) => is_busy = true,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(is_busy);
    let end = Instant::now() + DEADLINE;
    let mut replies = 0;
    while replies < taken {
        replies += rig.engine.poll_events(1_000).len();
        assert!(Instant::now() < end, "{replies} of {taken}");
    }
    assert!(rig.engine.submit(Command::UnpublishTrack { track: "none".into() }).is_ok());
}

#[test]
fn figures_of_all_workers_are_put_together() {
    let mut rig = Rig::two_workers();
    rig.connect("a", Via::Udp, true);
    let Reply::Json(all) = rig.run(Command::Stats { transports: vec![] }) else { panic!() };
    assert!(all.contains("\"a\""), "{all}");
    let Reply::Json(room) = rig.run(Command::DumpRoom { room: "room".into() }) else { panic!() };
    assert!(room.contains("\"a\""), "{room}");
}

#[test]
fn addresses_that_cannot_be_bound_are_told() {
    let config = EngineConfig { bind_ip: "203.0.113.1".parse().unwrap(), ..EngineConfig::default() };
    let error = Engine::start(config).err().unwrap();
    assert!(error.to_string().contains("cannot bind udp 203.0.113.1"), "{error}");
}
