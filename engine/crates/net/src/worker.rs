//! A worker: one thread, its sockets, its shard, and the loop that joins them.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use mrtc_core::addr::Proto;
use mrtc_core::command::Command;
use mrtc_core::event::{Event, SinkFrame};
use mrtc_core::id::{CommandId, ShardIndex, TransportId};
use mrtc_core::shard::Shard;
use mrtc_core::shard_message::ShardMessage;

use crate::cache_linux::Cache;
use crate::counters::{NetCounters, Published};
use crate::egress::{Egress, Sender};
use crate::eventfd_linux::EventFd;
use crate::outgoing::Outgoing;
use crate::poll_linux::wait_readable;
use crate::shard_link::ShardLink;
use crate::tcp::TcpServer;
use crate::thread_linux::cpu_time;
use crate::udp_linux::{Intake, RX_BATCH, UdpSocket};

/// Orders and messages taken in one turn, so that none of the inputs starves another.
const MAX_PER_TURN: usize = 256;
/// Receive batches of one turn.
const MAX_BATCHES: usize = 8;
/// How old published figures may get.
const PUBLISH_INTERVAL: Duration = Duration::from_millis(100);
/// Shortest sleep: what is due earlier has been looked at just now.
const MIN_SLEEP: Duration = Duration::from_micros(100);
/// Longest sleep; nothing depends on it.
const MAX_SLEEP: Duration = Duration::from_secs(1);
/// A worker that is busy for more than this share of the time lets its ticks be longer: the fewer, the longer the batches,
/// and each wakes this thread once and every receiver's.
const LOADED: f64 = 0.05;
/// How soon another worker's full inbox is tried again.
const LINK_RETRY: Duration = Duration::from_millis(1);

/// The id of commands that the worker gives itself; their replies go nowhere.
const OWN_COMMAND: CommandId = CommandId(u64::MAX);

/// Tells a worker to end.
#[derive(Debug, Default)]
pub(crate) struct Stop {
    is_asked: AtomicBool,
    /// Closed before the end, so that clients learn at once.
    transports: std::sync::Mutex<Vec<TransportId>>,
}

impl Stop {
    pub(crate) fn ask(&self, transports: Vec<TransportId>) {
        *self.transports.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = transports;
        self.is_asked.store(true, Ordering::Release);
    }
}

/// What a worker shares with the engine.
pub(crate) struct Shared {
    pub wake: Arc<EventFd>,
    pub orders: Receiver<(CommandId, Command)>,
    pub inbox: Receiver<(ShardIndex, ShardMessage)>,
    pub outgoing: Arc<Outgoing>,
    pub published: Arc<Published>,
    pub stop: Arc<Stop>,
}

pub(crate) struct Worker {
    shard: Shard,
    udp: UdpSocket,
    tcp: Option<TcpServer>,
    egress: Egress,
    link: ShardLink,
    shared: Shared,
    counters: NetCounters,
    /// As it was set.
    least_tick: Duration,
    /// As it is at this load.
    tick: Duration,
    /// True while ticks follow each other without a look at the sockets between.
    is_loaded: bool,
    /// The longest flush since the figures were published last.
    longest_flush: Duration,
    /// The time that the shard knows.
    last_arrival: Instant,
    /// When the tick that is under way began: with the first datagram, or the first thing to send.
    collecting_since: Option<Instant>,
    has_received: bool,
    /// When the last turn was.
    turned_at: Instant,
    /// Set while the inputs are more than one turn takes.
    has_more_input: bool,
    is_link_waiting: bool,
    next_publish: Instant,
    events: Vec<Event>,
    frames: Vec<SinkFrame>,
}

/// Which inputs are worth a look in this turn.
#[derive(Clone, Copy, Debug)]
struct Ready {
    udp: bool,
    wake: bool,
    tcp: bool,
}

/// Hands a shard what the UDP socket receives.
struct UdpIntake<'a> {
    shard: &'a mut Shard,
    now: Instant,
    last_arrival: &'a mut Instant,
}

impl Intake for UdpIntake<'_> {
    fn expect<'a>(&mut self, batch: impl Iterator<Item = (SocketAddr, &'a [u8])>) {
        self.shard.expect(Proto::Udp, batch, &Cache);
    }

    fn take(&mut self, age: Duration, from: SocketAddr, to: SocketAddr, bytes: &mut [u8]) {
        // Time never runs backwards for a shard: not before the last turn, not before the last datagram.
        let at = self.now.checked_sub(age).unwrap_or(self.now).max(*self.last_arrival);
        *self.last_arrival = at;
        self.shard.expect_next(bytes, &Cache);
        self.shard.handle_datagram(at, Proto::Udp, from, to, bytes);
    }
}

