//! A track as its shard holds it: layers with their recent packets, and who receives them.
//!
//! A track comes from one of four origins (a client, a relay, a local source, another shard); the receiving side does not
//! know which.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mrtc_rtp::codec::PayloadInfo;
use mrtc_rtp::ext::AudioLevel;
use mrtc_rtp::id::{ExtSeq, Rid};

use crate::allocator::{LayerInfo, MAX_SPATIAL, MAX_TEMPORAL};
use crate::command::{Codec, Kind};
use crate::event::TrackInfo;
use crate::id::{RoomId, ShardIndex, TrackId};
use crate::ingress_ring::IngressRing;
use crate::keyframe_throttle::KeyframeThrottle;
use crate::keys::{RelaySlot, SinkKey, TransportKey};
use crate::meter::LayerMeter;
use crate::outbox::MAX_RUN_SEGMENTS;
use crate::packet::{Packet, SenderReportMap};
use crate::sdp::{Encoding, Variant};
use crate::shard_message::MirrorKey;
use crate::timers::Alarm;

/// Packets of video kept per layer; the age bound of the ring is reached first below some 7 Mbps.
const VIDEO_RING: usize = 1024;
/// 20 ms packets: five seconds.
const AUDIO_RING: usize = 256;
/// How far a run-up of sound reaches back: a little more than it takes to notice that somebody speaks.
const RUN_UP: Duration = Duration::from_millis(120);
/// At most so many packets of it.
const RUN_UP_PACKETS: u64 = 6;
/// A layer without packets for this long is not chosen for anybody. Longer than a frame at 2 frames/s (screen share).
const LIVE_TIMEOUT: Duration = Duration::from_millis(1_500);
/// A picture's first packets wait so long for its last: together they cost half. Most come within one tick; the ends of
/// ticks cut the others in two.
const PICTURE_PATIENCE: Duration = Duration::from_millis(2);
/// So many packets are enough for a run of their own.
const MAX_PATIENT: usize = MAX_RUN_SEGMENTS;
/// Layers that nobody wants are switched off after this; switching on is told at once.
pub(crate) const UNWANTED_DELAY: Duration = Duration::from_secs(2);

/// Where a track's packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A client's m-line.
    Transport { transport: TransportKey, line: usize },
    /// Another node.
    Relay { relay: RelaySlot, handle: u32 },
    /// Frames of this process.
    Source,
    /// Another shard.
    Shard { shard: ShardIndex, mirror: MirrorKey },
}

/// A slot that carries the track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) transport: TransportKey,
    pub(crate) slot: u16,
}

/// A relay that the track flows out by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Export {
    pub(crate) relay: RelaySlot,
    pub(crate) handle: u32,
    /// Layers that the far side wants.
    pub(crate) mask: u8,
}

/// A shard that mirrors the track.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MirrorOut {
    pub(crate) shard: ShardIndex,
    pub(crate) key: MirrorKey,
    /// Layers that it wants.
    pub(crate) mask: u8,
}

/// A packet that waits for the next flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) layer: u8,
    pub(crate) seq: ExtSeq,
}

/// Packets that came before the pending ones and go out to a receiver ahead of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum RunUp {
    #[default]
    None,
    /// Sound just before: a word is noticed only when it has begun.
    Sound,
    /// A picture that came while something else was shown, and all since.
    From(Pending),
}

/// A packet that comes into a track.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arriving<'a> {
    pub(crate) layer: u8,
    pub(crate) seq: ExtSeq,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) is_restart: bool,
    pub(crate) info: PayloadInfo,
    pub(crate) audio_level: Option<AudioLevel>,
    pub(crate) orientation: Option<u8>,
    pub(crate) dd: &'a [u8],
    /// Empty for a packet of padding only.
    pub(crate) payload: &'a [u8],
}

/// What became of an arriving packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It waits for the next flush.
    Pending,
    /// The track is muted, or waits for a key frame after it was.
    Muted,
    /// It is here already, or too old.
    Duplicate,
    /// Too many wait.
    Overflow,
}

