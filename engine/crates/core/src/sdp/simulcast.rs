//! The order of simulcast layers.

use mrtc_rtp::id::Rid;

/// Names that everybody uses for layers, each scale lowest first.
const SCALES: [&[&str]; 4] = [&["q", "h", "f"], &["l", "m", "h"], &["low", "mid", "high"], &["low", "medium", "high"]];

/// Rids lowest layer first. SDP has no field for it (RFC 8853 leaves the order to preference): well-known names are put
/// in their order, others keep the order of the offer, where `sendEncodings` has put them.
pub(super) fn lowest_first(rids: &[Rid]) -> Vec<Rid> {
    let mut sorted = rids.to_vec();
    let rank_in = |scale: &[&str], rid: &Rid| scale.iter().position(|name| *name == rid.as_str());
    if let Some(scale) = SCALES.iter().find(|scale| rids.iter().all(|rid| rank_in(scale, rid).is_some())) {
        sorted.sort_by_key(|rid| rank_in(scale, rid));
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &[&str]) -> Vec<String> {
        let rids: Vec<Rid> = names.iter().filter_map(|n| Rid::new(n)).collect();
        lowest_first(&rids).iter().map(Rid::to_string).collect()
    }

    #[test]
    fn well_known_names_are_put_in_order() {
        assert_eq!(sorted(&["f", "h", "q"]), ["q", "h", "f"]);
        assert_eq!(sorted(&["h", "m", "l"]), ["l", "m", "h"]);
        assert_eq!(sorted(&["high", "low"]), ["low", "high"]);
    }

    #[test]
    fn other_names_keep_their_order() {
        assert_eq!(sorted(&["b", "a", "c"]), ["b", "a", "c"]);
        assert_eq!(sorted(&["2", "0", "1"]), ["2", "0", "1"]);
    }
}
