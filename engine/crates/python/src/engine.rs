//! `Engine`.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::mem;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process;
use std::time::Duration;

use mrtc_core::addr::Proto;
use mrtc_core::capture::CaptureScope;
use mrtc_core::command::{Caps, Command, RelayKey};
use mrtc_core::handover::{HandoverKey, Purpose};
use mrtc_net::{CaptureConfig, CaptureFigures, SubmitError};
use pyo3::exceptions::{PyBlockingIOError, PyOSError};
use pyo3::prelude::*;

use crate::config::{EngineConfig, value_error};
use crate::event::Event;
use crate::types::{SinkFrame, SourceFrame, Subscription, parse_codec, some_if_set};
use crate::{EngineBusy, EngineClosed, log};

#[pyclass(frozen, module = "mrtc_engine._engine")]
pub struct Engine {
    /// Unset only while it is dropped.
    inner: Option<mrtc_net::Engine>,
    pid: u32,
}

impl Drop for Engine {
    fn drop(&mut self) {
        // In a forked child the threads do not exist and must not be waited for.
        if self.pid != process::id() {
            mem::forget(self.inner.take());
        }
    }
}

impl Engine {
    fn inner(&self) -> PyResult<&mrtc_net::Engine> {
        if self.pid != process::id() {
            return Err(EngineClosed::new_err(
                "the process was forked after the engine had started; start a new engine",
            ));
        }
        self.inner.as_ref().ok_or_else(|| EngineClosed::new_err("the engine is closed"))
    }

    fn submit(&self, command: Command) -> PyResult<u64> {
        self.inner()?.submit(command).map(|id| id.0).map_err(refused)
    }
}

fn refused(error: SubmitError) -> PyErr {
    match error {
        SubmitError::Busy => EngineBusy::new_err(error.to_string()),
        SubmitError::Closed => EngineClosed::new_err(error.to_string()),
    }
}

