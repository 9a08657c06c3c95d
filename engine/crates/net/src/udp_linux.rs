//! A UDP socket that receives and sends in batches: `recvmmsg` with UDP_GRO in, `sendmmsg` with UDP_SEGMENT out.
//!
//! Bound to any address it learns at which of ours a datagram came (IP_PKTINFO) and answers from there. An IPv6 socket
//! takes IPv4 too; IPv4-mapped addresses are shown as IPv4.

use std::collections::HashSet;
use std::io;
use std::mem;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mrtc_core::addr::Dest;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

use crate::counters::NetCounters;
use crate::poll_linux::wait_writable;

/// Messages of one `recvmmsg`. With GRO each may hold a whole burst, so this is up to 2 MiB at a time.
pub(crate) const RX_BATCH: usize = 32;
/// Messages of one `sendmmsg`. More gains nothing measurable (5 % from 32 to 128).
pub(crate) const TX_BATCH: usize = 64;
/// What the kernel gives at most as one message, with GRO.
const RX_BUFFER: usize = 65_536;
/// Kernel buffers of a socket: a second of 64 Mbit/s in, several bursts of a large room out.
const SOCKET_BUFFER: usize = 8 * 1024 * 1024;
/// How long a full socket buffer may hold the worker before datagrams are dropped.
const TX_PATIENCE: Duration = Duration::from_millis(1);
/// Paths remembered as unable to segment. Beyond it the set is forgotten; a path then costs one refused call again.
const MAX_REFUSED_PATHS: usize = 4_096;
/// Own addresses remembered; a host has a handful.
const MAX_LOCALS: usize = 64;

/// Room for control messages: IPv6 packet info (20 bytes), a time stamp and a segment size, with their headers.
const CONTROL_LEN: usize = 128;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_LEN]);

/// A run of datagrams in the slab: `len` bytes from `start`, cut every `segment` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub dest: Dest,
    pub start: usize,
    pub len: usize,
    pub segment: usize,
    /// When its oldest packet of media came.
    pub arrived_at: Option<Instant>,
}

/// The socket and its reusable arrays. Not `Send`: it is made in the thread that uses it.
pub(crate) struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    is_any: bool,
    has_gso: bool,
    /// Until a path turns out to be too narrow for what a publisher sends.
    is_whole: bool,
    refused_paths: HashSet<SocketAddr>,
    /// Addresses of ours at which datagrams came; only from these may an answer leave.
    locals: Vec<IpAddr>,
    rx_buffer: Vec<u8>,
    rx_control: Vec<Control>,
    tx_control: Vec<Control>,
    singles: Vec<Run>,
}

/// Who takes what a socket receives.
pub(crate) trait Intake {
    /// These come next, each with its sender and its first datagram.
    fn expect<'a>(&mut self, _batch: impl Iterator<Item = (SocketAddr, &'a [u8])>) {}

    /// A datagram: (age, from, to, bytes), where the age is the time since the kernel got it.
    fn take(&mut self, age: Duration, from: SocketAddr, to: SocketAddr, bytes: &mut [u8]);
}

impl<F: FnMut(Duration, SocketAddr, SocketAddr, &mut [u8])> Intake for F {
    fn take(&mut self, age: Duration, from: SocketAddr, to: SocketAddr, bytes: &mut [u8]) {
        self(age, from, to, bytes);
    }
}

/// Opens and binds; may run in another thread than the one that uses the socket.
pub(crate) fn bind(addr: SocketAddr, dscp: u8) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    mark(&socket, addr, dscp)?;
    if addr.is_ipv6() {
        socket.set_only_v6(!addr.ip().is_unspecified())?;
    }
    for (forced, plain) in [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)] {
        // The forced form passes net.core.?mem_max but needs CAP_NET_ADMIN.
        let size = SOCKET_BUFFER as i32;
        set_option(&socket, libc::SOL_SOCKET, forced, size)
            .or_else(|_| set_option(&socket, libc::SOL_SOCKET, plain, size))?;
    }
    set_whole(&socket, addr.is_ipv6(), true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

/// Whether datagrams go whole or not at all, as QUIC's do (RFC 9000 section 14). What may be cut needs an identification,
/// which the kernel makes with a hash and an atomic counter per packet.
fn set_whole(socket: &Socket, is_v6: bool, is_whole: bool) -> io::Result<()> {
    if is_v6 {
        let v6 = if is_whole { libc::IPV6_PMTUDISC_DO } else { libc::IPV6_PMTUDISC_WANT };
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, v6)?;
    }
    // Of an IPv6 socket too: it sends to IPv4-mapped addresses.
    let v4 = if is_whole { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_WANT };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, v4)
}

