//! The answering side of ICE (RFC 8445 section 2.5, a lite agent): verifies checks, answers them, keeps the nominated path.

use std::fmt;
use std::time::Instant;

use aws_lc_rs::{hmac, rand};
use str0m::ice::StunMessage;

use crate::addr::Dest;

/// Dests that passed a check and may carry DTLS. A client has a handful; the oldest goes when more come.
const MAX_PATHS: usize = 16;
/// Our replies carry a mapped address, integrity and fingerprint: 20 + 24 + 24 + 8 bytes, or a short error text.
const MAX_REPLY: usize = 160;

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
    /// A check; the path is told if it changed.
    Answered { reply: Vec<u8>, selected: Option<Dest> },
}

pub(super) struct IceLite {
    local: IceCredentials,
    remote_ufrag: String,
    /// Most recently checked last.
    paths: Vec<Dest>,
    selected: Option<Dest>,
    last_check_at: Option<Instant>,
}

impl IceLite {
    pub(super) fn new(remote_ufrag: String) -> Self {
        Self { local: IceCredentials::random(), remote_ufrag, paths: Vec::new(), selected: None, last_check_at: None }
    }

    pub(super) fn local(&self) -> &IceCredentials {
        &self.local
    }

    pub(super) fn selected(&self) -> Option<Dest> {
        self.selected
    }

    pub(super) fn last_check_at(&self) -> Option<Instant> {
        self.last_check_at
    }

    pub(super) fn is_known(&self, path: &Dest) -> bool {
        self.paths.contains(path)
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
            return StunOutcome::Answered { reply, selected: None };
        }
        self.last_check_at = Some(now);
        self.remember(path);
        let selected = self.select(path, message.use_candidate());
        let reply = self.seal(StunMessage::binding_reply(message.trans_id(), path.remote));
        StunOutcome::Answered { reply, selected }
    }

    fn is_authentic(&self, message: &StunMessage<'_>) -> bool {
        let Some((local, remote)) = message.split_username() else { return false };
        local == self.local.ufrag && remote == self.remote_ufrag && message.verify(self.local.pwd.as_bytes(), hmac_sha1)
    }

    fn remember(&mut self, path: Dest) {
        if let Some(at) = self.paths.iter().position(|p| *p == path) {
            self.paths.remove(at);
        } else if self.paths.len() == MAX_PATHS {
            let oldest = self.paths.iter().position(|p| Some(*p) != self.selected).unwrap_or(0);
            self.paths.remove(oldest);
        }
        self.paths.push(path);
    }

    /// The last nomination wins: browsers that face a lite agent nominate only the pair they send on and nominate anew
    /// when they change it. Before any nomination the first checked path serves, so that DTLS may begin at once.
    fn select(&mut self, path: Dest, is_nominated: bool) -> Option<Dest> {
        let is_change = self.selected != Some(path) && (is_nominated || self.selected.is_none());
        is_change.then(|| *self.selected.insert(path))
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
