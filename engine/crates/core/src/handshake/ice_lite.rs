//! The answering side of ICE (RFC 8445 section 2.5, a lite agent): verifies checks, answers them, keeps the nominated path.

use std::fmt;
use std::time::{Duration, Instant};

use aws_lc_rs::{hmac, rand};
use str0m::ice::{StunMessage, TransId};

use crate::addr::Dest;
use crate::prefetch::Prefetch;

/// Dests that passed a check and may carry DTLS. A client has a handful; the oldest goes when more come.
const MAX_PATHS: usize = 16;
/// A path on which no check came for so long has lost its client: checks come every 2.5 s (libwebrtc) or 4 to 6 s
/// (aiortc, RFC 7675's interval) on the path in use. The next check on another path then moves the media there, also
/// without a nomination: a NAT that gives the client a new port tells the client nothing, so it nominates nothing.
const PATH_SILENCE: Duration = Duration::from_secs(4);
/// Our replies carry a mapped address, integrity and fingerprint: 20 + 24 + 24 + 8 bytes, or a short error text.
const MAX_REPLY: usize = 160;

/// A check beside its user name: 20 of head, user name's head and padding, priority, role, integrity, fingerprint.
const MAX_CHECK: usize = 20 + 8 + 8 + 12 + 24 + 8;
/// Type preference of a check of our own: above that of the candidates in answers (126), so that the client prefers its path
/// to the one that it is on. By the local preference each later one is above those before.
const CALL_TYPE_PREFERENCE: u32 = 127;

/// User name fragment and password of one side.
#[derive(Clone, PartialEq, Eq)]
pub struct IceCredentials {
    /// `a=ice-ufrag`.
    pub ufrag: String,
    /// `a=ice-pwd`.
    pub pwd: String,
}

impl IceCredentials {
    /// 48 and 144 random bits (RFC 8445 section 5.3 asks for 24 and 128).
    pub fn random() -> Self {
        Self { ufrag: random_ice_chars::<8>(), pwd: random_ice_chars::<24>() }
    }
}

impl fmt::Debug for IceCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IceCredentials({})", self.ufrag)
    }
}

fn random_ice_chars<const N: usize>() -> String {
    const ICE_CHARS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the operating system's random source works");
    bytes.iter().map(|b| ICE_CHARS[usize::from(b & 63)] as char).collect()
}

pub(super) enum StunOutcome {
    /// Not a check, or not authentic.
    Ignored,
    /// A check; the path is told if it changed. Nominated: the client sends on the path of this check.
    Answered { reply: Vec<u8>, selected: Option<Dest>, is_nominated: bool },
}

pub(super) struct IceLite {
    local: IceCredentials,
    remote_ufrag: String,
    /// Most recently checked last, each with the time of that check.
    paths: Vec<(Dest, Instant)>,
    selected: Option<Dest>,
    last_check_at: Option<Instant>,
}

impl IceLite {
    pub(super) fn new(remote_ufrag: String) -> Self {
        Self::with_local(IceCredentials::random(), remote_ufrag)
    }

    /// With credentials that the client was given before.
    pub(super) fn with_local(local: IceCredentials, remote_ufrag: String) -> Self {
        Self { local, remote_ufrag, paths: Vec::new(), selected: None, last_check_at: None }
    }

    pub(super) fn local(&self) -> &IceCredentials {
        &self.local
    }

    pub(super) fn selected(&self) -> Option<Dest> {
        self.selected
    }

    pub(super) fn prefetch_path(&self, cache: &impl Prefetch) {
        cache.prefetch(&self.selected);
    }

    pub(super) fn last_check_at(&self) -> Option<Instant> {
        self.last_check_at
    }

    pub(super) fn is_known(&self, path: &Dest) -> bool {
        self.paths.iter().any(|(known, _)| known == path)
    }

    /// Dests stay: DTLS and media go on over them while the client checks anew.
    pub(super) fn restart(&mut self, remote_ufrag: String) {
        self.local = IceCredentials::random();
        self.remote_ufrag = remote_ufrag;
    }

