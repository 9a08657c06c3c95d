//! Decides what of an offer we take.

use std::collections::HashSet;

use mrtc_rtp::ext::{ExtKind, ExtMap};
use mrtc_rtp::id::{Mid, Ssrc};

use super::answer::{Echo, Session};
use super::codecs::{fec_of, line_codecs};
use super::offer::{Direction, Offer, OfferLine, TransportAttributes};
use super::simulcast::lowest_first;
use super::{LineCodec, LineSource, LineUse, Negotiated, NegotiatedLine, SdpError, SlotSource};
use crate::command::Kind;
use crate::handshake::{IceCredentials, RemoteParams, Setup};

/// Most simulcast layers of a line. libwebrtc sends three at most; layer masks are of eight bits.
const MAX_LAYERS: usize = 4;
/// RFC 8841 section 6.1: what an offer without `a=max-message-size` means.
const DEFAULT_MAX_MESSAGE_SIZE: u64 = 64 * 1024;

/// Negotiates an offer; `previous` is the outcome of the transport's last one. `new_ssrc` gives random SSRCs for slots.
///
/// Fails if the offer breaks a rule of BUNDLE or of re-offers, has no usable line, or lacks ICE or DTLS parameters.
pub fn negotiate(
    offer: &Offer,
    previous: Option<&Negotiated>,
    new_ssrc: &mut dyn FnMut() -> Ssrc,
) -> Result<Negotiated, SdpError> {
    let mids = line_mids(offer)?;
    check_against_previous(offer, previous, &mids)?;
    let bundle = bundled_lines(offer, &mids)?;
    let remote = remote_params(offer, &bundle)?;
    let session = match previous {
        Some(previous) => {
            check_certificate(previous, &remote)?;
            previous.session.next()
        }
        None => Session::new(new_ssrc),
    };
    let mut exts = ExtMap::new();
    let mut lines = Vec::with_capacity(offer.lines.len());
    for (at, line) in offer.lines.iter().enumerate() {
        let mut negotiated = negotiate_line(offer, line, mids[at], bundle[at], &mut exts)?;
        if negotiated.usage == LineUse::Data && lines.iter().any(|l: &NegotiatedLine| l.usage == LineUse::Data) {
            // A transport has one association.
            negotiated.usage = LineUse::Rejected;
        }
        if negotiated.usage == LineUse::Slot {
            negotiated.tx = Some(slot_source(&negotiated, previous, at, new_ssrc));
        }
        lines.push(negotiated);
    }
    let is_usable = |l: &NegotiatedLine| matches!(l.usage, LineUse::Inbound | LineUse::Slot | LineUse::Data);
    if previous.is_none() && !lines.iter().any(is_usable) {
        return Err(SdpError::new(
            0,
            "no m-line can be taken: no data channels, no audio or video with a codec that we know",
        ));
    }
    Ok(Negotiated {
        is_ice_restart: previous.is_some_and(|p| p.remote.ice != remote.ice),
        remote,
        lines,
        exts,
        is_mixed_ext_allowed: offer.is_mixed_ext_allowed || offer.lines.iter().any(|l| l.is_mixed_ext_allowed),
        session,
    })
}

/// Each line's mid; the position where there is none (RFC 8829 section 5.10 does the same).
fn line_mids(offer: &Offer) -> Result<Vec<Mid>, SdpError> {
    let mut seen = HashSet::new();
    let mut mids = Vec::with_capacity(offer.lines.len());
    for (at, line) in offer.lines.iter().enumerate() {
        let mid = line.mid.or_else(|| Mid::new(&at.to_string())).expect("a short number is a mid");
        if !seen.insert(mid) {
            return Err(SdpError::new(line.number, format!("mid {mid} is there twice")));
        }
        mids.push(mid);
    }
    Ok(mids)
}

