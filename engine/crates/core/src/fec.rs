//! Repair packets (FlexFEC) for one slot: which packets make a group, how many repairs it gets, which of them covers what.
//!
//! Only for clients that agreed to FlexFEC and lose something: for all others a slot holds an empty option.
//! See `docs/algorithms/loss.md`.

use std::time::Duration;

use mrtc_rtp::codec::PayloadInfo;
use mrtc_rtp::flexfec::{MAX_SPAN, RepairSum};
use mrtc_rtp::id::ExtSeq;

use crate::send_history::SendRecord;

/// Repairs begin at this loss ...
pub const ON_ABOVE: f64 = 0.025;
/// ... and end below this one.
pub const OFF_BELOW: f64 = 0.015;
/// At most so many repairs per packet.
const MAX_RATIO: f64 = 0.5;
/// A retransmission costs a round trip: with a short one it is the cheaper repair, from this one on it comes too late for
/// most.
const LONG_RTT: Duration = Duration::from_millis(150);
/// Key frames and the base layer of temporal layers are worth more, upper layers less.
const KEYFRAME_WEIGHT: f64 = 1.5;
const UPPER_WEIGHT: f64 = 0.5;
/// A group ends after so many frames at the latest: what is lost early in it waits for its end.
const MAX_FRAMES: u32 = 4;

/// A group that is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its first number.
    pub first: ExtSeq,
    /// Its last number.
    pub last: ExtSeq,
    /// Repair packets that it gets.
    pub repairs: usize,
}

/// What a packet is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Of a key frame.
    Keyframe,
    /// Of the base layer.
    Base,
    /// Of an upper temporal layer, or discardable.
    Upper,
}

impl Worth {
    /// Of a packet, by its payload's headers.
    pub fn of(info: &PayloadInfo) -> Self {
        match info {
            PayloadInfo { is_keyframe: true, .. } => Self::Keyframe,
            PayloadInfo { temporal: 0, is_discardable: false, .. } => Self::Base,
            _ => Self::Upper,
        }
    }
}

/// Groups what a slot sends.
#[derive(Debug, Default)]
pub struct FecSender {
    ratio: f64,
    spare: f64,
    first: Option<ExtSeq>,
    frames: u32,
    /// Repairs that are owed, in fractions of a packet.
    credit: f64,
    /// Reused from group to group.
    pub sums: Vec<RepairSum>,
    /// The same: what lies in a group, and one packet or repair.
    pub records: Vec<SendRecord>,
    pub scratch: Vec<u8>,
}

impl FecSender {
    /// Adapts to the loss and round trip of the path; `spare` is the bandwidth left, as a share of what is sent.
    pub fn adapt(&mut self, loss: f64, rtt: Duration, spare: f64) {
        let patience = (rtt.as_secs_f64() / LONG_RTT.as_secs_f64()).min(1.0);
        self.ratio = (loss * (0.4 + 0.8 * patience)).min(MAX_RATIO).min(spare);
        self.spare = spare;
    }

    /// A packet was sent for the first time, in order. `Some`: its group is complete.
    pub fn on_sent(&mut self, seq: ExtSeq, is_frame_end: bool, worth: Worth) -> Option<Group> {
        let in_reach = self.first.filter(|first| seq.0 - first.0 < MAX_SPAN as u64);
        let first = *self.first.insert(in_reach.unwrap_or(seq));
        let weight = match worth {
            Worth::Keyframe => KEYFRAME_WEIGHT,
            Worth::Base => 1.0,
            Worth::Upper => UPPER_WEIGHT,
        };
        self.credit += self.ratio * weight;
        self.frames += u32::from(is_frame_end);
        let span = (seq.0 - first.0) as usize + 1;
        let is_worth_it = is_frame_end && (self.credit >= 1.0 || self.frames >= MAX_FRAMES);
        (is_worth_it || span >= MAX_SPAN).then(|| self.close(first, seq, span))
    }

    fn close(&mut self, first: ExtSeq, last: ExtSeq, span: usize) -> Group {
        // Each group gets one where there is room: what no repair covers is not protected at all. Else one that is nearly
        // earned, and the debt delays the next one.
        let has_room = self.spare * span as f64 >= 1.0;
        let repairs = (self.credit.round() as usize).clamp(usize::from(has_room || self.credit >= 0.3), span);
        self.credit -= repairs as f64;
        if has_room {
            self.credit = self.credit.max(0.0);
        }
        self.first = None;
        self.frames = 0;
        Group { first, last, repairs }
    }