/// Has the kernel write a DSCP into every packet of a socket; connections inherit it from their listener.
pub(crate) fn mark(socket: &Socket, addr: SocketAddr, dscp: u8) -> io::Result<()> {
    // The upper six bits; the lower two are ECN's.
    let class = u32::from(dscp) << 2;
    if addr.is_ipv6() {
        socket.set_tclass_v6(class)?;
    }
    // Of an IPv6 socket too: it sends to IPv4-mapped addresses.
    socket.set_tos_v4(class)
}

impl UdpSocket {
    pub(crate) fn new(socket: Socket) -> io::Result<Self> {
        let local = local_addr(&socket)?;
        let is_any = local.ip().is_unspecified();
        if is_any && local.is_ipv6() {
            set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        } else if is_any {
            set_option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        // Linux 4.18 and 5.0; where they are missing every datagram is a message of its own.
        let has_gso = set_option(&socket, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        // When a datagram came, by the kernel: while a batch collects, the thread sleeps, and bandwidth estimators on the
        // other side live on arrival times (Chromium's initial probes fail when they are rounded to 2 ms).
        set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
        let has_gro = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        tracing::info!(%local, has_gso, has_gro, "udp socket open");
        Ok(Self {
            socket,
            local,
            is_any,
            has_gso,
            is_whole: true,
            refused_paths: HashSet::new(),
            locals: if is_any { Vec::new() } else { vec![local.ip()] },
            rx_buffer: vec![0; RX_BATCH * RX_BUFFER],
            rx_control: vec![Control([0; CONTROL_LEN]); RX_BATCH],
            tx_control: vec![Control([0; CONTROL_LEN]); TX_BATCH],
            singles: Vec::new(),
        })
    }

    /// Receives one batch and hands over each datagram. Returns the number of messages; `RX_BATCH` means that more may
    /// wait.
    pub(crate) fn receive(&mut self, intake: &mut impl Intake) -> io::Result<usize> {
        let mut names: [SockAddrStorage; RX_BATCH] = std::array::from_fn(|_| SockAddrStorage::zeroed());
        // SAFETY: all-zero mmsghdr and iovec are valid: null pointers with zero lengths.
        let mut iovecs: [libc::iovec; RX_BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; RX_BATCH] = unsafe { mem::zeroed() };
        for (at, buffer) in self.rx_buffer.chunks_exact_mut(RX_BUFFER).enumerate() {
            iovecs[at] = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: RX_BUFFER };
            let header = &mut headers[at].msg_hdr;
            header.msg_name = (&raw mut names[at]).cast();
            header.msg_namelen = names[at].size_of();
            header.msg_iov = &mut iovecs[at];
            header.msg_iovlen = 1;
            header.msg_control = self.rx_control[at].0.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_LEN as _;
        }
        // SAFETY: every header points to a name, an iovec, a buffer and a control area of its own, all alive and large as
        // told until the call returns. A null timeout is allowed.
        let count = unsafe {
            libc::recvmmsg(
                self.socket.as_raw_fd(),
                headers.as_mut_ptr(),
                RX_BATCH as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if is_would_block(&error) { Ok(0) } else { Err(error) };
        };
        let now = SystemTime::now();
        let mut senders = [None; RX_BATCH];
        for ((header, name), sender) in headers.iter().zip(names).take(count).zip(&mut senders) {
            // SAFETY: the kernel has written an address of this length.
            let name = unsafe { SockAddr::new(name, header.msg_hdr.msg_namelen) };
            *sender = name.as_socket().map(canonical);
        }
        let lens = headers.iter().map(|header| (header.msg_len as usize).min(RX_BUFFER));
        let first = self.rx_buffer.chunks_exact(RX_BUFFER).zip(lens).map(|(buffer, len)| &buffer[..len]);
        intake.expect(senders.iter().zip(first).take(count).filter_map(|(from, bytes)| Some(((*from)?, bytes))));
        for (at, (header, from)) in headers.iter().zip(senders).take(count).enumerate() {
            let Some(from) = from else { continue };
            let info = read_control(&header.msg_hdr);
            let to = SocketAddr::new(info.local.unwrap_or(self.local.ip()).to_canonical(), self.local.port());
            note_local(&mut self.locals, to.ip());
            // A clock that is set meanwhile gives a wrong age or none; the caller bounds it.
            let age = info.arrived_at.and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
            let len = (header.msg_len as usize).min(RX_BUFFER);
            let bytes = &mut self.rx_buffer[at * RX_BUFFER..][..len];
            for datagram in bytes.chunks_mut(info.segment.unwrap_or(len).max(1)) {
                intake.take(age, from, to, datagram);
            }
        }
        Ok(count)
    }

    /// Datagrams that the kernel dropped at this socket since it was made; zero where it does not tell.
    pub(crate) fn kernel_drops(&self) -> u64 {
        // linux/sock_diag.h: SK_MEMINFO_DROPS is the last of nine words.
        const DROPS: usize = 8;
        let mut info = [0_u32; DROPS + 1];
        let mut len = mem::size_of_val(&info) as libc::socklen_t;
        // SAFETY: the pointers are to `info` and to its length, which the kernel does not exceed.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_MEMINFO,
                info.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        if result == 0 { u64::from(info[DROPS]) } else { 0 }
    }

    /// Sends all runs, in order.
    pub(crate) fn send(&mut self, runs: &[Run], slab: &[u8], counters: &mut NetCounters) {
        let is_plain =
            |run: &Run| run.len <= run.segment || (self.has_gso && !self.refused_paths.contains(&run.dest.remote));
        if runs.iter().all(is_plain) {
            self.send_all(runs, slab, counters);
            return;
        }
        let mut singles = mem::take(&mut self.singles);
        for run in runs {
            if is_plain(run) { singles.push(*run) } else { singles.extend(split(run)) }
        }
        self.send_all(&singles, slab, counters);
        singles.clear();
        self.singles = singles;
    }

    fn send_all(&mut self, mut runs: &[Run], slab: &[u8], counters: &mut NetCounters) {
        while !runs.is_empty() {
            let batch = &runs[..runs.len().min(TX_BATCH)];
            counters.udp_tx_batches += 1;
            match self.send_batch(batch, slab) {
                Ok(sent) => {
                    counters.udp_tx_messages += sent as u64;
                    note_delays(&batch[..sent.min(batch.len())], counters);
                    runs = &runs[sent.max(1)..];
                }
                Err(error) => {
                    runs = self.after_error(&error, runs, slab, counters);
                }
            }
        }
    }

    /// The first of `runs` was refused. Returns what is still to be sent.
    fn after_error<'a>(
        &mut self,
        error: &io::Error,
        runs: &'a [Run],
        slab: &[u8],
        counters: &mut NetCounters,
    ) -> &'a [Run] {
        let (first, rest) = (runs[0], &runs[1..]);
        let datagrams = |runs: &[Run]| runs.iter().map(|r| r.len.div_ceil(r.segment.max(1)) as u64).sum::<u64>();
        if error.kind() == io::ErrorKind::Interrupted {
            return runs;
        }
        if is_would_block(error) {
            if matches!(wait_writable(self.socket.as_raw_fd(), TX_PATIENCE), Ok(true)) {
                return runs;
            }
            counters.drop_udp_tx_full += datagrams(runs);
            return &[];
        }
        let is_segmented = first.len > first.segment;
        let code = error.raw_os_error();
        if is_segmented && matches!(code, Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP)) {
            // EIO: the interface cannot checksum; EINVAL, EMSGSIZE: a segment exceeds the path's MTU.
            if self.refused_paths.len() >= MAX_REFUSED_PATHS {
                self.refused_paths.clear();
            }
            self.refused_paths.insert(first.dest.remote);
            counters.udp_gso_refused += 1;
            let singles: Vec<Run> = split(&first).collect();
            self.send_all(&singles, slab, counters);
            return rest;
        }
        if code == Some(libc::EMSGSIZE) && std::mem::take(&mut self.is_whole) {
            // Some publishers (GStreamer) send more than every path takes; the kernel cuts from now on.
            tracing::info!(remote = %first.dest.remote, bytes = first.len, "a path is narrower than a datagram");
            if set_whole(&self.socket, self.local.is_ipv6(), false).is_ok() {
                return runs;
            }
        }
        tracing::debug!(%error, remote = %first.dest.remote, "datagram refused");
        if code == Some(libc::EINVAL) {
            // The address it should leave from may be gone from the host.
            self.locals.retain(|ip| !self.is_any || *ip != first.dest.local.ip());
        }
        counters.drop_udp_tx_error += datagrams(&runs[..1]);
        rest
    }

    fn send_batch(&mut self, runs: &[Run], slab: &[u8]) -> io::Result<usize> {
        let is_v6 = self.local.is_ipv6();
        let names: [SockAddr; TX_BATCH] = std::array::from_fn(|at| {
            let remote = runs.get(at).map_or(self.local, |run| run.dest.remote);
            SockAddr::from(if is_v6 { mapped(remote) } else { remote })
        });
        // SAFETY: all-zero mmsghdr and iovec are valid: null pointers with zero lengths.
        let mut iovecs: [libc::iovec; TX_BATCH] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; TX_BATCH] = unsafe { mem::zeroed() };
        for (at, run) in runs.iter().enumerate() {
            let bytes = &slab[run.start..run.start + run.len];
            // The kernel only reads from it.
            iovecs[at] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: run.len };
            let header = &mut headers[at].msg_hdr;
            header.msg_name = names[at].as_ptr().cast_mut().cast();
            header.msg_namelen = names[at].len();
            header.msg_iov = &mut iovecs[at];
            header.msg_iovlen = 1;
            let source = Some(run.dest.local.ip()).filter(|ip| self.is_any && self.locals.contains(ip));
            let segment = Some(run.segment as u16).filter(|_| run.len > run.segment);
            let len = write_control(&mut self.tx_control[at], source, segment, is_v6);
            if len > 0 {
                header.msg_control = self.tx_control[at].0.as_mut_ptr().cast();
                header.msg_controllen = len as _;
            }
        }
        // SAFETY: the first `runs.len()` headers point to a name, an iovec into the slab and a control area, all alive
        // until the call returns; the kernel writes only the headers' `msg_len`.
        let count = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), headers.as_mut_ptr(), runs.len() as u32, libc::MSG_DONTWAIT as _)
        };
        usize::try_from(count).map_err(|_| io::Error::last_os_error())
    }
}

