//! How much a subscriber's sound is protected against loss before it asks.
//!
//! Sound is small, and half a second late it is of no use. So at loss each packet travels more than once: inside the
//! next ones for those who take redundancy (RFC 2198), else again by itself. See `docs/algorithms/sound.md`.

use mrtc_rtp::id::ExtSeq;

/// Loss from which a packet travels inside the next one, the next two and so on. One in fifty lost is heard, so each step
/// is where the one before would leave more than about that.
const RED_STEPS: [f32; 4] = [0.02, 0.08, 0.15, 0.28];
/// The same for packets that are sent again by themselves: costs twice the headers, so later.
const COPY_STEPS: [f32; 2] = [0.15, 0.30];
/// A step is left at this part of the loss at which it was taken.
const LEAVE: f32 = 0.5;
/// Weight of a second that is worse than what is known, and of one that is better: quick up, slow down.
const ATTACK: f32 = 0.5;
const DECAY: f32 = 0.1;
/// Fewer packets in a second say nothing (silence).
const MIN_PACKETS: u32 = 20;
/// The state of one slot. The path's loss outlives the tracks that the slot carries.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Protection {
    level: u8,
    /// Smoothed, 0 to 1.
    loss: f32,
    /// Packets that the client asked for since the last review, each once.
    asked: u32,
    packets_at_review: u32,
    newest_at_review: u64,
}

/// What is known of a slot's path.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Sent in all, without those sent again.
    pub(crate) packets: u32,
    /// The highest number sent.
    pub(crate) newest: ExtSeq,
    /// Share lost by transport-wide feedback since the last review.
    pub(crate) path_loss: Option<f32>,
    /// Share lost by the client's last report.
    pub(crate) reported: f32,
    /// Highest level that the path has room for.
    pub(crate) most: u8,
}

impl Seen {
    /// Share of the `sent` packets that were lost.
    ///
    /// `numbers`: span of the numbers sent. A report counts those in between that were lost on the way to us. It does
    /// not count what came by one of `copies` more: each of them was lost with the same chance.
    fn reported_loss(&self, sent: f32, numbers: f32, copies: u8) -> f32 {
        let arrived = (1.0 - self.reported) * numbers.max(sent);
        (1.0 - arrived / sent).max(0.0).powf(1.0 / (1.0 + f32::from(copies)))
    }
}

impl Protection {
    /// Earlier packets that travel along with each; mostly zero.
    pub(crate) fn level(&self) -> u8 {
        self.level
    }

    /// The client asked for a packet for the first time.
    pub(crate) fn note_asked(&mut self) {
        self.asked += 1;
    }