impl Worker {
    pub(crate) fn new(
        shard: Shard,
        udp: UdpSocket,
        tcp: Option<TcpServer>,
        link: ShardLink,
        shared: Shared,
        tick: Duration,
    ) -> Self {
        let worker = Self {
            shard,
            udp,
            tcp,
            egress: Egress::new(),
            link,
            shared,
            counters: NetCounters::default(),
            least_tick: tick,
            tick,
            is_loaded: false,
            longest_flush: Duration::ZERO,
            last_arrival: Instant::now(),
            collecting_since: None,
            has_received: false,
            turned_at: Instant::now(),
            has_more_input: false,
            is_link_waiting: false,
            next_publish: Instant::now(),
            events: Vec::new(),
            frames: Vec::new(),
        };
        // Whoever asks before the thread's first turn gets every name, at zero.
        worker.set_figures();
        worker
    }

    /// Runs until it is told to stop. Each turn: sleep, take, do what is due, send, tell.
    pub(crate) fn run(mut self) {
        while !self.shared.stop.is_asked.load(Ordering::Acquire) {
            let ready = self.sleep();
            let now = Instant::now();
            self.counters.loop_turns += 1;
            self.has_more_input = false;
            self.turned_at = now;
            self.receive(now, ready);
            if ready.wake {
                self.take_orders(now);
            }
            self.last_arrival = now;
            if self.shard.next_timeout() <= now {
                self.shard.handle_timeout(now);
            }
            self.flush_if_due(now);
            self.tell();
            self.publish(now);
        }
        self.close();
    }

    /// While a batch is collected the sockets are left alone: their packets come in one go when the tick is over.
    fn sleep(&self) -> Ready {
        let all = Ready { udp: true, wake: true, tcp: true };
        if self.has_more_input {
            return all;
        }
        let now = Instant::now();
        let held_until = self.shard.held_until();
        let flush_at =
            self.collecting_since.map(|since| held_until.map_or(since + self.tick, |at| at.min(since + self.tick)));
        let link_at = self.is_link_waiting.then(|| now + LINK_RETRY);
        let tcp_at = self.tcp.as_ref().and_then(TcpServer::next_timeout);
        let figures_at = Some(self.next_publish);
        // Hundreds of transports have their timers at hundreds of moments; none of them needs better than a tick.
        let timers_at = Some(self.shard.next_timeout().max(self.turned_at + self.tick));
        let deadline = [flush_at, link_at, tcp_at, figures_at, timers_at].into_iter().flatten().min();
        let timeout = deadline.map_or(MAX_SLEEP, |at| at.saturating_duration_since(now)).clamp(MIN_SLEEP, MAX_SLEEP);
        let wake = self.shared.wake.as_raw_fd();
        let ready = if flush_at.is_some() {
            wait_readable([wake], timeout).map(|[wake]| {
                let is_over = flush_at.is_some_and(|at| at <= Instant::now());
                Ready { udp: is_over, wake, tcp: is_over }
            })
        } else {
            // A negative descriptor is passed over by poll.
            let tcp: RawFd = self.tcp.as_ref().map_or(-1, AsRawFd::as_raw_fd);
            wait_readable([self.udp.as_raw_fd(), wake, tcp], timeout).map(|[udp, wake, tcp]| Ready { udp, wake, tcp })
        };
        ready.unwrap_or_else(|error| {
            tracing::error!(%error, "poll failed");
            std::thread::sleep(MIN_SLEEP);
            all
        })
    }

    fn take_orders(&mut self, now: Instant) {
        self.shared.wake.clear();
        for _ in 0..MAX_PER_TURN {
            let Ok((id, command)) = self.shared.orders.try_recv() else { break };
            self.shard.handle_command(now, id, command);
        }
        for _ in 0..MAX_PER_TURN {
            let Ok((from, message)) = self.shared.inbox.try_recv() else { break };
            self.shard.handle_shard_message(now, from, message);
        }
        self.has_more_input = !self.shared.orders.is_empty() || !self.shared.inbox.is_empty();
    }

