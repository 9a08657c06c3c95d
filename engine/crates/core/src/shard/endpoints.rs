//! Sinks and sources: legs of tracks that end in this process.

use std::time::{Duration, Instant};

use mrtc_rtp::codec::PayloadInfo;

use super::{MAX_FRAMES, MIN_SLEEP, Shard, TimerKey};
use crate::allocator::{MAX_TEMPORAL, Target};
use crate::command::{Codec, SourceFrame};
use crate::endpoint::sink::{AssembledFrame, SinkAssembler};
use crate::endpoint::source::{SourcePacket, SourcePacketizer};
use crate::error::Error;
use crate::event::{Reply, SinkFrame, TrackInfo};
use crate::forwarder::Forwarder;
use crate::id::{RoomId, SinkId, TrackId};
use crate::keys::{SinkKey, TrackKey};
use crate::packet::SenderReportMap;
use crate::timers::Alarm;
use crate::track::{Arriving, Origin, RunUp, Track};

/// A source whose media time is this far off its mapping to the wall clock was paused: it is mapped anew.
const MAX_SOURCE_DRIFT_US: i64 = 100_000;
/// A source's first frame is at most so far from the moment at which it was due.
const MAX_SOURCE_SHIFT: Duration = Duration::from_secs(1);

/// A local consumer of a track's frames: a receiver that always takes the best layer there is.
#[derive(Debug)]
pub(super) struct Sink {
    id: SinkId,
    track: TrackKey,
    codec: Codec,
    forwarder: Forwarder,
    assembler: SinkAssembler,
    sender_report: Option<SenderReportMap>,
    alarm: Alarm,
}

/// What feeds a track from this process.
#[derive(Debug)]
pub(super) struct Source {
    codec: Codec,
    packetizer: SourcePacketizer,
    alarm: Alarm,
}

impl Shard {
    pub(super) fn create_source(&mut self, id: TrackId, room: RoomId, codec: Codec) -> Result<Reply, Error> {
        let info = TrackInfo { track: id, kind: codec.kind(), codec, variant: None, rids: Vec::new() };
        let key = self.add_track(info.clone(), room, Origin::Source)?;
        let source = Source { codec, packetizer: SourcePacketizer::new(codec), alarm: Alarm::default() };
        self.sources.insert(key, source);
        Ok(Reply::Track(info))
    }

    pub(super) fn push_frames(&mut self, id: &TrackId, late_us: i64, frames: Vec<SourceFrame>) -> Result<Reply, Error> {
        let key = self.find_track(id)?;
        let now = self.now;
        let source = self.sources.get_mut(&key);
        let source = source.ok_or_else(|| Error::BadRequest(format!("track {id} is not a source")))?;
        let refused = source.packetizer.push(shifted(now, late_us), frames);
        self.counters.drop_source_frames += refused as u64;
        self.poll_source(key);
        match refused {
            0 => Ok(Reply::Done),
            n => Err(Error::LimitExceeded(format!("the queue of track {id}: {n} frames were refused"))),
        }
    }

    pub(super) fn source_timeout(&mut self, key: TrackKey, at: Instant) {
        if self.sources.get_mut(&key).is_some_and(|s| s.alarm.claim(at)) {
            self.poll_source(key);
        }
    }

    /// Lets the packets that are due into the track.
    fn poll_source(&mut self, key: TrackKey) {
        let now = self.now;
        while let Some(source) = self.sources.get_mut(&key)
            && let Some(packet) = source.packetizer.poll(now)
        {
            let codec = source.codec;
            self.map_source_time(key, codec, &packet);
            self.note_codec(key, codec.into());
            self.take_source_packet(key, codec, &packet);
        }
        if let Some(source) = self.sources.get_mut(&key)
            && let Some(at) = source.packetizer.next_at()
        {
            self.timers.set(&mut source.alarm, TimerKey::Source(key), at.max(now + MIN_SLEEP));
        }
    }