/// What is known of a spatial layer of an encoding (SVC), or of all of one that has none.
#[derive(Debug)]
pub(crate) struct Spatial {
    pub(crate) meter: LayerMeter,
    pub(crate) size: Option<(u16, u16)>,
}

/// One encoding of a track.
#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) ring: IngressRing,
    pub(crate) sender_report: Option<SenderReportMap>,
    /// One per spatial layer inside the encoding, at least one.
    pub(crate) spatials: Vec<Spatial>,
    pub(crate) packet_at: Option<Instant>,
    is_restarting: bool,
    awaits_keyframe: bool,
}

/// One track of a shard.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) id: TrackId,
    pub(crate) room: RoomId,
    pub(crate) kind: Kind,
    pub(crate) codec: Codec,
    pub(crate) variant: Option<Variant>,
    pub(crate) rids: Vec<Rid>,
    pub(crate) origin: Origin,
    pub(crate) is_muted: bool,
    /// Its own cap in bit/s, all layers together.
    pub(crate) max_bps: Option<u64>,
    pub(crate) has_started: bool,
    /// It is being removed: its receivers' going tells nobody.
    pub(crate) is_ending: bool,
    pub(crate) layers: Vec<Layer>,
    pub(crate) pending: Vec<Pending>,
    pub(crate) is_dirty: bool,
    pub(crate) subscribers: Vec<Subscriber>,
    /// Slots that carry the track's former self until its next key frame.
    pub(crate) heirs: Vec<Subscriber>,
    /// Transports that choose the loudest among this track and others.
    pub(crate) listeners: Vec<TransportKey>,
    pub(crate) sinks: Vec<SinkKey>,
    pub(crate) exports: Vec<Export>,
    pub(crate) mirrors: Vec<MirrorOut>,
    pub(crate) keyframes: KeyframeThrottle,
    /// Layers wanted, as told to the origin last.
    pub(crate) told_mask: u8,
    /// Since when fewer layers are wanted than told.
    pub(crate) unwanted_since: Option<Instant>,
    pub(crate) alarm: Alarm,
    max_pending: usize,
}

impl Track {
    pub(crate) fn new(info: &TrackInfo, room: RoomId, origin: Origin, max_pending: usize) -> Self {
        let layer_count = info.rids.len().clamp(1, MAX_SPATIAL);
        let is_svc = is_svc(info.codec, layer_count) && matches!(origin, Origin::Transport { .. });
        let capacity = if info.kind == Kind::Video { VIDEO_RING } else { AUDIO_RING };
        Self {
            id: info.track.clone(),
            room,
            kind: info.kind,
            codec: info.codec,
            variant: info.variant,
            rids: info.rids.iter().filter_map(|r| Rid::new(r)).collect(),
            origin,
            is_muted: false,
            max_bps: None,
            has_started: false,
            is_ending: false,
            layers: (0..layer_count).map(|_| Layer::new(capacity)).collect(),
            pending: Vec::new(),
            is_dirty: false,
            subscribers: Vec::new(),
            heirs: Vec::new(),
            listeners: Vec::new(),
            sinks: Vec::new(),
            exports: Vec::new(),
            mirrors: Vec::new(),
            keyframes: KeyframeThrottle::new(),
            told_mask: all_layers(if is_svc { MAX_SPATIAL } else { layer_count }),
            unwanted_since: None,
            alarm: Alarm::default(),
            max_pending,
        }
    }

