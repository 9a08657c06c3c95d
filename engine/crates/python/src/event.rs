//! `Event` and `Reply`.

use std::fmt;

use mrtc_core::event::{self, CloseReason};
use pyo3::prelude::*;

use crate::types::{Line, codec_name, kind_name};

/// Mid, kind, track.
type SlotContent = (String, String, Option<String>);

#[pyclass(frozen, from_py_object, module = "mrtc_engine._engine")]
#[derive(Clone)]
pub enum Reply {
    Done {},
    Answer {
        answer: String,
        lines: Vec<Line>,
    },
    Track {
        track: String,
        kind: String,
        codec: String,
        rids: Vec<String>,
    },
    Slots {
        slots: Vec<SlotContent>,
        version: u64,
        unplaced: Vec<String>,
        no_common_codec: Vec<String>,
        missing: Vec<String>,
    },
    TransportState {
        state: Vec<u8>,
    },
    Json {
        json: String,
    },
}

#[pyclass(frozen, module = "mrtc_engine._engine")]
#[derive(Debug)]
pub enum Event {
    Completed { command_id: u64, reply: Reply },
    Failed { command_id: u64, code: String, message: String },
    TransportConnected { transport: String },
    TransportClosed { transport: String, reason: String },
    TrackStarted { track: String, codec: String },
    TrackEnded { track: String },
    LayersWanted { track: String, rids: Vec<String>, spatial_layers: u8 },
    ActiveSpeakers { room: String, worker: u16, speakers: Vec<(String, u8)> },
    SlotsChanged { transport: String, slots: Vec<SlotContent>, version: u64 },
    KeyframeRequested { track: String },
    RelayUp { relay: String },
    RelayLost { relay: String },
}

/// Without an answer's text: it holds a password.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done {} => f.write_str("Done"),
            Self::Answer { lines, .. } => write!(f, "Answer({} lines)", lines.len()),
            Self::Track { track, codec, rids, .. } => write!(f, "Track({track:?}, {codec}, rids {rids:?})"),
            Self::Slots { slots, unplaced, no_common_codec, missing, .. } => write!(
                f,
                "Slots({slots:?}, unplaced {unplaced:?}, no common codec {no_common_codec:?}, missing {missing:?})"
            ),
            Self::TransportState { state } => write!(f, "TransportState({} bytes)", state.len()),
            Self::Json { json } => write!(f, "Json({} bytes)", json.len()),
        }
    }
}

#[pymethods]
impl Reply {
    fn __repr__(&self) -> String {
        format!("Reply.{self:?}")
    }
}

#[pymethods]
impl Event {
    fn __repr__(&self) -> String {
        format!("Event.{self:?}")
    }
}

impl From<event::Reply> for Reply {
    fn from(reply: event::Reply) -> Self {
        match reply {
            event::Reply::Done => Self::Done {},
            event::Reply::Answer { answer, lines } => {
                Self::Answer { answer, lines: lines.into_iter().map(Into::into).collect() }
            }
            event::Reply::Track(info) => Self::Track {
                track: info.track.to_string(),
                kind: kind_name(info.kind).to_owned(),
                codec: codec_name(info.codec).to_owned(),
                rids: info.rids,
            },
            event::Reply::Slots(slots) => Self::Slots {
                slots: slot_contents(slots.slots),
                version: slots.version,
                unplaced: strings(slots.unplaced),
                no_common_codec: strings(slots.no_common_codec),
                missing: strings(slots.missing),
            },
            event::Reply::TransportState(state) => Self::TransportState { state },
            event::Reply::Json(json) => Self::Json { json },
        }
    }
}

impl From<event::Event> for Event {
    fn from(event: event::Event) -> Self {
        match event {
            event::Event::Reply { command, result: Ok(reply) } => {
                Self::Completed { command_id: command.0, reply: reply.into() }
            }
            event::Event::Reply { command, result: Err(error) } => {
                Self::Failed { command_id: command.0, code: error.code().to_owned(), message: error.to_string() }
            }
            event::Event::TransportConnected { transport } => {
                Self::TransportConnected { transport: transport.to_string() }
            }
            event::Event::TransportClosed { transport, reason } => {
                Self::TransportClosed { transport: transport.to_string(), reason: reason_name(reason).to_owned() }
            }
            event::Event::TrackStarted { track, codec } => {
                Self::TrackStarted { track: track.to_string(), codec: codec_name(codec).to_owned() }
            }
            event::Event::TrackEnded { track } => Self::TrackEnded { track: track.to_string() },
            event::Event::LayersWanted { track, rids, spatial_layers } => {
                Self::LayersWanted { track: track.to_string(), rids, spatial_layers }
            }
            event::Event::SlotsChanged { transport, slots, version } => {
                Self::SlotsChanged { transport: transport.to_string(), slots: slot_contents(slots), version }
            }
            event::Event::ActiveSpeakers { room, shard, speakers } => Self::ActiveSpeakers {
                room: room.to_string(),
                worker: shard.0,
                speakers: speakers.into_iter().map(|(track, level)| (track.to_string(), level)).collect(),
            },
            event::Event::KeyframeRequested { track } => Self::KeyframeRequested { track: track.to_string() },
            event::Event::RelayUp { relay } => Self::RelayUp { relay: relay.to_string() },
            event::Event::RelayLost { relay } => Self::RelayLost { relay: relay.to_string() },
        }
    }
}

fn reason_name(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Closed => "closed",
        CloseReason::IceTimeout => "ice_timeout",
        CloseReason::DtlsFailed => "dtls_failed",
        CloseReason::PeerClosed => "peer_closed",
    }
}

fn slot_contents(slots: Vec<event::SlotContent>) -> Vec<SlotContent> {
    let content =
        |(mid, kind, track): event::SlotContent| (mid, kind_name(kind).to_owned(), track.map(|t| t.to_string()));
    slots.into_iter().map(content).collect()
}

fn strings(ids: Vec<impl ToString>) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}
