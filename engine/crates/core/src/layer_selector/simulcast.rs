//! Chooses between the encodings of a simulcast track, and drops temporal layers within the chosen one.

use crate::allocator::Target;

use super::{SelectorPacket, Verdict};

/// See [`super::LayerSelector`].
#[derive(Debug)]
pub struct SimulcastSelector {
    target: Option<u8>,
    target_temporal: u8,
    current: Option<u8>,
    /// Temporal layers up to this one are sent; follows the target where a decoder can follow.
    temporal: u8,
    /// Sequence number of the key frame at which the current encoding began; what is before it comes too late.
    started_at: u64,
    live: u8,
    /// Timestamp of the picture that is being dropped or sent, and the verdict for it.
    picture: Option<(u32, bool)>,
}

impl Default for SimulcastSelector {
    fn default() -> Self {
        Self::new()
    }
}

impl SimulcastSelector {
    /// Paused.
    pub fn new() -> Self {
        Self {
            target: None,
            target_temporal: u8::MAX,
            current: None,
            temporal: u8::MAX,
            started_at: 0,
            live: u8::MAX,
            picture: None,
        }
    }

    /// Follows the allocator. Pausing takes effect at once; after it the stream starts at a key frame again.
    pub fn set_target(&mut self, target: Target) {
        match target {
            Target::Paused => {
                self.target = None;
                self.reset();
            }
            Target::Layer { spatial, temporal } => {
                self.target = Some(spatial);
                self.target_temporal = temporal;
            }
        }
    }

    /// Bit per encoding that has packets at present.
    pub fn set_live(&mut self, mask: u8) {
        self.live = mask;
    }

    /// The encoding being sent.
    pub fn current(&self) -> Option<u8> {
        self.current
    }

    /// The next packet sent is the first of a key frame.
    pub fn reset(&mut self) {
        self.current = None;
        self.picture = None;
    }

    /// The encoding to ask for a key frame, while another than the wanted one is sent.
    pub fn wants_keyframe(&self) -> Option<u8> {
        let wanted = self.wanted()?;
        (self.current != Some(wanted)).then_some(wanted)
    }

    /// What to switch to: the target if it has packets, else the nearest that has.
    fn wanted(&self) -> Option<u8> {
        let target = self.target?;
        let is_live = |layer: &u8| self.live & (1u8.checked_shl(u32::from(*layer)).unwrap_or(0)) != 0;
        let below = (0..=target).rev().find(is_live);
        Some(below.or_else(|| (target..8).find(is_live)).unwrap_or(target))
    }

    /// See [`super::LayerSelector::on_packet`].
    pub fn on_packet(&mut self, packet: &SelectorPacket<'_>) -> Verdict {
        let is_switch = self.maybe_switch(packet);
        if self.current != Some(packet.layer) || packet.seq.0 < self.started_at {
            return Verdict::Ignore;
        }
        if !self.takes_picture(packet) {
            return Verdict::Drop;
        }
        Verdict::Forward { is_switch, marker: packet.marker }
    }

    /// Switches at the first packet of a key frame of an encoding that is nearer to the target than the current one.
    fn maybe_switch(&mut self, packet: &SelectorPacket<'_>) -> bool {
        let is_start = packet.info.is_keyframe && packet.info.is_frame_start;
        if !is_start || self.current == Some(packet.layer) || !self.is_better(packet.layer) {
            return false;
        }
        self.current = Some(packet.layer);
        self.started_at = packet.seq.0;
        self.temporal = self.target_temporal;
        self.picture = None;
        true
    }

    fn is_better(&self, layer: u8) -> bool {
        let Some(target) = self.target else { return false };
        let Some(current) = self.current else {
            // Nothing is sent: any picture beats none, but one above the target only if there is no other.
            return layer <= target || self.wanted() == Some(layer);
        };
        Some(layer) == self.wanted() || (current < layer && layer <= target) || (target <= layer && layer < current)
    }

