//! The engine as one thing: starts the workers, takes commands, gives events.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use mrtc_core::addr::{CandidateAddr, Proto};
use mrtc_core::command::Command;
use mrtc_core::config::{Limits, ShardConfig};
use mrtc_core::directory::TrackDirectory;
use mrtc_core::event::{Event, SinkFrame};
use mrtc_core::handshake::Certificate;
use mrtc_core::id::{CommandId, RelayId, ShardIndex};
use mrtc_core::shard::Shard;
use socket2::Socket;
use thiserror::Error;

use crate::capture::{CaptureConfig, CaptureFigures, Captures};
use crate::config::EngineConfig;
use crate::counters::{Figures, Published};
use crate::eventfd_linux::EventFd;
use crate::gather::Gather;
use crate::outgoing::Outgoing;
use crate::router::{Route, Router};
use crate::shard_link::{Peer, ShardLink, inbox};
use crate::tcp::{self, TcpServer};
use crate::thread_linux::pin_to_core;
use crate::udp_linux::{self, UdpSocket};
use crate::worker::{Shared, Stop, Worker};

/// Commands that wait for one worker.
const ORDER_QUEUE: usize = 4_096;
/// Commands without a collected reply, of all workers. Replies are never dropped, so this bounds them.
const MAX_IN_FLIGHT: usize = 16_384;
/// How long `finish_shutdown` waits for the workers.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(1);

/// Why a command was not taken.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum SubmitError {
    /// A queue is full; nothing was done. Retry later.
    #[error("the engine's command queue is full")]
    Busy,
    /// The engine is shut down, or a worker has failed.
    #[error("the engine is closed")]
    Closed,
}

struct WorkerHandle {
    orders: Sender<(CommandId, Command)>,
    wake: Arc<EventFd>,
    published: Arc<Published>,
    stop: Arc<Stop>,
    udp: SocketAddr,
    tcp: Option<SocketAddr>,
}

/// What `submit` and `poll_events` share.
struct Desk {
    router: Router,
    gather: Gather,
    next_command: u64,
    in_flight: usize,
}

/// Worker threads with their sockets and shards. All methods may be called from any thread; none but `finish_shutdown`
/// waits for anything.
pub struct Engine {
    workers: Vec<WorkerHandle>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Disconnected when the last worker has ended.
    ended: Receiver<()>,
    desk: Mutex<Desk>,
    outgoing: Arc<Outgoing>,
    advertised: IpAddr,
    is_closing: AtomicBool,
    has_failed: Arc<AtomicBool>,
    captures: Captures,
}