    /// Judges the time since the last call, about a second.
    pub(crate) fn review(&mut self, seen: &Seen, has_red: bool) {
        // Again below: what the path carries changes while a second of silence tells nothing of loss.
        self.level = self.level.min(seen.most);
        let sent = seen.packets.wrapping_sub(self.packets_at_review);
        if sent < MIN_PACKETS {
            return;
        }
        let numbers = seen.newest.0.saturating_sub(self.newest_at_review).min(2 * u64::from(sent));
        let copies = if has_red { 0 } else { self.level };
        let reported = seen.reported_loss(sent as f32, numbers as f32, copies);
        let path = if copies == 0 { seen.path_loss.unwrap_or(reported) } else { reported };
        // Feedback does not tell of what was asked for and came, requests not of what was not asked for: the worse counts.
        let now = path.max(self.asked as f32 / sent as f32).min(1.0);
        (self.packets_at_review, self.newest_at_review, self.asked) = (seen.packets, seen.newest.0, 0);
        let weight = if now > self.loss { ATTACK } else { DECAY };
        self.loss += weight * (now - self.loss);
        let steps: &[f32] = if has_red { &RED_STEPS } else { &COPY_STEPS };
        let is_taken = |(index, step): (usize, &f32)| {
            self.loss >= if usize::from(self.level) > index { step * LEAVE } else { *step }
        };
        let level = steps.iter().enumerate().take_while(|step| is_taken(*step)).count() as u8;
        self.level = level.min(seen.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `sent` packets more, none missing before us.
    fn after(protection: &Protection, sent: u32, reported: f32) -> Seen {
        let newest = ExtSeq(protection.newest_at_review + u64::from(sent));
        let packets = protection.packets_at_review.wrapping_add(sent);
        Seen { packets, newest, path_loss: None, reported, most: u8::MAX }
    }

    fn seconds(protection: &mut Protection, count: u32, loss: f32, has_red: bool) -> u8 {
        for _ in 0..count {
            protection.review(&after(protection, 50, loss), has_red);
        }
        protection.level()
    }

    #[test]
    fn nothing_is_added_without_loss() {
        let mut protection = Protection::default();
        assert_eq!(seconds(&mut protection, 60, 0.0, true), 0);
        // One of fifty lost for a second is chance.
        assert_eq!(seconds(&mut protection, 1, 0.02, true), 0);
    }

    #[test]
    fn heavy_loss_is_answered_within_two_seconds() {
        let mut protection = Protection::default();
        assert_eq!(seconds(&mut protection, 1, 0.4, true), 3);
        assert_eq!(seconds(&mut protection, 1, 0.4, true), 4);
        let mut without_red = Protection::default();
        assert_eq!(seconds(&mut without_red, 1, 0.4, false), 1);
        // Now one of the two must come.
        assert_eq!(seconds(&mut without_red, 2, 0.16, false), 2);
        assert_eq!(seconds(&mut Protection::default(), 30, 0.1, false), 0);
    }

    #[test]
    fn it_follows_the_loss_with_hysteresis() {
        let mut protection = Protection::default();
        assert_eq!(seconds(&mut protection, 10, 0.05, true), 1);
        assert_eq!(seconds(&mut protection, 30, 0.015, true), 1);
        assert_eq!(seconds(&mut protection, 40, 0.0, true), 0);
    }

    #[test]
    fn requests_tell_of_loss_that_reports_hide() {
        let mut protection = Protection::default();
        for _ in 0..10 {
            protection.note_asked();
        }
        protection.review(&after(&protection, 50, 0.0), true);
        assert_eq!(protection.level(), 2);
    }

    #[test]
    fn a_narrow_path_is_left_to_the_pictures() {
        let mut protection = Protection::default();
        assert_eq!(seconds(&mut protection, 5, 0.4, true), 4);
        protection.review(&Seen { most: 1, ..after(&protection, 50, 0.4) }, true);
        assert_eq!(protection.level(), 1);
    }

    #[test]
    fn silence_changes_nothing() {
        let mut protection = Protection::default();
        assert_eq!(seconds(&mut protection, 3, 0.3, true), 3);
        (0..50).for_each(|n| protection.review(&after(&protection, n % 3, 0.0), true));
        assert_eq!(protection.level(), 3);
    }

    #[test]
    fn what_never_came_to_us_is_no_loss_of_the_path() {
        let mut protection = Protection::default();
        for second in 1..20 {
            // 40 of 50 came to us and went on; the client misses ten.
            let newest = ExtSeq(second * 50);
            let seen = Seen { packets: second as u32 * 40, newest, path_loss: None, reported: 0.2, most: u8::MAX };
            protection.review(&seen, true);
        }
        assert_eq!(protection.level(), 0);
    }

    #[test]
    fn transport_wide_feedback_counts_before_all_else() {
        let mut protection = Protection::default();
        let seen = after(&protection, 50, 0.3);
        protection.review(&Seen { path_loss: Some(0.0), ..seen }, true);
        assert_eq!(protection.level(), 0);
        let seen = after(&protection, 50, 0.0);
        protection.review(&Seen { path_loss: Some(0.4), ..seen }, true);
        assert_eq!(protection.level(), 3);
    }
}