    /// Temporal filter: all packets of a picture share its verdict.
    fn takes_picture(&mut self, packet: &SelectorPacket<'_>) -> bool {
        if let Some((timestamp, is_taken)) = self.picture
            && timestamp == packet.timestamp
        {
            return is_taken;
        }
        self.follow_temporal_target(packet);
        let is_taken = packet.info.temporal <= self.temporal;
        self.picture = Some((packet.timestamp, is_taken));
        is_taken
    }

    /// Down at any picture, up only at one from which the higher layer can be decoded.
    fn follow_temporal_target(&mut self, packet: &SelectorPacket<'_>) {
        if self.target.is_some_and(|target| target < packet.layer) && self.wanted() != Some(packet.layer) {
            // Too large already: until the key frame of the lower encoding comes, no more than it must be.
            self.temporal = 0;
            return;
        }
        if self.target_temporal <= self.temporal {
            self.temporal = self.target_temporal;
            return;
        }
        let info = packet.info;
        if info.is_keyframe {
            self.temporal = self.target_temporal;
        } else if info.is_switch_point && info.temporal > self.temporal {
            self.temporal = info.temporal.min(self.target_temporal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mrtc_rtp::PayloadInfo;
    use mrtc_rtp::id::ExtSeq;

    const FORWARD: Verdict = Verdict::Forward { is_switch: false, marker: false };
    const SWITCH: Verdict = Verdict::Forward { is_switch: true, marker: false };

    fn target(spatial: u8, temporal: u8) -> Target {
        Target::Layer { spatial, temporal }
    }

    fn selector(target: Target) -> SimulcastSelector {
        let mut selector = SimulcastSelector::new();
        selector.set_target(target);
        selector
    }

    fn key() -> PayloadInfo {
        PayloadInfo { is_keyframe: true, is_frame_start: true, ..PayloadInfo::default() }
    }

    fn delta(temporal: u8, is_switch_point: bool) -> PayloadInfo {
        PayloadInfo { is_frame_start: true, temporal, is_switch_point, ..PayloadInfo::default() }
    }

    /// One packet per picture: the sequence number is the timestamp too.
    fn judge(selector: &mut SimulcastSelector, layer: u8, seq: u64, info: PayloadInfo) -> Verdict {
        let packet = SelectorPacket { layer, seq: ExtSeq(seq), timestamp: seq as u32, marker: false, info: &info };
        selector.on_packet(&packet)
    }

    #[test]
    fn begins_at_a_key_frame_of_the_target() {
        let mut s = selector(target(1, 0));
        assert_eq!(s.wants_keyframe(), Some(1));
        assert_eq!(judge(&mut s, 1, 1, delta(0, false)), Verdict::Ignore);
        assert_eq!(judge(&mut s, 2, 1, key()), Verdict::Ignore);
        assert_eq!(judge(&mut s, 1, 2, key()), SWITCH);
        assert_eq!(judge(&mut s, 1, 3, delta(0, false)), FORWARD);
        assert_eq!((s.wants_keyframe(), s.current()), (None, Some(1)));
    }

    #[test]
    fn any_picture_below_the_target_beats_none() {
        let mut s = selector(target(2, 0));
        assert_eq!(judge(&mut s, 0, 1, key()), SWITCH);
        assert_eq!(s.wants_keyframe(), Some(2));
        assert_eq!(judge(&mut s, 1, 9, key()), SWITCH);
        assert_eq!(judge(&mut s, 0, 2, delta(0, false)), Verdict::Ignore);
        assert_eq!(judge(&mut s, 0, 3, key()), Verdict::Ignore);
        assert_eq!(judge(&mut s, 2, 70, key()), SWITCH);
    }

    #[test]
    fn goes_down_at_a_key_frame_and_sends_the_old_layer_until_then() {
        let mut s = selector(target(2, 0));
        judge(&mut s, 2, 1, key());
        s.set_target(target(0, 0));
        assert_eq!(judge(&mut s, 2, 2, delta(0, false)), FORWARD);
        assert_eq!(s.wants_keyframe(), Some(0));
        assert_eq!(judge(&mut s, 0, 50, key()), SWITCH);
        assert_eq!(judge(&mut s, 2, 3, key()), Verdict::Ignore);
    }

    #[test]
    fn what_left_before_the_key_frame_comes_too_late() {
        let mut s = selector(target(0, 0));
        judge(&mut s, 0, 10, key());
        assert_eq!(judge(&mut s, 0, 9, delta(0, false)), Verdict::Ignore);
    }

    #[test]
    fn a_target_without_packets_is_replaced_by_the_nearest_live_layer() {
        let mut s = selector(target(2, 0));
        s.set_live(0b011);
        assert_eq!(s.wants_keyframe(), Some(1));
        judge(&mut s, 1, 1, key());
        assert_eq!(s.wants_keyframe(), None);
        s.set_live(0b111);
        assert_eq!(s.wants_keyframe(), Some(2));
        let mut above = selector(target(0, 0));
        above.set_live(0b100);
        assert_eq!(above.wants_keyframe(), Some(2));
        assert_eq!(judge(&mut above, 2, 1, key()), SWITCH);
    }

    #[test]
    fn pausing_is_immediate_and_resuming_needs_a_key_frame() {
        let mut s = selector(target(0, 0));
        judge(&mut s, 0, 1, key());
        s.set_target(Target::Paused);
        assert_eq!(judge(&mut s, 0, 2, key()), Verdict::Ignore);
        assert_eq!(s.wants_keyframe(), None);
        s.set_target(target(0, 0));
        assert_eq!(judge(&mut s, 0, 3, delta(0, false)), Verdict::Ignore);
        assert_eq!(s.wants_keyframe(), Some(0));
        assert_eq!(judge(&mut s, 0, 4, key()), SWITCH);
    }

    #[test]
    fn higher_temporal_layers_are_dropped_and_return_at_a_switch_point() {
        let mut s = selector(target(0, 0));
        judge(&mut s, 0, 1, key());
        assert_eq!(judge(&mut s, 0, 2, delta(1, true)), Verdict::Drop);
        s.set_target(target(0, 2));
        assert_eq!(judge(&mut s, 0, 3, delta(2, false)), Verdict::Drop);
        assert_eq!(judge(&mut s, 0, 4, delta(1, true)), FORWARD);
        assert_eq!(judge(&mut s, 0, 5, delta(2, false)), Verdict::Drop);
        assert_eq!(judge(&mut s, 0, 6, delta(2, true)), FORWARD);
        s.set_target(target(0, 1));
        assert_eq!(judge(&mut s, 0, 7, delta(2, true)), Verdict::Drop);
    }

    #[test]
    fn packets_of_a_picture_share_its_verdict() {
        let mut s = selector(target(0, 2));
        judge(&mut s, 0, 1, key());
        let info = delta(2, false);
        let packet = |seq| SelectorPacket { layer: 0, seq: ExtSeq(seq), timestamp: 7, marker: seq == 3, info: &info };
        assert_eq!(s.on_packet(&packet(2)), FORWARD);
        s.set_target(target(0, 0));
        assert_eq!(s.on_packet(&packet(3)), Verdict::Forward { is_switch: false, marker: true });
        assert_eq!(judge(&mut s, 0, 4, delta(2, false)), Verdict::Drop);
    }

    #[test]
    fn sound_passes_from_its_first_packet() {
        let mut s = selector(target(0, 3));
        assert_eq!(judge(&mut s, 0, 1, PayloadInfo::audio()), SWITCH);
        assert_eq!(judge(&mut s, 0, 2, PayloadInfo::audio()), FORWARD);
    }
}
