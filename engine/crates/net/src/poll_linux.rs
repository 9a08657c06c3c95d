//! Waiting: `ppoll` on a handful of descriptors with nanosecond timeouts, `epoll` for the many of TCP.
//!
//! An epoll descriptor can itself be polled, so a worker sleeps in one `ppoll` whatever it waits for.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// Sleeps until one of `fds` is readable or the time is over; tells which are readable (or in error).
pub(crate) fn wait_readable<const N: usize>(fds: [RawFd; N], timeout: Duration) -> io::Result<[bool; N]> {
    wait(fds, libc::POLLIN, timeout)
}

/// Sleeps until `fd` is writable or the time is over.
pub(crate) fn wait_writable(fd: RawFd, timeout: Duration) -> io::Result<bool> {
    wait([fd], libc::POLLOUT, timeout).map(|[is_ready]| is_ready)
}

fn wait<const N: usize>(fds: [RawFd; N], events: i16, timeout: Duration) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| libc::pollfd { fd, events, revents: 0 });
    let timeout =
        libc::timespec { tv_sec: timeout.as_secs().min(3_600) as libc::time_t, tv_nsec: timeout.subsec_nanos().into() };
    // SAFETY: the array is valid for N entries, the timespec for reads; a null mask changes no signal mask.
    let count = unsafe { libc::ppoll(polled.as_mut_ptr(), N as libc::nfds_t, &timeout, std::ptr::null()) };
    if count < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::Interrupted { Ok([false; N]) } else { Err(error) };
    }
    Ok(polled.map(|p| p.revents != 0))
}

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Read,
    ReadWrite,
}

/// A ready descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    pub token: usize,
    pub is_readable: bool,
    pub is_writable: bool,
}

/// A level-triggered epoll.
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: OwnedFd,
}

impl Epoll {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed; the result is checked before it is taken as a descriptor.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    pub(crate) fn add(&self, fd: RawFd, token: usize, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, fd, token, interest)
    }

    pub(crate) fn modify(&self, fd: RawFd, token: usize, interest: Interest) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, fd, token, interest)
    }

    fn control(&self, operation: i32, fd: RawFd, token: usize, interest: Interest) -> io::Result<()> {
        let write = if interest == Interest::ReadWrite { libc::EPOLLOUT } else { 0 };
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | write) as u32, u64: token as u64 };
        // SAFETY: the event is valid for reads during the call. A closed descriptor gives an error, no more.
        match unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), operation, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// What is ready now, 64 at most; never sleeps.
    pub(crate) fn ready(&self) -> Vec<Ready> {
        const MAX: usize = 64;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MAX];
        // SAFETY: the array is valid for writes of MAX entries.
        let count = unsafe { libc::epoll_wait(self.fd.as_raw_fd(), events.as_mut_ptr(), MAX as i32, 0) };
        let ready = events.iter().take(usize::try_from(count).unwrap_or(0));
        ready
            .map(|event| {
                // The struct is packed: copy before looking.
                let (flags, token) = (event.events as i32, event.u64 as usize);
                Ready { token, is_readable: flags & !libc::EPOLLOUT != 0, is_writable: flags & libc::EPOLLOUT != 0 }
            })
            .collect()
    }
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
