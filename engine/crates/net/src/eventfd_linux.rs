//! An eventfd: wakes a thread that sleeps in `poll`, with one system call for many signals.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Becomes readable by `signal`, until `clear`.
#[derive(Debug)]
pub(crate) struct EventFd {
    fd: OwnedFd,
    /// True while the descriptor is readable (or about to be), so that further signals cost nothing.
    is_armed: AtomicBool,
}

impl EventFd {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no pointers are passed; the result is checked before it is taken as a descriptor.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd, is_armed: AtomicBool::new(false) })
    }

    pub(crate) fn signal(&self) {
        if !self.is_armed.swap(true, Ordering::AcqRel) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: the buffer has the eight bytes that an eventfd takes. It cannot fail but by overflow, which still
            // leaves it readable.
            unsafe { libc::write(self.fd.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    /// Makes it unreadable. Look at what it announces **after** this, or a signal in between is lost.
    pub(crate) fn clear(&self) {
        let mut value = [0u8; 8];
        // SAFETY: the buffer has the eight bytes that an eventfd gives; it is non-blocking.
        unsafe { libc::read(self.fd.as_raw_fd(), value.as_mut_ptr().cast(), value.len()) };
        self.is_armed.store(false, Ordering::Release);
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
