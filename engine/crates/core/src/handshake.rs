//! What happens on a transport before media flows: ICE-lite (RFC 8445) and DTLS (RFC 5764), until the SRTP keys are known.
//!
//! It is fed datagrams and the time and yields datagrams and facts. The DTLS state machine is str0m's, reached through its
//! public provider trait, so nothing but STUN and DTLS ever leaves from here. ICE is our own answering side: a lite agent
//! only answers checks and remembers which path the client nominated.

mod call;
mod certificate;
mod dtls_link;
mod ice_lite;

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mrtc_rtp::srtp::Profile as SrtpProfile;

use crate::addr::{Dest, Proto};
use crate::prefetch::Prefetch;

use call::Call;
pub use certificate::{Certificate, Fingerprint, FingerprintError, HashFunction};
use dtls_link::{DtlsEvent, DtlsLink};
pub use ice_lite::IceCredentials;
use ice_lite::{IceLite, StunOutcome};

/// DTLS datagrams of one client that are read until it is connected. A handshake over a path that loses half of all
/// datagrams takes some dozens; whoever needs more wants our processor, not a call.
const MAX_HANDSHAKE_DATAGRAMS: u32 = 400;

/// Who opens the DTLS handshake (`a=setup`, RFC 5763 section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// Either; offers only.
    Actpass,
    /// This side sends the ClientHello.
    Active,
    /// This side waits for it.
    Passive,
}

impl Setup {
    /// The role of the answering side.
    pub fn answer(self) -> Self {
        match self {
            Self::Actpass | Self::Active => Self::Passive,
            Self::Passive => Self::Active,
        }
    }

    /// As in SDP.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Actpass => "actpass",
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// What a client's SDP says about its ICE and DTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteParams {
    /// `a=ice-ufrag`, `a=ice-pwd`.
    pub ice: IceCredentials,
    /// `a=fingerprint`; the peer's certificate must match one of them.
    pub fingerprints: Vec<Fingerprint>,
    /// `a=setup`.
    pub setup: Setup,
}

/// What our SDP says about ICE and DTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalParams {
    /// `a=ice-ufrag`, `a=ice-pwd`.
    pub ice: IceCredentials,
    /// `a=fingerprint`.
    pub fingerprint: Fingerprint,
    /// `a=setup`: active or passive.
    pub setup: Setup,
}

/// What a handshake yields.
pub enum HandshakeOutput {
    /// Send this datagram (STUN or DTLS). A check is answered from the address that it came to.
    Transmit {
        /// Where to.
        dest: Dest,
        /// One datagram.
        bytes: Vec<u8>,
    },
    /// The SRTP keys. Comes once, before `Connected`, and only after the peer's certificate was verified.
    Keys {
        /// Which ciphers.
        profile: SrtpProfile,
        /// RFC 5764 section 4.2: client key, server key, client salt, server salt.
        material: Vec<u8>,
        /// True if this side was the DTLS client.
        is_dtls_client: bool,
    },
    /// ICE and DTLS are up. Comes once.
    Connected,
    /// Send media there from now on: the client nominated this path, or it is the first one that works.
    PathSelected(Dest),
    /// The handshake failed for good.
    Failed(HandshakeError),
    /// The client sent this within DTLS.
    Data(Vec<u8>),
    /// The client closed DTLS.
    PeerClosed,
}

impl fmt::Debug for HandshakeOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transmit { dest, bytes } => write!(f, "Transmit({dest:?}, {} bytes)", bytes.len()),
            Self::Keys { profile, .. } => write!(f, "Keys({profile:?})"),
            Self::Connected => f.write_str("Connected"),
            Self::PathSelected(path) => write!(f, "PathSelected({path:?})"),
            Self::Failed(error) => write!(f, "Failed({error})"),
            Self::Data(bytes) => write!(f, "Data({} bytes)", bytes.len()),
            Self::PeerClosed => f.write_str("PeerClosed"),
        }
    }
}

/// Why a handshake failed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HandshakeError {
    /// The peer's certificate has none of the fingerprints of its SDP: somebody is in between, or the SDP is another's.
    #[error("the certificate does not match the fingerprint of the offer")]
    FingerprintMismatch,
    /// The peer shares no SRTP profile with us, or the DTLS state machine gave up.
    #[error("dtls: {0}")]
    Dtls(String),
}

