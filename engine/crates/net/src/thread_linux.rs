//! Where a thread runs and how much of a core it used.

use std::io;
use std::mem;
use std::time::Duration;

/// Binds the calling thread to the n-th core that the process may use (counted around).
pub(crate) fn pin_to_core(n: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut allowed: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is valid for writes of its size; 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, mem::size_of_val(&allowed), &mut allowed) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let size = libc::CPU_SETSIZE as usize;
    // SAFETY: every index is below CPU_SETSIZE, the capacity of the set.
    let cores: Vec<usize> = (0..size).filter(|core| unsafe { libc::CPU_ISSET(*core, &allowed) }).collect();
    let Some(core) = cores.get(n % cores.len().max(1)) else { return Ok(()) };
    // SAFETY: as above.
    let mut wanted: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the index came from a set of the same capacity.
    unsafe { libc::CPU_SET(*core, &mut wanted) };
    // SAFETY: the set is valid for reads of its size.
    match unsafe { libc::sched_setaffinity(0, mem::size_of_val(&wanted), &wanted) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// CPU time of the calling thread since its start.
pub(crate) fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec is valid for writes; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