    fn receive(&mut self, now: Instant, ready: Ready) {
        if ready.udp {
            self.receive_udp(now);
        }
        let Some(tcp) = &mut self.tcp else { return };
        if ready.tcp {
            let shard = &mut self.shard;
            tcp.serve(now, &mut self.counters, |from: SocketAddr, to, bytes: &mut [u8]| {
                shard.handle_datagram(now, Proto::Tcp, from, to, bytes)
            });
        }
        tcp.sweep(now, &mut self.counters);
    }

    fn receive_udp(&mut self, now: Instant) {
        for _ in 0..MAX_BATCHES {
            let Self { shard, last_arrival, .. } = self;
            match self.udp.receive(&mut UdpIntake { shard, now, last_arrival }) {
                Ok(0) => return,
                Ok(count) => {
                    self.has_received = true;
                    self.counters.udp_rx_batches += 1;
                    if count < RX_BATCH {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "receive failed");
                    return;
                }
            }
            // A full batch is load enough: no waiting for more.
            self.flush(now);
        }
        self.has_more_input = true;
    }

    /// Flushes at the end of a tick. A datagram begins a tick also if it gives nothing to send: what clients report
    /// comes one by one, and waking for each costs more than reading it.
    fn flush_if_due(&mut self, now: Instant) {
        let has_input = std::mem::take(&mut self.has_received) || self.shard.wants_flush();
        let is_held_over = self.shard.held_until().is_some_and(|at| at <= now);
        let is_tick_over = |since: Instant| is_held_over || now.saturating_duration_since(since) >= self.tick;
        if self.collecting_since.is_some_and(is_tick_over) || self.tick.is_zero() {
            self.flush(now);
        }
        if has_input && !self.tick.is_zero() {
            self.collecting_since.get_or_insert(now);
        }
    }

    fn flush(&mut self, now: Instant) {
        let Self { shard, udp, tcp, egress, counters, .. } = self;
        let mut sender = Sender { egress, udp, tcp: tcp.as_mut(), counters };
        let began = Instant::now();
        shard.flush(now, &mut sender);
        sender.finish();
        self.longest_flush = self.longest_flush.max(began.elapsed());
        self.last_arrival = now;
        // Under load something comes in every tick: to be woken by the first of it would only cost a turn.
        self.collecting_since = self.is_loaded.then_some(now);
    }

    fn tell(&mut self) {
        while let Some((to, message)) = self.shard.poll_shard_message() {
            self.counters.drop_shard_queue += self.link.send(to, message);
        }
        self.is_link_waiting = self.link.finish();
        while let Some(event) = self.shard.poll_event() {
            if !matches!(event, Event::Reply { command: OWN_COMMAND, .. }) {
                self.events.push(event);
            }
        }
        while let Some(frame) = self.shard.poll_frame() {
            self.frames.push(frame);
        }
        self.shared.outgoing.push(&mut self.events, &mut self.frames);
    }

    fn publish(&mut self, now: Instant) {
        if now < self.next_publish {
            return;
        }
        self.next_publish = now + PUBLISH_INTERVAL;
        self.counters.drop_udp_rx_full = self.udp.kernel_drops();
        let busy_before = std::mem::replace(&mut self.counters.busy_us, cpu_time().as_micros() as u64);
        self.set_tick(self.counters.busy_us - busy_before);
        self.set_figures();
    }

    /// Under load a packet waits for its batch up to twice the set tick, less what the batch takes to go.
    fn set_tick(&mut self, busy_us: u64) {
        self.is_loaded = busy_us as f64 > PUBLISH_INTERVAL.as_micros() as f64 * LOADED;
        let longest = std::mem::take(&mut self.longest_flush);
        let stretched = (self.least_tick * 2).saturating_sub(longest).max(self.least_tick);
        self.tick = if self.is_loaded { stretched } else { self.least_tick };
    }

    fn set_figures(&self) {
        let transports = ("transports", self.shard.transport_count() as u64);
        let figures = self.shard.counters().iter().chain(self.counters.figures()).chain([transports]);
        let figures = figures.chain(self.counters.tx_delay.figures());
        self.shared.published.set(figures.collect());
    }

    /// Takes leave of all clients.
    fn close(mut self) {
        let now = Instant::now();
        let mut transports = self.shared.stop.transports.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for transport in std::mem::take(&mut *transports) {
            self.shard.handle_command(now, OWN_COMMAND, Command::CloseTransport { transport });
        }
        drop(transports);
        self.flush(now);
        self.tell();
        self.next_publish = now;
        self.publish(now);
    }
}
