//! A receive m-line of a client, to which tracks are mapped without renegotiation.
//!
//! The slot keeps its SSRC, and its sequence numbers and timestamps go on, whatever track it carries.

use std::time::{Duration, Instant};

use mrtc_rtp::id::{ExtSeq, Mid, Pt, Ssrc};

use crate::allocator::Target;
use crate::command::{Codec, Kind, Subscription};
use crate::fec::{self, FecSender};
use crate::forwarder::Forwarder;
use crate::keys::TrackKey;
use crate::packet::Packet;
use crate::prefetch::Prefetch;
use crate::protection::{Protection, Seen};
use crate::repair::LossMeter;
use crate::rtp_rewriter::{Patch, Position, Rewritten};
use crate::sdp::{Encoding, LineCodec, NegotiatedLine, SlotSource, Variant};
use crate::send_history::{SendHistory, SendRecord};
use crate::slot_exts::{SlotExtValues, SlotExts};
use crate::track::{RunUp, Track};

/// Sent packets that can be found again, video: about what a layer's ring holds.
const VIDEO_HISTORY: usize = 1024;
/// The same for audio.
const AUDIO_HISTORY: usize = 128;
/// The first packets of a slot carry its mid, for clients that did not learn the SSRC from the answer. A rule that
/// depends on the number alone, so that a packet sent again is the same.
const PACKETS_WITH_MID: u64 = 100;

/// The track that a slot carries.
#[derive(Debug)]
pub(crate) struct Carried {
    /// As the subscriber asked.
    pub(crate) wanted: Subscription,
    /// The track, or the alternative that is sent.
    pub(crate) track: TrackKey,
    pub(crate) format: Format,
    pub(crate) target: Target,
}

/// The track that a slot will carry: the same one as it comes since its publisher moved. It waits for a key frame while
/// the slot goes on with the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Heir {
    pub(crate) track: TrackKey,
    pub(crate) format: Format,
    /// Since when it waits.
    pub(crate) since: Instant,
}

/// How a track is sent on a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Format {
    pub(crate) codec: Codec,
    pub(crate) pt: Pt,
    pub(crate) rtx_pt: Option<Pt>,
    /// Of redundant packets; unset where retransmissions are a stream of their own, whose type would not tell them.
    pub(crate) red_pt: Option<Pt>,
    pub(crate) clock_rate: u32,
    pub(crate) has_nack: bool,
}

/// Figures for reports and statistics.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SlotFigures {
    /// As in sender reports: wrap.
    pub(crate) packets: u32,
    pub(crate) octets: u32,
    pub(crate) packets_at_report: u32,
    pub(crate) retransmissions: u64,
    pub(crate) nacks: u64,
    pub(crate) keyframe_requests: u64,
    /// From the client's last report block.
    pub(crate) fraction_lost: u8,
    pub(crate) jitter: u32,
}

/// One slot.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Index of its m-line.
    pub(crate) line: usize,
    pub(crate) mid: Mid,
    pub(crate) kind: Kind,
    pub(crate) source: SlotSource,
    pub(crate) carried: Option<Carried>,
    /// Only while something is carried.
    pub(crate) heir: Option<Heir>,
    pub(crate) forwarder: Forwarder,
    pub(crate) history: Option<SendHistory>,
    pub(crate) figures: SlotFigures,
    pub(crate) loss: LossMeter,
    /// Of sound.
    pub(crate) protection: Protection,
    /// First packet of the key frame sent last: a decoder needs nothing of what was before it.
    pub(crate) decodable_from: ExtSeq,
    /// What its next packets are preceded by.
    pub(crate) run_up: RunUp,
    /// While the client loses something and takes FlexFEC.
    pub(crate) fec: Option<Box<FecSender>>,
    fec_pt: Option<Pt>,
    fec_seq: ExtSeq,
    /// The packet sent last was the last one of its picture.
    pub(crate) is_between_pictures: bool,
    codecs: Vec<LineCodec>,
    exts: SlotExts,
    first_seq: ExtSeq,
    rtx_seq: ExtSeq,
}

