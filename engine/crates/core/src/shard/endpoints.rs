//! Sinks and sources: legs that end in this process.

use std::time::Instant;

use super::Shard;
use crate::command::{Codec, SourceFrame};
use crate::error::Error;
use crate::event::Reply;
use crate::id::{RoomId, SinkId, TrackId};
use crate::keys::{SinkKey, TrackKey};

impl Shard {
    pub(super) fn create_source(&mut self, _t: TrackId, _r: RoomId, _c: Codec) -> Result<Reply, Error> {
        Err(Error::BadRequest("sources are not available".into()))
    }
    pub(super) fn push_frames(&mut self, _t: &TrackId, _f: Vec<SourceFrame>) -> Result<Reply, Error> {
        Err(Error::BadRequest("sources are not available".into()))
    }
    pub(super) fn create_sink(&mut self, _s: SinkId, _t: &TrackId) -> Result<Reply, Error> {
        Err(Error::BadRequest("sinks are not available".into()))
    }
    pub(super) fn close_sink(&mut self, _s: &SinkId) {}
    pub(super) fn remove_sink(&mut self, _s: SinkKey) {}
    pub(super) fn restart_sinks(&mut self, _k: TrackKey) {}
    pub(super) fn pass_to_sinks(&mut self, _k: TrackKey) {}
    pub(super) fn sink_timeout(&mut self, _k: SinkKey, _at: Instant) {}
}
