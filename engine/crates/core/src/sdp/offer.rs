//! An offer as parsed: what the client says, before we decide anything.

use mrtc_rtp::id::{Mid, Pt, Rid, Ssrc};

use super::lexer::{SdpLine, lines};
use super::{MAX_LINES, MAX_OFFER_BYTES, SdpError};
use crate::handshake::{Fingerprint, FingerprintError, Setup};

/// Most payload formats, header extensions, rids, SSRCs and groups of one m-line. Browsers stay below 70.
const MAX_PER_LINE: usize = 128;

/// A parsed offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    pub(super) transport: TransportAttributes,
    /// Mids of the first `a=group:BUNDLE`.
    pub(super) bundle: Option<Vec<String>>,
    pub(super) is_mixed_ext_allowed: bool,
    pub(super) lines: Vec<OfferLine>,
}

/// Attributes that may stand on the session or on an m-line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TransportAttributes {
    pub ufrag: Option<String>,
    pub pwd: Option<String>,
    pub fingerprints: Vec<Fingerprint>,
    pub setup: Option<Setup>,
    pub direction: Option<Direction>,
}

/// Direction from the client's view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    SendRecv,
    SendOnly,
    RecvOnly,
    Inactive,
}

/// One `m=` section.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct OfferLine {
    /// Number of its `m=` line.
    pub number: usize,
    pub media: String,
    pub port: u32,
    pub protocol: String,
    pub formats: Vec<String>,
    pub mid: Option<Mid>,
    pub transport: TransportAttributes,
    pub is_rtcp_mux: bool,
    pub is_rtcp_reduced: bool,
    pub is_bundle_only: bool,
    pub is_mixed_ext_allowed: bool,
    pub rtpmaps: Vec<RtpMap>,
    /// Format parameters by payload type.
    pub fmtps: Vec<(Pt, String)>,
    /// Feedback by payload type; unset: for all (`*`).
    pub feedback: Vec<(Option<Pt>, String)>,
    pub exts: Vec<(u8, String)>,
    /// Rids that the client sends.
    pub send_rids: Vec<Rid>,
    /// `a=simulcast:send`, first alternative of each.
    pub simulcast: Vec<Rid>,
    /// In order of appearance, each once.
    pub ssrcs: Vec<Ssrc>,
    /// `a=ssrc-group:FID` (media, rtx).
    pub fid_groups: Vec<(Ssrc, Ssrc)>,
    /// `a=ssrc-group:SIM`, lowest layer first.
    pub sim_group: Vec<Ssrc>,
    /// `a=sctp-port` (RFC 8841 section 5).
    pub sctp_port: Option<u16>,
    /// `a=max-message-size` (RFC 8841 section 6); 0: any.
    pub max_message_size: Option<u64>,
}

/// `a=rtpmap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RtpMap {
    pub pt: Pt,
    /// Upper case.
    pub name: String,
    pub clock_rate: u32,
    pub channels: u8,
}

impl Offer {
    /// Parses an offer. What is unknown is passed over; what is known must be well formed.
    pub fn parse(text: &str) -> Result<Self, SdpError> {
        if text.len() > MAX_OFFER_BYTES {
            return Err(SdpError::new(0, format!("longer than {MAX_OFFER_BYTES} bytes")));
        }
        let mut offer = Self::default();
        let mut is_first = true;
        for line in lines(text) {
            let line = line?;
            if is_first && (line.letter, line.value) != (b'v', "0") {
                return Err(line.error("an offer begins with v=0"));
            }
            is_first = false;
            offer.take(&line)?;
        }
        if is_first {
            return Err(SdpError::new(0, "the offer is empty"));
        }
        if offer.lines.is_empty() {
            return Err(SdpError::new(0, "the offer has no m-line"));
        }
        Ok(offer)
    }

    fn take(&mut self, line: &SdpLine<'_>) -> Result<(), SdpError> {
        let is_full = self.lines.len() == MAX_LINES;
        match (line.letter, self.lines.last_mut()) {
            (b'm', _) if is_full => Err(line.error(format!("more than {MAX_LINES} m-lines"))),
            (b'm', _) => {
                self.lines.push(OfferLine::parse(line)?);
                Ok(())
            }
            (b'a', Some(media)) => media.take(line),
            (b'a', None) => self.take_session(line),
            _ => Ok(()),
        }
    }

    fn take_session(&mut self, line: &SdpLine<'_>) -> Result<(), SdpError> {
        match line.attribute() {
            ("group", value) => {
                let mut words = value.split_ascii_whitespace();
                if words.next() == Some("BUNDLE") && self.bundle.is_none() {
                    let mids: Vec<String> = words.take(MAX_LINES + 1).map(str::to_owned).collect();
                    self.bundle = Some(mids);
                }
                Ok(())
            }
            ("extmap-allow-mixed", _) => {
                self.is_mixed_ext_allowed = true;
                Ok(())
            }
            _ => self.transport.take(line),
        }
    }
}

