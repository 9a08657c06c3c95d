//! The receiving half of a transport: opens SRTP, finds the stream, undoes RTX, and says what a packet is.

use std::ops::Range;
use std::time::{Duration, Instant};

use mrtc_rtp::codec::PayloadInfo;
use mrtc_rtp::ext::AudioLevel;
use mrtc_rtp::header::RtpHeader;
use mrtc_rtp::id::{ExtSeq, Pt, SeqNo};
use mrtc_rtp::red::{MAX_EARLIER, Red};
use mrtc_rtp::seq::nearest;
use mrtc_rtp::srtp::{Highest, Inbound, SrtpError};

use super::held::Held;
use super::streams::{NoStream, SsrcUse, StreamRx, Streams};
use crate::bwe::ReceiveSideBwe;
use crate::command::Codec;
use crate::counters::Counters;
use crate::ingress_caps::IngressCaps;
use crate::keys::TrackKey;
use crate::nack_register::Arrival;
use crate::prefetch::Prefetch;
use crate::sdp::{Negotiated, NegotiatedLine, Variant};
use crate::twcc_register::TwccRegister;

/// Bytes of a key with its tables, as far as a short packet needs them.
const RTCP_KEY_LEN: usize = 576;

/// A stream that was silent for this long has lost nothing that could still come.
const SENDING: Duration = Duration::from_secs(1);

/// The receiving half.
#[derive(Debug)]
pub(crate) struct TransportRx {
    pub(crate) streams: Streams,
    pub(crate) twcc: TwccRegister,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    /// Set while something that the client sends has a cap.
    pub(crate) caps: Option<Box<IngressCaps>>,
    /// What the path takes, of a client that is told so by REMB since it agreed to nothing better.
    pub(crate) bwe: Option<Box<ReceiveSideBwe>>,
    srtp: Option<Inbound>,
    /// Set while another node has the client and the keys.
    held: Option<Box<Held>>,
}

/// A packet of media, opened and understood. Ranges are into the datagram's buffer.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) track: TrackKey,
    pub(crate) layer: u8,
    pub(crate) codec: Codec,
    pub(crate) variant: Variant,
    pub(crate) seq: ExtSeq,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) is_restart: bool,
    pub(crate) info: PayloadInfo,
    pub(crate) audio_level: Option<AudioLevel>,
    pub(crate) orientation: Option<u8>,
    pub(crate) dd: Range<usize>,
    pub(crate) payload: Range<usize>,
    /// Packets that lacked and that this one carries too, oldest first.
    pub(crate) restored: [Option<Restored>; MAX_EARLIER],
}

/// A packet of sound that came inside a later one.
#[derive(Clone, Debug)]
pub(crate) struct Restored {
    pub(crate) seq: ExtSeq,
    pub(crate) timestamp: u32,
    pub(crate) payload: Range<usize>,
}

/// Where a packet belongs, before its payload is read.
struct Placed {
    stream: usize,
    pt: Pt,
    seq: ExtSeq,
    payload: Range<usize>,
}

