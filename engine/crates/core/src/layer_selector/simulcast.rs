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
    /// Set at a key frame: sequence number from which on packets of the current encoding belong to it.
    started_at: u64,
    live: u8,
    /// Timestamp of the picture that is being dropped or sent, and the verdict for it.
    picture: Option<(u32, bool)>,
    needs_keyframe: bool,
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
            needs_keyframe: false,
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
        self.needs_keyframe = false;
    }

    /// The encoding to ask for a key frame: the wanted one, or the best live one below it, or the lowest live one.
    pub fn wants_keyframe(&self) -> Option<u8> {
        let wanted = self.wanted()?;
        (self.current != Some(wanted) || self.needs_keyframe).then_some(wanted)
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
        if packet.info.is_keyframe && packet.info.is_frame_start {
            self.needs_keyframe = false;
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
        self.needs_keyframe = false;
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