impl Slot {
    /// Of a negotiated line that is a slot. `random` gives the first numbers of its streams.
    pub(crate) fn new(
        line: usize,
        negotiated: &NegotiatedLine,
        is_two_byte_allowed: bool,
        random: u64,
    ) -> Option<Self> {
        let forwarder = Forwarder::new(random);
        let first_seq = forwarder.rewriter().newest_seq().next();
        Some(Self {
            line,
            mid: negotiated.mid,
            kind: negotiated.kind,
            source: negotiated.tx?,
            carried: None,
            heir: None,
            forwarder,
            history: None,
            figures: SlotFigures::default(),
            loss: LossMeter::default(),
            protection: Protection::default(),
            decodable_from: first_seq,
            run_up: RunUp::None,
            fec: None,
            fec_pt: negotiated.fec_pt,
            fec_seq: ExtSeq(random >> 40 & 0x3fff),
            is_between_pictures: false,
            codecs: negotiated.codecs.clone(),
            exts: SlotExts::new(&negotiated.exts, is_two_byte_allowed),
            first_seq,
            rtx_seq: ExtSeq(random >> 20 & 0x3fff),
        })
    }

    /// Where its streams are: of media, of retransmissions, of repair packets.
    pub(crate) fn positions(&self) -> (Position, ExtSeq, ExtSeq) {
        (self.forwarder.rewriter().position(), self.rtx_seq, self.fec_seq)
    }

    /// Goes on with streams that were elsewhere; before anything is sent.
    pub(crate) fn resume(&mut self, position: Position, rtx_seq: ExtSeq, fec_seq: ExtSeq) {
        self.forwarder.resume(position);
        self.first_seq = position.seq.next();
        self.decodable_from = self.first_seq;
        (self.rtx_seq, self.fec_seq) = (rtx_seq, fec_seq);
    }

    /// Takes over what a later offer changed.
    pub(crate) fn renegotiate(&mut self, negotiated: &NegotiatedLine, is_two_byte_allowed: bool) {
        self.codecs.clone_from(&negotiated.codecs);
        self.fec_pt = negotiated.fec_pt;
        self.fec = None;
        let exts = SlotExts::new(&negotiated.exts, is_two_byte_allowed);
        if std::mem::replace(&mut self.exts, exts) != exts
            && let Some(history) = &mut self.history
        {
            // With other extensions a packet sent again would not be the same.
            history.forget_sources();
        }
    }

    /// How a track would be sent here; `None` if the client cannot decode it.
    pub(crate) fn format_of(&self, encoding: Encoding) -> Option<Format> {
        let codec = encoding.codec;
        let variants = || self.codecs.iter().filter(|c| c.codec == codec);
        let chosen = match encoding.variant {
            Some(stream) => {
                let decoding = variants().filter_map(|c| Some((c.variant.decodes(stream)?, c)));
                decoding.min_by_key(|(distance, _)| *distance).map(|(_, c)| c)
            }
            None => variants().find(|c| is_usual(c)).or_else(|| variants().next()),
        }?;
        let rtx_pt = chosen.rtx_pt.filter(|_| self.source.rtx.is_some());
        Some(Format {
            codec,
            pt: chosen.pt,
            rtx_pt,
            red_pt: chosen.red_pt.filter(|_| rtx_pt.is_none()),
            clock_rate: chosen.clock_rate,
            has_nack: chosen.feedback.nack,
        })
    }

    /// Begins to carry a track.
    pub(crate) fn attach(&mut self, now: Instant, wanted: Subscription, key: TrackKey, track: &Track, format: Format) {
        let capacity = if self.kind == Kind::Video { VIDEO_HISTORY } else { AUDIO_HISTORY };
        match &mut self.history {
            Some(history) => history.forget_sources(),
            None => self.history = Some(SendHistory::new(capacity, now)),
        }
        self.forwarder.attach(track);
        self.fec = None;
        self.carried = Some(Carried { wanted, track: key, format, target: Target::Paused });
    }

    /// Carries nothing from now on.
    pub(crate) fn detach(&mut self) -> Option<Carried> {
        self.forwarder.detach();
        match &mut self.history {
            // What is carried next goes on with the numbers, and who lacks some asks for them.
            Some(history) if self.kind == Kind::Video => history.forget_sources(),
            history => *history = None,
        }
        self.run_up = RunUp::None;
        self.fec = None;
        self.carried.take()
    }

