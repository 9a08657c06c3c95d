//! Makes one continuous RTP stream of whatever layers and tracks a slot carries one after the other.

use std::collections::VecDeque;
use std::time::Instant;

use mrtc_rtp::id::ExtSeq;

use crate::packet::Packet;

/// Groups of dropped packets that are remembered, so that late packets before them still get their right number.
/// A reordered packet is rarely later than a few frames.
const MAX_SPANS: usize = 32;
/// An aligned timestamp this far ahead of the local clock is taken for a mistake of the sender's report, in seconds.
const MAX_ALIGNED_LEAD_S: u32 = 2;
/// VP8's long picture id has 15 bits.
const PICTURE_ID_MASK: u16 = 0x7fff;

/// What changes inside payload or descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patch {
    /// Nothing.
    #[default]
    None,
    /// VP8 payload descriptor (RFC 7741 4.2).
    Vp8 {
        /// 15 bits; the low 7 are used when the packet has the short form.
        picture_id: u16,
        /// TL0PICIDX.
        tl0_pic_idx: u8,
    },
    /// Frame number of the dependency descriptor.
    FrameNumber(u16),
}

/// How a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewritten {
    /// Sequence number of the slot, extended.
    pub seq: ExtSeq,
    /// RTP timestamp of the slot.
    pub timestamp: u32,
    /// RTP marker.
    pub marker: bool,
    /// Changes beyond the header.
    pub patch: Patch,
}

/// Where a stream is, so that another rewriter can go on with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The highest number sent.
    pub seq: ExtSeq,
    /// The highest timestamp sent.
    pub timestamp: u32,
    /// When the packet of it came; unset if nothing was sent.
    pub sent_at: Option<Instant>,
    /// VP8's last one.
    pub picture_id: u16,
    /// VP8's last one.
    pub tl0_pic_idx: u8,
    /// The dependency descriptor's last one.
    pub frame_number: u16,
}

/// The stream state of one slot. Lives as long as the slot; sources come and go.
#[derive(Debug)]
pub struct RtpRewriter {
    newest: ExtSeq,
    newest_timestamp: u32,
    sent_at: Option<Instant>,
    picture_id: u16,
    tl0_pic_idx: u8,
    frame_number: u16,
    source: Option<Source>,
}

/// The layer that is being sent.
#[derive(Debug)]
struct Source {
    first: u64,
    /// Number of the first.
    begins_at: ExtSeq,
    newest: u64,
    /// Of the newest packets: apart from the others, since nearly every packet belongs to it.
    span: Span,
    /// Those before it, newest last.
    earlier: VecDeque<Span>,
    timestamp_delta: u32,
    tl0_delta: u8,
    frame_number_delta: u16,
    dropped_picture: Option<u16>,
}

/// From a source number on, what is added to it.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: u64,
    seq_delta: u64,
    picture_delta: u16,
}

impl RtpRewriter {
    /// A stream that begins at numbers taken from `random` (RFC 3550 5.1).
    pub fn new(random: u64) -> Self {
        Self {
            // Well inside the first half, so that the first packets do not wrap: receivers that join late would have to
            // guess the roll-over counter (RFC 3711 3.3.1).
            newest: ExtSeq(random & 0x3fff),
            newest_timestamp: (random >> 16) as u32,
            sent_at: None,
            picture_id: (random >> 48) as u16 & PICTURE_ID_MASK,
            tl0_pic_idx: (random >> 40) as u8,
            frame_number: (random >> 32) as u16,
            source: None,
        }
    }

    /// Where the stream is.
    pub fn position(&self) -> Position {
        Position {
            seq: self.newest,
            timestamp: self.newest_timestamp,
            sent_at: self.sent_at,
            picture_id: self.picture_id,
            tl0_pic_idx: self.tl0_pic_idx,
            frame_number: self.frame_number,
        }
    }

    /// A stream that goes on from a position.
    pub fn resume(position: Position) -> Self {
        Self {
            newest: position.seq,
            newest_timestamp: position.timestamp,
            sent_at: position.sent_at,
            picture_id: position.picture_id & PICTURE_ID_MASK,
            tl0_pic_idx: position.tl0_pic_idx,
            frame_number: position.frame_number,
            source: None,
        }
    }