impl TransportAttributes {
    fn take(&mut self, line: &SdpLine<'_>) -> Result<(), SdpError> {
        match line.attribute() {
            ("ice-ufrag", value) => self.ufrag = Some(ice_text(line, value, 4, "ice-ufrag")?),
            // RFC 8839 section 5.4: at least 22 characters.
            ("ice-pwd", value) => self.pwd = Some(ice_text(line, value, 22, "ice-pwd")?),
            ("fingerprint", value) => match value.parse() {
                Ok(fingerprint) if self.fingerprints.len() < MAX_PER_LINE => self.fingerprints.push(fingerprint),
                Ok(_) => return Err(line.error("too many fingerprints")),
                Err(FingerprintError::UnknownHash) => {}
                Err(error) => return Err(line.error(error.to_string())),
            },
            ("setup", value) => self.setup = Some(setup(line, value)?),
            ("sendrecv", _) => self.direction = Some(Direction::SendRecv),
            ("sendonly", _) => self.direction = Some(Direction::SendOnly),
            ("recvonly", _) => self.direction = Some(Direction::RecvOnly),
            ("inactive", _) => self.direction = Some(Direction::Inactive),
            _ => {}
        }
        Ok(())
    }
}

fn ice_text(line: &SdpLine<'_>, value: &str, min: usize, what: &str) -> Result<String, SdpError> {
    // RFC 8839 allows letters, digits, + and /; browsers keep to it, some servers add - and _: nothing breaks by it.
    let is_valid = (min..=256).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    is_valid
        .then(|| value.to_owned())
        .ok_or_else(|| line.error(format!("{what} must have {min} to 256 ICE characters")))
}

fn setup(line: &SdpLine<'_>, value: &str) -> Result<Setup, SdpError> {
    match value.trim() {
        "actpass" => Ok(Setup::Actpass),
        "active" => Ok(Setup::Active),
        "passive" => Ok(Setup::Passive),
        _ => Err(line.error("setup must be actpass, active or passive")),
    }
}

impl OfferLine {
    fn parse(line: &SdpLine<'_>) -> Result<Self, SdpError> {
        let mut words = line.value.split_ascii_whitespace();
        let (Some(media), Some(port), Some(protocol)) = (words.next(), words.next(), words.next()) else {
            return Err(line.error("an m-line is: media port protocol formats"));
        };
        // The port may be followed by /count.
        let port = port.split('/').next().unwrap_or_default();
        let formats: Vec<String> = words.take(MAX_PER_LINE + 1).map(str::to_owned).collect();
        if formats.is_empty() || formats.len() > MAX_PER_LINE {
            return Err(line.error(format!("an m-line has 1 to {MAX_PER_LINE} formats")));
        }
        Ok(Self {
            number: line.number,
            media: media.to_owned(),
            port: line.number_of::<u16>(port, "the port")?.into(),
            protocol: protocol.to_owned(),
            formats,
            ..Self::default()
        })
    }

    /// Direction, of the line or else of the session, as RFC 8866 section 6.7 has it.
    pub fn direction(&self, session: &TransportAttributes) -> Direction {
        self.transport.direction.or(session.direction).unwrap_or(Direction::SendRecv)
    }

    /// Port 0 without `bundle-only`: the client does not use the line (RFC 9143 section 6).
    pub fn is_stopped(&self) -> bool {
        self.port == 0 && !self.is_bundle_only
    }

    /// Format parameters of a payload type.
    pub fn fmtp(&self, pt: Pt) -> &str {
        self.fmtps.iter().find(|(p, _)| *p == pt).map_or("", |(_, text)| text)
    }

    fn take(&mut self, line: &SdpLine<'_>) -> Result<(), SdpError> {
        let (name, value) = line.attribute();
        match name {
            "mid" => {
                let mid = Mid::new(value).ok_or_else(|| line.error("mid must have 1 to 16 visible characters"))?;
                self.mid = Some(mid);
            }
            "rtcp-mux" => self.is_rtcp_mux = true,
            "rtcp-rsize" => self.is_rtcp_reduced = true,
            "bundle-only" => self.is_bundle_only = true,
            "extmap-allow-mixed" => self.is_mixed_ext_allowed = true,
            "rtpmap" => push(line, &mut self.rtpmaps, rtpmap(line, value)?)?,
            "fmtp" => {
                let (pt, text) = value.split_once(' ').ok_or_else(|| line.error("fmtp without parameters"))?;
                // Of formats that are no payload types (RFC 8841) there is nothing for us.
                if let Ok(pt) = payload_type(line, pt) {
                    push(line, &mut self.fmtps, (pt, text.trim().to_owned()))?;
                }
            }
            "rtcp-fb" => {
                let (pt, text) = value.split_once(' ').ok_or_else(|| line.error("rtcp-fb without a kind"))?;
                let pt = if pt == "*" { None } else { Some(payload_type(line, pt)?) };
                // A format has about five kinds.
                push_to(line, &mut self.feedback, (pt, text.trim().to_owned()), 8 * MAX_PER_LINE)?;
            }
            "extmap" => self.take_ext(line, value)?,
            "rid" => self.take_rid(line, value)?,
            "simulcast" => self.simulcast = simulcast_send(line, value)?,
            "ssrc" => {
                let ssrc = Ssrc(line.number_of(value.split(' ').next().unwrap_or_default(), "ssrc")?);
                if !self.ssrcs.contains(&ssrc) {
                    push(line, &mut self.ssrcs, ssrc)?;
                }
            }
            "ssrc-group" => self.take_ssrc_group(line, value)?,
            "sctp-port" => self.sctp_port = Some(line.number_of(value.trim(), "sctp-port")?),
            "max-message-size" => self.max_message_size = Some(line.number_of(value.trim(), "max-message-size")?),
            _ => self.transport.take(line)?,
        }
        Ok(())
    }

