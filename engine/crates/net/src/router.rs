//! Which worker a command goes to.
//!
//! **Placement.** A room's next transport goes to the worker of its last one, so that its packets need not cross threads,
//! unless that worker has become the busier by far (more than twice the transports of the emptiest, and 16); then to the
//! emptiest. A relay's worker follows from its id, so that it can be told before the relay exists.

use std::collections::HashMap;
use std::sync::Arc;

use mrtc_core::command::Command;
use mrtc_core::directory::TrackDirectory;
use mrtc_core::error::Error;
use mrtc_core::event::Event;
use mrtc_core::id::{CommandId, RelayId, RoomId, SinkId, TrackId, TransportId};

/// A worker may have so many transports more than twice the emptiest one's before a room spreads.
const SPREAD_MARGIN: usize = 16;

/// Where a command goes.
#[derive(Debug)]
pub(crate) enum Route {
    /// To one worker.
    One(usize),
    /// To several; the replies are put together.
    Several(Vec<(usize, Command)>),
}

/// What a command makes or ends, until its reply is seen.
#[derive(Debug)]
enum Change {
    MakesTransport(TransportId),
    MakesTrack(TrackId),
    MakesSink(SinkId),
    EndsTransport(TransportId),
    EndsSink(SinkId),
}

#[derive(Debug)]
struct Placed {
    worker: usize,
    room: Option<RoomId>,
    /// A later command that makes the same id anew replaces this.
    made_by: CommandId,
    is_confirmed: bool,
}

/// The transports of a room and the worker of the newest.
#[derive(Debug)]
struct RoomPlace {
    worker: usize,
    transports: usize,
}

#[derive(Debug)]
pub(crate) struct Router {
    directory: Arc<TrackDirectory>,
    max_transports: usize,
    /// Transports of each worker.
    loads: Vec<usize>,
    transports: HashMap<TransportId, Placed>,
    rooms: HashMap<RoomId, RoomPlace>,
    sinks: HashMap<SinkId, Placed>,
    /// Tracks whose making has no reply yet; the directory knows the others.
    tracks: HashMap<TrackId, (usize, CommandId)>,
    changes: HashMap<CommandId, Change>,
}

impl Router {
    pub(crate) fn new(workers: usize, max_transports: usize, directory: Arc<TrackDirectory>) -> Self {
        Self {
            directory,
            max_transports,
            loads: vec![0; workers],
            transports: HashMap::new(),
            rooms: HashMap::new(),
            sinks: HashMap::new(),
            tracks: HashMap::new(),
            changes: HashMap::new(),
        }
    }

    /// All transports with their workers.
    pub(crate) fn transports_of(&self, worker: usize) -> Vec<TransportId> {
        self.transports.iter().filter(|(_, placed)| placed.worker == worker).map(|(id, _)| id.clone()).collect()
    }

    /// The worker that serves a relay.
    pub(crate) fn relay_worker(&self, relay: &RelayId) -> usize {
        // FNV-1a: any fixed hash does, since only this process uses it.
        let hash = relay
            .as_str()
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        (hash % self.loads.len() as u64) as usize
    }

    /// Decides where a command goes. Nothing is remembered until `note` is called.
    pub(crate) fn route(&self, command: &Command) -> Result<Route, Error> {
        let worker = match command {
            Command::CreateTransport { transport, room, .. } | Command::ImportTransport { transport, room, .. } => {
                match self.transports.get(transport) {
                    Some(placed) => placed.worker,
                    None if self.transports.len() >= self.max_transports => {
                        return Err(Error::LimitExceeded(format!("{} transports", self.max_transports)));
                    }
                    None => self.place(room),
                }
            }
            Command::Negotiate { transport, .. }
            | Command::CloseTransport { transport }
            | Command::ExportTransport { transport, .. }
            | Command::CompleteTransport { transport, .. }
            | Command::SetCaps { transport, .. }
            | Command::SetDataAccess { transport, .. }
            | Command::PublishTrack { transport, .. }
            | Command::SetSubscriptions { transport, .. } => self.transport_worker(transport),
            // To the worker of the room's newest transport, which most likely has the others too.
            Command::SendData { room, .. } => self.rooms.get(room).map_or(0, |place| place.worker),
            Command::UnpublishTrack { track }
            | Command::SetTrackMuted { track, .. }
            | Command::SetTrackCap { track, .. }
            | Command::PushFrames { track, .. } => self.track_worker(track),
            Command::CreateSource { track, room, .. } => {
                self.known_track_worker(track).unwrap_or_else(|| self.place(room))
            }
            Command::CreateSink { sink, track } => {
                self.sinks.get(sink).map_or_else(|| self.track_worker(track), |placed| placed.worker)
            }
            Command::CloseSink { sink } => self.sinks.get(sink).map_or(0, |placed| placed.worker),
            Command::OpenRelay { relay, .. }
            | Command::CloseRelay { relay }
            | Command::ExportTrack { relay, .. }
            | Command::ExportData { relay, .. }
            | Command::ImportData { relay, .. }
            | Command::StopData { relay, .. }
            | Command::UnexportTrack { relay, .. }
            | Command::MoveImport { relay, .. }
            | Command::ImportTrack { relay, .. } => self.relay_worker(relay),
            Command::Stats { transports } if !transports.is_empty() => return Ok(self.split_stats(transports)),
            Command::Stats { .. } | Command::DumpRoom { .. } | Command::SetCapture { .. } => {
                return Ok(Route::Several((0..self.loads.len()).map(|worker| (worker, command.clone())).collect()));
            }
        };
        Ok(Route::One(worker))
    }

