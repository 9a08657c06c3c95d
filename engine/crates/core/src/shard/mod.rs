//! One per worker thread: owns its transports, tracks and relays outright.
//!
//! **The contract.** Feed it (`handle_*`), then `flush`, then drain `poll_event`, `poll_frame` and
//! `poll_shard_message`, then sleep until `next_timeout` or more input. Time never runs backwards.

mod commands;
mod data;
mod endpoints;
mod fanout;
mod handover;
mod heirs;
mod ingress;
mod mirrors;
mod relay_moves;
mod relays;
mod rtcp;
pub(crate) mod stage;
mod stats;
mod subscriptions;
mod timeouts;
mod tracks;
mod upstream;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use slab::Slab;

use self::data::DataRoom;
use self::endpoints::{Sink, Source};
use crate::active_speaker::ActiveSpeakers;
use crate::addr::{Dest, Proto};
use crate::capture::Capture;
use crate::clock::Clock;
use crate::config::ShardConfig;
use crate::counters::Counters;
use crate::event::{Event, SinkFrame};
use crate::half_open::HalfOpen;
use crate::id::{RelayId, RoomId, ShardIndex, SinkId, TrackId, TransportId};
use crate::keys::{RelaySlot, SinkKey, TrackKey, TransportKey};
use crate::random::Random;
use crate::relay::RelayLink;
use crate::shard_message::{MirrorKey, ShardMessage};
use crate::timers::{Alarm, Timers};
use crate::track::{Subscriber, Track};
use crate::transport::{Outgoing, Transport};

/// Frames that wait to be polled; beyond it the oldest are dropped.
const MAX_FRAMES: usize = 4_096;
/// No timer is set nearer than this: what is overdue is done at the next turn, not in an endless loop of this one.
const MIN_SLEEP: Duration = Duration::from_micros(500);

/// What a timer is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TimerKey {
    Transport(TransportKey),
    Track(TrackKey),
    Source(TrackKey),
    Sink(SinkKey),
    Relay(RelaySlot),
    /// Active speakers of all rooms.
    Rooms,
}

/// What a shard keeps of a room: only who speaks. Everything else is the caller's.
#[derive(Debug, Default)]
struct Room {
    /// Tracks of any origin: who is loud is the same for all.
    speakers: ActiveSpeakers<TrackKey>,
    audio_tracks: usize,
    /// Transports that hear the loudest only.
    listeners: Vec<TransportKey>,
    /// The application was told of speakers and not yet of silence.
    is_speech_told: bool,
}

impl Room {
    fn is_unused(&self) -> bool {
        self.audio_tracks == 0 && self.listeners.is_empty()
    }
}

/// The state of one worker.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    clock: Clock,
    now: Instant,
    counters: Counters,
    random: Random,
    /// Boxed, so that the slab stays in the cache and says where each one is without a look at it.
    transports: Slab<Box<Transport>>,
    transport_ids: HashMap<TransportId, TransportKey>,
    by_addr: HashMap<(Proto, SocketAddr), TransportKey>,
    by_ufrag: HashMap<String, TransportKey>,
    half_open: HalfOpen,
    tracks: Slab<Track>,
    track_ids: HashMap<TrackId, TrackKey>,
    mirrors: HashMap<MirrorKey, TrackKey>,
    next_mirror: u64,
    relays: Slab<RelayLink>,
    relay_ids: HashMap<RelayId, RelaySlot>,
    relay_tags: HashMap<u32, RelaySlot>,
    sinks: Slab<Sink>,
    sink_ids: HashMap<SinkId, SinkKey>,
    sources: HashMap<TrackKey, Source>,
    rooms: HashMap<RoomId, Room>,
    rooms_alarm: Alarm,
    data_rooms: HashMap<RoomId, DataRoom>,
    timers: Timers<TimerKey>,
    /// Last datagrams of transports that are gone.
    farewells: Vec<(Dest, Vec<u8>)>,
    dirty_tracks: Vec<TrackKey>,
    /// When the first of them that the last flush left is to go.
    held_until: Option<Instant>,
    dirty_transports: Vec<TransportKey>,
    dirty_relays: Vec<RelaySlot>,
    events: VecDeque<Event>,
    frames: VecDeque<SinkFrame>,
    messages: VecDeque<(ShardIndex, ShardMessage)>,
    scratch: Scratch,
    /// Whose packets are copied, while an operator captures.
    capture: Option<Capture>,
}

