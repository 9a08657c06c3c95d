//! ICE-TCP (RFC 6544, passive): for clients whose network lets no UDP through.
//!
//! Each connection has a bounded queue out; a client that does not read loses datagrams, never memory of ours.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::counters::NetCounters;
use crate::framing::{FrameReader, write_frame};
use crate::poll_linux::{Epoll, Interest, Ready};
use crate::udp_linux::mark;

/// Connections of one worker.
const MAX_CONNECTIONS: usize = 4_096;
/// Connections of one client address and worker: an office behind one address, not a flood.
const MAX_PER_ADDRESS: usize = 128;
/// Bytes that wait for a client: a second at 2 Mbit/s. What comes later is dropped; media that old is of no use.
const MAX_QUEUED: usize = 256 * 1024;
/// Bytes that the kernel takes beyond what it has sent: half of the queue, so that the wire never idles.
const MAX_UNSENT: u32 = 128 * 1024;
/// A connection without an authentic check for so long is nobody's: clients check every few seconds, and who holds one
/// open with something that looks like a check gains nothing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often idle connections are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Accepted in one turn, so that a flood of connections does not hold up media.
const MAX_ACCEPTS: usize = 32;
/// Read at once; a few reads give other sockets their turn.
const READ_BUFFER: usize = 64 * 1024;

/// Connections that the kernel keeps until we accept them.
const BACKLOG: i32 = 1_024;

const LISTENER: usize = usize::MAX;

struct Connection {
    stream: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    reader: FrameReader,
    queue: Vec<u8>,
    /// Bytes of `queue` that are written already.
    written: usize,
    is_dirty: bool,
    is_write_armed: bool,
    /// The last authentic one; the time of the connection before the first.
    last_check_at: Instant,
    has_stun: bool,
}

/// The listener and its connections.
pub(crate) struct TcpServer {
    listener: TcpListener,
    epoll: Epoll,
    connections: Slab<Connection>,
    by_remote: HashMap<SocketAddr, usize>,
    per_address: HashMap<IpAddr, usize>,
    dirty: Vec<usize>,
    next_sweep: Instant,
    buffer: Vec<u8>,
}

/// Opens the listening socket.
pub(crate) fn bind(addr: SocketAddr, dscp: u8) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    mark(&socket, addr, dscp)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