/// RFC 9429 section 5.2.2: lines keep their place; one that is in use keeps its mid and kind.
fn check_against_previous(offer: &Offer, previous: Option<&Negotiated>, mids: &[Mid]) -> Result<(), SdpError> {
    let Some(previous) = previous else { return Ok(()) };
    if offer.lines.len() < previous.lines.len() {
        return Err(SdpError::new(0, format!("the offer before had {} m-lines", previous.lines.len())));
    }
    for ((old, new), mid) in previous.lines.iter().zip(&offer.lines).zip(mids) {
        let is_in_use = matches!(old.usage, LineUse::Inbound | LineUse::Slot | LineUse::Data);
        let kind = (old.usage != LineUse::Data).then_some(old.kind);
        let is_same = old.mid == *mid && kind_of(new) == kind && is_data(new) == kind.is_none();
        if is_in_use && !new.is_stopped() && !is_same {
            return Err(SdpError::new(new.number, format!("the m-line was {} before and was not stopped", old.mid)));
        }
    }
    Ok(())
}

/// Which lines share our one transport.
fn bundled_lines(offer: &Offer, mids: &[Mid]) -> Result<Vec<bool>, SdpError> {
    let Some(group) = &offer.bundle else {
        // A lone line needs no group. Of several we can take only one.
        let first = offer.lines.iter().position(|l| !l.is_stopped() && (kind_of(l).is_some() || is_data(l)));
        return Ok((0..mids.len()).map(|at| Some(at) == first).collect());
    };
    let group: HashSet<&str> = group.iter().map(String::as_str).collect();
    if let Some(unknown) = group.iter().find(|name| !mids.iter().any(|m| m.as_str() == **name)) {
        return Err(SdpError::new(0, format!("the BUNDLE group names mid {unknown}, which no m-line has")));
    }
    Ok(mids.iter().map(|mid| group.contains(mid.as_str())).collect())
}

/// ICE and DTLS of the BUNDLE transport: those of its first line that has any, else of the session.
fn remote_params(offer: &Offer, bundle: &[bool]) -> Result<RemoteParams, SdpError> {
    let candidates = || {
        let lines = offer.lines.iter().zip(bundle).filter(|(line, is_bundled)| **is_bundled && !line.is_stopped());
        lines.map(|(line, _)| &line.transport).chain([&offer.transport])
    };
    let missing = |what: &str| SdpError::new(0, format!("the offer has no {what}"));
    let with_ice = |t: &&TransportAttributes| t.ufrag.is_some() && t.pwd.is_some();
    let ice = candidates().find(with_ice).ok_or_else(|| missing("ice-ufrag and ice-pwd"))?;
    let with_fingerprint = |t: &&TransportAttributes| !t.fingerprints.is_empty();
    let dtls =
        candidates().find(with_fingerprint).ok_or_else(|| missing("fingerprint of a hash function that we know"))?;
    Ok(RemoteParams {
        ice: IceCredentials { ufrag: ice.ufrag.clone().unwrap_or_default(), pwd: ice.pwd.clone().unwrap_or_default() },
        fingerprints: dtls.fingerprints.clone(),
        // RFC 8842 section 5.2: an offer says actpass; the sloppy ones that say nothing mean it.
        setup: candidates().find_map(|t| t.setup).unwrap_or(Setup::Actpass),
    })
}

fn check_certificate(previous: &Negotiated, remote: &RemoteParams) -> Result<(), SdpError> {
    if previous.remote.fingerprints == remote.fingerprints {
        return Ok(());
    }
    Err(SdpError::new(0, "the certificate's fingerprint changed; that takes a new transport"))
}

fn kind_of(line: &OfferLine) -> Option<Kind> {
    match line.media.as_str() {
        "audio" => Some(Kind::Audio),
        "video" => Some(Kind::Video),
        _ => None,
    }
}

/// RFC 8841: SCTP over DTLS, for data channels. The older form (`DTLS/SCTP 5000`, `a=sctpmap`) is of no client today.
fn is_data(line: &OfferLine) -> bool {
    line.media == "application" && line.protocol.ends_with("/DTLS/SCTP") && line.formats == ["webrtc-datachannel"]
}