/// What another node had agreed with a client that this one goes on with.
pub(crate) struct Elsewhere {
    /// Its certificate's, which the client knows.
    pub(crate) fingerprint: Fingerprint,
    pub(crate) is_dtls_client: bool,
    /// What the client was given for its checks, if it goes on with that.
    pub(crate) local: Option<IceCredentials>,
    /// Where the client was last, seen from an address of ours: it is called there.
    pub(crate) call: Option<Dest>,
    /// How often the client went to another node, this time included.
    pub(crate) moves: u16,
    /// The other node has it still: it is here once it sends here.
    pub(crate) is_awaited: bool,
}

/// ICE-lite and DTLS of one transport.
pub struct Handshake {
    ice: IceLite,
    dtls: DtlsLink,
    /// While a client is called that another node had.
    call: Option<Box<Call>>,
    /// The client is another node's still: a check does not tell that it came, since it also checks paths that it leaves alone.
    is_awaited: bool,
    outputs: VecDeque<HandshakeOutput>,
    /// DTLS datagrams read before `is_connected`.
    handshake_datagrams: u32,
    is_connected: bool,
    is_closed: bool,
}

impl Handshake {
    /// Begins to wait for the client's checks. Local credentials are random.
    pub fn new(certificate: &Certificate, remote: RemoteParams, now: Instant) -> Result<Self, HandshakeError> {
        let is_dtls_client = remote.setup.answer() == Setup::Active;
        Ok(Self {
            ice: IceLite::new(remote.ice.ufrag),
            dtls: DtlsLink::new(certificate, remote.fingerprints, is_dtls_client, now),
            call: None,
            is_awaited: false,
            outputs: VecDeque::new(),
            handshake_datagrams: 0,
            is_connected: false,
            is_closed: false,
        })
    }

    /// Goes on with a client that another node had: its first check is all that is waited for, or, if that node has it still,
    /// a nominated one, or media (`arrive`). Without DTLS: the client's association stays as it is, nothing more is sent or
    /// understood in it.
    pub(crate) fn elsewhere(remote: &RemoteParams, elsewhere: Elsewhere, now: Instant) -> Self {
        let local = elsewhere.local.unwrap_or_else(IceCredentials::random);
        Self {
            ice: IceLite::with_local(local, remote.ice.ufrag.clone()),
            dtls: DtlsLink::elsewhere(elsewhere.fingerprint, elsewhere.is_dtls_client),
            call: elsewhere.call.map(|dest| Box::new(Call::new(dest, remote.ice.pwd.clone(), elsewhere.moves, now))),
            is_awaited: elsewhere.is_awaited,
            outputs: VecDeque::new(),
            handshake_datagrams: 0,
            is_connected: false,
            is_closed: false,
        }
    }

