//! Chooses spatial and temporal layers within one encoding (VP9 SVC; AV1 and others by dependency descriptor).

use crate::allocator::Target;

use super::{SelectorPacket, Verdict};

/// See [`super::LayerSelector`].
#[derive(Debug)]
pub struct SvcSelector {
    target: Option<(u8, u8)>,
    /// Layers being sent: `None` before the first key frame.
    current: Option<(u8, u8)>,
    /// Timestamp of the picture being judged, and the highest spatial layer of it that is sent.
    picture: Option<u32>,
    started_at: u64,
}

impl Default for SvcSelector {
    fn default() -> Self {
        Self::new()
    }
}

impl SvcSelector {
    /// Paused.
    pub fn new() -> Self {
        Self { target: None, current: None, picture: None, started_at: 0 }
    }

    /// Follows the allocator. Pausing takes effect at once; after it the stream starts at a key frame again.
    pub fn set_target(&mut self, target: Target) {
        match target {
            Target::Paused => {
                self.target = None;
                self.reset();
            }
            Target::Layer { spatial, temporal } => self.target = Some((spatial, temporal)),
        }
    }

    /// The next packet sent is the first of a key frame.
    pub fn reset(&mut self) {
        self.current = None;
        self.picture = None;
    }

    /// The highest spatial layer being sent.
    pub fn current(&self) -> Option<u8> {
        self.current.map(|(spatial, _)| spatial)
    }

    /// True if going on needs a key frame: nothing is sent yet, or a higher spatial layer is wanted than is sent.
    pub fn wants_keyframe(&self) -> bool {
        match (self.target, self.current) {
            (Some(_), None) => true,
            (Some((target, _)), Some((current, _))) => target > current,
            (None, _) => false,
        }
    }

    /// See [`super::LayerSelector::on_packet`].
    pub fn on_packet(&mut self, packet: &SelectorPacket<'_>) -> Verdict {
        let Some(target) = self.target else { return Verdict::Ignore };
        let is_picture_start = self.picture != Some(packet.timestamp);
        let is_switch = self.current.is_none();
        if is_picture_start {
            self.picture = Some(packet.timestamp);
            self.begin_picture(packet, target);
        }
        let Some((spatial, temporal)) = self.current else { return Verdict::Ignore };
        if packet.seq.0 < self.started_at {
            return Verdict::Ignore;
        }
        if packet.info.spatial > spatial || packet.info.temporal > temporal {
            return Verdict::Drop;
        }
        let is_last = packet.info.spatial == spatial && packet.info.is_frame_end;
        Verdict::Forward { is_switch, marker: packet.marker || is_last }
    }

    fn begin_picture(&mut self, packet: &SelectorPacket<'_>, (target_spatial, target_temporal): (u8, u8)) {
        let info = packet.info;
        let is_start = info.is_keyframe && info.is_frame_start && info.spatial == 0;
        if is_start {
            if self.current.is_none() {
                self.started_at = packet.seq.0;
            }
            self.current = Some((target_spatial, target_temporal));
            return;
        }
        let Some((spatial, temporal)) = &mut self.current else { return };
        *spatial = (*spatial).min(target_spatial);
        if target_temporal <= *temporal {
            *temporal = target_temporal;
        } else if info.is_switch_point && info.temporal > *temporal {
            *temporal = info.temporal.min(target_temporal);
        }
    }
}