impl TcpServer {
    pub(crate) fn new(listener: TcpListener, now: Instant) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(listener.as_raw_fd(), LISTENER, Interest::Read)?;
        Ok(Self {
            listener,
            epoll,
            connections: Slab::new(),
            by_remote: HashMap::new(),
            per_address: HashMap::new(),
            dirty: Vec::new(),
            next_sweep: now + SWEEP_INTERVAL,
            buffer: vec![0; READ_BUFFER],
        })
    }

    /// When `sweep` wants to be called, if there is anything to look after.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        (!self.connections.is_empty()).then_some(self.next_sweep)
    }

    /// Serves what is ready; gives out received datagrams: (from, to, bytes). The answer is true for an authentic check.
    pub(crate) fn serve(
        &mut self,
        now: Instant,
        counters: &mut NetCounters,
        mut on_datagram: impl FnMut(SocketAddr, SocketAddr, &mut [u8]) -> bool,
    ) {
        for Ready { token, is_readable, is_writable } in self.epoll.ready() {
            if token == LISTENER {
                self.accept(now, counters);
                continue;
            }
            let is_alive =
                (!is_writable || self.write(token)) && (!is_readable || self.read(token, now, &mut on_datagram));
            if !is_alive {
                self.close(token);
            }
        }
    }

    /// Queues a datagram for a client. False if it is dropped.
    pub(crate) fn send(&mut self, remote: SocketAddr, datagram: &[u8]) -> bool {
        let Some(&token) = self.by_remote.get(&remote) else { return false };
        let connection = &mut self.connections[token];
        if connection.queue.len() - connection.written + datagram.len() > MAX_QUEUED {
            return false;
        }
        if !write_frame(datagram, &mut connection.queue) {
            return false;
        }
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(token);
        }
        true
    }

    /// Writes what was queued since the last call, as far as the kernel takes it.
    pub(crate) fn flush(&mut self) {
        for token in std::mem::take(&mut self.dirty) {
            if self.connections.contains(token) && !self.write(token) {
                self.close(token);
            }
        }
    }

    /// Closes connections on which no authentic check came for long.
    pub(crate) fn sweep(&mut self, now: Instant, counters: &mut NetCounters) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + SWEEP_INTERVAL;
        let is_idle = |c: &Connection| now.saturating_duration_since(c.last_check_at) >= IDLE_TIMEOUT;
        let idle: Vec<usize> = self.connections.iter().filter(|(_, c)| is_idle(c)).map(|(token, _)| token).collect();
        counters.tcp_idle_closed += idle.len() as u64;
        for token in idle {
            self.close(token);
        }
    }

    fn accept(&mut self, now: Instant, counters: &mut NetCounters) {
        for _ in 0..MAX_ACCEPTS {
            let Ok((stream, remote)) = self.listener.accept() else { return };
            let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
            let of_address = self.per_address.get(&remote.ip()).copied().unwrap_or(0);
            if self.connections.len() >= MAX_CONNECTIONS || of_address >= MAX_PER_ADDRESS {
                counters.tcp_refused += 1;
                continue;
            }
            match self.register(stream, remote, now) {
                Ok(()) => counters.tcp_accepted += 1,
                Err(error) => tracing::debug!(%error, "connection not taken"),
            }
        }
    }

    fn register(&mut self, stream: TcpStream, remote: SocketAddr, now: Instant) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        // What waits shall wait in our queue, which drops; the kernel's would grow to megabytes of old media.
        SockRef::from(&stream).set_tcp_notsent_lowat(MAX_UNSENT)?;
        let local = stream.local_addr()?;
        let entry = self.connections.vacant_entry();
        let token = entry.key();
        self.epoll.add(stream.as_raw_fd(), token, Interest::Read)?;
        entry.insert(Connection {
            stream,
            local: SocketAddr::new(local.ip().to_canonical(), local.port()),
            remote,
            reader: FrameReader::default(),
            queue: Vec::new(),
            written: 0,
            is_dirty: false,
            is_write_armed: false,
            last_check_at: now,
            has_stun: false,
        });
        *self.per_address.entry(remote.ip()).or_default() += 1;
        // A connection of the same address and port that we have not seen end yet is dead.
        if let Some(old) = self.by_remote.insert(remote, token) {
            self.close(old);
            self.by_remote.insert(remote, token);
        }
        Ok(())
    }

    /// False if the connection ended.
    fn read(
        &mut self,
        token: usize,
        now: Instant,
        on_datagram: &mut impl FnMut(SocketAddr, SocketAddr, &mut [u8]) -> bool,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(token) else { return true };
        let Connection { stream, local, remote, reader, last_check_at, has_stun, .. } = connection;
        match stream.read(&mut self.buffer) {
            Ok(0) => false,
            Ok(len) => {
                // A client begins with a check (RFC 6544 section 7.1); whoever does not is none.
                let mut is_client = true;
                let is_framed = reader.take(&self.buffer[..len], |datagram| {
                    // RFC 7983 section 7.
                    *has_stun |= datagram[0] <= 3;
                    is_client &= *has_stun;
                    if is_client && on_datagram(*remote, *local, datagram) {
                        *last_check_at = now;
                    }
                });
                is_framed && is_client
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        }
    }

    /// False if the connection ended.
    fn write(&mut self, token: usize) -> bool {
        let Some(connection) = self.connections.get_mut(token) else { return true };
        connection.is_dirty = false;
        while connection.written < connection.queue.len() {
            match connection.stream.write(&connection.queue[connection.written..]) {
                Ok(0) => return false,
                Ok(len) => connection.written += len,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        connection.queue.drain(..connection.written);
        connection.written = 0;
        let wants_write = !connection.queue.is_empty();
        if wants_write != connection.is_write_armed {
            connection.is_write_armed = wants_write;
            let interest = if wants_write { Interest::ReadWrite } else { Interest::Read };
            return self.epoll.modify(connection.stream.as_raw_fd(), token, interest).is_ok();
        }
        true
    }

    /// Closing the descriptor takes it out of the epoll.
    fn close(&mut self, token: usize) {
        let Some(connection) = self.connections.try_remove(token) else { return };
        if self.by_remote.get(&connection.remote) == Some(&token) {
            self.by_remote.remove(&connection.remote);
        }
        if let Some(count) = self.per_address.get_mut(&connection.remote.ip()) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&connection.remote.ip());
            }
        }
    }
}

impl AsRawFd for TcpServer {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::poll_linux::wait_readable;

    const STUN: [u8; 4] = [0, 1, 2, 3];

    struct Rig {
        server: TcpServer,
        addr: SocketAddr,
        counters: NetCounters,
        got: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
        now: Instant,
    }

    impl Rig {
        fn new() -> Self {
            let listener = bind("127.0.0.1:0".parse().unwrap(), 0).unwrap();
            let addr = listener.local_addr().unwrap();
            let now = Instant::now();
            let server = TcpServer::new(listener, now).unwrap();
            Self { server, addr, counters: NetCounters::default(), got: Vec::new(), now }
        }

        fn serve_until(&mut self, is_done: impl Fn(&Self) -> bool) {
            for _ in 0..200 {
                if is_done(self) {
                    return;
                }
                wait_readable([self.server.as_raw_fd()], Duration::from_millis(100)).unwrap();
                let Self { server, counters, got, now, .. } = self;
                server.serve(*now, counters, |from, to, bytes| {
                    got.push((from, to, bytes.to_vec()));
                    bytes == STUN
                });
            }
            panic!("not reached");
        }

