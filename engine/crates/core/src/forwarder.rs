//! One receiver's view of a track: which packets it gets, and as which packets of its own stream.

use mrtc_rtp::id::ExtSeq;

use crate::allocator::Target;
use crate::keys::TrackKey;
use crate::layer_selector::{LayerSelector, SelectorPacket, Verdict};
use crate::packet::Packet;
use crate::rtp_rewriter::{Position, Rewritten, RtpRewriter};
use crate::track::Track;

/// Selector and rewriter of one receiver. The rewriter outlives the tracks that it carries one after the other.
#[derive(Debug)]
pub(crate) struct Forwarder {
    selector: LayerSelector,
    rewriter: RtpRewriter,
    /// The highest number that left; of pictures.
    admitted: Option<ExtSeq>,
    /// What the rewriter's numbers were aligned to last.
    aligned_to: Option<Alignment>,
}

#[derive(Clone, Copy, Debug)]
struct Alignment {
    track: TrackKey,
    layer: u8,
    timestamp_delta: u32,
}

impl Forwarder {
    /// Sends nothing until a track is attached. `random` gives the first numbers of the stream.
    pub(crate) fn new(random: u64) -> Self {
        Self {
            selector: LayerSelector::simulcast(),
            rewriter: RtpRewriter::new(random),
            admitted: None,
            aligned_to: None,
        }
    }

    /// Goes on with a stream that was elsewhere; before anything is sent.
    pub(crate) fn resume(&mut self, position: Position) {
        self.rewriter = RtpRewriter::resume(position);
    }

    /// Begins to carry a track; it starts at its next key frame.
    pub(crate) fn attach(&mut self, track: &Track) {
        self.selector = if track.is_svc() { LayerSelector::svc() } else { LayerSelector::simulcast() };
        self.rewriter.detach();
    }

    /// What is still on its way of the present track has no place any more.
    pub(crate) fn detach(&mut self) {
        self.rewriter.detach();
        self.selector.reset();
    }

    pub(crate) fn set_target(&mut self, target: Target) {
        self.selector.set_target(target);
    }

    pub(crate) fn set_live(&mut self, mask: u8) {
        self.selector.set_live(mask);
    }

    pub(crate) fn wants_keyframe(&self) -> Option<u8> {
        self.selector.wants_keyframe()
    }

    /// The encoding that is sent.
    pub(crate) fn current(&self) -> Option<u8> {
        self.selector.current()
    }

    /// The packet of this number leaves.
    pub(crate) fn admit(&mut self, seq: ExtSeq) {
        self.admitted = self.admitted.max(Some(seq));
    }

    /// All that was numbered and not admitted is never sent: goes on at the next key frame.
    pub(crate) fn give_up(&mut self) {
        self.selector.reset();
        self.take_back();
    }

    /// True if the packet begins the key frame of the layer that is waited for while another one is sent.
    pub(crate) fn is_awaited(&self, packet: &Packet) -> bool {
        let info = &packet.info;
        let begins = info.is_keyframe && info.is_frame_start && info.spatial == 0;
        begins && self.wants_keyframe() == Some(packet.layer)
    }

    /// All that was numbered and not admitted is never sent: what comes next takes the first number that did not leave. A
    /// hole would be asked for again and again, in vain.
    pub(crate) fn take_back(&mut self) {
        if let Some(admitted) = self.admitted {
            self.rewriter.rewind(admitted);
        }
    }

    /// A number for a packet of padding.
    pub(crate) fn pad(&mut self) -> ExtSeq {
        let (seq, _) = self.rewriter.pad();
        self.admit(seq);
        seq
    }

    /// The highest timestamp sent.
    pub(crate) fn newest_timestamp(&self) -> u32 {
        self.rewriter.newest_timestamp().map_or(0, |(timestamp, _)| timestamp)
    }

    pub(crate) fn rewriter(&self) -> &RtpRewriter {
        &self.rewriter
    }

    /// True if the packet that was numbered so is the first of what is sent now.
    pub(crate) fn begins_with(&self, rewritten: &Rewritten) -> bool {
        self.rewriter.begins_at() == rewritten.seq
    }

    /// What is added to the timestamps of `layer` of the carried track, if that layer is being sent.
    pub(crate) fn timestamp_delta(&self) -> Option<(u8, u32)> {
        let delta = self.rewriter.timestamp_delta()?;
        self.aligned_to.map(|a| (a.layer, delta))
    }

    /// Judges one packet of the attached track, which is `key`; in order of arrival. `Some`: send it so.
    pub(crate) fn on_packet(&mut self, key: TrackKey, track: &Track, packet: &Packet) -> Option<Rewritten> {
        if packet.payload().is_empty() {
            self.skip_padding(packet);
            return None;
        }
        let seen = SelectorPacket {
            layer: packet.layer,
            seq: packet.seq,
            timestamp: packet.timestamp,
            marker: packet.marker,
            info: &packet.info,
        };
        match self.selector.on_packet(&seen) {
            Verdict::Forward { is_switch, marker } => {
                if is_switch || packet.is_restart || !self.rewriter.has_source() {
                    self.switch(key, track, packet);
                }
                self.rewriter.forward(packet, marker)
            }
            Verdict::Drop => {
                self.rewriter.skip(packet);
                None
            }
            Verdict::Ignore => None,
        }
    }

    fn skip_padding(&mut self, packet: &Packet) {
        if self.selector.current() == Some(packet.layer) || matches!(self.selector, LayerSelector::Svc(_)) {
            self.rewriter.skip(packet);
        }
    }

    fn switch(&mut self, key: TrackKey, track: &Track, packet: &Packet) {
        let clock_rate = track.codec.clock_rate();
        let aligned = self.aligned_timestamp(key, track, packet, clock_rate);
        self.rewriter.switch(packet, clock_rate, aligned);
        let timestamp_delta = self.rewriter.timestamp_delta().unwrap_or_default();
        self.aligned_to = Some(Alignment { track: key, layer: packet.layer, timestamp_delta });
    }

    /// Where the packet belongs on this stream by the publisher's clock: known within one layer, and between layers of
    /// which sender reports came.
    fn aligned_timestamp(&self, key: TrackKey, track: &Track, packet: &Packet, clock_rate: u32) -> Option<u32> {
        let before = self.aligned_to.filter(|a| a.track == key && !packet.is_restart)?;
        if before.layer == packet.layer {
            return Some(packet.timestamp.wrapping_add(before.timestamp_delta));
        }
        let report = |layer: u8| track.layers.get(usize::from(layer)).and_then(|l| l.sender_report);
        let captured_us = report(packet.layer)?.unix_us_of(packet.timestamp, clock_rate);
        let timestamp = report(before.layer)?.timestamp_at(captured_us, clock_rate);
        Some(timestamp.wrapping_add(before.timestamp_delta))
    }
}