    /// Remembers what a command that was sent to `worker` will change.
    pub(crate) fn note(&mut self, id: CommandId, command: &Command, worker: usize) {
        let change = match command {
            Command::CreateTransport { transport, room, .. } | Command::ImportTransport { transport, room, .. }
                if !self.transports.contains_key(transport) =>
            {
                self.loads[worker] += 1;
                let place = self.rooms.entry(room.clone()).or_insert(RoomPlace { worker, transports: 0 });
                place.worker = worker;
                place.transports += 1;
                let placed = Placed { worker, room: Some(room.clone()), made_by: id, is_confirmed: false };
                self.transports.insert(transport.clone(), placed);
                Change::MakesTransport(transport.clone())
            }
            Command::PublishTrack { track, .. }
            | Command::CreateSource { track, .. }
            | Command::ImportTrack { track, .. } => {
                self.tracks.insert(track.clone(), (worker, id));
                Change::MakesTrack(track.clone())
            }
            Command::CreateSink { sink, .. } if !self.sinks.contains_key(sink) => {
                self.sinks.insert(sink.clone(), Placed { worker, room: None, made_by: id, is_confirmed: false });
                Change::MakesSink(sink.clone())
            }
            Command::CloseTransport { transport } => Change::EndsTransport(transport.clone()),
            Command::CloseSink { sink } => Change::EndsSink(sink.clone()),
            _ => return,
        };
        self.changes.insert(id, change);
    }

    /// Learns from what the workers tell.
    pub(crate) fn observe(&mut self, event: &Event) {
        match event {
            Event::Reply { command, result } => {
                if let Some(change) = self.changes.remove(command) {
                    self.settle(*command, change, result.is_ok());
                }
            }
            Event::TransportClosed { transport, .. } if self.is_confirmed(transport) => {
                self.forget_transport(transport)
            }
            _ => {}
        }
    }

    fn is_confirmed(&self, transport: &TransportId) -> bool {
        self.transports.get(transport).is_some_and(|placed| placed.is_confirmed)
    }

    fn settle(&mut self, id: CommandId, change: Change, is_ok: bool) {
        match change {
            Change::MakesTransport(transport) => {
                let Some(placed) = self.transports.get_mut(&transport).filter(|placed| placed.made_by == id) else {
                    return;
                };
                placed.is_confirmed = true;
                if !is_ok {
                    self.forget_transport(&transport);
                }
            }
            Change::MakesTrack(track) => {
                if self.tracks.get(&track).is_some_and(|(_, made_by)| *made_by == id) {
                    self.tracks.remove(&track);
                }
            }
            Change::MakesSink(sink) => {
                if !is_ok && self.sinks.get(&sink).is_some_and(|placed| placed.made_by == id) {
                    self.sinks.remove(&sink);
                }
            }
            Change::EndsTransport(transport) => {
                if is_ok && self.transports.get(&transport).is_some_and(|placed| placed.made_by.0 < id.0) {
                    self.forget_transport(&transport);
                }
            }
            Change::EndsSink(sink) => {
                if is_ok && self.sinks.get(&sink).is_some_and(|placed| placed.made_by.0 < id.0) {
                    self.sinks.remove(&sink);
                }
            }
        }
    }