    /// True if another node made the DTLS association.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.dtls.is_elsewhere()
    }

    /// The client of another node is here. Does nothing for others.
    pub(crate) fn arrive(&mut self) {
        if self.dtls.is_elsewhere() && !self.is_connected {
            self.call = None;
            self.is_connected = true;
            self.outputs.push_back(HandshakeOutput::Connected);
        }
    }

    /// The other node has let go: a client that has checked here has no other place.
    pub(crate) fn await_no_longer(&mut self) {
        self.is_awaited = false;
        if self.ice.selected().is_some() {
            self.arrive();
        }
    }

    /// The client goes on elsewhere: it is not to hear of an end here.
    pub(crate) fn hand_over(&mut self) {
        self.is_closed = true;
    }

    /// What to write into the answer.
    pub fn local_params(&self) -> LocalParams {
        LocalParams {
            ice: self.ice.local().clone(),
            fingerprint: self.dtls.local_fingerprint().clone(),
            setup: if self.dtls.is_client() { Setup::Active } else { Setup::Passive },
        }
    }

    /// Takes the credentials of an offer that restarts ICE (RFC 8445 section 9) and makes new ones of our own. Media stays
    /// on the old path until the client nominates a new one; DTLS goes on.
    pub fn restart_ice(&mut self, remote: &IceCredentials) -> LocalParams {
        self.ice.restart(remote.ufrag.clone());
        self.local_params()
    }

    /// Takes a STUN or DTLS datagram. True if it is authentic: a STUN check with our credentials, or DTLS on a path that
    /// passed one. The caller may then route other datagrams of `from` to this transport.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        proto: Proto,
        from: SocketAddr,
        to: SocketAddr,
        bytes: &[u8],
    ) -> bool {
        let path = Dest { proto, local: to, remote: from };
        match bytes.first() {
            // RFC 7983 section 7.
            Some(0..=3) => self.handle_stun(now, path, bytes),
            Some(20..=63) => self.handle_dtls(now, path, bytes),
            _ => false,
        }
    }

    /// Drives retransmission; call when `next_timeout` is reached.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Some(call) = &mut self.call
            && let Some(dest) = call.poll(now)
        {
            let (pwd, local_preference) = call.credentials();
            let bytes = self.ice.check(pwd, local_preference);
            self.outputs.push_back(HandshakeOutput::Transmit { dest, bytes });
        }
        if self.dtls.next_timeout().is_some_and(|at| at <= now) {
            self.dtls.handle_timeout(now);
            self.drain_dtls();
        }
    }

    /// When to call `handle_timeout`.
    pub fn next_timeout(&self) -> Option<Instant> {
        let call = self.call.as_ref().and_then(|call| call.next_at());
        [self.dtls.next_timeout(), call].into_iter().flatten().min()
    }

    /// The next output.
    pub fn poll(&mut self) -> Option<HandshakeOutput> {
        self.outputs.pop_front()
    }

    /// When the last authentic check came (consent, RFC 7675); unset before the first.
    pub fn last_check_at(&self) -> Option<Instant> {
        self.ice.last_check_at()
    }

    /// True if no authentic check came for `timeout`, counted from `since` before the first check.
    pub fn is_silent(&self, now: Instant, since: Instant, timeout: Duration) -> bool {
        now.saturating_duration_since(self.last_check_at().unwrap_or(since)) >= timeout
    }

    /// The path in use.
    pub fn path(&self) -> Option<Dest> {
        self.ice.selected()
    }

    /// The path is read soon.
    pub(crate) fn prefetch_path(&self, cache: &impl Prefetch) {
        self.ice.prefetch_path(cache);
    }

    /// Our ufrag: what the `USERNAME` of a check for this transport begins with.
    pub fn local_ufrag(&self) -> &str {
        &self.ice.local().ufrag
    }

    /// True after `Connected`.
    pub fn is_connected(&self) -> bool {
        self.is_connected
    }

    /// Seals data for the client within DTLS; each datagram goes to `send`.
    pub fn seal_data(&mut self, data: &[u8], send: impl FnMut(&[u8])) {
        self.dtls.seal(data, send);
    }

    /// True if this side opened DTLS.
    pub fn is_dtls_client(&self) -> bool {
        self.dtls.is_client()
    }

    /// Queues a DTLS close_notify, so that the client learns at once.
    pub fn close(&mut self, now: Instant) {
        if !self.is_closed {
            self.is_closed = true;
            self.dtls.close(now);
            self.drain_dtls();
        }
    }

    fn handle_stun(&mut self, now: Instant, path: Dest, bytes: &[u8]) -> bool {
        match self.ice.handle(now, path, bytes) {
            StunOutcome::Ignored => false,
            StunOutcome::Answered { reply, selected, is_nominated } => {
                self.outputs.push_back(HandshakeOutput::Transmit { dest: path, bytes: reply });
                if let Some(path) = selected {
                    self.outputs.push_back(HandshakeOutput::PathSelected(path));
                    self.dtls.start(now);
                    self.drain_dtls();
                    self.call = None;
                }
                if is_nominated || (selected.is_some() && !self.is_awaited) {
                    self.arrive();
                }
                true
            }
        }
    }

    fn handle_dtls(&mut self, now: Instant, path: Dest, bytes: &[u8]) -> bool {
        if !self.ice.is_known(&path) || self.is_exhausted() {
            return false;
        }
        self.dtls.handle_packet(now, bytes);
        self.drain_dtls();
        true
    }

    /// True if the client has used up its attempts to connect.
    fn is_exhausted(&mut self) -> bool {
        self.handshake_datagrams += u32::from(!self.is_connected);
        !self.is_connected && self.handshake_datagrams > MAX_HANDSHAKE_DATAGRAMS
    }

    fn drain_dtls(&mut self) {
        while let Some(event) = self.dtls.poll() {
            match event {
                DtlsEvent::Packet(bytes) => {
                    // Without a path nothing can be sent yet; DTLS repeats its flight.
                    if let Some(dest) = self.ice.selected() {
                        self.outputs.push_back(HandshakeOutput::Transmit { dest, bytes });
                    }
                }
                DtlsEvent::Connected { profile, material } => {
                    let is_dtls_client = self.dtls.is_client();
                    self.outputs.push_back(HandshakeOutput::Keys { profile, material, is_dtls_client });
                    self.outputs.push_back(HandshakeOutput::Connected);
                    self.is_connected = true;
                }
                DtlsEvent::Data(data) => self.outputs.push_back(HandshakeOutput::Data(data)),
                DtlsEvent::Failed(error) => self.outputs.push_back(HandshakeOutput::Failed(error)),
                DtlsEvent::PeerClosed => self.outputs.push_back(HandshakeOutput::PeerClosed),
            }
        }
    }
}

#[cfg(test)]
mod tests;