    /// True if packets of some layer flow.
    pub fn has_source(&self) -> bool {
        self.source.is_some()
    }

    /// True if the present source's packet of this number has a place on the stream.
    pub fn covers(&self, seq: ExtSeq) -> bool {
        self.source.as_ref().is_some_and(|s| seq.0 >= s.first)
    }

    /// Numbers below this one belong to former sources, of which nothing comes any more.
    pub fn begins_at(&self) -> ExtSeq {
        self.source.as_ref().map_or(self.newest.next(), |s| s.begins_at)
    }

    /// What is added to timestamps of the present source.
    pub fn timestamp_delta(&self) -> Option<u32> {
        self.source.as_ref().map(|s| s.timestamp_delta)
    }

    /// The highest timestamp sent, and when its packet came.
    pub fn newest_timestamp(&self) -> Option<(u32, Instant)> {
        self.sent_at.map(|at| (self.newest_timestamp, at))
    }

    /// The highest number sent.
    pub fn newest_seq(&self) -> ExtSeq {
        self.newest
    }

    /// Ends the present source and takes back the numbers after `to`: none of them was ever sent, since one that was must
    /// not be sealed again with other contents (RFC 7714 8.4: the nonce).
    pub fn rewind(&mut self, to: ExtSeq) {
        self.newest = self.newest.min(to);
        self.source = None;
    }

    /// Ends the present source: what still comes of it has no place.
    pub fn detach(&mut self) {
        self.source = None;
    }

    /// `packet` is the first of another layer or track. `aligned`: the timestamp on this stream at which it belongs by
    /// the senders' clocks, if known; without it (or if it makes no sense) the time since the last packet decides.
    pub fn switch(&mut self, packet: &Packet, clock_rate: u32, aligned: Option<u32>) {
        let timestamp = self.switch_timestamp(packet.arrived_at, clock_rate, aligned);
        let picture = packet.info.picture_id.unwrap_or_default();
        let span = Span {
            from: packet.seq.0,
            seq_delta: self.newest.0.wrapping_add(1).wrapping_sub(packet.seq.0),
            picture_delta: self.picture_id.wrapping_add(1).wrapping_sub(picture),
        };
        self.source = Some(Source {
            first: packet.seq.0,
            begins_at: self.newest.next(),
            newest: packet.seq.0,
            span,
            earlier: VecDeque::new(),
            timestamp_delta: timestamp.wrapping_sub(packet.timestamp),
            tl0_delta: self.tl0_pic_idx.wrapping_add(1).wrapping_sub(packet.info.tl0_pic_idx.unwrap_or_default()),
            frame_number_delta: self.frame_number.wrapping_add(1).wrapping_sub(picture),
            dropped_picture: None,
        });
    }

    fn switch_timestamp(&self, now: Instant, clock_rate: u32, aligned: Option<u32>) -> u32 {
        let Some(sent_at) = self.sent_at else { return self.newest_timestamp };
        let elapsed_us = now.saturating_duration_since(sent_at).as_micros() as u64;
        // A packet of sound lasts: the next one cannot begin before it is over. Only pictures have the 90 kHz clock.
        let least = if clock_rate < 90_000 { clock_rate / 50 } else { 1 };
        let elapsed = ((elapsed_us * u64::from(clock_rate) / 1_000_000) as u32).max(least);
        let is_sane = |timestamp: &u32| {
            let ahead = timestamp.wrapping_sub(self.newest_timestamp);
            ahead > 0 && ahead < elapsed.saturating_add(clock_rate * MAX_ALIGNED_LEAD_S)
        };
        aligned.filter(is_sane).unwrap_or_else(|| self.newest_timestamp.wrapping_add(elapsed))
    }