    fn take_source_packet(&mut self, key: TrackKey, codec: Codec, packet: &SourcePacket) {
        let arriving = Arriving {
            layer: 0,
            seq: packet.ext_seq,
            timestamp: packet.rtp_timestamp,
            marker: packet.marker,
            is_restart: false,
            info: PayloadInfo::inspect(codec.into(), &packet.payload, None),
            audio_level: None,
            orientation: None,
            dd: &[],
            payload: &packet.payload,
        };
        self.take_packet(key, &arriving);
    }

    /// Frames leave by their presentation time, so the first one's mapping holds until the source pauses.
    fn map_source_time(&mut self, key: TrackKey, codec: Codec, packet: &SourcePacket) {
        let (rtp_timestamp, unix_us) = (packet.rtp_timestamp, self.clock.unix_us(packet.frame_due_at));
        let Some(track) = self.tracks.get(key.index()) else { return };
        let expected = track.layers[0].sender_report.map(|map| map.unix_us_of(rtp_timestamp, codec.clock_rate()));
        if expected.is_none_or(|expected| expected.abs_diff(unix_us) > MAX_SOURCE_DRIFT_US as u64) {
            self.set_sender_report(key, 0, SenderReportMap { rtp_timestamp, unix_us });
        }
    }

    pub(super) fn create_sink(&mut self, id: SinkId, track: &TrackId) -> Result<Reply, Error> {
        if let Some(sink) = self.sink_ids.get(&id) {
            let carried = self.sinks[sink.index()].track;
            let is_same = self.tracks[carried.index()].id == *track;
            return if is_same { Ok(Reply::Done) } else { Err(Error::AlreadyExists(format!("sink {id}"))) };
        }
        if self.sinks.len() >= self.config.limits.max_sinks {
            return Err(Error::LimitExceeded("sinks of this worker".into()));
        }
        let track_key = self.acquire_track(track).ok_or_else(|| Error::TrackNotFound(track.to_string()))?;
        let sink = self.make_sink(id.clone(), track_key);
        let key = SinkKey::from(self.sinks.insert(sink));
        self.sink_ids.insert(id, key);
        self.tracks[track_key.index()].sinks.push(key);
        self.update_wanted(track_key);
        self.request_sink_keyframe(key);
        Ok(Reply::Done)
    }

    fn make_sink(&mut self, id: SinkId, track_key: TrackKey) -> Sink {
        let track = &self.tracks[track_key.index()];
        let epoch = self.clock.epoch();
        Sink {
            id,
            track: track_key,
            codec: track.codec,
            forwarder: whole_track(track, self.random.next()),
            assembler: SinkAssembler::new(track.codec, epoch, self.clock.unix_us(epoch)),
            sender_report: None,
            alarm: Alarm::default(),
        }
    }

    pub(super) fn close_sink(&mut self, id: &SinkId) {
        let Some(key) = self.sink_ids.get(id).copied() else { return };
        let track = self.sinks[key.index()].track;
        self.remove_sink(key);
        if let Some(entry) = self.tracks.get_mut(track.index()) {
            entry.sinks.retain(|s| *s != key);
        }
        self.update_wanted(track);
        self.release_if_unused(track);
    }

    pub(super) fn remove_sink(&mut self, key: SinkKey) {
        if let Some(sink) = self.sinks.try_remove(key.index()) {
            self.sink_ids.remove(&sink.id);
        }
    }

    /// The codec of a track changed: its sinks begin anew.
    pub(super) fn restart_sinks(&mut self, track: TrackKey) {
        for key in self.tracks[track.index()].sinks.clone() {
            let Some(sink) = self.sinks.get(key.index()) else { continue };
            let fresh = self.make_sink(sink.id.clone(), track);
            self.sinks[key.index()] = fresh;
            self.request_sink_keyframe(key);
        }
    }

    /// A track has packets for this flush.
    pub(super) fn pass_to_sinks(&mut self, key: TrackKey) {
        let Some(track) = self.tracks.get(key.index()) else { return };
        if track.sinks.is_empty() {
            return;
        }
        let now = self.now;
        let live = track.live_mask(now);
        for sink_key in track.sinks.clone() {
            let Some(sink) = self.sinks.get_mut(sink_key.index()) else { continue };
            let track = &self.tracks[key.index()];
            sink.forwarder.set_live(live);
            sink.take(now, key, track);
            self.poll_sink(sink_key);
        }
    }