    /// Lets another layer through; kept by the forwarder until its key frame.
    pub(crate) fn set_target(&mut self, target: Target) -> bool {
        let Some(carried) = &mut self.carried else { return false };
        if carried.target == target {
            return false;
        }
        carried.target = target;
        self.forwarder.set_target(target);
        true
    }

    /// True if packets on this slot may be padded: those that are sent again as they were must not differ.
    pub(crate) fn is_paddable(&self) -> bool {
        // Padding would be covered by repairs, and is not remembered.
        self.fec.is_none() && self.carried.as_ref().is_some_and(|c| c.format.rtx_pt.is_some())
    }

    pub(crate) fn has_transport_cc(&self) -> bool {
        self.exts.has_transport_cc()
    }

    /// It sends soon: what this struct points to.
    pub(crate) fn prefetch_behind(&self, packets: u16, cache: &impl Prefetch) {
        if let Some(history) = &self.history {
            history.prefetch_next(packets, cache);
        }
    }

    /// The extensions of a packet of media.
    pub(crate) fn exts_of<'a>(&'a self, rewritten: &Rewritten, packet: &'a Packet) -> SlotExtValues<'a> {
        SlotExtValues {
            mid: (rewritten.seq.0 < self.first_seq.0 + PACKETS_WITH_MID).then_some(&self.mid),
            packet: Some(packet),
            frame_number: match rewritten.patch {
                Patch::FrameNumber(n) => Some(n),
                _ => None,
            },
            ..SlotExtValues::default()
        }
    }

    /// The extensions of a packet without media.
    pub(crate) fn exts_of_padding(&self) -> SlotExtValues<'_> {
        SlotExtValues { mid: Some(&self.mid), ..SlotExtValues::default() }
    }

    pub(crate) fn exts(&self) -> &SlotExts {
        &self.exts
    }

    /// The next number of the retransmission stream.
    pub(crate) fn next_rtx_seq(&mut self) -> ExtSeq {
        self.rtx_seq = self.rtx_seq.next();
        self.rtx_seq
    }

    /// SSRC and payload type of retransmissions, if they are a stream of their own.
    pub(crate) fn rtx(&self) -> Option<(Ssrc, Pt)> {
        Some((self.source.rtx?, self.carried.as_ref()?.format.rtx_pt?))
    }

    /// SSRC and payload type of repair packets, if the client takes them.
    pub(crate) fn fec_stream(&self) -> Option<(Ssrc, Pt)> {
        Some((self.source.fec?, self.fec_pt?))
    }

    /// The next number of the stream of repair packets.
    pub(crate) fn next_fec_seq(&mut self) -> ExtSeq {
        self.fec_seq = self.fec_seq.next();
        self.fec_seq
    }

    /// Begins, adapts or ends repair packets by what the client loses; `spare` is as in [`FecSender::adapt`].
    pub(crate) fn adapt_fec(&mut self, rtt: Duration, spare: f64) {
        if self.fec_stream().is_none() {
            return;
        }
        self.loss.update(self.figures.packets);
        // A client that does not ask for lost packets reports them.
        let loss = self.loss.share().max(f64::from(self.figures.fraction_lost) / 256.0);
        if self.fec.is_some() && loss < fec::OFF_BELOW {
            self.fec = None;
        }
        if self.fec.is_none() && loss >= fec::ON_ABOVE && self.carried.is_some() {
            self.fec = Some(Box::default());
        }
        if let Some(fec) = &mut self.fec {
            fec.adapt(loss, rtt, spare);
        }
    }

    /// Enters a packet that was sent for the first time. True if it was late.
    pub(crate) fn note_sent(&mut self, now: Instant, record: SendRecord, payload_len: usize) -> bool {
        self.is_between_pictures = record.rewritten.marker;
        let is_late = self.history.as_mut().is_some_and(|history| history.insert(now, record));
        self.figures.packets = self.figures.packets.wrapping_add(1);
        self.figures.octets = self.figures.octets.wrapping_add(payload_len as u32);
        is_late
    }

    /// Judges how much protection its sound needs; about once a second. `path_loss`: of the whole transport, if known.
    /// `most`: highest level that the path has room for.
    pub(crate) fn review_protection(&mut self, path_loss: Option<f32>, most: u8) {
        if self.kind == Kind::Audio {
            let has_red = self.carried.as_ref().is_some_and(|c| c.format.red_pt.is_some());
            let reported = f32::from(self.figures.fraction_lost) / 256.0;
            let newest = self.forwarder.rewriter().newest_seq();
            let seen = Seen { packets: self.figures.packets, newest, path_loss, reported, most };
            self.protection.review(&seen, has_red);
        }
    }

    /// The first number of its stream.
    pub(crate) fn first_seq(&self) -> ExtSeq {
        self.first_seq
    }

    /// True if the SSRC is one of this slot's.
    pub(crate) fn is_of(&self, ssrc: Ssrc) -> bool {
        self.source.ssrc == ssrc || self.source.rtx == Some(ssrc)
    }
}