    pub(crate) fn info(&self) -> TrackInfo {
        TrackInfo {
            track: self.id.clone(),
            kind: self.kind,
            codec: self.codec,
            variant: self.variant,
            rids: self.rids.iter().map(|r| r.as_str().to_owned()).collect(),
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        Encoding { codec: self.codec, variant: self.variant }
    }

    pub(crate) fn set_encoding(&mut self, encoding: Encoding) {
        (self.codec, self.variant) = (encoding.codec, encoding.variant);
    }

    pub(crate) fn has_receivers(&self) -> bool {
        let has_ends = !(self.subscribers.is_empty() && self.listeners.is_empty() && self.sinks.is_empty());
        has_ends || !(self.exports.is_empty() && self.mirrors.is_empty() && self.heirs.is_empty())
    }

    /// True if some receiver has use for it now: of other nodes and shards, one that says so.
    pub(crate) fn is_wanted(&self) -> bool {
        let has_ends = !(self.subscribers.is_empty() && self.listeners.is_empty() && self.sinks.is_empty());
        let goes_out = self.exports.iter().any(|e| e.mask != 0) || self.mirrors.iter().any(|m| m.mask != 0);
        has_ends || goes_out || !self.heirs.is_empty()
    }

    pub(crate) fn packet(&self, layer: u8, seq: ExtSeq) -> Option<&Arc<Packet>> {
        self.layers.get(usize::from(layer))?.ring.get(seq)
    }

    /// Gives a receiver what it is due, in order. `take` says whether its stream begins with the packet. What came of the
    /// layer since follows then: the first packet may have come late, sent again by the publisher, and the rest of its key frame
    /// had no place before.
    pub(crate) fn each_due(&self, run_up: RunUp, now: Instant, mut take: impl FnMut(&Packet) -> bool) {
        let mut due = self.due(run_up, now);
        while let Some(pending) = due.next() {
            let Some(packet) = self.packet(pending.layer, pending.seq) else { continue };
            if take(packet) {
                due = self.due(RunUp::From(Pending { seq: pending.seq.next(), ..pending }), now);
            }
        }
    }

    /// The run-up as far as it is here, then what is pending.
    fn due(&self, run_up: RunUp, now: Instant) -> impl Iterator<Item = Pending> {
        let first = self.pending.first().map_or(0, |p| p.seq.0);
        let (layer, numbers, max_age) = match run_up {
            RunUp::None => (0, 0..0, Duration::ZERO),
            RunUp::Sound => (0, first.saturating_sub(RUN_UP_PACKETS)..first, RUN_UP),
            RunUp::From(Pending { layer, seq }) => {
                let newest = self.layers.get(usize::from(layer)).and_then(|l| l.ring.newest());
                (layer, seq.0..newest.map_or(0, |n| n.0 + 1), Duration::MAX)
            }
        };
        let after = numbers.end;
        let is_fresh = move |p: &Pending| {
            let packet = self.packet(p.layer, p.seq);
            packet.is_some_and(|packet| now.saturating_duration_since(packet.arrived_at) < max_age)
        };
        let before = numbers.map(move |seq| Pending { layer, seq: ExtSeq(seq) }).filter(is_fresh);
        before.chain(self.pending.iter().copied().filter(move |p| p.seq.0 >= after || p.layer != layer))
    }

    /// First packet of the key frame that `of` belongs to, if all of the frame up to it is here.
    pub(crate) fn keyframe_until(&self, of: Pending) -> Option<Pending> {
        let timestamp = self.packet(of.layer, of.seq)?.timestamp;
        let back = (0..=of.seq.0).rev().map_while(|seq| self.packet(of.layer, ExtSeq(seq)));
        let frame = back.take_while(|packet| packet.timestamp == timestamp);
        let start = frame.filter(|packet| packet.info.is_keyframe && packet.info.is_frame_start).last()?;
        Some(Pending { layer: of.layer, seq: start.seq })
    }

    /// The same, if all of the frame is here.
    pub(crate) fn whole_keyframe(&self, of: Pending) -> Option<Pending> {
        let timestamp = self.packet(of.layer, of.seq)?.timestamp;
        let mut forth = (of.seq.0..).map_while(|seq| self.packet(of.layer, ExtSeq(seq)));
        let is_whole = forth.any(|packet| packet.marker || packet.timestamp != timestamp);
        self.keyframe_until(of).filter(|_| is_whole)
    }

    /// The key frame that is on its way on a layer, as far as it is here.
    pub(crate) fn newest_keyframe(&self, layer: u8) -> Option<Pending> {
        let newest = self.layers.get(usize::from(layer))?.ring.newest()?;
        self.keyframe_until(Pending { layer, seq: newest })
    }

    /// Stores a packet for the next flush.
    pub(crate) fn take(&mut self, now: Instant, arriving: &Arriving<'_>) -> Taken {
        let has_vp8_descriptor = self.codec == Codec::Vp8;
        match self.admit(now, arriving) {
            Ok(is_restart) => {
                let layer = &mut self.layers[usize::from(arriving.layer)];
                let mut packet = layer.ring.take_free().unwrap_or_else(|| Arc::new(Packet::empty(now)));
                let fresh = Arc::get_mut(&mut packet).expect("free packets are not shared");
                fresh.fill(now, arriving, is_restart, has_vp8_descriptor);
                layer.ring.insert(packet);
                self.push_pending(arriving.layer, arriving.seq);
                Taken::Pending
            }
            Err(reason) => reason,
        }
    }

    /// Stores a packet that another shard holds too.
    pub(crate) fn take_shared(&mut self, now: Instant, packet: Arc<Packet>) -> Taken {
        let (number, seq) = (packet.layer, packet.seq);
        let Some(layer) = self.layers.get_mut(usize::from(number)) else { return Taken::Duplicate };
        if packet.is_restart {
            layer.ring.clear();
        }
        if !layer.ring.accepts(seq) {
            return Taken::Duplicate;
        }
        if self.pending.len() >= self.max_pending {
            return Taken::Overflow;
        }
        layer.note(now, &packet.info, packet.payload().len(), packet.marker);
        layer.ring.insert(packet);
        self.push_pending(number, seq);
        Taken::Pending
    }

    fn push_pending(&mut self, layer: u8, seq: ExtSeq) {
        self.pending.push(Pending { layer, seq });
    }

    /// Until when its packets wait for the rest of their picture, if they do.
    pub(crate) fn held_until(&self, now: Instant) -> Option<Instant> {
        let (first, last) = (self.pending.first()?, self.pending.last()?);
        if self.kind != Kind::Video || self.pending.len() >= MAX_PATIENT {
            return None;
        }
        let until = self.packet(first.layer, first.seq)?.arrived_at + PICTURE_PATIENCE;
        let is_complete = self.packet(last.layer, last.seq)?.marker;
        (!is_complete && now < until).then_some(until)
    }

    /// True if the packet is the first after a break in its layer's sequence.
    fn admit(&mut self, now: Instant, arriving: &Arriving<'_>) -> Result<bool, Taken> {
        let pending = self.pending.len();
        let is_keyframe_start = arriving.info.is_keyframe && arriving.info.is_frame_start;
        if is_keyframe_start {
            self.keyframes.on_keyframe(usize::from(arriving.layer));
        }
        let (is_muted, max_pending) = (self.is_muted, self.max_pending);
        let Some(layer) = self.layers.get_mut(usize::from(arriving.layer)) else { return Err(Taken::Duplicate) };
        layer.note(now, &arriving.info, arriving.payload.len(), arriving.marker);
        if is_muted {
            return Err(Taken::Muted);
        }
        if layer.awaits_keyframe && !is_keyframe_start {
            return Err(Taken::Muted);
        }
        layer.awaits_keyframe = false;
        let is_restart = arriving.is_restart || layer.is_restarting;
        if is_restart {
            layer.ring.clear();
        }
        if !layer.ring.accepts(arriving.seq) {
            return Err(Taken::Duplicate);
        }
        if pending >= max_pending {
            return Err(Taken::Overflow);
        }
        layer.is_restarting = false;
        Ok(is_restart)
    }

    /// Changes whether the track is forwarded. After a mute the stream starts anew, video at a key frame.
    pub(crate) fn set_muted(&mut self, is_muted: bool) {
        if self.is_muted && !is_muted {
            for layer in &mut self.layers {
                layer.is_restarting = true;
                layer.awaits_keyframe = self.kind == Kind::Video;
            }
            if self.kind == Kind::Video {
                (0..self.layers.len()).for_each(|layer| self.keyframes.request(layer));
            }
        }
        self.is_muted = is_muted;
    }

    /// When a key-frame request or the end of a layer is to be told.
    pub(crate) fn next_timeout(&self, now: Instant, rtt: Duration) -> Option<Instant> {
        let keyframe = self.keyframes.next_timeout(now, rtt);
        [keyframe, self.unwanted_since.map(|at| at + UNWANTED_DELAY)].into_iter().flatten().min()
    }

    /// Bit per layer that had packets lately.
    pub(crate) fn live_mask(&self, now: Instant) -> u8 {
        let mut mask = 0;
        for (index, layer) in self.layers.iter().enumerate() {
            mask |= u8::from(layer.is_live(now)) << index;
        }
        mask
    }

    /// Every layer of the track.
    pub(crate) fn full_mask(&self) -> u8 {
        all_layers(self.layers.len())
    }

    /// True if the layers are inside one encoding.
    pub(crate) fn is_svc(&self) -> bool {
        is_svc(self.codec, self.layers.len())
    }

    /// Spatial layers that were seen inside the one encoding of a client of this shard; `None` if the track is none such.
    pub(crate) fn own_spatials(&self) -> Option<usize> {
        let is_own = matches!(self.origin, Origin::Transport { .. });
        (is_own && self.is_svc()).then(|| self.layers[0].spatials.len())
    }

    /// What the allocator is told of the layers: how many, and their figures.
    pub(crate) fn layer_infos(&self, now: Instant) -> (u8, [LayerInfo; MAX_SPATIAL]) {
        let mut infos = [LayerInfo::default(); MAX_SPATIAL];
        if self.is_svc() {
            let layer = &self.layers[0];
            let mut below = [0; MAX_TEMPORAL];
            for (info, spatial) in infos.iter_mut().zip(&layer.spatials) {
                *info = spatial.info(layer.is_live(now));
                info.bps.iter_mut().zip(&mut below).for_each(|(bps, below)| {
                    *bps += *below;
                    *below = *bps;
                });
            }
            return (layer.spatials.len() as u8, infos);
        }
        for (info, layer) in infos.iter_mut().zip(&self.layers) {
            *info = layer.spatials[0].info(layer.is_live(now));
        }
        (self.layers.len() as u8, infos)
    }
}

impl Spatial {
    fn new() -> Self {
        Self { meter: LayerMeter::new(), size: None }
    }