    pub(super) fn handle(&mut self, now: Instant, path: Dest, bytes: &[u8]) -> StunOutcome {
        let Ok(message) = StunMessage::parse(bytes) else { return StunOutcome::Ignored };
        if !message.is_binding_request() || !self.is_authentic(&message) {
            return StunOutcome::Ignored;
        }
        // RFC 8445 section 7.3.1.1: a lite agent is always controlled; a client that thinks so of itself must switch.
        if message.ice_controlled().is_some() {
            let reply = self.seal(StunMessage::binding_role_conflict_reply(message.trans_id()));
            return StunOutcome::Answered { reply, selected: None, is_nominated: false };
        }
        self.last_check_at = Some(now);
        let selected = self.select(now, path, message.use_candidate());
        self.remember(now, path);
        let reply = self.seal(StunMessage::binding_reply(message.trans_id(), path.remote));
        StunOutcome::Answered { reply, selected, is_nominated: message.use_candidate() }
    }

    /// A check of our own (RFC 8445 section 7.2.2), which a lite agent otherwise never sends: see `call.rs`.
    pub(super) fn check(&self, remote_pwd: &str, local_preference: u16) -> Vec<u8> {
        let user = format!("{}:{}", self.remote_ufrag, self.local.ufrag);
        let mut tie_breaker = [0; 8];
        rand::fill(&mut tie_breaker).expect("the operating system's random source works");
        let tie_breaker = u64::from_be_bytes(tie_breaker);
        let id = TransId::new();
        let priority = CALL_TYPE_PREFERENCE << 24 | u32::from(local_preference) << 8 | 255;
        let message = StunMessage::binding_request(&user, id, false, tie_breaker, priority, false);
        let mut buf = vec![0; MAX_CHECK + user.len()];
        let len = message.to_bytes(Some(remote_pwd.as_bytes()), &mut buf, hmac_sha1).expect("it fits its buffer");
        buf.truncate(len);
        buf
    }

    fn is_authentic(&self, message: &StunMessage<'_>) -> bool {
        let Some((local, remote)) = message.split_username() else { return false };
        local == self.local.ufrag && remote == self.remote_ufrag && message.verify(self.local.pwd.as_bytes(), hmac_sha1)
    }

    fn remember(&mut self, now: Instant, path: Dest) {
        if let Some(at) = self.paths.iter().position(|(known, _)| *known == path) {
            self.paths.remove(at);
        } else if self.paths.len() == MAX_PATHS {
            let oldest = self.paths.iter().position(|(known, _)| Some(*known) != self.selected).unwrap_or(0);
            self.paths.remove(oldest);
        }
        self.paths.push((path, now));
    }

    /// The last nomination wins: browsers that face a lite agent nominate only the pair they send on and nominate anew
    /// when they change it. Before any nomination the first checked path serves, so that DTLS may begin at once; a path
    /// that has fallen silent gives way to one that has not (consent, RFC 7675: media goes where checks come from).
    fn select(&mut self, now: Instant, path: Dest, is_nominated: bool) -> Option<Dest> {
        let is_change = self.selected != Some(path) && (is_nominated || self.is_selected_silent(now));
        is_change.then(|| *self.selected.insert(path))
    }

    /// True also if there is none yet.
    fn is_selected_silent(&self, now: Instant) -> bool {
        let checked = self.paths.iter().find(|(path, _)| Some(*path) == self.selected);
        checked.is_none_or(|(_, at)| now.saturating_duration_since(*at) >= PATH_SILENCE)
    }

    fn seal(&self, message: StunMessage<'_>) -> Vec<u8> {
        let mut buf = [0; MAX_REPLY];
        let len = message
            .to_bytes(Some(self.local.pwd.as_bytes()), &mut buf, hmac_sha1)
            .expect("a reply of known attributes fits its buffer");
        buf[..len].to_vec()
    }
}

pub(super) fn hmac_sha1(key: &[u8], parts: &[&[u8]]) -> [u8; 20] {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key);
    let mut context = hmac::Context::with_key(&key);
    for part in parts {
        context.update(part);
    }
    context.sign().as_ref().try_into().expect("SHA-1 has 20 bytes")
}