    fn forget_transport(&mut self, transport: &TransportId) {
        let Some(placed) = self.transports.remove(transport) else { return };
        self.loads[placed.worker] -= 1;
        let Some(room) = placed.room else { return };
        if let Some(place) = self.rooms.get_mut(&room) {
            place.transports -= 1;
            if place.transports == 0 {
                self.rooms.remove(&room);
            }
        }
    }

    fn place(&self, room: &RoomId) -> usize {
        let emptiest = (0..self.loads.len()).min_by_key(|worker| self.loads[*worker]).unwrap_or(0);
        match self.rooms.get(room) {
            Some(place) if self.loads[place.worker] <= 2 * self.loads[emptiest] + SPREAD_MARGIN => place.worker,
            _ => emptiest,
        }
    }

    /// A worker answers for what nobody has: that it does not exist.
    fn transport_worker(&self, transport: &TransportId) -> usize {
        self.transports.get(transport).map_or(0, |placed| placed.worker)
    }

    fn track_worker(&self, track: &TrackId) -> usize {
        self.known_track_worker(track).unwrap_or(0)
    }

    fn known_track_worker(&self, track: &TrackId) -> Option<usize> {
        let in_flight = self.tracks.get(track).map(|(worker, _)| *worker);
        in_flight.or_else(|| self.directory.get(track).map(|entry| usize::from(entry.shard.0)))
    }

    fn split_stats(&self, transports: &[TransportId]) -> Route {
        let mut by_worker: HashMap<usize, Vec<TransportId>> = HashMap::new();
        for transport in transports {
            by_worker.entry(self.transport_worker(transport)).or_default().push(transport.clone());
        }
        let parts = by_worker.into_iter();
        Route::Several(parts.map(|(worker, transports)| (worker, Command::Stats { transports })).collect())
    }
}

#[cfg(test)]
mod tests {
    use mrtc_core::command::{Caps, Codec, Kind};
    use mrtc_core::directory::TrackEntry;
    use mrtc_core::event::{CloseReason, Reply, TrackInfo};
    use mrtc_core::id::ShardIndex;

    use super::*;

    struct Rig {
        router: Router,
        directory: Arc<TrackDirectory>,
        next: u64,
    }

    impl Rig {
        fn new(workers: usize, max: usize) -> Self {
            let directory = Arc::new(TrackDirectory::new());
            Self { router: Router::new(workers, max, directory.clone()), directory, next: 0 }
        }

        /// Submits without a reply.
        fn submit(&mut self, command: Command) -> (CommandId, usize) {
            self.next += 1;
            let id = CommandId(self.next);
            let Route::One(worker) = self.router.route(&command).unwrap() else { panic!() };
            self.router.note(id, &command, worker);
            (id, worker)
        }

        fn reply(&mut self, command: CommandId, is_ok: bool) {
            let result = if is_ok { Ok(Reply::Done) } else { Err(Error::BadRequest(String::new())) };
            self.router.observe(&Event::Reply { command, result });
        }

        fn done(&mut self, command: Command) -> usize {
            let (id, worker) = self.submit(command);
            self.reply(id, true);
            worker
        }
    }

    fn create(transport: &str, room: &str) -> Command {
        Command::CreateTransport {
            transport: transport.into(),
            room: room.into(),
            offer: String::new(),
            caps: Caps::default(),
        }
    }

    fn close(transport: &str) -> Command {
        Command::CloseTransport { transport: transport.into() }
    }

    fn publish(track: &str, transport: &str) -> Command {
        Command::PublishTrack { track: track.into(), transport: transport.into(), mid: "0".into() }
    }

    #[test]
    fn rooms_stay_together_and_spread_over_workers() {
        let mut rig = Rig::new(2, 1_000);
        let a = rig.done(create("a0", "a"));
        let b = rig.done(create("b0", "b"));
        assert_ne!(a, b);
        for n in 1..10 {
            assert_eq!(rig.done(create(&format!("a{n}"), "a")), a);
        }
        assert_eq!(rig.done(create("c0", "c")), b);
    }

    #[test]
    fn a_large_room_spreads() {
        let mut rig = Rig::new(2, 1_000);
        let workers: Vec<usize> = (0..100).map(|n| rig.done(create(&n.to_string(), "a"))).collect();
        assert!(workers[..SPREAD_MARGIN].iter().all(|w| *w == workers[0]));
        assert!(workers.iter().any(|w| *w != workers[0]));
    }