impl AsRawFd for UdpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// The address that a socket is bound to.
pub(crate) fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket.local_addr()?.as_socket().ok_or_else(|| io::Error::other("the socket has no IP address"))
}

fn split(run: &Run) -> impl Iterator<Item = Run> {
    let run = *run;
    let segment = run.segment.max(1);
    let one = move |at| Run { start: run.start + at, len: segment.min(run.len - at), segment, ..run };
    (0..run.len).step_by(segment).map(one)
}

/// The call that sent these runs has returned.
fn note_delays(sent: &[Run], counters: &mut NetCounters) {
    let now = Instant::now();
    for run in sent {
        if let Some(arrived_at) = run.arrived_at {
            let packets = run.len.div_ceil(run.segment.max(1)) as u64;
            counters.tx_delay.add(now.saturating_duration_since(arrived_at), packets);
        }
    }
}

fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn mapped(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => addr,
    }
}

fn note_local(locals: &mut Vec<IpAddr>, ip: IpAddr) {
    if locals.len() < MAX_LOCALS && !locals.contains(&ip) {
        locals.push(ip);
    }
}

fn is_would_block(error: &io::Error) -> bool {
    // ENOBUFS is what some drivers say when their queue is full.
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
}

fn set_option(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = mem::size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value is valid for reads of its size.
    match unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), size) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[derive(Default)]