impl Engine {
    /// Binds the sockets and starts the workers.
    pub fn start(config: EngineConfig) -> io::Result<Self> {
        config.check()?;
        let certificate = Certificate::generate().map_err(io::Error::other)?;
        let directory = Arc::new(TrackDirectory::new());
        let outgoing = Arc::new(Outgoing::new()?);
        let count = config.worker_count();
        let seats = (0..count).map(|index| Seat::new(&config, index)).collect::<io::Result<Vec<Seat>>>()?;
        let peers: Vec<Peer> = seats.iter().map(|seat| seat.peer.clone()).collect();
        let has_failed = Arc::new(AtomicBool::new(false));
        let (alive, ended) = bounded(0);
        let mut engine = Self {
            workers: Vec::with_capacity(count),
            threads: Mutex::default(),
            ended,
            desk: Mutex::new(Desk {
                router: Router::new(count, config.max_transports, directory.clone()),
                gather: Gather::default(),
                next_command: 1,
                in_flight: 0,
            }),
            outgoing: outgoing.clone(),
            advertised: config.advertised_ips[0],
            is_closing: AtomicBool::new(false),
            has_failed: has_failed.clone(),
            captures: Captures::default(),
        };
        for (index, seat) in seats.into_iter().enumerate() {
            engine.workers.push(seat.handle.clone_handle());
            let shard = ShardConfig {
                index: ShardIndex(index as u16),
                shard_count: count as u16,
                candidates: candidates(&config, &seat.handle),
                certificate: certificate.clone(),
                directory: directory.clone(),
                limits: Limits { max_transports: config.max_transports, ..Limits::default() },
                wall_clock_offset_us: unix_us(),
                seed: random_seed(),
            };
            let job = Job {
                seat,
                shard,
                peers: peers.clone(),
                outgoing: outgoing.clone(),
                tick: config.tick,
                core: config.pin_workers.then_some(index),
                has_failed: has_failed.clone(),
                _alive: alive.clone(),
            };
            let thread = std::thread::Builder::new().name(format!("mrtc-w{index}")).spawn(move || job.run())?;
            engine.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(engine)
    }

    /// Hands a command to the worker that it concerns. The reply is an event.
    pub fn submit(&self, command: Command) -> Result<CommandId, SubmitError> {
        if self.is_closing.load(Ordering::Acquire) || self.has_failed.load(Ordering::Acquire) {
            return Err(SubmitError::Closed);
        }
        let mut desk = self.desk();
        if desk.in_flight >= MAX_IN_FLIGHT {
            return Err(SubmitError::Busy);
        }
        let id = CommandId(desk.next_command);
        match desk.router.route(&command) {
            Ok(Route::One(worker)) => {
                desk.router.note(id, &command, worker);
                if let Err(error) = self.order(worker, id, command) {
                    // As if the worker had refused it.
                    desk.router.observe(&refusal(id));
                    return Err(error);
                }
            }
            Ok(Route::Several(parts)) => {
                // Only this function, which holds the desk, fills the queues: what has room now keeps it.
                if parts.iter().any(|(worker, _)| self.workers[*worker].orders.is_full()) {
                    return Err(SubmitError::Busy);
                }
                desk.gather.expect(id, parts.len());
                for (worker, command) in parts {
                    self.order(worker, id, command)?;
                }
            }
            Err(error) => {
                let mut events = vec![Event::Reply { command: id, result: Err(error) }];
                self.outgoing.push(&mut events, &mut Vec::new());
            }
        }
        desk.next_command += 1;
        desk.in_flight += 1;
        Ok(id)
    }

    /// Becomes readable when events or frames wait; `poll_events` and `poll_frames` clear it.
    pub fn fileno(&self) -> RawFd {
        self.outgoing.as_raw_fd()
    }

    /// Events that wait, in order, `limit` at most.
    pub fn poll_events(&self, limit: usize) -> Vec<Event> {
        let events = self.outgoing.poll_events(limit);
        let mut desk = self.desk();
        let mut told = Vec::with_capacity(events.len());
        for event in events {
            let Some(event) = desk.gather.take(event) else { continue };
            if matches!(event, Event::Reply { .. }) {
                desk.in_flight = desk.in_flight.saturating_sub(1);
            }
            desk.router.observe(&event);
            told.push(event);
        }
        told
    }

    /// Frames that wait, in order, `limit` at most.
    pub fn poll_frames(&self, limit: usize) -> Vec<SinkFrame> {
        self.outgoing.poll_frames(limit)
    }

    /// Begins to write packets of some transports, in the clear, to a file. The reply is an event.
    ///
    /// Fails with `ResourceBusy` if a capture is under way, or if the file cannot be made.
    pub fn start_capture(&self, config: &CaptureConfig) -> io::Result<Result<CommandId, SubmitError>> {
        let capture = self.captures.start(config)?;
        let submitted = self.submit(Command::SetCapture { capture: Some(capture) });
        if submitted.is_err() {
            self.captures.stop();
        }
        Ok(submitted)
    }

    /// Ends the capture; its file is whole then. Waits for the disk. `None`: there never was one.
    pub fn stop_capture(&self) -> Option<CaptureFigures> {
        // Without it the workers would go on to look at a tap that takes nothing: harmless.
        let _ = self.submit(Command::SetCapture { capture: None });
        self.captures.stop()
    }

    /// What the last capture has come to. `None`: there never was one.
    pub fn capture_figures(&self) -> Option<CaptureFigures> {
        self.captures.figures()
    }

    /// Where this engine serves a relay of this id: its first advertised address and the port of the relay's worker.
    pub fn relay_address(&self, relay: &RelayId) -> SocketAddr {
        let worker = self.desk().router.relay_worker(relay);
        SocketAddr::new(self.advertised, self.workers[worker].udp.port())
    }

    /// Every socket as bound.
    pub fn local_addresses(&self) -> Vec<(Proto, SocketAddr)> {
        let of = |w: &WorkerHandle| [Some((Proto::Udp, w.udp)), w.tcp.map(|addr| (Proto::Tcp, addr))];
        self.workers.iter().flat_map(of).flatten().collect()
    }

    /// Of each worker: counters since the start, a tenth of a second old at most. The first one's hold the queue's drops too.
    pub fn counters(&self) -> Vec<Figures> {
        let mut all: Vec<Figures> = self.workers.iter().map(|worker| worker.published.get()).collect();
        let (events, frames) = self.outgoing.dropped();
        if let Some(first) = all.first_mut() {
            first.extend([("drop_events", events), ("drop_frames", frames)]);
        }
        all
    }

    /// True if a worker has failed; its transports are gone, and the engine takes no more commands.
    pub fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// Closes the transports (DTLS close_notify) and stops taking commands. Harmless when repeated.
    pub fn begin_shutdown(&self) {
        if self.is_closing.swap(true, Ordering::AcqRel) {
            return;
        }
        let desk = self.desk();
        for (index, worker) in self.workers.iter().enumerate() {
            worker.stop.ask(desk.router.transports_of(index));
            worker.wake.signal();
        }
    }

    /// Waits until the workers have ended, for a second at most.
    pub fn finish_shutdown(&self) {
        self.begin_shutdown();
        // Nothing is ever sent: this ends when the last worker drops its end, or in time.
        if self.ended.recv_timeout(SHUTDOWN_PATIENCE).is_err_and(|error| error.is_timeout()) {
            tracing::error!("workers did not end in time");
            return;
        }
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // A panic was logged where it happened.
            let _ = thread.join();
        }
    }

