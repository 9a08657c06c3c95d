//! The RTP streams that a client sends: which SSRC is which m-line and layer, and the state of each.

use std::time::{Duration, Instant};

use hashbrown::HashMap;
use mrtc_rtp::codec::dependency_descriptor::{FrameInfo, Reader};
use mrtc_rtp::ext::ExtValues;
use mrtc_rtp::id::{ExtSeq, Pt, Rid, Ssrc};

use crate::command::{Codec, Kind};
use crate::keys::TrackKey;
use crate::nack_register::NackRegister;
use crate::sdp::{LineCodec, LineUse, NegotiatedLine, Variant};

/// What an SSRC carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SsrcUse {
    /// Media of a stream.
    Media(usize),
    /// Its retransmissions.
    Rtx(usize),
}

/// One encoding that a client sends.
#[derive(Debug)]
pub(crate) struct StreamRx {
    pub(crate) line: usize,
    pub(crate) layer: u8,
    pub(crate) ssrc: Ssrc,
    pub(crate) rtx: Option<Ssrc>,
    pub(crate) register: NackRegister,
    pub(crate) track: Option<TrackKey>,
    /// Compact NTP time of the last sender report, and when it came.
    pub(crate) last_report: Option<(u32, Instant)>,
    pub(crate) rtx_packets: u64,
    pub(crate) nacks: u64,
    pub(crate) keyframe_requests: u64,
    pub(crate) bytes: u64,
    /// The next packet begins a sequence that has no relation to what came before.
    pub(crate) is_restarting: bool,
    pub(crate) highest: ExtSeq,
    /// When `highest` came.
    pub(crate) heard_at: Option<Instant>,
    pub(crate) fir_count: u8,
    /// What packets carry now.
    format: Option<StreamFormat>,
    descriptors: Reader,
}

/// What a stream's packets carry.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamFormat {
    pt: Pt,
    pub(crate) codec: Codec,
    pub(crate) variant: Variant,
    pub(crate) has_pli: bool,
    /// The payload is redundant (RFC 2198); its blocks are of this type.
    pub(super) red_of: Option<Pt>,
}

/// The streams of one transport.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) list: Vec<StreamRx>,
    /// Tracks by line.
    pub(crate) published: Vec<(usize, TrackKey)>,
    by_ssrc: HashMap<Ssrc, SsrcUse>,
}

/// Why a packet finds no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoStream {
    /// Neither SSRC nor mid nor payload type tells a line.
    Unknown,
    /// The limit of SSRCs.
    Limit,
}

impl StreamRx {
    fn new(line: usize, layer: u8, ssrc: Ssrc, codec: Option<&LineCodec>) -> Self {
        let clock_rate = codec.map_or(90_000, |c| c.clock_rate);
        let has_nack = codec.is_some_and(|c| c.feedback.nack);
        let is_sound = codec.is_some_and(|c| c.codec.kind() == Kind::Audio);
        Self {
            line,
            layer,
            ssrc,
            rtx: None,
            register: match is_sound {
                true => NackRegister::for_sound(clock_rate),
                false => NackRegister::new(clock_rate, has_nack),
            },
            track: None,
            last_report: None,
            rtx_packets: 0,
            nacks: 0,
            keyframe_requests: 0,
            bytes: 0,
            is_restarting: false,
            highest: ExtSeq(0),
            heard_at: None,
            fir_count: 0,
            format: None,
            descriptors: Reader::new(),
        }
    }

    /// What a payload type of this stream's line stands for; `None` if it was not negotiated.
    pub(super) fn format_of(&mut self, pt: Pt, line: &NegotiatedLine) -> Option<StreamFormat> {
        if let Some(format) = self.format
            && format.pt == pt
        {
            return Some(format);
        }
        let found = line.codecs.iter().find(|c| c.pt == pt || c.red_pt == Some(pt))?;
        let red_of = (found.pt != pt).then_some(found.pt);
        self.format =
            Some(StreamFormat { pt, codec: found.codec, variant: found.variant, has_pli: found.feedback.pli, red_of });
        self.format
    }

    pub(crate) fn format(&self) -> Option<StreamFormat> {
        self.format
    }

    /// Reads a dependency descriptor against the templates that the stream sent.
    pub(super) fn read_descriptor(&mut self, bytes: Option<&[u8]>) -> Option<FrameInfo> {
        self.descriptors.read(bytes?).ok()
    }

    /// Time since the last sender report in 1/65536 s, and its compact time; zeros if there was none.
    pub(super) fn report_delay(&self, now: Instant) -> (u32, u32) {
        self.last_report.map_or((0, 0), |(compact, at)| {
            let delay = now.saturating_duration_since(at).min(Duration::from_secs(60_000));
            (compact, (delay.as_micros() * 65_536 / 1_000_000) as u32)
        })
    }
}

impl Streams {
    /// The packets of a line belong to a track from now on. True if some came already.
    pub(crate) fn publish(&mut self, line: usize, track: TrackKey) -> bool {
        self.published.push((line, track));
        let mut has_begun = false;
        for stream in self.list.iter_mut().filter(|s| s.line == line) {
            stream.track = Some(track);
            stream.is_restarting = true;
            has_begun |= stream.register.received() > 0;
        }
        has_begun
    }

    /// The packets of a track's line belong to nobody from now on.
    pub(crate) fn unpublish(&mut self, track: TrackKey) {
        self.published.retain(|(_, t)| *t != track);
        self.list.iter_mut().filter(|s| s.track == Some(track)).for_each(|s| s.track = None);
    }