fn negotiate_line(
    offer: &Offer,
    line: &OfferLine,
    mid: Mid,
    is_bundled: bool,
    transport_exts: &mut ExtMap,
) -> Result<NegotiatedLine, SdpError> {
    let kind = kind_of(line);
    let mut negotiated = NegotiatedLine {
        mid,
        kind: kind.unwrap_or(Kind::Audio),
        usage: LineUse::Rejected,
        codecs: Vec::new(),
        fec_pt: None,
        exts: ExtMap::new(),
        rids: Vec::new(),
        sources: Vec::new(),
        tx: None,
        max_bps: None,
        max_message_size: 0,
        is_rtcp_reduced: line.is_rtcp_reduced,
        echo: Echo::of(line),
    };
    if line.is_stopped() {
        negotiated.usage = LineUse::Idle;
        negotiated.echo.is_stopped = true;
        return Ok(negotiated);
    }
    if is_data(line) && is_bundled {
        let size = line.max_message_size.unwrap_or(DEFAULT_MAX_MESSAGE_SIZE);
        negotiated.usage = LineUse::Data;
        negotiated.max_message_size = if size == 0 { u32::MAX } else { u32::try_from(size).unwrap_or(u32::MAX) };
        return Ok(negotiated);
    }
    let is_srtp = line.protocol.contains("RTP/SAVP");
    let (Some(kind), true, true) = (kind, is_bundled, is_srtp) else { return Ok(negotiated) };
    let usage = usage(line.direction(&offer.transport));
    negotiated.codecs = line_codecs(line, kind, usage);
    if negotiated.codecs.is_empty() {
        return Ok(negotiated);
    }
    if !line.is_rtcp_mux {
        return Err(SdpError::new(line.number, "rtcp-mux is required"));
    }
    negotiated.usage = usage;
    negotiated.fec_pt = fec_of(line).filter(|_| kind == Kind::Video && usage == LineUse::Slot);
    negotiated.exts = line_exts(line, kind, usage, transport_exts);
    negotiated.echo.is_mixed_ext_allowed = line.is_mixed_ext_allowed;
    settle_feedback(&mut negotiated);
    if usage == LineUse::Inbound {
        take_sources(line, &mut negotiated)?;
    }
    Ok(negotiated)
}

/// `sendrecv` counts as inbound: what a client receives goes over lines of its own, so that a track can change its slot.
fn usage(direction: Direction) -> LineUse {
    match direction {
        Direction::SendOnly | Direction::SendRecv => LineUse::Inbound,
        Direction::RecvOnly => LineUse::Slot,
        Direction::Inactive => LineUse::Idle,
    }
}

/// The extensions that we read or write on a line. What we would not forward is not taken, so that nobody sends it.
fn line_exts(line: &OfferLine, kind: Kind, usage: LineUse, transport_exts: &mut ExtMap) -> ExtMap {
    let has_twcc = line.feedback.iter().any(|(_, kind)| kind == "transport-cc");
    let mut exts = ExtMap::new();
    for (id, uri) in &line.exts {
        let Some(ext) = ExtKind::from_uri(uri) else { continue };
        let is_wanted = match ext {
            ExtKind::Mid | ExtKind::AbsCaptureTime => true,
            // See `settle_feedback`: what a receiver needs for REMB.
            ExtKind::AbsSendTime => usage != LineUse::Slot,
            // Without the feedback the numbers are of no use.
            ExtKind::TransportCc => has_twcc,
            ExtKind::AudioLevel => kind == Kind::Audio,
            ExtKind::Rid | ExtKind::RepairedRid => kind == Kind::Video && usage != LineUse::Slot,
            ExtKind::DependencyDescriptor | ExtKind::PlayoutDelay | ExtKind::VideoOrientation => kind == Kind::Video,
            ExtKind::VideoLayersAllocation | ExtKind::ColorSpace | ExtKind::ContentType => false,
        };
        // RFC 9143 section 9.2: in a BUNDLE group an id means the same on all lines. One that does not is left out.
        if is_wanted && transport_exts.set(*id, ext) {
            exts.set(*id, ext);
        }
    }
    exts
}

