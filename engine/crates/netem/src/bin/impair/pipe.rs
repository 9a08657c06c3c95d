//! One direction of a leg in real time: a link, and a thread that hands its packets out when they are due.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use mrtc_netem::{Link, LinkConfig, LinkStats, WireLen};

/// Packets on their way at most: a second of 100 Mbit/s. What comes beyond it is lost as in a full router.
const MAX_FLYING: usize = 12_000;

/// A datagram and where it goes.
#[derive(Clone)]
pub struct Parcel<A> {
    pub to: A,
    pub bytes: Vec<u8>,
}

impl<A> WireLen for Parcel<A> {
    fn wire_len(&self) -> usize {
        // IPv4 and UDP headers share the link.
        self.bytes.len() + 28
    }
}

/// A link that several threads feed.
pub struct Pipe<A> {
    link: Mutex<Link<Parcel<A>>>,
    changed: Condvar,
}

impl<A: Clone + Send + 'static> Pipe<A> {
    /// Starts the thread that calls `deliver` for every packet that arrives.
    pub fn start(seed: u64, deliver: impl Fn(Parcel<A>) + Send + 'static) -> Arc<Self> {
        let link = Mutex::new(Link::new(seed, LinkConfig::default()));
        let pipe = Arc::new(Self { link, changed: Condvar::new() });
        let running = Arc::clone(&pipe);
        std::thread::spawn(move || {
            loop {
                deliver(running.next());
            }
        });
        pipe
    }

    /// Puts a packet on the link.
    pub fn send(&self, parcel: Parcel<A>) {
        let mut link = self.lock();
        if link.flying() < MAX_FLYING {
            link.send(Instant::now(), parcel);
            self.changed.notify_one();
        }
    }

    /// Changes the link from now on.
    pub fn set(&self, config: LinkConfig) {
        self.lock().set_config(config);
    }

    /// What became of packets so far.
    pub fn stats(&self) -> LinkStats {
        self.lock().stats()
    }

    fn lock(&self) -> MutexGuard<'_, Link<Parcel<A>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the next packet that arrives.
    fn next(&self) -> Parcel<A> {
        let mut link = self.lock();
        loop {
            let now = Instant::now();
            if let Some(parcel) = link.poll(now) {
                return parcel;
            }
            link = match link.next_at() {
                Some(at) => self.changed.wait_timeout(link, at - now).unwrap_or_else(PoisonError::into_inner).0,
                None => self.changed.wait(link).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