struct RxInfo {
    local: Option<IpAddr>,
    segment: Option<usize>,
    arrived_at: Option<SystemTime>,
}

fn read_control(header: &libc::msghdr) -> RxInfo {
    let mut info = RxInfo::default();
    // SAFETY: the kernel has written the control area of this header and its length.
    let mut cursor = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !cursor.is_null() {
        // SAFETY: FIRSTHDR and NXTHDR give only headers that lie within the control area.
        let message = unsafe { cursor.read_unaligned() };
        // SAFETY: the data follow the header within the area; each is read at the size of its type, which the kernel
        // writes for that level and type.
        unsafe {
            let data = libc::CMSG_DATA(cursor);
            match (message.cmsg_level, message.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let packet: libc::in_pktinfo = data.cast::<libc::in_pktinfo>().read_unaligned();
                    info.local = Some(IpAddr::from(packet.ipi_addr.s_addr.to_ne_bytes()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let packet: libc::in6_pktinfo = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    info.local = Some(Ipv6Addr::from(packet.ipi6_addr.s6_addr).into());
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                    let time: libc::timespec = data.cast::<libc::timespec>().read_unaligned();
                    info.arrived_at = Some(UNIX_EPOCH + Duration::new(time.tv_sec as u64, time.tv_nsec as u32));
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    info.segment = usize::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                _ => {}
            }
            cursor = libc::CMSG_NXTHDR(header, cursor);
        }
    }
    info
}

/// Writes packet info and segment size; returns the length used.
fn write_control(control: &mut Control, source: Option<IpAddr>, segment: Option<u16>, is_v6: bool) -> usize {
    control.0 = [0; CONTROL_LEN];
    // SAFETY: an all-zero msghdr is valid.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_LEN as _;
    // SAFETY: the control area is aligned and large enough for both messages (see `CONTROL_LEN`).
    let mut cursor = unsafe { libc::CMSG_FIRSTHDR(&header) };
    let mut len = 0;
    let mut put = |level: i32, kind: i32, data: &[u8]| {
        // SAFETY: the cursor points into the zeroed control area; header and data of both messages fit.
        unsafe {
            (*cursor).cmsg_level = level;
            (*cursor).cmsg_type = kind;
            (*cursor).cmsg_len = libc::CMSG_LEN(data.len() as u32) as _;
            std::ptr::copy_nonoverlapping(data.as_ptr(), libc::CMSG_DATA(cursor), data.len());
            len += libc::CMSG_SPACE(data.len() as u32) as usize;
            cursor = libc::CMSG_NXTHDR(&header, cursor);
        }
    };
    match source {
        Some(IpAddr::V4(ip)) if !is_v6 => {
            // struct in_pktinfo: interface index (any), source address, destination (ignored).
            let mut data = [0; 12];
            data[4..8].copy_from_slice(&ip.octets());
            put(libc::IPPROTO_IP, libc::IP_PKTINFO, &data);
        }
        Some(ip) => {
            // struct in6_pktinfo: source address, interface index (any). IPv4 goes mapped.
            let ip = if let IpAddr::V4(v4) = ip { v4.to_ipv6_mapped().octets() } else { octets(ip) };
            let mut data = [0; 20];
            data[..16].copy_from_slice(&ip);
            put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &data);
        }
        None => {}
    }
    if let Some(segment) = segment {
        put(libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
    }
    len
}

fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mrtc_core::addr::Proto;

    fn open(addr: &str) -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::new(bind(addr.parse().unwrap(), 0).unwrap()).unwrap();
        let local = socket.local;
        (socket, local)
    }

    fn receive_all(socket: &mut UdpSocket, count: usize) -> Vec<(SocketAddr, SocketAddr, Vec<u8>)> {
        let mut got = Vec::new();
        while got.len() < count {
            let [is_ready] = crate::poll_linux::wait_readable([socket.as_raw_fd()], Duration::from_secs(5)).unwrap();
            assert!(is_ready, "only {} of {count}", got.len());
            let mut take = |age: Duration, from: SocketAddr, to: SocketAddr, bytes: &mut [u8]| {
                assert!(age < Duration::from_secs(5));
                got.push((from, to, bytes.to_vec()));
            };
            socket.receive(&mut take).unwrap();
        }
        got
    }

    fn run(local: SocketAddr, remote: SocketAddr, start: usize, len: usize, segment: usize) -> Run {
        Run { dest: Dest { proto: Proto::Udp, local, remote }, start, len, segment, arrived_at: None }
    }

    #[test]
    fn runs_arrive_as_datagrams_in_order() {
        let (mut a, a_addr) = open("127.0.0.1:0");
        let (mut b, b_addr) = open("127.0.0.1:0");
        let slab: Vec<u8> = (0..10_000).map(|n| (n / 100) as u8).collect();
        let runs = [run(a_addr, b_addr, 0, 1_050, 100), run(a_addr, b_addr, 2_000, 100, 100)];
        let mut counters = NetCounters::default();
        a.send(&runs, &slab, &mut counters);
        let got = receive_all(&mut b, 12);
        let lens: Vec<usize> = got.iter().map(|(.., bytes)| bytes.len()).collect();
        assert_eq!(lens, [100, 100, 100, 100, 100, 100, 100, 100, 100, 100, 50, 100]);
        assert!(got.iter().enumerate().all(|(at, (from, to, bytes))| {
            let first = if at < 11 { at as u8 } else { 20 };
            (*from, *to, bytes[0]) == (a_addr, b_addr, first)
        }));
        assert_eq!((counters.udp_tx_batches, counters.udp_tx_messages), (1, 2));
    }

    #[test]
    fn datagrams_may_be_cut_once_one_was_too_large() {
        let (mut a, a_addr) = open("127.0.0.1:0");
        let (mut b, b_addr) = open("127.0.0.1:0");
        let mut counters = NetCounters::default();
        let slab = vec![7; 65_536];
        assert!(a.is_whole);
        // More than IP takes, cut or not.
        a.send(&[run(a_addr, b_addr, 0, 65_536, 65_536), run(a_addr, b_addr, 0, 100, 100)], &slab, &mut counters);
        assert!(!a.is_whole);
        assert_eq!(receive_all(&mut b, 1)[0].2.len(), 100);
        assert_eq!((counters.drop_udp_tx_error, counters.udp_tx_messages), (1, 1));
    }

    #[test]
    fn the_delay_counts_every_packet_of_a_run() {
        let (mut a, a_addr) = open("127.0.0.1:0");
        let (_b, b_addr) = open("127.0.0.1:0");
        let mut counters = NetCounters::default();
        let arrived_at = Instant::now().checked_sub(Duration::from_secs(2));
        let media = Run { arrived_at, ..run(a_addr, b_addr, 0, 250, 100) };
        a.send(&[media, run(a_addr, b_addr, 0, 4, 4)], &[7; 250], &mut counters);
        let figures: Vec<_> = counters.tx_delay.figures().filter(|(_, value)| *value > 0).collect();
        assert!(matches!(figures[..], [("tx_delay_us_sum", 6_000_000..), ("tx_delay_us_le_inf", 3)]), "{figures:?}");
    }

    #[test]
    fn the_kernel_tells_when_a_datagram_came() {
        let (mut a, a_addr) = open("127.0.0.1:0");
        let (mut b, b_addr) = open("127.0.0.1:0");
        let mut age_of_one = || {
            let started = Instant::now();
            a.send(&[run(a_addr, b_addr, 0, 4, 4)], b"ping", &mut NetCounters::default());
            let pause = Duration::from_millis(30);
            while started.elapsed() < pause {
                std::thread::sleep(pause.saturating_sub(started.elapsed()));
            }
            let mut ages = Vec::new();
            b.receive(&mut |age, _: SocketAddr, _: SocketAddr, _: &mut [u8]| ages.push(age)).unwrap();
            assert!(ages[0] <= started.elapsed(), "{ages:?}");
            ages[0]
        };
        // The kernel begins to stamp some time after the first socket of the machine asks for it; until then it stamps
        // what is read.
        assert!((0..50).any(|_| age_of_one() > Duration::from_millis(15)));
    }

    #[test]
    fn what_the_kernel_drops_is_known() {
        let (mut a, a_addr) = open("127.0.0.1:0");
        let (b, b_addr) = open("127.0.0.1:0");
        b.socket.set_recv_buffer_size(4_096).unwrap();
        let mut counters = NetCounters::default();
        assert_eq!(b.kernel_drops(), 0);
        for _ in 0..10 {
            a.send(&[run(a_addr, b_addr, 0, 10_000, 1_000)], &[7; 10_000], &mut counters);
        }
        assert!(b.kernel_drops() > 0);
    }

    #[test]
    fn without_offload_each_datagram_is_a_message() {
        let (mut a, a_addr) = open("127.0.0.1:0");
        let (mut b, b_addr) = open("127.0.0.1:0");
        a.refused_paths.insert(b_addr);
        let mut counters = NetCounters::default();
        a.send(&[run(a_addr, b_addr, 0, 250, 100)], &[7; 250], &mut counters);
        let lens: Vec<usize> = receive_all(&mut b, 3).iter().map(|(.., bytes)| bytes.len()).collect();
        assert_eq!((lens, counters.udp_tx_messages), (vec![100, 100, 50], 3));
    }

    #[test]
    fn a_refused_run_goes_out_singly() {
        let (mut a, a_addr) = open("127.0.0.1:0");
        let (mut b, b_addr) = open("127.0.0.1:0");
        let mut counters = NetCounters::default();
        // More segments than the kernel takes in one message (UDP_MAX_SEGMENTS).
        a.send(&[run(a_addr, b_addr, 0, 2_000, 10), run(a_addr, b_addr, 0, 10, 10)], &[7; 2_000], &mut counters);
        assert_eq!(receive_all(&mut b, 201).len(), 201);
        assert_eq!(counters.udp_gso_refused, 1);
        assert!(a.refused_paths.contains(&b_addr));
    }

    #[test]
    fn answers_leave_from_the_address_that_was_asked() {
        let (mut any, any_addr) = open("0.0.0.0:0");
        let (mut client, client_addr) = open("127.0.0.1:0");
        let asked: SocketAddr = format!("127.0.0.77:{}", any_addr.port()).parse().unwrap();
        let mut counters = NetCounters::default();
        client.send(&[run(client_addr, asked, 0, 4, 4)], b"ping", &mut counters);
        let (from, to, _) = receive_all(&mut any, 1).remove(0);
        assert_eq!((from, to), (client_addr, asked));
        any.send(&[run(to, from, 0, 4, 4)], b"pong", &mut counters);
        assert_eq!(receive_all(&mut client, 1)[0].0, asked);
    }

    #[test]
    fn an_ipv6_socket_takes_ipv4_too() {
        let Ok(socket) = bind("[::]:0".parse().unwrap(), 0) else { return };
        let mut any = UdpSocket::new(socket).unwrap();
        let (mut client, client_addr) = open("127.0.0.1:0");
        let asked: SocketAddr = format!("127.0.0.5:{}", any.local.port()).parse().unwrap();
        let mut counters = NetCounters::default();
        client.send(&[run(client_addr, asked, 0, 4, 4)], b"ping", &mut counters);
        let (from, to, _) = receive_all(&mut any, 1).remove(0);
        assert_eq!((from, to), (client_addr, asked));
        any.send(&[run(to, from, 0, 300, 100)], &[1; 300], &mut counters);
        assert_eq!(receive_all(&mut client, 3)[0].0, asked);
        assert_eq!(counters.drop_udp_tx_error, 0);
    }

    #[test]
    fn an_unreachable_destination_is_counted_and_passed_over() {
        let (mut a, a_addr) = open("127.0.0.1:0");
        let (mut b, b_addr) = open("127.0.0.1:0");
        let mut counters = NetCounters::default();
        // A loopback socket cannot send to another network.
        let runs = [run(a_addr, "203.0.113.1:9".parse().unwrap(), 0, 4, 4), run(a_addr, b_addr, 0, 4, 4)];
        a.send(&runs, b"ping", &mut counters);
        assert_eq!(receive_all(&mut b, 1).len(), 1);
        assert_eq!(counters.drop_udp_tx_error, 1);
    }
}