/// Transport-wide feedback needs its extension. REMB is agreed to on inbound lines also where that works: it is how a client
/// is told of a cap, and without one none is sent.
///
/// On slots REMB is not asked for at all: a receiver's estimate of a stream that does not fill the path says little more
/// than what was sent (aiortc: 1.5 times that), so following it starves the stream step by step. Clients without
/// transport-wide feedback are served by the loss that they report.
fn settle_feedback(line: &mut NegotiatedLine) {
    let has_ext = line.exts.id_of(ExtKind::TransportCc).is_some();
    for LineCodec { feedback, .. } in &mut line.codecs {
        feedback.twcc &= has_ext;
        feedback.remb &= line.usage != LineUse::Slot;
    }
}

/// How the packets of an inbound line are known: by rid, or by the SSRCs that the offer declares.
fn take_sources(line: &OfferLine, negotiated: &mut NegotiatedLine) -> Result<(), SdpError> {
    let simulcast = if line.simulcast.is_empty() { &line.send_rids } else { &line.simulcast };
    if simulcast.iter().any(|rid| !line.send_rids.contains(rid)) {
        return Err(SdpError::new(line.number, "a=simulcast names a rid that no a=rid line sends"));
    }
    if has_duplicates(simulcast) {
        return Err(SdpError::new(line.number, "a rid is there twice"));
    }
    if negotiated.kind == Kind::Video && !simulcast.is_empty() {
        let mut rids = lowest_first(simulcast);
        rids.truncate(MAX_LAYERS);
        negotiated.echo.rids = simulcast.iter().filter(|r| rids.contains(r)).copied().collect();
        negotiated.echo.is_simulcast = !line.simulcast.is_empty();
        negotiated.rids = rids;
        return Ok(());
    }
    let is_rtx = |ssrc: &Ssrc| line.fid_groups.iter().any(|(_, rtx)| rtx == ssrc);
    let primary: Vec<Ssrc> = if line.sim_group.is_empty() {
        line.ssrcs.iter().copied().filter(|ssrc| !is_rtx(ssrc)).take(1).collect()
    } else {
        line.sim_group.iter().copied().take(MAX_LAYERS).collect()
    };
    let rtx_of = |ssrc: Ssrc| line.fid_groups.iter().find(|(media, _)| *media == ssrc).map(|(_, rtx)| *rtx);
    negotiated.sources = primary.into_iter().map(|ssrc| LineSource { ssrc, rtx: rtx_of(ssrc) }).collect();
    Ok(())
}

fn has_duplicates<T: Eq + std::hash::Hash>(items: &[T]) -> bool {
    let mut seen = HashSet::new();
    !items.iter().all(|item| seen.insert(item))
}

/// A slot keeps its SSRCs through re-offers: receivers tie their jitter buffers to them.
fn slot_source(
    line: &NegotiatedLine,
    previous: Option<&Negotiated>,
    at: usize,
    new_ssrc: &mut dyn FnMut() -> Ssrc,
) -> SlotSource {
    let old = previous.and_then(|p| p.lines.get(at)).filter(|old| old.mid == line.mid).and_then(|old| old.tx);
    let has_rtx = line.codecs.iter().any(|c| c.rtx_pt.is_some());
    let ssrc = old.map_or_else(&mut *new_ssrc, |old| old.ssrc);
    let rtx = has_rtx.then(|| old.and_then(|old| old.rtx).unwrap_or_else(&mut *new_ssrc));
    let fec = line.fec_pt.map(|_| old.and_then(|old| old.fec).unwrap_or_else(&mut *new_ssrc));
    SlotSource { ssrc, rtx, fec }
}
