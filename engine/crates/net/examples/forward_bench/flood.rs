//! A flood from nobody: datagrams of every protocol's first bytes, from addresses of no client, at the port of media.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::Result;

/// Addresses that it comes from.
const SOURCES: usize = 64;
/// Made once and sent again and again: making them must not cost the sender's core.
const KINDS: usize = 512;
const STEP: Duration = Duration::from_millis(1);
/// What the flood may fall behind when its core was busy; it catches up on no more, to stay a flood and not a burst.
const MAX_BACKLOG: Duration = Duration::from_millis(5);
const LARGEST: u64 = 1_200;

/// Runs until it is dropped.
pub struct Flood {
    has_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Flood {
    /// Sends so many datagrams a second.
    pub fn start(target: SocketAddr, per_second: u64) -> Result<Self> {
        let has_ended = Arc::new(AtomicBool::new(false));
        let sockets = (0..SOURCES).map(|_| UdpSocket::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
        let is_over = has_ended.clone();
        let thread = std::thread::spawn(move || send(&sockets, target, per_second, &is_over));
        Ok(Self { has_ended, thread: Some(thread) })
    }

    /// Ends it; how many datagrams were sent.
    pub fn end(mut self) -> u64 {
        self.has_ended.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or(0)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }
}

fn send(sockets: &[UdpSocket], target: SocketAddr, per_second: u64, is_over: &AtomicBool) -> u64 {
    let kinds = garbage();
    let (mut began, mut due, mut sent) = (Instant::now(), 0, 0_usize);
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(STEP);
        let behind = Duration::from_secs_f64(due as f64 / per_second as f64);
        if began.elapsed() > behind + MAX_BACKLOG {
            began += began.elapsed() - behind - MAX_BACKLOG;
        }
        let until = (began.elapsed().as_secs_f64() * per_second as f64) as u64;
        for _ in due..until {
            let bytes = &kinds[sent % KINDS];
            sent += usize::from(sockets[sent % SOURCES].send_to(bytes, target).is_ok());
        }
        due = until;
    }
    sent as u64
}

/// STUN of a ufrag that nobody has, DTLS hellos, RTP, RTCP, relay, and what is none of them.
fn garbage() -> Vec<Vec<u8>> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut one = |kind: usize| {
        let len = 24 + (random() % LARGEST) as usize;
        let mut bytes: Vec<u8> = (0..len).map(|_| random() as u8).collect();
        match kind % 6 {
            0 => stun(&mut bytes),
            1 => bytes[..14].copy_from_slice(&[22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 100, 1]),
            2 => bytes[..2].copy_from_slice(&[0x80, 96]),
            3 => bytes[..2].copy_from_slice(&[0x80, 200]),
            4 => bytes[0] = 0xc1,
            _ => {}
        }
        bytes
    };
    (0..KINDS).map(&mut one).collect()
}

/// A binding request with a USERNAME of the form that ours have (RFC 8489 section 5).
fn stun(bytes: &mut Vec<u8>) {
    let user = b"abcdefgh:ijkl";
    bytes.truncate(20);
    bytes[..8].copy_from_slice(&[0, 1, 0, 20, 0x21, 0x12, 0xa4, 0x42]);
    bytes.extend([0, 6, 0, user.len() as u8]);
    bytes.extend(user);
    bytes.extend([0; 3]);
}