    #[test]
    fn a_refused_transport_takes_no_place() {
        let mut rig = Rig::new(1, 1);
        let (id, _) = rig.submit(create("a", "r"));
        assert!(matches!(rig.router.route(&create("b", "r")), Err(Error::LimitExceeded(_))));
        rig.reply(id, false);
        assert!(rig.router.route(&create("b", "r")).is_ok());
        assert!(rig.router.rooms.is_empty());
    }

    #[test]
    fn a_closed_transport_is_forgotten_either_way() {
        let mut rig = Rig::new(2, 10);
        rig.done(create("a", "r"));
        rig.done(close("a"));
        rig.done(create("b", "r"));
        rig.router.observe(&Event::TransportClosed { transport: "b".into(), reason: CloseReason::IceTimeout });
        assert!(rig.router.transports.is_empty() && rig.router.rooms.is_empty());
        assert_eq!(rig.router.loads, [0, 0]);
    }

    #[test]
    fn a_transport_made_anew_is_not_forgotten_by_news_of_the_old_one() {
        let mut rig = Rig::new(2, 10);
        rig.done(create("a", "r"));
        let (closing, _) = rig.submit(close("a"));
        rig.reply(closing, true);
        let (making, worker) = rig.submit(create("a", "r"));
        rig.router.observe(&Event::TransportClosed { transport: "a".into(), reason: CloseReason::Closed });
        rig.reply(making, true);
        assert_eq!(rig.router.transport_worker(&"a".into()), worker);
        assert_eq!(rig.router.loads[worker], 1);
    }

    #[test]
    fn creating_twice_goes_to_the_first_and_changes_nothing() {
        let mut rig = Rig::new(2, 10);
        let first = rig.done(create("a", "r"));
        let (id, worker) = rig.submit(create("a", "other"));
        rig.reply(id, false);
        assert_eq!(worker, first);
        assert_eq!(rig.router.transports_of(first), ["a".into()]);
    }

    #[test]
    fn a_track_is_found_before_and_after_its_reply() {
        let mut rig = Rig::new(2, 10);
        rig.done(create("x", "other"));
        let worker = rig.done(create("a", "r"));
        let (id, published_at) = rig.submit(publish("t", "a"));
        assert_eq!(published_at, worker);
        let mute = Command::SetTrackMuted { track: "t".into(), is_muted: true };
        assert!(matches!(rig.router.route(&mute), Ok(Route::One(w)) if w == worker));
        let info = TrackInfo { track: "t".into(), kind: Kind::Audio, codec: Codec::Opus, variant: None, rids: vec![] };
        rig.directory.insert(TrackEntry { shard: ShardIndex(worker as u16), room: "r".into(), info });
        rig.reply(id, true);
        assert!(rig.router.tracks.is_empty());
        assert!(matches!(rig.router.route(&mute), Ok(Route::One(w)) if w == worker));
    }

    #[test]
    fn a_sink_is_closed_where_it_was_made() {
        let mut rig = Rig::new(2, 10);
        rig.done(create("x", "other"));
        let worker = rig.done(create("a", "r"));
        rig.submit(publish("t", "a"));
        assert_eq!(rig.done(Command::CreateSink { sink: "s".into(), track: "t".into() }), worker);
        assert_eq!(rig.done(Command::CloseSink { sink: "s".into() }), worker);
        assert!(rig.router.sinks.is_empty());
    }

    #[test]
    fn figures_are_asked_of_those_who_have_them() {
        let mut rig = Rig::new(2, 10);
        rig.done(create("a", "r"));
        rig.done(create("b", "q"));
        let workers = |route| match route {
            Ok(Route::Several(parts)) => parts.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(workers(rig.router.route(&Command::Stats { transports: vec![] })), 2);
        assert_eq!(workers(rig.router.route(&Command::Stats { transports: vec!["b".into()] })), 1);
        assert_eq!(workers(rig.router.route(&Command::DumpRoom { room: "r".into() })), 2);
    }

    #[test]
    fn a_relay_has_one_worker_from_the_start() {
        let rig = Rig::new(4, 10);
        let relays: Vec<RelayId> = (0..100).map(|n| format!("relay-{n}").into()).collect();
        let used: std::collections::HashSet<usize> = relays.iter().map(|r| rig.router.relay_worker(r)).collect();
        assert_eq!(used.len(), 4);
        let command = Command::CloseRelay { relay: relays[3].clone() };
        assert!(matches!(rig.router.route(&command), Ok(Route::One(w)) if w == rig.router.relay_worker(&relays[3])));
    }
}
