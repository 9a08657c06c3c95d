//! Writes a capture to a file: pcapng with raw IP packets around RTP and RTCP in the clear.
//!
//! A thread of its own writes; the workers only put copies into a bounded queue ([`mrtc_core::capture`]).

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mrtc_core::capture::{Capture, CaptureScope, CapturedPacket, Tap};

use crate::pcapng;

/// How soon the writer sees that it was told to end.
const PATIENCE: Duration = Duration::from_millis(50);

/// What to capture, and how much.
#[derive(Clone, Debug)]
pub struct CaptureConfig {
    /// The file; it must not exist.
    pub path: PathBuf,
    /// Of whom.
    pub scope: CaptureScope,
    /// Leave payloads out.
    pub is_headers_only: bool,
    /// The file does not grow beyond this.
    pub max_bytes: u64,
    /// The capture ends after this time.
    pub max_duration: Duration,
}

/// What a capture has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CaptureFigures {
    /// Packets written.
    pub packets: u64,
    /// Size of the file.
    pub bytes: u64,
    /// Copies that were dropped because the disk was too slow, or failed.
    pub dropped: u64,
    /// It goes on.
    pub is_running: bool,
}

#[derive(Debug, Default)]
struct Written {
    packets: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
}

/// A capture, under way or ended.
#[derive(Debug)]
struct Running {
    tap: Tap,
    written: Arc<Written>,
    thread: Option<JoinHandle<()>>,
}

/// The one capture of an engine.
#[derive(Debug, Default)]
pub(crate) struct Captures(Mutex<Option<Running>>);

impl Captures {
    /// Makes the file and begins to write; what the workers are to be told. `ResourceBusy` if a capture is under way.
    pub(crate) fn start(&self, config: &CaptureConfig) -> io::Result<Capture> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|running| !running.tap.is_over()) {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "a capture is under way"));
        }
        let (tap, packets) = Tap::new(config.is_headers_only);
        let written = Arc::<Written>::default();
        let writer = Writer::create(config, tap.clone(), written.clone())?;
        let thread = std::thread::Builder::new().name("mrtc-capture".into()).spawn(move || writer.run(&packets))?;
        *current = Some(Running { tap: tap.clone(), written, thread: Some(thread) });
        Ok(Capture { scope: config.scope.clone(), tap })
    }

    /// Ends the capture and waits until its file is whole, for some milliseconds. `None`: there never was one.
    pub(crate) fn stop(&self) -> Option<CaptureFigures> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = current.as_mut()?;
        running.tap.end();
        if let Some(thread) = running.thread.take() {
            // A panic was logged where it happened.
            let _ = thread.join();
        }
        Some(running.figures())
    }

    /// How far it is.
    pub(crate) fn figures(&self) -> Option<CaptureFigures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(Running::figures)
    }
}

impl Drop for Captures {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Running {
    fn figures(&self) -> CaptureFigures {
        CaptureFigures {
            packets: self.written.packets.load(Ordering::Relaxed),
            bytes: self.written.bytes.load(Ordering::Relaxed),
            dropped: self.tap.dropped() + self.written.lost.load(Ordering::Relaxed),
            is_running: !self.tap.is_over(),
        }
    }
}

struct Writer {
    file: BufWriter<File>,
    tap: Tap,
    written: Arc<Written>,
    max_bytes: u64,
    ends_at: Instant,
    /// One moment by both clocks.
    epoch: (Instant, Duration),
    block: Vec<u8>,
}

impl Writer {
    fn create(config: &CaptureConfig, tap: Tap, written: Arc<Written>) -> io::Result<Self> {
        let now = Instant::now();
        let mut writer = Self {
            file: BufWriter::new(create_private(&config.path)?),
            tap,
            written,
            max_bytes: config.max_bytes,
            ends_at: now + config.max_duration,
            epoch: (now, SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()),
            block: Vec::new(),
        };
        pcapng::write_head(&mut writer.block);
        writer.write_block()?;
        writer.file.flush()?;
        Ok(writer)
    }

    fn run(mut self, packets: &Receiver<CapturedPacket>) {
        if let Err(error) = self.write_all(packets) {
            tracing::warn!(%error, "the capture ends: it cannot be written");
        }
        self.tap.end();
        self.written.lost.fetch_add(packets.try_iter().count() as u64, Ordering::Relaxed);
    }