impl TransportRx {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            streams: Streams::default(),
            twcc: TwccRegister::new(now),
            packets: 0,
            bytes: 0,
            caps: None,
            bwe: None,
            srtp: None,
            held: None,
        }
    }

    pub(crate) fn set_srtp(&mut self, srtp: Inbound) {
        self.srtp = Some(srtp);
    }

    /// Keeps what comes before the keys.
    pub(super) fn hold(&mut self) {
        self.held = Some(Box::default());
    }

    /// True if something came before the keys and waits for them.
    pub(crate) fn is_holding(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.is_empty())
    }

    /// What waited for the keys, once they are here.
    pub(crate) fn take_held(&mut self) -> Vec<Vec<u8>> {
        self.held.take().map(|held| held.into_datagrams()).unwrap_or_default()
    }

    /// Opens nothing more: another node does.
    pub(super) fn hand_over(&mut self) {
        self.srtp = None;
    }

    #[cold]
    fn take_sealed(&mut self, datagram: &[u8], counters: &mut Counters) {
        if !self.held.as_mut().is_some_and(|held| held.push(datagram)) {
            counters.drop_no_keys += 1;
        }
    }

    /// Highest indices received by SSRC, of RTP and of RTCP.
    pub(super) fn received(&self) -> (Highest, Highest) {
        self.srtp.as_ref().map(Inbound::highest).unwrap_or_default()
    }

    /// RTCP is opened soon.
    pub(crate) fn prefetch_rtcp(&self, cache: &impl Prefetch) {
        if let Some(srtp) = &self.srtp {
            cache.prefetch_behind(srtp.rtcp_key(), RTCP_KEY_LEN);
        }
    }

    /// Takes over what an offer declares.
    pub(crate) fn negotiate(&mut self, now: Instant, negotiated: &Negotiated, max_ssrcs: usize) {
        let is_told_by_remb = negotiated.lines.iter().any(NegotiatedLine::needs_remb);
        match is_told_by_remb {
            true => drop(self.bwe.get_or_insert_with(|| Box::new(ReceiveSideBwe::new(now)))),
            false => self.bwe = None,
        }
        for (index, line) in negotiated.lines.iter().enumerate() {
            self.streams.declare(index, line, max_ssrcs);
        }
    }

    /// Opens an RTCP packet in place; the plain compound packet.
    pub(crate) fn open_rtcp<'a>(&mut self, buf: &'a mut [u8], counters: &mut Counters) -> Option<&'a [u8]> {
        let Some(srtp) = &mut self.srtp else {
            self.take_sealed(buf, counters);
            return None;
        };
        match srtp.open_rtcp(buf) {
            Ok(len) => {
                counters.rx_rtcp_packets += 1;
                Some(&buf[..len])
            }
            Err(error) => {
                count_srtp_error(error, counters);
                None
            }
        }
    }

    /// Opens an RTP packet in place and finds out what it is. `None`: dropped and counted, or nothing to forward.
    pub(crate) fn receive(
        &mut self,
        now: Instant,
        buf: &mut [u8],
        negotiated: &Negotiated,
        rtt: Duration,
        max_ssrcs: usize,
        counters: &mut Counters,
    ) -> Option<Received> {
        let (header, ext_seq, plain_len) = self.open(buf, counters)?;
        let plain = &buf[..plain_len];
        let values = match header.ext_profile {
            Some(profile) => negotiated.exts.parse(profile, header.ext_block(plain)),
            None => Default::default(),
        };
        if let (Some(bwe), Some(sent_at)) = (&mut self.bwe, values.abs_send_time) {
            bwe.on_packet(now, sent_at, plain_len, rtt);
        }
        let number = values.transport_cc.map(|number| self.twcc.on_packet(SeqNo(number), now));
        let known = self.streams.find(header.ssrc);
        let found =
            known.map_or_else(|| self.streams.learn(header.ssrc, header.pt, &values, &negotiated.lines, max_ssrcs), Ok);
        let ssrc_use = match found {
            Ok(found) => found,
            Err(NoStream::Unknown) => {
                counters.drop_unknown_ssrc += 1;
                return None;
            }
            Err(NoStream::Limit) => {
                counters.drop_ssrc_limit += 1;
                return None;
            }
        };
        let payload = match header.payload_range(plain) {
            Ok(payload) => payload,
            Err(_) => {
                counters.drop_malformed += 1;
                return None;
            }
        };
        let placed = self.place(ssrc_use, &header, ext_seq, payload, plain, negotiated, counters)?;
        let dd = values.dependency_descriptor.map_or(0..0, |dd| {
            let start = dd.as_ptr() as usize - plain.as_ptr() as usize;
            start..start + dd.len()
        });
        let stream = &mut self.streams.list[placed.stream];
        stream.bytes += plain.len() as u64;
        let arrival = stream.register.on_packet(placed.seq, header.timestamp, now);
        let mut is_restart = std::mem::take(&mut stream.is_restarting);
        match arrival {
            Arrival::New => {
                stream.highest = placed.seq;
                stream.heard_at = Some(now);
                if let Some(number) = number {
                    stream.register.note_mark(number.0);
                }
            }
            Arrival::Recovered => counters.rx_recovered_packets += 1,
            Arrival::Duplicate => {
                counters.drop_duplicate += 1;
                return None;
            }
            Arrival::Reset => {
                stream.highest = placed.seq;
                is_restart = true;
            }
        }
        let Some(format) = stream.format_of(placed.pt, &negotiated.lines[stream.line]) else {
            counters.drop_unknown_payload_type += 1;
            return None;
        };
        let Some(track) = stream.track else {
            counters.drop_not_published += 1;
            return None;
        };
        let mut payload = placed.payload;
        let mut restored = [const { None }; MAX_EARLIER];
        if let Some(inner) = format.red_of.filter(|_| !payload.is_empty()) {
            let Ok(red) = Red::parse(&plain[payload.clone()], inner) else {
                counters.drop_malformed += 1;
                return None;
            };
            if !is_restart {
                restored = stream.restore(&red, placed.seq, header.timestamp, payload.start);
            }
            payload = payload.start + red.primary.start..payload.end;
        }
        // VP8 and H.264 travel without a descriptor: their receivers order frames by the payload alone, and that is
        // rewritten where frames are left out.
        let keeps_dd = matches!(format.codec, Codec::Vp9 | Codec::Av1);
        let frame = stream.read_descriptor(values.dependency_descriptor.filter(|_| format.codec != Codec::Vp8));
        let info = PayloadInfo::inspect(format.codec.into(), &plain[payload.clone()], frame.as_ref());
        Some(Received {
            track,
            layer: stream.layer,
            codec: format.codec,
            variant: format.variant,
            seq: placed.seq,
            timestamp: header.timestamp,
            marker: header.marker,
            is_restart,
            info,
            audio_level: values.audio_level,
            orientation: values.video_orientation,
            dd: if keeps_dd && frame.is_some() { dd } else { 0..0 },
            payload,
            restored,
        })
    }

    /// What was lost, fetched again, and not told of, counts as received from now on: the client's estimate would
    /// else take what arrives for much less than it is, and grow no more.
    pub(crate) fn settle_feedback(&mut self, now: Instant) {
        if !self.twcc.has_untold() {
            return;
        }
        let is_sending = |s: &&StreamRx| s.heard_at.is_some_and(|at| now < at + SENDING);
        let streams = self.streams.list.iter().filter(is_sending);
        if let Some(complete_to) = streams.map(|s| s.register.complete_to()).min() {
            self.twcc.take_complete(complete_to);
        }
    }

    fn open(&mut self, buf: &mut [u8], counters: &mut Counters) -> Option<(RtpHeader, ExtSeq, usize)> {
        let Some(srtp) = &mut self.srtp else {
            self.take_sealed(buf, counters);
            return None;
        };
        let Ok(header) = RtpHeader::parse(buf) else {
            counters.drop_malformed += 1;
            return None;
        };
        match srtp.open_rtp(buf, &header) {
            Ok((seq, len)) => {
                counters.rx_rtp_packets += 1;
                self.packets += 1;
                self.bytes += buf.len() as u64;
                Some((header, seq, len))
            }
            Err(error) => {
                count_srtp_error(error, counters);
                None
            }
        }
    }

    /// Undoes a retransmission (RFC 4588 section 4): the original number is in front of the payload.
    #[allow(clippy::too_many_arguments)]
    fn place(
        &mut self,
        ssrc_use: SsrcUse,
        header: &RtpHeader,
        seq: ExtSeq,
        payload: Range<usize>,
        plain: &[u8],
        negotiated: &Negotiated,
        counters: &mut Counters,
    ) -> Option<Placed> {
        let stream = match ssrc_use {
            SsrcUse::Media(stream) => return Some(Placed { stream, pt: header.pt, seq, payload }),
            SsrcUse::Rtx(stream) => stream,
        };
        let rx = &mut self.streams.list[stream];
        rx.rtx_packets += 1;
        let Some(osn) = plain[payload.clone()].first_chunk::<2>() else {
            // Padding on the retransmission stream: a probe.
            counters.drop_padding += 1;
            return None;
        };
        let line = &negotiated.lines[rx.line];
        let Some(codec) = line.codecs.iter().find(|c| c.rtx_pt == Some(header.pt)) else {
            counters.drop_unknown_payload_type += 1;
            return None;
        };
        let original = u64::from(u16::from_be_bytes(*osn));
        let seq = ExtSeq(nearest(rx.highest.0, original, 16));
        Some(Placed { stream, pt: codec.pt, seq, payload: payload.start + 2..payload.end })
    }
}

impl StreamRx {
    /// Of the packets inside `red`, those that lacked. `base` is where the payload lies in the datagram.
    fn restore(&mut self, red: &Red, seq: ExtSeq, timestamp: u32, base: usize) -> [Option<Restored>; MAX_EARLIER] {
        let mut restored = [const { None }; MAX_EARLIER];
        for (place, earlier) in restored.iter_mut().zip(red.earlier()) {
            let Some(seq) = seq.0.checked_sub(earlier.back.into()).map(ExtSeq) else { continue };
            if self.register.restore(seq) {
                let timestamp = timestamp.wrapping_sub(earlier.offset.into());
                let payload = base + earlier.payload.start..base + earlier.payload.end;
                *place = Some(Restored { seq, timestamp, payload });
            }
        }
        restored
    }
}

fn count_srtp_error(error: SrtpError, counters: &mut Counters) {
    match error {
        SrtpError::Replayed => counters.drop_replayed += 1,
        SrtpError::TooManySsrcs => counters.drop_ssrc_limit += 1,
        SrtpError::TooShort => counters.drop_malformed += 1,
        _ => counters.drop_unauthentic += 1,
    }
}
