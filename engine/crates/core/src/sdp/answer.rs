//! Writes the answer (RFC 8829 section 5.3; RFC 9143 for BUNDLE).

use std::fmt::Write as _;

use mrtc_rtp::ext::ExtMap;
use mrtc_rtp::id::{Rid, Ssrc};

use super::codecs::{FEC_CLOCK_RATE, encoding_name};
use super::offer::OfferLine;
use super::{Feedback, LineCodec, LineUse, Negotiated, NegotiatedLine};
use crate::addr::{CandidateAddr, Proto};
use crate::data::MAX_MESSAGE_BYTES;
use crate::handshake::LocalParams;

/// The port of our end of SCTP; within DTLS it tells nothing apart.
const SCTP_PORT: u16 = 5000;

/// The `o=` line: same id through re-offers, version counts up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    id: u64,
    version: u64,
}

impl Session {
    pub(super) fn new(random: &mut dyn FnMut() -> Ssrc) -> Self {
        // RFC 8829 section 5.2.1: 63 bits at most.
        Self { id: u64::from(random().0 >> 1) << 32 | u64::from(random().0), version: 1 }
    }

    /// Of id and version.
    pub(crate) fn of((id, version): (u64, u64)) -> Self {
        Self { id, version }
    }

    /// Id and version.
    pub(crate) fn parts(self) -> (u64, u64) {
        (self.id, self.version)
    }

    pub(crate) fn next(self) -> Self {
        Self { version: self.version.wrapping_add(1), ..self }
    }
}

/// What an answer repeats of the offer's m-line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Echo {
    media: String,
    protocol: String,
    formats: String,
    /// Rids in the offer's order.
    pub(super) rids: Vec<Rid>,
    /// The offer has `a=simulcast`, not only rids.
    pub(super) is_simulcast: bool,
    pub(super) is_stopped: bool,
    pub(super) is_mixed_ext_allowed: bool,
}

impl Echo {
    pub(super) fn of(line: &OfferLine) -> Self {
        Self {
            media: line.media.clone(),
            protocol: line.protocol.clone(),
            formats: line.formats.join(" "),
            ..Self::default()
        }
    }
}

impl Negotiated {
    /// The SDP answer. `candidates` are all addresses of the shard that serves the transport.
    pub fn answer(&self, local: &LocalParams, candidates: &[CandidateAddr]) -> String {
        let mut sdp = Writer(String::with_capacity(1024 + 1024 * self.lines.len()));
        let Session { id, version } = self.session;
        sdp.line(format_args!("v=0"));
        sdp.line(format_args!("o=- {id} {version} IN IP4 127.0.0.1"));
        sdp.line(format_args!("s=-"));
        sdp.line(format_args!("t=0 0"));
        sdp.line(format_args!("a=ice-lite"));
        let bundled = self.lines.iter().filter(|l| l.is_accepted());
        sdp.line(format_args!("a=group:BUNDLE{}", bundled.map(|l| format!(" {}", l.mid)).collect::<String>()));
        if self.is_mixed_ext_allowed {
            sdp.line(format_args!("a=extmap-allow-mixed"));
        }
        sdp.line(format_args!("a=msid-semantic: WMS *"));
        let mut candidates = Some(candidates);
        for line in &self.lines {
            if !line.is_accepted() {
                sdp.rejected(line);
                continue;
            }
            // Candidates belong to the transport, so the first line of the BUNDLE group tells them for all.
            let candidates = candidates.take().unwrap_or_default();
            match line.usage {
                LineUse::Data => sdp.data(line, local, candidates),
                _ => sdp.accepted(line, local, candidates),
            }
        }
        sdp.0
    }
}

impl NegotiatedLine {
    fn is_accepted(&self) -> bool {
        self.usage != LineUse::Rejected && !self.echo.is_stopped
    }
}

struct Writer(String);

impl Writer {
    fn line(&mut self, content: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.0.write_fmt(content);
        self.0.push_str("\r\n");
    }