    /// Numbers a packet of the present source. `None` if it is from before the switch, or so late that its place is
    /// forgotten.
    pub fn forward(&mut self, packet: &Packet, marker: bool) -> Option<Rewritten> {
        let source = self.source.as_mut()?;
        let span = source.span_of(packet.seq.0)?;
        source.newest = source.newest.max(packet.seq.0);
        let seq = ExtSeq(packet.seq.0.wrapping_add(span.seq_delta));
        let timestamp = packet.timestamp.wrapping_add(source.timestamp_delta);
        let patch = source.patch(packet, span);
        if seq > self.newest || self.sent_at.is_none() {
            self.newest = self.newest.max(seq);
            self.newest_timestamp = timestamp;
            self.sent_at = Some(packet.arrived_at);
            match patch {
                Patch::None => {}
                Patch::Vp8 { picture_id, tl0_pic_idx } => {
                    self.picture_id = picture_id;
                    self.tl0_pic_idx = tl0_pic_idx;
                }
                Patch::FrameNumber(n) => self.frame_number = n,
            }
        }
        Some(Rewritten { seq, timestamp, marker, patch })
    }

    /// A packet of the present source that is not sent: those behind it move up.
    pub fn skip(&mut self, packet: &Packet) {
        if let Some(source) = &mut self.source {
            source.skip(packet);
        }
    }

    /// A number and timestamp for a packet of padding; those behind it move back.
    pub fn pad(&mut self) -> (ExtSeq, u32) {
        match &mut self.source {
            Some(source) => {
                // Not simply the next one: missing packets of the source may still claim theirs.
                let last = source.span;
                let from = source.newest + 1;
                self.newest = self.newest.max(ExtSeq(from.wrapping_add(last.seq_delta)));
                source.push_span(Span { from, seq_delta: last.seq_delta.wrapping_add(1), ..last });
            }
            None => self.newest = self.newest.next(),
        }
        (self.newest, self.newest_timestamp)
    }
}

impl Source {
    fn span_of(&self, seq: u64) -> Option<Span> {
        if seq < self.first {
            return None;
        }
        if self.span.from <= seq {
            return Some(self.span);
        }
        self.earlier.iter().rev().find(|s| s.from <= seq).copied()
    }

    fn push_span(&mut self, span: Span) {
        let before = std::mem::replace(&mut self.span, span);
        if before.from >= span.from {
            return;
        }
        if self.earlier.len() + 1 == MAX_SPANS {
            self.earlier.pop_front();
        }
        self.earlier.push_back(before);
    }

    fn skip(&mut self, packet: &Packet) {
        if packet.seq.0 <= self.newest {
            return;
        }
        self.newest = packet.seq.0;
        let last = self.span;
        let mut picture_delta = last.picture_delta;
        if let Some(picture) = packet.info.picture_id {
            if self.dropped_picture != Some(picture) {
                picture_delta = picture_delta.wrapping_sub(1);
            }
            self.dropped_picture = Some(picture);
        }
        let seq_delta = last.seq_delta.wrapping_sub(1);
        self.push_span(Span { from: packet.seq.0 + 1, seq_delta, picture_delta });
    }