/// Of several variants of a codec, the one that is most likely sent: H.264 in FU-A, 8-bit VP9, main AV1.
fn is_usual(codec: &LineCodec) -> bool {
    match codec.variant {
        Variant::Plain => true,
        Variant::H264 { packetization_mode, .. } => packetization_mode == 1,
        Variant::Vp9 { profile } | Variant::Av1 { profile } => profile == 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sdp::{LineUse, Offer, negotiate};

    /// The video slot of a real offer.
    fn slot_of(offer: &str) -> Slot {
        let mut next = 0;
        let mut ssrc = || {
            next += 1;
            Ssrc(next)
        };
        let negotiated = negotiate(&Offer::parse(offer).unwrap(), None, &mut ssrc).unwrap();
        let is_slot = |l: &&NegotiatedLine| l.kind == Kind::Video && l.usage == LineUse::Slot;
        Slot::new(0, negotiated.lines.iter().find(is_slot).unwrap(), false, 7).unwrap()
    }

    /// The payload type on which a stream of H.264 would be sent.
    fn sent_on(slot: &Slot, profile_level_id: u32, packetization_mode: u8) -> Option<u8> {
        let [_, profile, constraints, level] = profile_level_id.to_be_bytes();
        let variant = Variant::H264 { profile_level_id: [profile, constraints, level], packetization_mode };
        let format = slot.format_of(Encoding { codec: Codec::H264, variant: Some(variant) })?;
        Some(format.pt.0)
    }

    #[test]
    fn h264_is_sent_on_the_payload_type_that_decodes_it() {
        let chromium = slot_of(include_str!("../../../../tests/vectors/sdp/chromium_whep.sdp"));
        // Of Baseline and Constrained Baseline, which it offers in this order, the first in the mode of the stream.
        assert_eq!(sent_on(&chromium, 0x42e01f, 1), Some(102));
        assert_eq!(sent_on(&chromium, 0x42e01f, 0), Some(104));
        assert_eq!(sent_on(&chromium, 0x4d0028, 1), Some(116), "Main of another level");
        assert_eq!(sent_on(&chromium, 0x4d001f, 0), Some(39));
        assert_eq!(sent_on(&chromium, 0x64001f, 1), None, "it offers no High");
        assert_eq!(chromium.format_of(Codec::H264.into()).map(|f| f.pt.0), Some(102), "of a variant that is not known");

        let aiortc = slot_of(include_str!("../../../../tests/vectors/sdp/aiortc_play.sdp"));
        assert_eq!(sent_on(&aiortc, 0x42001f, 1), Some(99));
        assert_eq!(sent_on(&aiortc, 0x42c01f, 0), Some(99), "single NAL units are allowed in mode 1");
        assert_eq!(sent_on(&aiortc, 0x4d001f, 1), None, "it decodes no Main");

        // What Firefox offers, received: mode 1 and mode 0 of Constrained Baseline.
        let firefox =
            include_str!("../../../../tests/vectors/sdp/firefox_form.sdp").replace("a=sendonly", "a=recvonly");
        let firefox = slot_of(&firefox);
        assert_eq!(sent_on(&firefox, 0x42001f, 1), Some(126), "libwebrtc's Baseline is a constrained one");
        assert_eq!(sent_on(&firefox, 0x42e01f, 0), Some(97));
    }
}