    pub(super) fn sink_timeout(&mut self, key: SinkKey, at: Instant) {
        if self.sinks.get_mut(key.index()).is_some_and(|s| s.alarm.claim(at)) {
            self.poll_sink(key);
        }
    }

    fn poll_sink(&mut self, key: SinkKey) {
        let now = self.now;
        let sink = &mut self.sinks[key.index()];
        while let Some(frame) = sink.assembler.poll(now) {
            if self.frames.len() >= MAX_FRAMES {
                self.frames.pop_front();
                self.counters.drop_sink_frames += 1;
            }
            self.counters.sink_frames += 1;
            self.frames.push_back(sink.frame(frame));
        }
        if let Some(at) = sink.assembler.next_at() {
            self.timers.set(&mut sink.alarm, TimerKey::Sink(key), at.max(now + MIN_SLEEP));
        }
        if sink.assembler.take_keyframe_request() || sink.forwarder.wants_keyframe().is_some() {
            self.request_sink_keyframe(key);
        }
    }

    fn request_sink_keyframe(&mut self, key: SinkKey) {
        let sink = &self.sinks[key.index()];
        let layer = sink.forwarder.wants_keyframe().or(sink.forwarder.current());
        let track = sink.track;
        if let Some(layer) = layer {
            let is_single = self.tracks[track.index()].layers.len() == 1;
            self.request_keyframe(track, if is_single { 0 } else { layer });
        }
    }
}

impl Sink {
    fn frame(&self, frame: AssembledFrame) -> SinkFrame {
        SinkFrame {
            sink: self.id.clone(),
            codec: self.codec,
            is_keyframe: frame.is_keyframe,
            is_discontinuous: frame.is_discontinuous,
            rtp_time: frame.rtp_time,
            captured_at_us: frame.captured_at_us,
            data: frame.data,
        }
    }

    /// Takes what is pending of its track.
    fn take(&mut self, now: Instant, key: TrackKey, track: &Track) {
        track.each_due(RunUp::None, now, |packet| {
            let Some(rewritten) = self.forwarder.on_packet(key, track, packet) else { return false };
            let payload = packet.payload();
            self.assembler.push(now, rewritten.seq, rewritten.timestamp, rewritten.marker, payload);
            self.forwarder.begins_with(&rewritten)
        });
        self.follow_sender_report(track);
    }

    /// The layer's mapping to the wall clock, on the sink's own continuous timestamps.
    fn follow_sender_report(&mut self, track: &Track) {
        let Some((layer, delta)) = self.forwarder.timestamp_delta() else { return };
        let Some(report) = track.layers.get(usize::from(layer)).and_then(|l| l.sender_report) else { return };
        let map = SenderReportMap { rtp_timestamp: report.rtp_timestamp.wrapping_add(delta), ..report };
        if self.sender_report != Some(map) {
            self.sender_report = Some(map);
            self.assembler.set_sender_report(map);
        }
    }
}

/// A forwarder that takes the highest layer of a track with all its frames.
fn whole_track(track: &Track, random: u64) -> Forwarder {
    let mut forwarder = Forwarder::new(random);
    forwarder.attach(track);
    // Of layers inside one encoding, whatever there is.
    let spatial = if track.is_svc() { u8::MAX } else { track.layers.len() as u8 - 1 };
    forwarder.set_target(Target::Layer { spatial, temporal: MAX_TEMPORAL as u8 - 1 });
    forwarder
}

/// The moment that lies `late_us` before `now`, behind it if negative.
fn shifted(now: Instant, late_us: i64) -> Instant {
    let by = Duration::from_micros(late_us.unsigned_abs()).min(MAX_SOURCE_SHIFT);
    if late_us < 0 { now + by } else { now.checked_sub(by).unwrap_or(now) }
}