    fn info(&self, is_live: bool) -> LayerInfo {
        LayerInfo {
            height: self.size.map_or(0, |(width, height)| width.min(height)),
            fps: self.meter.fps(),
            temporals: self.meter.temporals(),
            bps: self.meter.bps(),
            is_live,
        }
    }
}

impl Layer {
    fn new(capacity: usize) -> Self {
        Self {
            ring: IngressRing::new(capacity),
            sender_report: None,
            spatials: vec![Spatial::new()],
            packet_at: None,
            is_restarting: false,
            awaits_keyframe: false,
        }
    }

    fn is_live(&self, now: Instant) -> bool {
        self.packet_at.is_some_and(|at| now.saturating_duration_since(at) < LIVE_TIMEOUT)
    }

    fn note(&mut self, now: Instant, info: &PayloadInfo, bytes: usize, marker: bool) {
        self.packet_at = Some(now);
        let index = usize::from(info.spatial).min(MAX_SPATIAL - 1);
        while self.spatials.len() <= index {
            self.spatials.push(Spatial::new());
        }
        let spatial = &mut self.spatials[index];
        spatial.meter.on_packet(now, info.temporal, bytes, marker || info.is_frame_end);
        spatial.size = info.size.or(spatial.size);
    }
}

fn is_svc(codec: Codec, layers: usize) -> bool {
    matches!(codec, Codec::Vp9 | Codec::Av1) && layers == 1
}

pub(crate) fn all_layers(count: usize) -> u8 {
    ((1u16 << count) - 1) as u8
}