    fn rejected(&mut self, line: &NegotiatedLine) {
        let Echo { media, protocol, formats, .. } = &line.echo;
        self.line(format_args!("m={media} 0 {protocol} {formats}"));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        self.line(format_args!("a=inactive"));
        self.line(format_args!("a=mid:{}", line.mid));
    }

    /// RFC 8841 section 10.4.
    fn data(&mut self, line: &NegotiatedLine, local: &LocalParams, candidates: &[CandidateAddr]) {
        let Echo { media, protocol, formats, .. } = &line.echo;
        self.line(format_args!("m={media} 9 {protocol} {formats}"));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        self.transport(local, candidates);
        self.line(format_args!("a=mid:{}", line.mid));
        self.line(format_args!("a=sctp-port:{SCTP_PORT}"));
        self.line(format_args!("a=max-message-size:{MAX_MESSAGE_BYTES}"));
    }

    fn accepted(&mut self, line: &NegotiatedLine, local: &LocalParams, candidates: &[CandidateAddr]) {
        let mut formats = String::new();
        for codec in &line.codecs {
            // A client sends redundancy if it stands before its codec. On slots the order says nothing.
            for pt in [codec.red_pt, Some(codec.pt), codec.rtx_pt].into_iter().flatten() {
                let _ = write!(formats, " {pt}");
            }
        }
        if let Some(fec) = line.fec_pt {
            let _ = write!(formats, " {fec}");
        }
        self.line(format_args!("m={} 9 {}{formats}", line.echo.media, line.echo.protocol));
        self.line(format_args!("c=IN IP4 0.0.0.0"));
        self.bandwidth(line);
        self.line(format_args!("a=rtcp:9 IN IP4 0.0.0.0"));
        self.transport(local, candidates);
        self.line(format_args!("a=mid:{}", line.mid));
        self.exts(&line.exts);
        self.line(format_args!("a={}", direction(line.usage)));
        self.line(format_args!("a=rtcp-mux"));
        if line.is_rtcp_reduced {
            self.line(format_args!("a=rtcp-rsize"));
        }
        for codec in &line.codecs {
            self.codec(codec);
        }
        self.fec(line);
        self.simulcast(line);
        self.slot(line);
    }

    /// RFC 3890, which browsers know. Not `b=AS` beside it: parsers like str0m's take one line only.
    fn bandwidth(&mut self, line: &NegotiatedLine) {
        if let Some(bps) = line.max_bps {
            self.line(format_args!("b=TIAS:{bps}"));
        }
    }

    fn transport(&mut self, local: &LocalParams, candidates: &[CandidateAddr]) {
        for (at, candidate) in candidates.iter().enumerate() {
            self.candidate(at, candidate);
        }
        if !candidates.is_empty() {
            self.line(format_args!("a=end-of-candidates"));
        }
        self.line(format_args!("a=ice-ufrag:{}", local.ice.ufrag));
        self.line(format_args!("a=ice-pwd:{}", local.ice.pwd));
        self.line(format_args!("a=ice-options:trickle ice2"));
        self.line(format_args!("a=fingerprint:{}", local.fingerprint));
        self.line(format_args!("a=setup:{}", local.setup.as_str()));
    }

    fn candidate(&mut self, at: usize, candidate: &CandidateAddr) {
        let (ip, port) = (candidate.addr.ip(), candidate.addr.port());
        let foundation = at + 1;
        let (protocol, suffix, type_preference) = match candidate.proto {
            Proto::Udp => ("udp", "", 126u32),
            // RFC 6544 section 4.2: below UDP, so that it is the way out when UDP is blocked.
            Proto::Tcp => ("tcp", " tcptype passive", 90),
        };
        // RFC 8445 section 5.1.2.1; earlier addresses are preferred.
        let local_preference = 65_535 - at.min(65_535) as u32;
        let priority = type_preference << 24 | local_preference << 8 | 255;
        self.line(format_args!("a=candidate:{foundation} 1 {protocol} {priority} {ip} {port} typ host{suffix}"));
    }

