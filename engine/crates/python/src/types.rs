//! Values that go in and out, field by field as in the core.

use mrtc_core::command::{self, Codec, Kind};
use mrtc_core::event;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::config::value_error;

const CODECS: [(Codec, &str); 8] = [
    (Codec::Opus, "opus"),
    (Codec::Pcmu, "pcmu"),
    (Codec::Pcma, "pcma"),
    (Codec::G722, "g722"),
    (Codec::Vp8, "vp8"),
    (Codec::H264, "h264"),
    (Codec::Vp9, "vp9"),
    (Codec::Av1, "av1"),
];

pub fn codec_name(codec: Codec) -> &'static str {
    CODECS.iter().find(|(c, _)| *c == codec).map_or("", |(_, name)| name)
}

pub fn parse_codec(name: &str) -> PyResult<Codec> {
    let known = CODECS.iter().find(|(_, known)| *known == name);
    known.map(|(codec, _)| *codec).ok_or_else(|| value_error(format!("{name:?} is not a codec that the engine knows")))
}

pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Audio => "audio",
        Kind::Video => "video",
    }
}

fn parse_kind(name: &str) -> PyResult<Kind> {
    match name {
        "audio" => Ok(Kind::Audio),
        "video" => Ok(Kind::Video),
        _ => Err(value_error("kind must be audio or video")),
    }
}

/// The Python side has 0 for "no limit".
pub fn some_if_set<T: Default + PartialEq>(value: T) -> Option<T> {
    (value != T::default()).then_some(value)
}

#[pyclass(frozen, module = "mrtc_engine._engine")]
pub struct Subscription(pub command::Subscription);

#[pymethods]
impl Subscription {
    #[new]
    #[pyo3(signature = (*, track, kind, alternatives=vec![], formers=vec![], max_height=0, max_fps=0, is_paused=false, priority=128))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        track: String,
        kind: &str,
        alternatives: Vec<String>,
        formers: Vec<String>,
        max_height: u32,
        max_fps: u32,
        is_paused: bool,
        priority: u8,
    ) -> PyResult<Self> {
        Ok(Self(command::Subscription {
            track: track.into(),
            kind: parse_kind(kind)?,
            alternatives: alternatives.into_iter().map(Into::into).collect(),
            formers: formers.into_iter().map(Into::into).collect(),
            max_height: some_if_set(max_height),
            max_fps: some_if_set(max_fps),
            is_paused,
            priority,
        }))
    }
}

#[pyclass(frozen, module = "mrtc_engine._engine")]
pub struct SourceFrame {
    pts_us: u64,
    is_keyframe: bool,
    data: Py<PyBytes>,
}

#[pymethods]
impl SourceFrame {
    #[new]
    #[pyo3(signature = (*, pts_us, is_keyframe, data))]
    fn new(pts_us: u64, is_keyframe: bool, data: Py<PyBytes>) -> Self {
        Self { pts_us, is_keyframe, data }
    }
}

impl SourceFrame {
    pub fn to_core(&self, py: Python<'_>) -> command::SourceFrame {
        let data = self.data.as_bytes(py).to_vec();
        command::SourceFrame { pts_us: self.pts_us, is_keyframe: self.is_keyframe, data }
    }
}

#[pyclass(frozen, get_all, module = "mrtc_engine._engine")]
pub struct SinkFrame {
    sink: String,
    codec: &'static str,
    is_keyframe: bool,
    is_discontinuous: bool,
    rtp_time: u64,
    captured_at_us: i64,
    data: Py<PyBytes>,
}

impl SinkFrame {
    pub fn new(py: Python<'_>, frame: &event::SinkFrame) -> Self {
        Self {
            sink: frame.sink.as_str().to_owned(),
            codec: codec_name(frame.codec),
            is_keyframe: frame.is_keyframe,
            is_discontinuous: frame.is_discontinuous,
            rtp_time: frame.rtp_time,
            captured_at_us: frame.captured_at_us,
            data: PyBytes::new(py, &frame.data).unbind(),
        }
    }
}

#[pymethods]
impl SinkFrame {
    fn __repr__(&self, py: Python<'_>) -> String {
        let Self { sink, codec, is_keyframe, rtp_time, data, .. } = self;
        let len = data.as_bytes(py).len();
        format!(
            "SinkFrame(sink={sink:?}, codec={codec:?}, is_keyframe={is_keyframe}, rtp_time={rtp_time}, {len} bytes)"
        )
    }
}

#[pyclass(frozen, get_all, from_py_object, module = "mrtc_engine._engine")]
#[derive(Clone)]
pub struct Line {
    mid: String,
    kind: String,
    is_inbound: bool,
    codecs: Vec<String>,
    rids: Vec<String>,
}

impl From<event::Line> for Line {
    fn from(line: event::Line) -> Self {
        Self {
            mid: line.mid,
            kind: kind_name(line.kind).to_owned(),
            is_inbound: line.is_inbound,
            codecs: line.codecs.into_iter().map(|codec| codec_name(codec).to_owned()).collect(),
            rids: line.rids,
        }
    }
}

#[pymethods]
impl Line {
    fn __repr__(&self) -> String {
        let Self { mid, kind, is_inbound, codecs, rids } = self;
        format!("Line(mid={mid:?}, kind={kind:?}, is_inbound={is_inbound}, codecs={codecs:?}, rids={rids:?})")
    }
}