    fn patch(&self, packet: &Packet, span: Span) -> Patch {
        let Some(picture) = packet.info.picture_id else { return Patch::None };
        if packet.has_vp8_descriptor {
            return Patch::Vp8 {
                picture_id: picture.wrapping_add(span.picture_delta) & PICTURE_ID_MASK,
                tl0_pic_idx: packet.info.tl0_pic_idx.unwrap_or_default().wrapping_add(self.tl0_delta),
            };
        }
        if packet.dependency_descriptor().is_empty() {
            return Patch::None;
        }
        // Frames refer to each other by distance in these numbers, so dropped frames leave their gap.
        Patch::FrameNumber(picture.wrapping_add(self.frame_number_delta))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tests::packet;
    use proptest::prelude::*;
    use std::time::Duration;

    fn vp8(seq: u64, timestamp: u32, picture: u16, now: Instant) -> Packet {
        let mut p = packet(seq, now);
        p.timestamp = timestamp;
        p.info.picture_id = Some(picture);
        p.info.tl0_pic_idx = Some(picture as u8);
        p.has_vp8_descriptor = true;
        p
    }

    fn picture(r: Rewritten) -> u16 {
        match r.patch {
            Patch::Vp8 { picture_id, .. } => picture_id,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_switch_goes_on_where_the_last_source_ended() {
        let start = Instant::now();
        let mut rewriter = RtpRewriter::new(0x1234_5678_9abc_def0);
        let first = vp8(500, 9_000, 40, start);
        rewriter.switch(&first, 90_000, None);
        let a = rewriter.forward(&first, false).unwrap();
        let later = start + Duration::from_millis(100);
        let second = vp8(90_000, 5, 3, later);
        rewriter.switch(&second, 90_000, None);
        let b = rewriter.forward(&second, false).unwrap();
        assert_eq!(b.seq, a.seq.next());
        assert_eq!(b.timestamp.wrapping_sub(a.timestamp), 9_000);
        assert_eq!(picture(b), (picture(a) + 1) & PICTURE_ID_MASK);
        // A packet of before the switch has no place.
        assert_eq!(rewriter.forward(&vp8(89_999, 5, 3, later), false), None);
    }

    #[test]
    fn senders_clocks_decide_when_they_make_sense() {
        let start = Instant::now();
        let mut rewriter = RtpRewriter::new(0);
        let first = vp8(500, 1_000, 40, start);
        rewriter.switch(&first, 90_000, None);
        let a = rewriter.forward(&first, false).unwrap();
        for (aligned, expected) in [(3_000, 3_000), (0, 9_000), (u32::MAX, 9_000), (900_000, 9_000)] {
            let later = start + Duration::from_millis(100);
            let second = vp8(7, 5, 3, later);
            let stamp = rewriter.switch_timestamp(second.arrived_at, 90_000, Some(a.timestamp.wrapping_add(aligned)));
            assert_eq!(stamp.wrapping_sub(a.timestamp), expected);
        }
    }

    #[test]
    fn dropped_frames_leave_no_gap_and_late_packets_keep_their_place() {
        let now = Instant::now();
        let mut rewriter = RtpRewriter::new(0);
        let p = |seq: u64| vp8(seq, 0, (seq / 2) as u16, now);
        rewriter.switch(&p(100), 90_000, None);
        let first = rewriter.forward(&p(100), false).unwrap();
        // 101 is late; 102 and 103 (one frame) are dropped; 104 goes on.
        rewriter.skip(&p(102));
        rewriter.skip(&p(103));
        let next = rewriter.forward(&p(104), false).unwrap();
        let late = rewriter.forward(&p(101), false).unwrap();
        assert_eq!(late.seq.0, first.seq.0 + 1);
        assert_eq!(next.seq.0, first.seq.0 + 2);
        assert_eq!(picture(late), picture(first));
        assert_eq!(picture(next), picture(first) + 1);
    }

    #[test]
    fn padding_takes_a_number_of_its_own() {
        let now = Instant::now();
        let mut rewriter = RtpRewriter::new(0);
        rewriter.switch(&vp8(10, 0, 0, now), 90_000, None);
        let a = rewriter.forward(&vp8(10, 0, 0, now), true).unwrap();
        assert_eq!(rewriter.pad(), (a.seq.next(), a.timestamp));
        let b = rewriter.forward(&vp8(11, 3_000, 1, now), true).unwrap();
        assert_eq!(b.seq.0, a.seq.0 + 2);
    }

    proptest! {
        #[test]
        fn no_number_is_used_twice(steps in prop::collection::vec(0u8..10, 1..300)) {
            let now = Instant::now();
            let mut rewriter = RtpRewriter::new(7);
            rewriter.switch(&vp8(1_000, 0, 0, now), 90_000, None);
            let mut used = vec![];
            let mut held: Option<Packet> = None;
            for (seq, step) in (1_000u64..).zip(steps) {
                let p = vp8(seq, seq as u32, seq as u16, now);
                match step {
                    0..=2 => rewriter.skip(&p),
                    3 => used.push(rewriter.pad().0.0),
                    4 if held.is_none() => held = Some(p),
                    _ => used.push(rewriter.forward(&p, false).unwrap().seq.0),
                }
                if step == 9 && let Some(late) = held.take() {
                    used.extend(rewriter.forward(&late, false).map(|r| r.seq.0));
                }
            }
            used.sort_unstable();
            let count = used.len();
            used.dedup();
            prop_assert_eq!(used.len(), count, "a number was used twice");
        }
    }
}