/// Buffers that are reused from flush to flush.
#[derive(Debug, Default)]
struct Scratch {
    ready: Vec<Outgoing>,
    keyframes: Vec<(TrackKey, u8)>,
    payload: Vec<u8>,
    due: Vec<Subscriber>,
    /// Transports of a batch of RTCP.
    reporters: VecDeque<TransportKey>,
}

impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig, now: Instant) -> Self {
        Self {
            clock: Clock::new(now, config.wall_clock_offset_us),
            now,
            counters: Counters::default(),
            random: Random::new(config.seed ^ u64::from(config.index.0) << 48),
            transports: Slab::new(),
            transport_ids: HashMap::new(),
            by_addr: HashMap::new(),
            by_ufrag: HashMap::new(),
            half_open: HalfOpen::default(),
            tracks: Slab::new(),
            track_ids: HashMap::new(),
            mirrors: HashMap::new(),
            next_mirror: 0,
            relays: Slab::new(),
            relay_ids: HashMap::new(),
            relay_tags: HashMap::new(),
            sinks: Slab::new(),
            sink_ids: HashMap::new(),
            sources: HashMap::new(),
            rooms: HashMap::new(),
            rooms_alarm: Alarm::default(),
            data_rooms: HashMap::new(),
            timers: Timers::default(),
            farewells: Vec::new(),
            dirty_tracks: Vec::new(),
            held_until: None,
            dirty_transports: Vec::new(),
            dirty_relays: Vec::new(),
            events: VecDeque::new(),
            frames: VecDeque::new(),
            messages: VecDeque::new(),
            scratch: Scratch::default(),
            capture: None,
            config,
        }
    }

    /// When `handle_timeout` wants to be called next.
    pub fn next_timeout(&self) -> Instant {
        let idle = self.now + Duration::from_secs(1);
        [self.timers.next(), self.held_until].into_iter().flatten().fold(idle, Instant::min)
    }

    /// True if `flush` would send something. Lets the shell wait a little for more packets of a burst.
    pub fn wants_flush(&self) -> bool {
        let is_clean = self.dirty_tracks.is_empty() && self.dirty_transports.is_empty() && self.dirty_relays.is_empty();
        !is_clean || !self.farewells.is_empty()
    }

    /// When the pictures that the last flush held back are to go, whole or not.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// The next message for another shard; never for this one.
    pub fn poll_shard_message(&mut self) -> Option<(ShardIndex, ShardMessage)> {
        self.messages.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next frame of a sink.
    pub fn poll_frame(&mut self) -> Option<SinkFrame> {
        self.frames.pop_front()
    }

    /// Figures since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Number of transports; decides where new ones go.
    pub fn transport_count(&self) -> usize {
        self.transports.len()
    }

    /// Time moves on; never backwards, also if a caller's clock does.
    fn set_now(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn mark_transport(&mut self, key: TransportKey) {
        if let Some(transport) = self.transports.get_mut(key.index())
            && !std::mem::replace(&mut transport.is_dirty, true)
        {
            self.dirty_transports.push(key);
        }
    }

    fn mark_track(&mut self, key: TrackKey) {
        if let Some(track) = self.tracks.get_mut(key.index())
            && !std::mem::replace(&mut track.is_dirty, true)
        {
            self.dirty_tracks.push(key);
        }
    }

    fn mark_relay(&mut self, key: RelaySlot) {
        if let Some(relay) = self.relays.get_mut(key.index())
            && !std::mem::replace(&mut relay.is_dirty, true)
        {
            self.dirty_relays.push(key);
        }
    }

    fn arm_transport(&mut self, key: TransportKey) {
        if let Some(transport) = self.transports.get_mut(key.index()) {
            let at = transport.next_timeout(self.now).max(self.now + MIN_SLEEP);
            self.timers.set(&mut transport.alarm, TimerKey::Transport(key), at);
        }
    }

    fn arm_track(&mut self, key: TrackKey) {
        let rtt = self.rtt_to_origin(key);
        if let Some(track) = self.tracks.get_mut(key.index())
            && let Some(at) = track.next_timeout(self.now, rtt)
        {
            let at = at.max(self.now + MIN_SLEEP);
            self.timers.set(&mut track.alarm, TimerKey::Track(key), at);
        }
    }
}
