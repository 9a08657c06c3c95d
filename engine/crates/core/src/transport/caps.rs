//! What a client may send: the caps that hold, what its path takes if it does not find that out itself, and how it is told.

use std::time::Instant;

use mrtc_rtp::id::Ssrc;
use mrtc_rtp::rtcp::write_remb;
use slab::Slab;

use super::Transport;
use crate::command::Kind;
use crate::ingress_caps::{CappedTrack, IngressCaps, smaller};
use crate::sdp::{LineUse, NegotiatedLine};
use crate::track::Track;

/// Streams that one REMB names.
const MAX_NAMED: usize = 255;
/// That a limit is gone is told so often: any one of it may be lost, and the client would keep it for ever.
const FAREWELLS: u8 = 3;
/// What "no limit" is in a message that can only name one.
const NO_LIMIT_BPS: u64 = 1_000_000_000;

/// What the client was last told that it may send.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ToldLimit {
    /// How often it is still to be told that there is none.
    farewells: u8,
}

impl Transport {
    /// Works out anew which caps hold for what the client sends, and tells it.
    pub(crate) fn settle_caps(&mut self, now: Instant, tracks: &Slab<Track>) {
        let published = self.rx.streams.published.iter();
        let capped = published.filter_map(|(_, key)| {
            let track = tracks.get(key.index())?;
            let max_bps = smaller(self.caps.track_bps, track.max_bps);
            Some(CappedTrack { track: *key, kind: track.kind, max_bps })
        });
        let previous = self.rx.caps.take();
        let had_limit = previous.as_ref().and_then(|c| c.told_bps());
        self.rx.caps = IngressCaps::settle(previous, now, self.caps.ingress_bps, capped);
        let limit = self.ingress_limit();
        if limit != had_limit && self.tx.is_ready() {
            let mut compound = self.begin_feedback();
            self.write_remb(&mut compound, limit.unwrap_or(NO_LIMIT_BPS));
            self.tx.push_rtcp(compound);
        }
        if limit.is_none() && had_limit.is_some() {
            self.told_limit.farewells = FAREWELLS;
        }
        self.cap_lines(tracks);
    }

    /// Notes for the next answer what each line of video may send. Of sound nothing is said there: libwebrtc takes it for
    /// a rate to be reached, not for a limit.
    fn cap_lines(&mut self, tracks: &Slab<Track>) {
        let published = &self.rx.streams.published;
        for (index, line) in self.negotiated.lines.iter_mut().enumerate() {
            let is_capped = line.kind == Kind::Video && line.usage == LineUse::Inbound;
            let track = published.iter().find(|(l, _)| *l == index).and_then(|(_, key)| tracks.get(key.index()));
            let of_track = smaller(self.caps.track_bps, track.and_then(|t| t.max_bps));
            line.max_bps = smaller(self.caps.ingress_bps, of_track).filter(|_| is_capped);
        }
    }

    /// What the client may send in all, as far as anything limits it.
    fn ingress_limit(&self) -> Option<u64> {
        self.rx.caps.as_ref()?.told_bps()
    }

    /// True if the path takes less than the client was told last.
    pub(super) fn has_fallen_estimate(&self) -> bool {
        self.rx.bwe.as_ref().is_some_and(|bwe| bwe.has_fallen())
    }

    /// Tells that at once; the report would come too late.
    pub(super) fn tell_fallen_estimate(&mut self) {
        if self.has_fallen_estimate() {
            let mut compound = self.begin_feedback();
            self.write_limit(&mut compound);
            self.tx.push_rtcp(compound);
        }
    }

    /// Tells the limit, once a second with the reports. libwebrtc takes it as a cap beside its own estimate; a client
    /// without transport-wide feedback sends by it.
    pub(super) fn write_limit(&mut self, compound: &mut Vec<u8>) {
        let estimate = self.rx.bwe.as_mut().and_then(|bwe| bwe.take_estimate());
        let told = match smaller(self.ingress_limit(), estimate) {
            Some(limit) => limit,
            None if self.told_limit.farewells > 0 => {
                self.told_limit.farewells -= 1;
                NO_LIMIT_BPS
            }
            None => return,
        };
        if compound.is_empty() {
            compound.append(&mut self.begin_feedback());
        }
        self.write_remb(compound, told);
    }

    fn write_remb(&self, compound: &mut Vec<u8>, bps: u64) {
        let is_agreed = |line: &NegotiatedLine| line.codecs.iter().any(|c| c.feedback.remb);
        let lines = &self.negotiated.lines;
        let streams = self.rx.streams.list.iter().filter(|s| lines.get(s.line).is_some_and(is_agreed));
        let ssrcs: Vec<Ssrc> = streams.map(|s| s.ssrc).take(MAX_NAMED).collect();
        if !ssrcs.is_empty() {
            write_remb(compound, self.local_ssrc, bps, &ssrcs);
        }
    }
}
