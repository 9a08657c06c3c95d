//! Which packets of a track a subscriber gets: the choice between simulcast encodings, and of layers within one.
//!
//! A selector decides packet by packet and never by itself changes its target: that is the allocator's. It switches
//! only where a decoder can follow.

pub mod simulcast;
pub mod svc;

pub use simulcast::SimulcastSelector;
pub use svc::SvcSelector;

use mrtc_rtp::PayloadInfo;
use mrtc_rtp::id::ExtSeq;

use crate::allocator::Target;

/// What a selector looks at.
#[derive(Clone, Copy, Debug)]
pub struct SelectorPacket<'a> {
    /// Index of the simulcast encoding (0 is the lowest); 0 for a track without simulcast.
    pub layer: u8,
    /// Position in its encoding's sequence.
    pub seq: ExtSeq,
    /// RTP timestamp: tells pictures apart.
    pub timestamp: u32,
    /// RTP marker: end of a picture.
    pub marker: bool,
    /// What the payload tells.
    pub info: &'a PayloadInfo,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it.
    Forward {
        /// The first packet of another encoding (or the first of all): the rewriter aligns sequence and timestamps.
        is_switch: bool,
        /// The marker to send: set on the last packet of a picture that the subscriber gets.
        marker: bool,
    },
    /// Do not send it; the rewriter closes the gap in the sequence, since nothing was lost.
    Drop,
    /// Do not send it, and leave no trace: the packet is of another encoding than the one being sent.
    Ignore,
}

impl Verdict {
    /// True if the packet is to be sent.
    pub fn is_forward(self) -> bool {
        matches!(self, Self::Forward { .. })
    }
}

/// The selector of one subscription.
#[derive(Debug)]
pub enum LayerSelector {
    /// Between encodings (also of a track with only one), and temporal layers within.
    Simulcast(SimulcastSelector),
    /// Spatial and temporal layers of one encoding (VP9, AV1).
    Svc(SvcSelector),
}

impl LayerSelector {
    /// For a track of one or more encodings.
    pub fn simulcast() -> Self {
        Self::Simulcast(SimulcastSelector::new())
    }

    /// For a track whose layers are inside one encoding.
    pub fn svc() -> Self {
        Self::Svc(SvcSelector::new())
    }

    /// Follows the allocator.
    pub fn set_target(&mut self, target: Target) {
        match self {
            Self::Simulcast(s) => s.set_target(target),
            Self::Svc(s) => s.set_target(target),
        }
    }

    /// Which encodings have packets at present, bit per layer. Without this all are taken for live.
    pub fn set_live(&mut self, mask: u8) {
        if let Self::Simulcast(s) = self {
            s.set_live(mask);
        }
    }

    /// Judges a packet. Packets of one encoding come in order of arrival.
    pub fn on_packet(&mut self, packet: &SelectorPacket<'_>) -> Verdict {
        match self {
            Self::Simulcast(s) => s.on_packet(packet),
            Self::Svc(s) => s.on_packet(packet),
        }
    }

    /// The encoding of which a key frame is needed to go on, if any.
    pub fn wants_keyframe(&self) -> Option<u8> {
        match self {
            Self::Simulcast(s) => s.wants_keyframe(),
            Self::Svc(s) => s.wants_keyframe().then_some(0),
        }
    }

    /// The spatial layer (encoding) that is sent now; `None` while waiting for the first key frame or paused.
    pub fn current(&self) -> Option<u8> {
        match self {
            Self::Simulcast(s) => s.current(),
            Self::Svc(s) => s.current(),
        }
    }