    fn order(&self, worker: usize, id: CommandId, command: Command) -> Result<(), SubmitError> {
        let worker = &self.workers[worker];
        match worker.orders.try_send((id, command)) {
            Ok(()) => {
                worker.wake.signal();
                Ok(())
            }
            Err(TrySendError::Full(_)) => Err(SubmitError::Busy),
            Err(TrySendError::Disconnected(_)) => Err(SubmitError::Closed),
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.finish_shutdown();
    }
}

impl WorkerHandle {
    fn clone_handle(&self) -> Self {
        Self {
            orders: self.orders.clone(),
            wake: self.wake.clone(),
            published: self.published.clone(),
            stop: self.stop.clone(),
            udp: self.udp,
            tcp: self.tcp,
        }
    }
}

/// The sockets and queues of a worker that does not run yet.
struct Seat {
    udp: Socket,
    tcp: Option<TcpListener>,
    handle: WorkerHandle,
    orders: Receiver<(CommandId, Command)>,
    peer: Peer,
    inbox: Receiver<(ShardIndex, mrtc_core::shard_message::ShardMessage)>,
}

impl Seat {
    fn new(config: &EngineConfig, index: usize) -> io::Result<Self> {
        let name = |what: &str, addr: SocketAddr| {
            let text = format!("{what} {addr}");
            move |error: io::Error| io::Error::new(error.kind(), format!("cannot bind {text}: {error}"))
        };
        let dscp = config.media_dscp;
        let udp = udp_linux::bind(config.udp_bind(index), dscp).map_err(name("udp", config.udp_bind(index)))?;
        let tcp = match config.tcp_bind(index) {
            Some(addr) => Some(tcp::bind(addr, dscp).map_err(name("tcp", addr))?),
            None => None,
        };
        let wake = Arc::new(EventFd::new()?);
        let (sender, orders) = bounded(ORDER_QUEUE);
        let (peer, inbox) = inbox(wake.clone());
        let handle = WorkerHandle {
            orders: sender,
            wake,
            published: Arc::default(),
            stop: Arc::default(),
            udp: udp_linux::local_addr(&udp)?,
            tcp: tcp.as_ref().map(TcpListener::local_addr).transpose()?,
        };
        Ok(Self { udp, tcp, handle, orders, peer, inbox })
    }
}

/// All that a worker's thread takes with it.
struct Job {
    seat: Seat,
    shard: ShardConfig,
    peers: Vec<Peer>,
    outgoing: Arc<Outgoing>,
    tick: Duration,
    core: Option<usize>,
    has_failed: Arc<AtomicBool>,
    _alive: Sender<()>,
}

impl Job {
    fn run(self) {
        let (index, has_failed, outgoing) = (self.shard.index, self.has_failed.clone(), self.outgoing.clone());
        let reason = match catch_unwind(AssertUnwindSafe(|| self.work())) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked".to_owned(),
        };
        tracing::error!(worker = index.0, reason, "worker failed");
        has_failed.store(true, Ordering::Release);
        outgoing.wake();
    }

    fn work(self) -> io::Result<()> {
        if let Some(core) = self.core {
            pin_to_core(core)?;
        }
        let now = Instant::now();
        let Seat { udp, tcp, handle, orders, inbox, .. } = self.seat;
        let udp = UdpSocket::new(udp)?;
        let tcp = tcp.map(|listener| TcpServer::new(listener, now)).transpose()?;
        let link = ShardLink::new(self.shard.index, self.peers);
        let shared = Shared {
            wake: handle.wake,
            orders,
            inbox,
            outgoing: self.outgoing,
            published: handle.published,
            stop: handle.stop,
        };
        let shard = Shard::new(ShardConfig { wall_clock_offset_us: unix_us(), ..self.shard }, now);
        Worker::new(shard, udp, tcp, link, shared, self.tick).run();
        Ok(())
    }
}

fn candidates(config: &EngineConfig, worker: &WorkerHandle) -> Vec<CandidateAddr> {
    let at = |proto, port| {
        let addresses = config.advertised_ips.iter();
        addresses.map(move |ip| CandidateAddr { proto, addr: SocketAddr::new(*ip, port) })
    };
    let tcp = worker.tcp.into_iter().flat_map(|addr| at(Proto::Tcp, addr.port()));
    at(Proto::Udp, worker.udp.port()).chain(tcp).collect()
}

fn unix_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64)
}

/// Unpredictable enough for SSRCs; secrets are made elsewhere.
fn random_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn refusal(command: CommandId) -> Event {
    Event::Reply { command, result: Err(mrtc_core::error::Error::BadRequest(String::new())) }
}