    /// Makes room for `repairs` empty sums.
    pub fn begin(&mut self, repairs: usize) {
        self.sums.resize_with(self.sums.len().max(repairs), RepairSum::default);
        self.sums.iter_mut().for_each(RepairSum::clear);
    }

    /// Adds the packet in `scratch` as the `index`-th of its group to the one repair of `repairs` that covers it: every
    /// `repairs`-th packet goes together, so that a burst of that length is repaired whole.
    pub fn add(&mut self, index: usize, place: usize, repairs: usize) {
        self.sums[index % repairs].add(place, &self.scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn groups(loss: f64, rtt_ms: u64, spare: f64, frames: u32, packets: u64, worth: Worth) -> Vec<Group> {
        let mut fec = FecSender::default();
        fec.adapt(loss, Duration::from_millis(rtt_ms), spare);
        let mut seq = ExtSeq(100);
        let mut found = Vec::new();
        for _ in 0..frames {
            for n in 0..packets {
                seq = seq.next();
                found.extend(fec.on_sent(seq, n + 1 == packets, worth));
            }
        }
        found
    }

    fn repairs(groups: &[Group]) -> usize {
        groups.iter().map(|g| g.repairs).sum()
    }

    #[test]
    fn repairs_follow_loss_round_trip_and_room() {
        let per_thousand = |loss, rtt, spare| repairs(&groups(loss, rtt, spare, 250, 4, Worth::Base));
        assert!((110..=130).contains(&per_thousand(0.1, 200, 1.0)));
        assert!((40..=65).contains(&per_thousand(0.1, 20, 1.0)));
        assert!((470..=500).contains(&per_thousand(0.45, 300, 1.0)));
        assert!((40..=60).contains(&per_thousand(0.4, 300, 0.05)));
        assert_eq!(per_thousand(0.4, 300, 0.0), 0);
    }

    #[test]
    fn more_for_key_frames_than_for_upper_layers() {
        let per_thousand = |worth| repairs(&groups(0.2, 150, 1.0, 250, 4, worth));
        assert!(per_thousand(Worth::Keyframe) > 330);
        assert!(per_thousand(Worth::Upper) < 140);
    }

    #[test]
    fn groups_follow_each_other_and_stay_within_the_mask() {
        let groups = groups(0.05, 100, 1.0, 20, 60, Worth::Base);
        assert!(groups.iter().all(|g| g.last.0 - g.first.0 < MAX_SPAN as u64));
        assert!(groups.windows(2).all(|w| w[1].first == w[0].last.next()));
    }

    #[test]
    fn a_small_picture_gets_a_repair_for_a_few_frames() {
        let groups = groups(0.05, 100, 1.0, 40, 2, Worth::Base);
        assert!(groups.iter().all(|g| g.last.0 - g.first.0 < 8 && g.repairs == 1), "{groups:?}");
    }

    #[test]
    fn every_burst_as_long_as_the_repairs_comes_back() {
        let packet = |seq: u16| {
            let mut packet = vec![0x80, 96];
            packet.extend(seq.to_be_bytes());
            packet.extend([0, 0, 0, 1, 0, 0, 0, 9, seq as u8]);
            packet
        };
        let mut fec = FecSender::default();
        fec.begin(3);
        for index in 0..10 {
            fec.scratch = packet(index);
            fec.add(index.into(), index.into(), 3);
        }
        for start in 0..8u16 {
            let lost = start..start + 3;
            for seq in lost.clone() {
                let mut payload = Vec::new();
                fec.sums[usize::from(seq) % 3].write(mrtc_rtp::Ssrc(9), mrtc_rtp::SeqNo(0), &mut payload);
                let repair = mrtc_rtp::flexfec::Repair::parse(&payload).unwrap();
                let others: Vec<_> = repair.covered().filter(|s| s.0 != seq).map(|s| packet(s.0)).collect();
                assert!(repair.covered().all(|s| s.0 == seq || !lost.contains(&s.0)));
                let back = repair.recover(mrtc_rtp::SeqNo(seq), others.iter().map(Vec::as_slice));
                assert_eq!(back, Some(packet(seq)));
            }
        }
    }
}