        fn connect(&mut self) -> TcpStream {
            let mut client = TcpStream::connect(self.addr).unwrap();
            let before = self.got.len();
            client.write_all(&[&[0, 4], &STUN[..]].concat()).unwrap();
            self.serve_until(|rig| rig.got.len() > before);
            client
        }
    }

    #[test]
    fn datagrams_go_both_ways() {
        let mut rig = Rig::new();
        let mut client = rig.connect();
        let local = client.local_addr().unwrap();
        assert_eq!(rig.got, [(local, rig.addr, STUN.to_vec())]);
        assert!(rig.server.send(local, b"hello") && rig.server.send(local, b"!"));
        rig.server.flush();
        let mut got = [0; 10];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"\0\x05hello\0\x01!");
    }

    #[test]
    fn a_client_that_does_not_read_loses_datagrams_only() {
        let mut rig = Rig::new();
        let client = rig.connect();
        let local = client.local_addr().unwrap();
        let mut dropped = 0;
        for _ in 0..20_000 {
            dropped += usize::from(!rig.server.send(local, &[9; 1_000]));
            rig.server.flush();
        }
        assert!(dropped > 0);
        let token = rig.server.by_remote[&local];
        assert!(rig.server.connections[token].queue.len() <= MAX_QUEUED + 1_002);
        let other = rig.connect();
        assert!(rig.server.send(other.local_addr().unwrap(), b"x"));
    }

    #[test]
    fn what_the_kernel_did_not_take_follows_when_the_client_reads() {
        let mut rig = Rig::new();
        let mut client = rig.connect();
        let local = client.local_addr().unwrap();
        let mut sent = 0;
        while rig.server.send(local, &[9; 1_000]) {
            rig.server.flush();
            sent += 1_002;
        }
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; sent];
            client.read_exact(&mut got).map(|()| client)
        });
        rig.serve_until(|rig| rig.server.connections.iter().all(|(_, c)| c.queue.is_empty()));
        assert!(reader.join().unwrap().is_ok());
    }

    #[test]
    fn a_silent_connection_is_closed_and_a_checking_one_kept() {
        let mut rig = Rig::new();
        let silent = rig.connect();
        rig.now += IDLE_TIMEOUT - Duration::from_secs(1);
        let checking = rig.connect();
        rig.now += Duration::from_secs(1);
        let Rig { server, counters, now, .. } = &mut rig;
        server.sweep(*now, counters);
        assert_eq!(rig.counters.tcp_idle_closed, 1);
        assert!(!rig.server.send(silent.local_addr().unwrap(), b"x"));
        assert!(rig.server.send(checking.local_addr().unwrap(), b"x"));
    }

    #[test]
    fn what_only_looks_like_checks_holds_no_connection_open() {
        let mut rig = Rig::new();
        let mut loris = TcpStream::connect(rig.addr).unwrap();
        for n in 1..10 {
            loris.write_all(&[0, 3, 0, 1, n]).unwrap();
            rig.serve_until(|rig| rig.got.len() == usize::from(n));
            rig.now += Duration::from_secs(1);
        }
        rig.now += Duration::from_secs(1);
        let Rig { server, counters, now, .. } = &mut rig;
        server.sweep(*now, counters);
        assert_eq!(rig.counters.tcp_idle_closed, 1);
        assert_eq!(loris.read(&mut [0]).unwrap(), 0);
    }

    #[test]
    fn an_ended_connection_is_forgotten() {
        let mut rig = Rig::new();
        drop(rig.connect());
        rig.serve_until(|rig| rig.server.connections.is_empty());
        assert!(rig.server.by_remote.is_empty() && rig.server.per_address.is_empty());
    }

    #[test]
    fn a_connection_that_does_not_begin_with_a_check_is_closed() {
        let mut rig = Rig::new();
        let mut web = TcpStream::connect(rig.addr).unwrap();
        web.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let mut media = TcpStream::connect(rig.addr).unwrap();
        media.write_all(&[0, 2, 128, 0]).unwrap();
        rig.serve_until(|rig| rig.counters.tcp_accepted == 2 && rig.server.connections.is_empty());
        assert!(rig.got.is_empty());
    }

    #[test]
    fn one_address_gets_a_bounded_number_of_connections() {
        let mut rig = Rig::new();
        let clients: Vec<TcpStream> = (0..MAX_PER_ADDRESS + 3).map(|_| TcpStream::connect(rig.addr).unwrap()).collect();
        rig.serve_until(|rig| rig.counters.tcp_accepted + rig.counters.tcp_refused == clients.len() as u64);
        assert_eq!((rig.counters.tcp_accepted, rig.counters.tcp_refused), (MAX_PER_ADDRESS as u64, 3));
    }
}