    fn track_of(&self, line: usize) -> Option<TrackKey> {
        self.published.iter().find(|(l, _)| *l == line).map(|(_, track)| *track)
    }

    pub(super) fn find(&self, ssrc: Ssrc) -> Option<SsrcUse> {
        self.by_ssrc.get(&ssrc).copied()
    }

    /// The stream of an encoding, if a packet or an offer told of it.
    pub(crate) fn of_layer(&self, line: usize, layer: u8) -> Option<usize> {
        self.list.iter().position(|s| s.line == line && s.layer == layer)
    }

    /// Adds the SSRCs that an offer declares.
    pub(super) fn declare(&mut self, index: usize, line: &NegotiatedLine, limit: usize) {
        if line.usage != LineUse::Inbound {
            return;
        }
        for (layer, source) in line.sources.iter().enumerate().take(layer_count(line)) {
            if self.by_ssrc.len() + 2 > limit {
                return;
            }
            let stream = self.add_media(index, layer as u8, source.ssrc, line);
            if let Some(rtx) = source.rtx {
                self.add_rtx(stream, rtx);
            }
        }
    }

    /// Learns an SSRC from an authentic packet's extensions (RFC 8852, RFC 9143 9.2), or, of a client that sends none,
    /// from its payload type if only one line has that.
    pub(super) fn learn(
        &mut self,
        ssrc: Ssrc,
        pt: Pt,
        values: &ExtValues<'_>,
        lines: &[NegotiatedLine],
        limit: usize,
    ) -> Result<SsrcUse, NoStream> {
        if self.by_ssrc.len() >= limit {
            return Err(NoStream::Limit);
        }
        let index = find_line(pt, values, lines).ok_or(NoStream::Unknown)?;
        let line = &lines[index];
        let is_rtx = values.repaired_rid.is_some() || line.codecs.iter().any(|c| c.rtx_pt == Some(pt));
        let rid = if is_rtx { values.repaired_rid.or(values.rid) } else { values.rid };
        let layer = layer_of(line, rid).ok_or(NoStream::Unknown)?;
        if !is_rtx {
            return Ok(SsrcUse::Media(self.add_media(index, layer, ssrc, line)));
        }
        let stream = self.of_layer(index, layer).ok_or(NoStream::Unknown)?;
        self.add_rtx(stream, ssrc);
        Ok(SsrcUse::Rtx(stream))
    }

    /// An encoding that another node has learnt.
    pub(super) fn resume(
        &mut self,
        line: usize,
        layer: u8,
        ssrc: Ssrc,
        rtx: Option<Ssrc>,
        negotiated: &NegotiatedLine,
        limit: usize,
    ) {
        if usize::from(layer) < layer_count(negotiated) && self.by_ssrc.len() + 2 <= limit {
            let stream = self.add_media(line, layer, ssrc, negotiated);
            if let Some(rtx) = rtx {
                self.add_rtx(stream, rtx);
            }
        }
    }

    /// An encoding that comes with a new SSRC was restarted by the client: the new one takes its place.
    fn add_media(&mut self, line: usize, layer: u8, ssrc: Ssrc, negotiated: &NegotiatedLine) -> usize {
        let mut fresh = StreamRx::new(line, layer, ssrc, negotiated.codecs.first());
        fresh.track = self.track_of(line);
        let index = match self.of_layer(line, layer) {
            Some(index) if self.list[index].ssrc == ssrc => return index,
            Some(index) => {
                let old = std::mem::replace(&mut self.list[index], fresh);
                self.by_ssrc.remove(&old.ssrc);
                if let Some(rtx) = old.rtx {
                    self.by_ssrc.remove(&rtx);
                }
                self.list[index].is_restarting = true;
                index
            }
            None => {
                self.list.push(fresh);
                self.list.len() - 1
            }
        };
        self.by_ssrc.insert(ssrc, SsrcUse::Media(index));
        index
    }

    fn add_rtx(&mut self, stream: usize, ssrc: Ssrc) {
        if let Some(old) = self.list[stream].rtx.replace(ssrc)
            && old != ssrc
        {
            self.by_ssrc.remove(&old);
        }
        self.by_ssrc.insert(ssrc, SsrcUse::Rtx(stream));
    }
}

fn layer_count(line: &NegotiatedLine) -> usize {
    line.rids.len().max(1).max(line.sources.len()).min(crate::allocator::MAX_SPATIAL)
}

fn find_line(pt: Pt, values: &ExtValues<'_>, lines: &[NegotiatedLine]) -> Option<usize> {
    let is_inbound = |l: &NegotiatedLine| l.usage == LineUse::Inbound;
    if let Some(mid) = values.mid {
        return lines.iter().position(|l| is_inbound(l) && l.mid == mid);
    }
    let has_pt = |l: &NegotiatedLine| l.codecs.iter().any(|c| c.pt == pt || [c.rtx_pt, c.red_pt].contains(&Some(pt)));
    let mut candidates = lines.iter().enumerate().filter(|(_, l)| is_inbound(l) && has_pt(l));
    let (index, _) = candidates.next()?;
    candidates.next().is_none().then_some(index)
}

/// The place of a rid among a line's encodings. Without rids there is one.
fn layer_of(line: &NegotiatedLine, rid: Option<Rid>) -> Option<u8> {
    if line.rids.is_empty() {
        return Some(0);
    }
    let rid = rid?;
    line.rids.iter().position(|r| *r == rid).map(|at| at as u8)
}
