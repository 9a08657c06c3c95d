//! Chooses spatial and temporal layers within one encoding (VP9 SVC; AV1 and others by dependency descriptor).
//!
//! Spatial layers are added at key frames only: whether an upper layer can be joined elsewhere is known too late, when
//! the marker of the layer below has already left.

use crate::allocator::Target;

use super::{SelectorPacket, Verdict};

/// The highest layers that are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layers {
    spatial: u8,
    temporal: u8,
}

/// See [`super::LayerSelector`].
#[derive(Debug, Default)]
pub struct SvcSelector {
    target: Option<Layers>,
    /// `None` before the first key frame.
    current: Option<Layers>,
    /// Timestamp of the picture being judged.
    picture: Option<u32>,
    /// Sequence number of the key frame at which sending began; what is before it comes too late.
    started_at: u64,
}

impl SvcSelector {
    /// Paused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows the allocator. Pausing takes effect at once; after it the stream starts at a key frame again.
    pub fn set_target(&mut self, target: Target) {
        match target {
            Target::Paused => {
                self.target = None;
                self.reset();
            }
            Target::Layer { spatial, temporal } => self.target = Some(Layers { spatial, temporal }),
        }
    }

    /// The next packet sent is the first of a key frame.
    pub fn reset(&mut self) {
        self.current = None;
        self.picture = None;
    }

    /// The highest spatial layer being sent.
    pub fn current(&self) -> Option<u8> {
        self.current.map(|layers| layers.spatial)
    }

    /// True if going on needs a key frame: nothing is sent yet, or a higher spatial layer is wanted than is sent.
    pub fn wants_keyframe(&self) -> bool {
        self.target.is_some_and(|target| self.current.is_none_or(|current| target.spatial > current.spatial))
    }

    /// See [`super::LayerSelector::on_packet`].
    pub fn on_packet(&mut self, packet: &SelectorPacket<'_>) -> Verdict {
        let Some(target) = self.target else { return Verdict::Ignore };
        let is_switch = self.maybe_start(packet, target);
        if self.picture != Some(packet.timestamp) {
            self.picture = Some(packet.timestamp);
            self.follow_target(packet, target);
        }
        let Some(current) = self.current.filter(|_| packet.seq.0 >= self.started_at) else { return Verdict::Ignore };
        let info = packet.info;
        if info.spatial > current.spatial || info.temporal > current.temporal {
            return Verdict::Drop;
        }
        // The layers above are gone: the picture ends with the highest one that is sent.
        let is_last = info.spatial == current.spatial && info.is_frame_end;
        Verdict::Forward { is_switch, marker: packet.marker || is_last }
    }

    /// All wanted layers begin at a key frame. True if nothing was sent before it.
    fn maybe_start(&mut self, packet: &SelectorPacket<'_>, target: Layers) -> bool {
        let info = packet.info;
        if !(info.is_keyframe && info.is_frame_start && info.spatial == 0) {
            return false;
        }
        let is_first = self.current.is_none();
        if is_first {
            self.started_at = packet.seq.0;
        }
        self.current = Some(target);
        is_first
    }

