//! How much one participant may say.

use std::time::Instant;

/// Bytes of messages per second and participant. What is reliable waits in the sender (SCTP's receive window closes), what
/// may be lost is dropped.
const BYTES_PER_S: f64 = 512.0 * 1024.0;
/// Messages per second and participant: a pointer at 60 Hz and some more.
const MESSAGES_PER_S: f64 = 200.0;
/// What may come at once, as seconds of the rates.
const BURST_S: f64 = 1.0;

/// Two buckets, of bytes and of messages.
#[derive(Debug)]
pub(super) struct Rate {
    bytes: f64,
    messages: f64,
    filled_at: Instant,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self { bytes: BYTES_PER_S * BURST_S, messages: MESSAGES_PER_S * BURST_S, filled_at: now }
    }

    /// True if one more message may be taken now.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = self.filled_at.max(now);
        self.bytes = (self.bytes + elapsed * BYTES_PER_S).min(BYTES_PER_S * BURST_S);
        self.messages = (self.messages + elapsed * MESSAGES_PER_S).min(MESSAGES_PER_S * BURST_S);
        self.bytes > 0.0 && self.messages >= 1.0
    }

    /// A message of so many bytes was taken; the bucket of bytes may be overdrawn by one.
    pub(super) fn take(&mut self, bytes: usize) {
        self.bytes -= bytes as f64;
        self.messages -= 1.0;
    }
}
