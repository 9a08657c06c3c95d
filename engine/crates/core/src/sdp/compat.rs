//! Which variant of a codec decodes which: H.264 by RFC 6184, VP9 and AV1 by their profiles.

use super::Variant;
use crate::command::Codec;

/// What is known of how a track is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The codec.
    pub codec: Codec,
    /// Its variant; unset where that is not known: tracks of other nodes and of files.
    pub variant: Option<Variant>,
}

impl From<Codec> for Encoding {
    fn from(codec: Codec) -> Self {
        Self { codec, variant: None }
    }
}

impl Variant {
    /// How far a receiver's variant is from that of a stream which it decodes: zero for the same one, more for what is meant
    /// for better streams. `None`: it does not decode it.
    pub(crate) fn decodes(self, stream: Self) -> Option<u8> {
        match (self, stream) {
            (Self::Plain, Self::Plain) => Some(0),
            (
                Self::H264 { profile_level_id: receiver, packetization_mode: takes },
                Self::H264 { profile_level_id: sent, packetization_mode: used },
            ) => {
                // RFC 6184 section 6: what mode 1 allows mode 0 allows a part of.
                let mode = takes.checked_sub(used)?;
                // Levels are no matter: with `level-asymmetry-allowed` each side says only what it receives itself.
                Some(2 * profile_distance(receiver, sent)? + mode)
            }
            (Self::Vp9 { profile: receiver }, Self::Vp9 { profile: sent }) => (receiver == sent).then_some(0),
            // Each profile of AV1 holds those below it.
            (Self::Av1 { profile: receiver }, Self::Av1 { profile: sent }) => receiver.checked_sub(sent),
            _ => None,
        }
    }
}

/// Profiles that WebRTC knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    /// Constrained Baseline; and Baseline, whose further tools (FMO, ASO, redundant slices) no encoder of WebRTC uses:
    /// libwebrtc sends the same under both names.
    Baseline,
    Main,
    Extended,
    ConstrainedHigh,
    High,
}

/// RFC 6184 table 5: profile_idc and the constraint flags, as far as they tell subsets.
fn profile_of([idc, constraints, _]: [u8; 3]) -> Profile {
    match (idc, constraints) {
        (0x42, _) => Profile::Baseline,
        (0x4d, c) | (0x58, c) if c & 0x80 != 0 => Profile::Baseline,
        (0x4d, _) => Profile::Main,
        (0x58, _) => Profile::Extended,
        (_, 0x0c) => Profile::ConstrainedHigh,
        _ => Profile::High,
    }
}

fn profile_distance(receiver: [u8; 3], sent: [u8; 3]) -> Option<u8> {
    use Profile::{Baseline, ConstrainedHigh, Extended, High, Main};
    let (receiver, sent) = (profile_of(receiver), profile_of(sent));
    match (receiver, sent) {
        (a, b) if a == b => Some(0),
        (Main | Extended, Baseline) | (High, ConstrainedHigh) => Some(1),
        (ConstrainedHigh, Baseline) | (High, Main) => Some(2),
        (High, Baseline) => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn h264(id: u32, packetization_mode: u8) -> Variant {
        let [_, profile, constraints, level] = id.to_be_bytes();
        Variant::H264 { profile_level_id: [profile, constraints, level], packetization_mode }
    }

    const CONSTRAINED_BASELINE: u32 = 0x42e01f;
    const BASELINE: u32 = 0x42001f;
    const MAIN: u32 = 0x4d001f;
    const CONSTRAINED_HIGH: u32 = 0x640c1f;
    const HIGH: u32 = 0x64001f;

    #[test]
    fn a_decoder_of_a_higher_profile_takes_the_lower_ones() {
        let decodes = |receiver, sent| h264(receiver, 1).decodes(h264(sent, 1)).is_some();
        for (receiver, sent) in [
            (CONSTRAINED_BASELINE, BASELINE),
            (BASELINE, CONSTRAINED_BASELINE),
            (MAIN, CONSTRAINED_BASELINE),
            (CONSTRAINED_HIGH, CONSTRAINED_BASELINE),
            (HIGH, CONSTRAINED_BASELINE),
            (HIGH, MAIN),
            (HIGH, CONSTRAINED_HIGH),
        ] {
            assert!(decodes(receiver, sent), "{receiver:x} {sent:x}");
        }
        for (receiver, sent) in [
            (CONSTRAINED_BASELINE, MAIN),
            (CONSTRAINED_BASELINE, HIGH),
            (MAIN, HIGH),
            (MAIN, CONSTRAINED_HIGH),
            (CONSTRAINED_HIGH, MAIN),
            (CONSTRAINED_HIGH, HIGH),
        ] {
            assert!(!decodes(receiver, sent), "{receiver:x} {sent:x}");
        }
    }

    #[test]
    fn constraint_flags_tell_subsets_and_levels_do_not_matter() {
        // Main and Extended with the flag that they keep to Baseline (RFC 6184 table 5).
        for sent in [0x4d801f, 0x58c01f, 0x42e034, 0x42c00a] {
            assert!(h264(CONSTRAINED_BASELINE, 1).decodes(h264(sent, 1)).is_some(), "{sent:x}");
        }
    }

    #[test]
    fn single_nal_units_go_to_everybody_and_fragments_to_mode_1_only() {
        assert_eq!(h264(MAIN, 1).decodes(h264(MAIN, 1)), Some(0));
        assert_eq!(h264(MAIN, 0).decodes(h264(MAIN, 0)), Some(0));
        assert_eq!(h264(MAIN, 1).decodes(h264(MAIN, 0)), Some(1));
        assert_eq!(h264(MAIN, 0).decodes(h264(MAIN, 1)), None);
    }

    #[test]
    fn the_nearest_is_preferred() {
        let stream = h264(CONSTRAINED_BASELINE, 1);
        let mut found = [HIGH, MAIN, CONSTRAINED_HIGH, BASELINE].map(|id| (h264(id, 1).decodes(stream).unwrap(), id));
        found.sort_unstable();
        assert_eq!(found.map(|(_, id)| id), [BASELINE, MAIN, CONSTRAINED_HIGH, HIGH]);
    }

    #[test]
    fn other_codecs_go_by_profile() {
        assert_eq!(Variant::Plain.decodes(Variant::Plain), Some(0));
        assert_eq!(Variant::Vp9 { profile: 0 }.decodes(Variant::Vp9 { profile: 2 }), None);
        assert_eq!(Variant::Av1 { profile: 1 }.decodes(Variant::Av1 { profile: 0 }), Some(1));
        assert_eq!(Variant::Av1 { profile: 0 }.decodes(Variant::Av1 { profile: 1 }), None);
        assert_eq!(h264(MAIN, 1).decodes(Variant::Plain), None);
    }
}