    fn exts(&mut self, exts: &ExtMap) {
        for (id, kind) in exts.iter() {
            self.line(format_args!("a=extmap:{id} {}", kind.uri()));
        }
    }

    fn codec(&mut self, codec: &LineCodec) {
        let (pt, clock_rate) = (codec.pt, codec.clock_rate);
        let channels = if codec.channels > 1 { format!("/{}", codec.channels) } else { String::new() };
        self.line(format_args!("a=rtpmap:{pt} {}/{clock_rate}{channels}", encoding_name(codec.codec)));
        self.feedback(codec);
        if !codec.fmtp.is_empty() {
            self.line(format_args!("a=fmtp:{pt} {}", codec.fmtp));
        }
        if let Some(red) = codec.red_pt {
            self.line(format_args!("a=rtpmap:{red} red/{clock_rate}{channels}"));
            self.line(format_args!("a=fmtp:{red} {pt}/{pt}"));
        }
        if let Some(rtx) = codec.rtx_pt {
            self.line(format_args!("a=rtpmap:{rtx} rtx/{clock_rate}"));
            self.line(format_args!("a=fmtp:{rtx} apt={pt}"));
        }
    }

    fn feedback(&mut self, codec: &LineCodec) {
        let Feedback { nack, pli, fir, remb, twcc } = codec.feedback;
        let kinds = [(twcc, "transport-cc"), (remb, "goog-remb"), (fir, "ccm fir"), (nack, "nack"), (pli, "nack pli")];
        for (_, kind) in kinds.iter().filter(|(is_agreed, _)| *is_agreed) {
            self.line(format_args!("a=rtcp-fb:{} {kind}", codec.pt));
        }
    }

    fn fec(&mut self, line: &NegotiatedLine) {
        let Some(pt) = line.fec_pt else { return };
        self.line(format_args!("a=rtpmap:{pt} flexfec-03/{FEC_CLOCK_RATE}"));
        if line.codecs.iter().any(|c| c.feedback.twcc) {
            self.line(format_args!("a=rtcp-fb:{pt} transport-cc"));
        }
        // The draft requires it, in microseconds; nobody reads it.
        self.line(format_args!("a=fmtp:{pt} repair-window=1000000"));
    }

    fn simulcast(&mut self, line: &NegotiatedLine) {
        for rid in &line.echo.rids {
            self.line(format_args!("a=rid:{rid} recv"));
        }
        if line.echo.is_simulcast {
            let list: Vec<&str> = line.echo.rids.iter().map(Rid::as_str).collect();
            self.line(format_args!("a=simulcast:recv {}", list.join(";")));
        }
    }

    /// A slot is a media stream of its own, named for its mid.
    fn slot(&mut self, line: &NegotiatedLine) {
        let (Some(tx), LineUse::Slot) = (line.tx, line.usage) else { return };
        let mid = line.mid;
        self.line(format_args!("a=msid:slot-{mid} slot-{mid}"));
        if let Some(rtx) = tx.rtx {
            self.line(format_args!("a=ssrc-group:FID {} {rtx}", tx.ssrc));
        }
        if let Some(fec) = tx.fec {
            self.line(format_args!("a=ssrc-group:FEC-FR {} {fec}", tx.ssrc));
        }
        for ssrc in [Some(tx.ssrc), tx.rtx, tx.fec].into_iter().flatten() {
            self.line(format_args!("a=ssrc:{ssrc} cname:{}", super::CNAME));
        }
    }
}

fn direction(usage: LineUse) -> &'static str {
    match usage {
        LineUse::Inbound => "recvonly",
        LineUse::Slot => "sendonly",
        LineUse::Data | LineUse::Idle | LineUse::Rejected => "inactive",
    }
}