/// (errno, text) makes Python choose the subclass, for example PermissionError.
fn os_error(error: &std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(code) => PyOSError::new_err((code, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}

/// (packets, bytes, dropped, is running), as the stub says.
fn figures(figures: CaptureFigures) -> (u64, u64, u64, bool) {
    (figures.packets, figures.bytes, figures.dropped, figures.is_running)
}

#[pymethods]
impl Engine {
    #[new]
    fn new(py: Python<'_>, config: &EngineConfig) -> PyResult<Self> {
        log::init(&config.log_filter, config.log_format)?;
        let net = config.net.clone();
        let inner = py.detach(|| mrtc_net::Engine::start(net)).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => value_error(error.to_string()),
            _ => os_error(&error),
        })?;
        Ok(Self { inner: Some(inner), pid: process::id() })
    }

    fn fileno(&self) -> PyResult<i32> {
        Ok(self.inner()?.fileno())
    }

    #[pyo3(signature = (limit=1024))]
    fn poll_events(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<Event>> {
        let inner = self.inner()?;
        let events = py.detach(|| inner.poll_events(limit));
        if events.is_empty() && inner.has_failed() {
            return Err(EngineClosed::new_err("a worker of the engine has failed; see its log"));
        }
        Ok(events.into_iter().map(Into::into).collect())
    }

    #[pyo3(signature = (limit=1024))]
    fn poll_frames(&self, py: Python<'_>, limit: usize) -> PyResult<Vec<SinkFrame>> {
        let inner = self.inner()?;
        let frames = py.detach(|| inner.poll_frames(limit));
        Ok(frames.iter().map(|frame| SinkFrame::new(py, frame)).collect())
    }

    #[pyo3(signature = (*, transport, room, offer, max_egress_bps=0, max_ingress_bps=0, max_track_bps=0))]
    fn create_transport(
        &self,
        transport: String,
        room: String,
        offer: String,
        max_egress_bps: u64,
        max_ingress_bps: u64,
        max_track_bps: u64,
    ) -> PyResult<u64> {
        let caps = caps(max_egress_bps, max_ingress_bps, max_track_bps);
        self.submit(Command::CreateTransport { transport: transport.into(), room: room.into(), offer, caps })
    }

    #[pyo3(signature = (*, transport, purpose, key))]
    fn export_transport(&self, transport: String, purpose: &str, key: &[u8]) -> PyResult<u64> {
        let purpose = match purpose {
            "meet" => Purpose::Meet,
            "go_on" => Purpose::GoOn,
            "checkpoint" => Purpose::Checkpoint,
            other => return Err(value_error(format!("no such purpose: {other}"))),
        };
        self.submit(Command::ExportTransport { transport: transport.into(), purpose, key: handover_key(key)? })
    }

    #[pyo3(signature = (*, transport, state, key))]
    fn complete_transport(&self, transport: String, state: &[u8], key: &[u8]) -> PyResult<u64> {
        let (transport, state, key) = (transport.into(), state.to_vec(), handover_key(key)?);
        self.submit(Command::CompleteTransport { transport, state, key })
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (*, transport, room, offer, state, key, max_egress_bps=0, max_ingress_bps=0, max_track_bps=0))]
    fn import_transport(
        &self,
        transport: String,
        room: String,
        offer: String,
        state: &[u8],
        key: &[u8],
        max_egress_bps: u64,
        max_ingress_bps: u64,
        max_track_bps: u64,
    ) -> PyResult<u64> {
        let caps = caps(max_egress_bps, max_ingress_bps, max_track_bps);
        let (transport, room, state, key) = (transport.into(), room.into(), state.to_vec(), handover_key(key)?);
        self.submit(Command::ImportTransport { transport, room, offer, caps, state, key })
    }

    #[pyo3(signature = (*, transport, max_egress_bps=0, max_ingress_bps=0, max_track_bps=0))]
    fn set_caps(
        &self,
        transport: String,
        max_egress_bps: u64,
        max_ingress_bps: u64,
        max_track_bps: u64,
    ) -> PyResult<u64> {
        let caps = caps(max_egress_bps, max_ingress_bps, max_track_bps);
        self.submit(Command::SetCaps { transport: transport.into(), caps })
    }

    #[pyo3(signature = (*, transport, offer))]
    fn negotiate(&self, transport: String, offer: String) -> PyResult<u64> {
        self.submit(Command::Negotiate { transport: transport.into(), offer })
    }

    #[pyo3(signature = (*, transport))]
    fn close_transport(&self, transport: String) -> PyResult<u64> {
        self.submit(Command::CloseTransport { transport: transport.into() })
    }

    #[pyo3(signature = (*, transport, identity, can_publish))]
    fn set_data_access(&self, transport: String, identity: String, can_publish: bool) -> PyResult<u64> {
        self.submit(Command::SetDataAccess { transport: transport.into(), identity, can_publish })
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (*, room, sender, topic, payload, is_reliable=true, is_text=false, to=vec![]))]
    fn send_data(
        &self,
        room: String,
        sender: String,
        topic: String,
        payload: &[u8],
        is_reliable: bool,
        is_text: bool,
        to: Vec<String>,
    ) -> PyResult<u64> {
        let (room, payload) = (room.into(), payload.to_vec());
        self.submit(Command::SendData { room, sender, topic, is_reliable, is_text, to, payload })
    }

    #[pyo3(signature = (*, track, transport, mid))]
    fn publish_track(&self, track: String, transport: String, mid: String) -> PyResult<u64> {
        self.submit(Command::PublishTrack { track: track.into(), transport: transport.into(), mid })
    }

    #[pyo3(signature = (*, track))]
    fn unpublish_track(&self, track: String) -> PyResult<u64> {
        self.submit(Command::UnpublishTrack { track: track.into() })
    }

    #[pyo3(signature = (*, track, is_muted))]
    fn set_track_muted(&self, track: String, is_muted: bool) -> PyResult<u64> {
        self.submit(Command::SetTrackMuted { track: track.into(), is_muted })
    }

    #[pyo3(signature = (*, track, max_bps))]
    fn set_track_cap(&self, track: String, max_bps: u64) -> PyResult<u64> {
        self.submit(Command::SetTrackCap { track: track.into(), max_bps: some_if_set(max_bps) })
    }

    #[pyo3(signature = (*, transport, subscriptions, audio_top_n = 0))]
    fn set_subscriptions(
        &self,
        transport: String,
        subscriptions: Vec<PyRef<'_, Subscription>>,
        audio_top_n: usize,
    ) -> PyResult<u64> {
        let subscriptions = subscriptions.iter().map(|s| s.0.clone()).collect();
        self.submit(Command::SetSubscriptions { transport: transport.into(), subscriptions, audio_top_n })
    }

    #[pyo3(signature = (*, track, room, codec))]
    fn create_source(&self, track: String, room: String, codec: &str) -> PyResult<u64> {
        self.submit(Command::CreateSource { track: track.into(), room: room.into(), codec: parse_codec(codec)? })
    }

    #[pyo3(signature = (*, track, frames, late_us = 0))]
    fn push_frames(
        &self,
        py: Python<'_>,
        track: String,
        frames: Vec<PyRef<'_, SourceFrame>>,
        late_us: i64,
    ) -> PyResult<u64> {
        let frames = frames.iter().map(|frame| frame.to_core(py)).collect();
        self.submit(Command::PushFrames { track: track.into(), late_us, frames })
    }

    #[pyo3(signature = (*, sink, track))]
    fn create_sink(&self, sink: String, track: String) -> PyResult<u64> {
        self.submit(Command::CreateSink { sink: sink.into(), track: track.into() })
    }

    #[pyo3(signature = (*, sink))]
    fn close_sink(&self, sink: String) -> PyResult<u64> {
        self.submit(Command::CloseSink { sink: sink.into() })
    }

    fn relay_address(&self, relay: String) -> PyResult<String> {
        Ok(self.inner()?.relay_address(&relay.into()).to_string())
    }

    #[pyo3(signature = (*, relay, remote, tx_key, tx_salt, rx_key, rx_salt))]
    fn open_relay(
        &self,
        relay: String,
        remote: &str,
        tx_key: &[u8],
        tx_salt: &[u8],
        rx_key: &[u8],
        rx_salt: &[u8],
    ) -> PyResult<u64> {
        let remote: SocketAddr =
            remote.parse().map_err(|_| value_error(format!("remote: {remote:?} is not an ip:port")))?;
        let (tx, rx) = (relay_key(tx_key, tx_salt)?, relay_key(rx_key, rx_salt)?);
        self.submit(Command::OpenRelay { relay: relay.into(), remote, tx, rx })
    }

    #[pyo3(signature = (*, relay))]
    fn close_relay(&self, relay: String) -> PyResult<u64> {
        self.submit(Command::CloseRelay { relay: relay.into() })
    }

    #[pyo3(signature = (*, relay, track, handle))]
    fn export_track(&self, relay: String, track: String, handle: u32) -> PyResult<u64> {
        self.submit(Command::ExportTrack { relay: relay.into(), track: track.into(), handle })
    }

    #[pyo3(signature = (*, relay, room, handle))]
    fn export_data(&self, relay: String, room: String, handle: u32) -> PyResult<u64> {
        self.submit(Command::ExportData { relay: relay.into(), room: room.into(), handle })
    }

    #[pyo3(signature = (*, relay, room, handle))]
    fn import_data(&self, relay: String, room: String, handle: u32) -> PyResult<u64> {
        self.submit(Command::ImportData { relay: relay.into(), room: room.into(), handle })
    }

    #[pyo3(signature = (*, relay, room))]
    fn stop_data(&self, relay: String, room: String) -> PyResult<u64> {
        self.submit(Command::StopData { relay: relay.into(), room: room.into() })
    }

    #[pyo3(signature = (*, relay, track))]
    fn unexport_track(&self, relay: String, track: String) -> PyResult<u64> {
        self.submit(Command::UnexportTrack { relay: relay.into(), track: track.into() })
    }

    #[pyo3(signature = (*, relay, track, room, handle, codec, rids))]
    fn import_track(
        &self,
        relay: String,
        track: String,
        room: String,
        handle: u32,
        codec: &str,
        rids: Vec<String>,
    ) -> PyResult<u64> {
        self.submit(Command::ImportTrack {
            relay: relay.into(),
            track: track.into(),
            room: room.into(),
            handle,
            codec: parse_codec(codec)?,
            rids,
        })
    }

    #[pyo3(signature = (*, relay, track, handle))]
    fn move_import(&self, relay: String, track: String, handle: u32) -> PyResult<u64> {
        self.submit(Command::MoveImport { relay: relay.into(), track: track.into(), handle })
    }

    #[pyo3(signature = (*, transports=vec![]))]
    fn stats(&self, transports: Vec<String>) -> PyResult<u64> {
        self.submit(Command::Stats { transports: transports.into_iter().map(Into::into).collect() })
    }

    #[pyo3(signature = (*, room))]
    fn dump_room(&self, room: String) -> PyResult<u64> {
        self.submit(Command::DumpRoom { room: room.into() })
    }

    #[allow(clippy::too_many_arguments)]
    #[pyo3(signature = (*, path, room="", transport="", is_headers_only, max_bytes, max_duration_ms))]
    fn start_capture(
        &self,
        py: Python<'_>,
        path: PathBuf,
        room: &str,
        transport: &str,
        is_headers_only: bool,
        max_bytes: u64,
        max_duration_ms: u64,
    ) -> PyResult<u64> {
        let scope = match (room, transport) {
            (room, "") if !room.is_empty() => CaptureScope::Room(room.into()),
            ("", transport) if !transport.is_empty() => CaptureScope::Transport(transport.into()),
            _ => return Err(value_error("a capture is of a room or of a transport")),
        };
        let max_duration = Duration::from_millis(max_duration_ms);
        let config = CaptureConfig { path, scope, is_headers_only, max_bytes, max_duration };
        let inner = self.inner()?;
        match py.detach(|| inner.start_capture(&config)) {
            Ok(submitted) => submitted.map(|id| id.0).map_err(refused),
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Err(PyBlockingIOError::new_err(error.to_string())),
            Err(error) => Err(os_error(&error)),
        }
    }

    fn stop_capture(&self, py: Python<'_>) -> PyResult<Option<(u64, u64, u64, bool)>> {
        let inner = self.inner()?;
        Ok(py.detach(|| inner.stop_capture()).map(figures))
    }

    fn capture_figures(&self) -> PyResult<Option<(u64, u64, u64, bool)>> {
        Ok(self.inner()?.capture_figures().map(figures))
    }

    fn counters(&self) -> PyResult<Vec<HashMap<&'static str, u64>>> {
        Ok(self.inner()?.counters().into_iter().map(|figures| figures.into_iter().collect()).collect())
    }

    fn local_addresses(&self) -> PyResult<Vec<(&'static str, String)>> {
        let name = |proto| if proto == Proto::Udp { "udp" } else { "tcp" };
        Ok(self.inner()?.local_addresses().into_iter().map(|(proto, addr)| (name(proto), addr.to_string())).collect())
    }

    fn begin_shutdown(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner()?;
        py.detach(|| inner.begin_shutdown());
        Ok(())
    }

    fn finish_shutdown(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner()?;
        py.detach(|| inner.finish_shutdown());
        Ok(())
    }
}

fn caps(egress_bps: u64, ingress_bps: u64, track_bps: u64) -> Caps {
    Caps {
        egress_bps: some_if_set(egress_bps),
        ingress_bps: some_if_set(ingress_bps),
        track_bps: some_if_set(track_bps),
    }
}

fn handover_key(key: &[u8]) -> PyResult<HandoverKey> {
    let secret = key.try_into().map_err(|_| value_error("a key for states of transports has 32 bytes"))?;
    Ok(HandoverKey::new(secret))
}

fn relay_key(key: &[u8], salt: &[u8]) -> PyResult<RelayKey> {
    match (key.try_into(), salt.try_into()) {
        (Ok(key), Ok(salt)) => Ok(RelayKey { key, salt }),
        _ => Err(value_error("a relay key has 16 bytes and its salt 12")),
    }
}