    fn take_ext(&mut self, line: &SdpLine<'_>, value: &str) -> Result<(), SdpError> {
        let mut words = value.split_ascii_whitespace();
        let (Some(id), Some(uri)) = (words.next(), words.next()) else {
            return Err(line.error("extmap is: id uri"));
        };
        let (id, direction) = id.split_once('/').unwrap_or((id, "sendrecv"));
        // RFC 8285 section 5: ids of 4096 and above are offers of alternatives; nobody uses them.
        let id: u16 = line.number_of(id, "the extension id")?;
        if let (Ok(id @ 1..), true) = (u8::try_from(id), direction != "inactive") {
            push(line, &mut self.exts, (id, uri.to_owned()))?;
        }
        Ok(())
    }

    fn take_rid(&mut self, line: &SdpLine<'_>, value: &str) -> Result<(), SdpError> {
        let mut words = value.split_ascii_whitespace();
        let rid = rid(line, words.next().unwrap_or_default())?;
        match words.next() {
            Some("send") => push(line, &mut self.send_rids, rid),
            Some("recv") => Ok(()),
            _ => Err(line.error("a rid is: name send|recv")),
        }
    }

    fn take_ssrc_group(&mut self, line: &SdpLine<'_>, value: &str) -> Result<(), SdpError> {
        let mut words = value.split_ascii_whitespace();
        let semantics = words.next().unwrap_or_default();
        let ssrcs: Vec<Ssrc> =
            words.take(MAX_PER_LINE).map(|w| line.number_of(w, "ssrc").map(Ssrc)).collect::<Result<_, _>>()?;
        match (semantics, ssrcs.as_slice()) {
            ("FID", [media, rtx]) => push(line, &mut self.fid_groups, (*media, *rtx)),
            ("FID", _) => Err(line.error("a FID group has two SSRCs")),
            ("SIM", _) => {
                self.sim_group = ssrcs;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn push<T>(line: &SdpLine<'_>, list: &mut Vec<T>, item: T) -> Result<(), SdpError> {
    push_to(line, list, item, MAX_PER_LINE)
}

fn push_to<T>(line: &SdpLine<'_>, list: &mut Vec<T>, item: T, max: usize) -> Result<(), SdpError> {
    if list.len() >= max {
        return Err(line.error(format!("more than {max} attributes of one kind on an m-line")));
    }
    list.push(item);
    Ok(())
}

pub(super) fn payload_type(line: &SdpLine<'_>, text: &str) -> Result<Pt, SdpError> {
    match line.number_of(text, "the payload type")? {
        pt @ 0..=127u8 => Ok(Pt(pt)),
        _ => Err(line.error("a payload type is 0 to 127")),
    }
}

fn rtpmap(line: &SdpLine<'_>, value: &str) -> Result<RtpMap, SdpError> {
    let mut words = value.split_ascii_whitespace();
    let (Some(pt), Some(encoding)) = (words.next(), words.next()) else {
        return Err(line.error("an rtpmap is: payload-type name/clock"));
    };
    let mut parts = encoding.split('/');
    let name = parts.next().unwrap_or_default().to_ascii_uppercase();
    let clock_rate = line.number_of(parts.next().unwrap_or_default(), "the clock rate")?;
    let channels = parts.next().map_or(Ok(1), |text| line.number_of(text, "the channel count"))?;
    Ok(RtpMap { pt: payload_type(line, pt)?, name, clock_rate, channels })
}

fn rid(line: &SdpLine<'_>, text: &str) -> Result<Rid, SdpError> {
    // RFC 8851 section 10: letters, digits, - and _.
    let is_valid = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    Rid::new(text).filter(|_| is_valid).ok_or_else(|| line.error("a rid has 1 to 16 letters or digits"))
}

/// RFC 8853 section 5.1: `send a,~b;c recv d`. Of alternatives (`,`) the first is taken, `~` (paused) is dropped.
fn simulcast_send(line: &SdpLine<'_>, value: &str) -> Result<Vec<Rid>, SdpError> {
    let mut words = value.split_ascii_whitespace();
    while let Some(direction) = words.next() {
        let Some(list) = words.next() else { return Err(line.error("simulcast without a list")) };
        if direction == "send" {
            return list
                .split(';')
                .take(MAX_PER_LINE)
                .map(|group| rid(line, group.split(',').next().unwrap_or_default().trim_start_matches('~')))
                .collect();
        }
    }
    Ok(Vec::new())
}
