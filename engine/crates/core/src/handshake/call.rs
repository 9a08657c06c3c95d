//! Calls a client that another node had: checks of our own, so that it learns this node's address without a word from
//! signaling. A full agent takes the sender of an authentic check for a peer-reflexive candidate (RFC 8445 section 7.3.1.3)
//! and checks it in turn; that check is where the path begins. A NAT that lets in only those whom the client wrote to stops
//! the call; then the client has to restart ICE.

use std::time::{Duration, Instant};

use crate::addr::Dest;

/// Between the first checks; each is twice the one before.
const FIRST_INTERVAL: Duration = Duration::from_millis(50);
/// Checks in all: 6 seconds, in which the client has either answered or does not hear us.
const MAX_CHECKS: u32 = 8;

/// A call under way.
pub(super) struct Call {
    dest: Dest,
    remote_pwd: String,
    /// Part of the priority.
    local_preference: u16,
    at: Instant,
    sent: u32,
}

impl Call {
    pub(super) fn new(dest: Dest, remote_pwd: String, local_preference: u16, now: Instant) -> Self {
        Self { dest, remote_pwd, local_preference, at: now, sent: 0 }
    }

    /// What the check is made with: the client's password, and the local preference of its priority.
    pub(super) fn credentials(&self) -> (&str, u16) {
        (&self.remote_pwd, self.local_preference)
    }

    /// Where a check is to go now, if one is due.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Dest> {
        if self.next_at()? > now {
            return None;
        }
        self.at = now + FIRST_INTERVAL * (1 << self.sent);
        self.sent += 1;
        Some(self.dest)
    }

    pub(super) fn next_at(&self) -> Option<Instant> {
        (self.sent < MAX_CHECKS).then_some(self.at)
    }
}