    /// Forgets the picture being sent: the track changed or its decoder lost the thread. The next packet sent is the
    /// first of a key frame.
    pub fn reset(&mut self) {
        match self {
            Self::Simulcast(s) => s.reset(),
            Self::Svc(s) => s.reset(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What may happen to a selector.
    #[derive(Clone, Debug)]
    enum Step {
        Aim(Option<(u8, u8)>),
        Live(u8),
        Reset,
        Packet {
            layer: u8,
            is_key: bool,
            is_start: bool,
            is_end: bool,
            spatial: u8,
            temporal: u8,
            is_switch_point: bool,
        },
    }

    fn any_packet() -> impl Strategy<Value = Step> {
        let flags = (prop::bool::weighted(0.2), any::<bool>(), any::<bool>(), any::<bool>());
        (0u8..3, 0u8..3, 0u8..3, flags).prop_map(
            |(layer, spatial, temporal, (is_key, is_start, is_end, is_switch_point))| Step::Packet {
                layer,
                is_key,
                is_start,
                is_end,
                spatial,
                temporal,
                is_switch_point,
            },
        )
    }

    fn any_steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => prop::option::weighted(0.9, (0u8..3, 0u8..3)).prop_map(Step::Aim),
            1 => any::<u8>().prop_map(Step::Live),
            1 => Just(Step::Reset),
            20 => any_packet(),
        ];
        prop::collection::vec(step, 1..400)
    }

    fn target(aim: Option<(u8, u8)>) -> Target {
        aim.map_or(Target::Paused, |(spatial, temporal)| Target::Layer { spatial, temporal })
    }

    /// Plays the steps; what is forwarded is checked as it comes. A picture has three packets of a layer.
    fn play(mut selector: LayerSelector, steps: Vec<Step>) -> Result<(), TestCaseError> {
        let mut sent = [1000u64; 3];
        let mut is_paused = true;
        for step in steps {
            match step {
                Step::Aim(aim) => {
                    selector.set_target(target(aim));
                    is_paused = aim.is_none();
                }
                Step::Live(mask) => selector.set_live(mask),
                Step::Reset => selector.reset(),
                Step::Packet { layer, is_key, is_start, is_end, spatial, temporal, is_switch_point } => {
                    let number = &mut sent[usize::from(layer)];
                    *number += 1;
                    let info = PayloadInfo {
                        is_keyframe: is_key,
                        is_frame_start: is_start,
                        is_frame_end: is_end,
                        spatial,
                        temporal,
                        is_switch_point,
                        ..PayloadInfo::default()
                    };
                    let timestamp = (*number / 3) as u32;
                    let packet = SelectorPacket { layer, seq: ExtSeq(*number), timestamp, marker: false, info: &info };
                    let before = selector.current();
                    let verdict = selector.on_packet(&packet);
                    check(&selector, before, &packet, verdict, is_paused)?;
                }
            }
        }
        Ok(())
    }

    fn check(
        selector: &LayerSelector,
        before: Option<u8>,
        packet: &SelectorPacket<'_>,
        verdict: Verdict,
        is_paused: bool,
    ) -> Result<(), TestCaseError> {
        let is_start = packet.info.is_keyframe && packet.info.is_frame_start;
        match verdict {
            Verdict::Forward { is_switch, .. } => {
                prop_assert!(!is_paused);
                prop_assert!(before.is_some() || is_start, "begins with a key frame");
                prop_assert!(!is_switch || is_start, "switches at a key frame");
                if matches!(selector, LayerSelector::Simulcast(_)) {
                    prop_assert_eq!(selector.current(), Some(packet.layer));
                }
            }
            Verdict::Drop => prop_assert!(selector.current().is_some()),
            Verdict::Ignore => {}
        }
        prop_assert!(!is_paused || selector.wants_keyframe().is_none());
        Ok(())
    }

    proptest! {
        #[test]
        fn simulcast_only_ever_switches_at_key_frames(steps in any_steps()) {
            play(LayerSelector::simulcast(), steps)?;
        }

        #[test]
        fn svc_only_ever_begins_at_key_frames(steps in any_steps()) {
            play(LayerSelector::svc(), steps)?;
        }
    }
}
