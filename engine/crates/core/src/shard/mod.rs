//! One per worker thread: owns its transports, tracks and relays outright.
//!
//! **The contract.** Feed it (`handle_*`), then `flush`, then drain `poll_event`, `poll_frame` and
//! `poll_shard_message`, then sleep until `next_timeout` or more input. Time never runs backwards.

use std::net::SocketAddr;
use std::time::Instant;

use crate::addr::Proto;
use crate::command::Command;
use crate::config::ShardConfig;
use crate::counters::Counters;
use crate::event::{Event, SinkFrame};
use crate::id::{CommandId, ShardIndex};
use crate::outbox::Outbox;
use crate::shard_message::ShardMessage;

/// The state of one worker.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    counters: Counters,
    now: Instant,
}

impl Shard {
    /// An empty shard.
    pub fn new(config: ShardConfig, now: Instant) -> Self {
        Self { config, counters: Counters::default(), now }
    }

    /// Carries out a command; its reply is an event.
    pub fn handle_command(&mut self, now: Instant, id: CommandId, command: Command) {
        self.now = now;
        let _ = (id, command, &self.config);
    }

    /// Takes a datagram. Media is decrypted in place. `to` is our address that it came to.
    pub fn handle_datagram(&mut self, now: Instant, proto: Proto, from: SocketAddr, to: SocketAddr, buf: &mut [u8]) {
        self.now = now;
        let _ = (proto, from, to, buf);
    }

    /// Takes a message of another shard of the process.
    pub fn handle_shard_message(&mut self, now: Instant, from: ShardIndex, message: ShardMessage) {
        self.now = now;
        let _ = (from, message);
    }

    /// Does what is due. Harmless when nothing is.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
    }

    /// When `handle_timeout` wants to be called next.
    pub fn next_timeout(&self) -> Instant {
        self.now + std::time::Duration::from_secs(1)
    }

    /// Fans out all that came in since the last call, subscriber by subscriber, so that one subscriber's packets are
    /// contiguous and leave as few runs.
    pub fn flush(&mut self, now: Instant, out: &mut impl Outbox) {
        self.now = now;
        let _ = out;
    }

    /// True if `flush` would send something. Lets the shell wait a little for more packets of a burst.
    pub fn wants_flush(&self) -> bool {
        false
    }

    /// The next message for another shard; never for this one.
    pub fn poll_shard_message(&mut self) -> Option<(ShardIndex, ShardMessage)> {
        None
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// The next frame of a sink.
    pub fn poll_frame(&mut self) -> Option<SinkFrame> {
        None
    }

    /// Figures since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Number of transports; decides where new ones go.
    pub fn transport_count(&self) -> usize {
        0
    }
}