    fn write_all(&mut self, packets: &Receiver<CapturedPacket>) -> io::Result<()> {
        loop {
            match packets.recv_timeout(PATIENCE) {
                Ok(packet) if !self.write(&packet)? => break,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) if self.tap.is_over() => break,
                Err(RecvTimeoutError::Timeout) => self.file.flush()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= self.ends_at {
                self.tap.end();
            }
        }
        self.block.clear();
        pcapng::write_tail(&mut self.block, self.written.packets.load(Ordering::Relaxed), self.tap.dropped());
        self.write_block()?;
        self.file.flush()
    }

    /// False if the file is full; then the packet is lost.
    fn write(&mut self, packet: &CapturedPacket) -> io::Result<bool> {
        self.block.clear();
        let (began_at, began_unix) = self.epoch;
        // Packets that were received just before the capture began are not earlier than it.
        let at = began_unix + packet.at.saturating_duration_since(began_at);
        pcapng::write_packet(&mut self.block, at, packet);
        let size = self.written.bytes.load(Ordering::Relaxed) + self.block.len() as u64;
        if size + pcapng::TAIL_LEN as u64 > self.max_bytes {
            self.written.lost.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        self.write_block()?;
        self.written.packets.fetch_add(1, Ordering::Relaxed);
        Ok(true)
    }

    fn write_block(&mut self) -> io::Result<()> {
        self.file.write_all(&self.block)?;
        self.written.bytes.fetch_add(self.block.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// What people said may be in it.
fn create_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::mpsc::sync_channel;
    use std::{env, fs, process};

    use super::*;

    fn config(name: &str, max_bytes: u64, max_duration: Duration) -> CaptureConfig {
        let path = env::temp_dir().join(format!("mrtc-capture-{}-{name}", process::id()));
        let scope = CaptureScope::Room("room".into());
        CaptureConfig { path, scope, is_headers_only: false, max_bytes, max_duration }
    }

    fn packet() -> CapturedPacket {
        let (from, to) = (([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into());
        CapturedPacket { at: Instant::now(), from, to, len: 100, bytes: vec![7; 100] }
    }

    /// Writes packets until the writer ends by itself; its figures and the size of the file.
    fn write(config: &CaptureConfig, packets: usize) -> (u64, u64, u64) {
        let (queue, received) = sync_channel(packets);
        (0..packets).for_each(|_| queue.send(packet()).unwrap());
        let (tap, _nothing) = Tap::new(false);
        let written = Arc::<Written>::default();
        Writer::create(config, tap.clone(), written.clone()).unwrap().run(&received);
        assert!(tap.is_over());
        let size = fs::metadata(&config.path).unwrap().len();
        assert_eq!(size, written.bytes.load(Ordering::Relaxed));
        fs::remove_file(&config.path).unwrap();
        (written.packets.load(Ordering::Relaxed), written.lost.load(Ordering::Relaxed), size)
    }

    #[test]
    fn a_file_does_not_grow_beyond_its_limit() {
        let (packets, lost, size) = write(&config("full", 4096, Duration::from_secs(60)), 100);
        assert_eq!(packets + lost, 100);
        assert!((20..30).contains(&packets) && (3900..=4096).contains(&size), "{packets} in {size}");
    }

    #[test]
    fn a_capture_ends_in_time() {
        // What had come by then is kept.
        assert_eq!(write(&config("late", 1 << 20, Duration::ZERO), 3).0, 3);
    }

    #[test]
    fn there_is_one_at_a_time_in_a_file_of_its_own_that_others_cannot_read() {
        let captures = Captures::default();
        assert_eq!(captures.stop(), None);
        let config = config("one", 1 << 20, Duration::from_secs(60));
        captures.start(&config).unwrap();
        assert_eq!(captures.start(&config).unwrap_err().kind(), io::ErrorKind::ResourceBusy);
        assert!(captures.figures().unwrap().is_running);
        let ended = captures.stop().unwrap();
        assert!(!ended.is_running);
        assert_eq!(captures.start(&config).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let about = fs::metadata(&config.path).unwrap();
        assert_eq!((about.len(), about.permissions().mode() & 0o777), (ended.bytes, 0o600));
        fs::remove_file(&config.path).unwrap();
    }
}