    /// Down at any picture; temporal layers up at one from which they can be decoded.
    fn follow_target(&mut self, packet: &SelectorPacket<'_>, target: Layers) {
        let Some(current) = &mut self.current else { return };
        let info = packet.info;
        current.spatial = current.spatial.min(target.spatial);
        if target.temporal <= current.temporal {
            current.temporal = target.temporal;
        } else if info.is_switch_point && info.temporal > current.temporal {
            current.temporal = info.temporal.min(target.temporal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mrtc_rtp::PayloadInfo;
    use mrtc_rtp::id::ExtSeq;

    /// A stream of pictures with one packet per spatial layer.
    struct Stream {
        selector: SvcSelector,
        seq: u64,
        timestamp: u32,
    }

    impl Stream {
        fn new(spatial: u8, temporal: u8) -> Self {
            let mut selector = SvcSelector::new();
            selector.set_target(Target::Layer { spatial, temporal });
            Self { selector, seq: 100, timestamp: 0 }
        }

        fn aim(&mut self, spatial: u8, temporal: u8) {
            self.selector.set_target(Target::Layer { spatial, temporal });
        }

        /// Verdicts on the three layers: `K` switch, `f` forwarded, `M` with marker, `.` dropped, `-` ignored.
        fn picture(&mut self, is_key: bool, temporal: u8, is_switch_point: bool) -> String {
            self.timestamp += 3000;
            let verdicts = (0..3).map(|spatial| {
                let info = PayloadInfo {
                    is_keyframe: is_key && spatial == 0,
                    is_frame_start: true,
                    is_frame_end: true,
                    spatial,
                    temporal,
                    is_switch_point,
                    ..PayloadInfo::default()
                };
                self.seq += 1;
                let (seq, timestamp, marker) = (ExtSeq(self.seq), self.timestamp, spatial == 2);
                let packet = SelectorPacket { layer: 0, seq, timestamp, marker, info: &info };
                match self.selector.on_packet(&packet) {
                    Verdict::Forward { is_switch: true, .. } => 'K',
                    Verdict::Forward { marker: true, .. } => 'M',
                    Verdict::Forward { .. } => 'f',
                    Verdict::Drop => '.',
                    Verdict::Ignore => '-',
                }
            });
            verdicts.collect()
        }
    }

    #[test]
    fn begins_at_a_key_frame_and_marks_the_end_of_the_highest_layer() {
        let mut stream = Stream::new(1, 3);
        assert_eq!(stream.picture(false, 0, false), "---");
        assert!(stream.selector.wants_keyframe());
        assert_eq!(stream.picture(true, 0, false), "KM.");
        assert_eq!(stream.picture(false, 0, false), "fM.");
        assert!(!stream.selector.wants_keyframe());
    }

    #[test]
    fn goes_down_at_once_and_up_at_a_key_frame() {
        let mut stream = Stream::new(2, 3);
        stream.picture(true, 0, false);
        assert_eq!(stream.picture(false, 0, false), "ffM");
        stream.aim(0, 3);
        assert_eq!(stream.picture(false, 0, false), "M..");
        stream.aim(2, 3);
        assert_eq!(stream.picture(false, 0, true), "M..");
        assert!(stream.selector.wants_keyframe());
        assert_eq!(stream.picture(true, 0, false), "ffM");
    }

    #[test]
    fn temporal_layers_go_up_at_switch_points() {
        let mut stream = Stream::new(0, 0);
        stream.picture(true, 0, false);
        assert_eq!(stream.picture(false, 1, true), "...");
        stream.aim(0, 1);
        assert_eq!(stream.picture(false, 1, false), "...");
        assert_eq!(stream.picture(false, 1, true), "M..");
    }

    #[test]
    fn pausing_ends_and_resuming_begins_anew() {
        let mut stream = Stream::new(0, 0);
        stream.picture(true, 0, false);
        stream.selector.set_target(Target::Paused);
        assert_eq!(stream.picture(true, 0, false), "---");
        stream.aim(0, 0);
        assert_eq!(stream.picture(false, 0, false), "---");
        assert_eq!(stream.picture(true, 0, false), "K..");
    }

    #[test]
    fn a_key_frame_whose_first_packet_is_overtaken_is_not_missed() {
        let mut stream = Stream::new(0, 0);
        let delta = PayloadInfo { is_frame_start: false, ..PayloadInfo::default() };
        let key = PayloadInfo { is_keyframe: true, is_frame_start: true, ..PayloadInfo::default() };
        let packet = |seq, info| SelectorPacket { layer: 0, seq: ExtSeq(seq), timestamp: 9, marker: false, info };
        assert_eq!(stream.selector.on_packet(&packet(2, &delta)), Verdict::Ignore);
        assert!(stream.selector.on_packet(&packet(1, &key)).is_forward());
        assert!(stream.selector.on_packet(&packet(3, &delta)).is_forward());
    }
}
