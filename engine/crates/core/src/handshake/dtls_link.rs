//! One DTLS association: driven until it gives SRTP keys, then carrying data (SCTP), and its end.

use std::collections::VecDeque;
use std::fmt::Display;
use std::time::Instant;

use dimpl::{Dtls, Output, SrtpProfile as DtlsProfile};
use mrtc_rtp::srtp::Profile as SrtpProfile;

use super::HandshakeError;
use super::certificate::{Certificate, Fingerprint};

/// Larger than any record below the MTU; the state machine says so if a peer's is larger.
const BUFFER: usize = 2_048;

pub(super) enum DtlsEvent {
    Packet(Vec<u8>),
    Connected {
        profile: SrtpProfile,
        material: Vec<u8>,
    },
    /// What the peer sent in the association.
    Data(Vec<u8>),
    Failed(HandshakeError),
    PeerClosed,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Handshaking,
    Connected,
    /// Failed or closed; nothing more is taken.
    Ended,
}

pub(super) struct DtlsLink {
    /// Unset if another node made the association: then its keys are all that is here of it.
    instance: Option<Dtls>,
    local_fingerprint: Fingerprint,
    remote_fingerprints: Vec<Fingerprint>,
    is_client: bool,
    is_started: bool,
    is_peer_verified: bool,
    is_complete: bool,
    keys: Option<(SrtpProfile, Vec<u8>)>,
    state: State,
    next_timeout: Option<Instant>,
    events: VecDeque<DtlsEvent>,
}

impl DtlsLink {
    pub(super) fn new(
        certificate: &Certificate,
        remote_fingerprints: Vec<Fingerprint>,
        is_client: bool,
        now: Instant,
    ) -> Self {
        Self {
            instance: Some(certificate.associate(now)),
            local_fingerprint: certificate.fingerprint().clone(),
            remote_fingerprints,
            is_client,
            is_started: false,
            is_peer_verified: false,
            is_complete: false,
            keys: None,
            state: State::Handshaking,
            next_timeout: None,
            events: VecDeque::new(),
        }
    }

    /// Of an association that another node made: nothing is sent or understood in it.
    pub(super) fn elsewhere(local_fingerprint: Fingerprint, is_client: bool) -> Self {
        Self {
            instance: None,
            local_fingerprint,
            remote_fingerprints: Vec::new(),
            is_client,
            is_started: true,
            is_peer_verified: true,
            is_complete: true,
            keys: None,
            state: State::Connected,
            next_timeout: None,
            events: VecDeque::new(),
        }
    }

    /// True if another node made the association.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.instance.is_none()
    }

    pub(super) fn is_client(&self) -> bool {
        self.is_client
    }

    pub(super) fn local_fingerprint(&self) -> &Fingerprint {
        &self.local_fingerprint
    }

    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.next_timeout.filter(|_| self.state != State::Ended)
    }

    pub(super) fn poll(&mut self) -> Option<DtlsEvent> {
        self.events.pop_front()
    }

    /// Begins once there is a path; a client sends its first flight then.
    pub(super) fn start(&mut self, now: Instant) {
        if self.is_started {
            return;
        }
        self.is_started = true;
        let Some(instance) = &mut self.instance else { return };
        instance.set_active(self.is_client);
        let mut result = instance.handle_timeout(now);
        if self.is_client {
            // An empty packet makes the state machine send its ClientHello.
            result = result.and_then(|()| instance.handle_packet(&[]));
        }
        self.note(result);
        self.drain();
    }

    pub(super) fn handle_packet(&mut self, now: Instant, bytes: &[u8]) {
        if self.state == State::Ended {
            return;
        }
        self.start(now);
        let Some(instance) = &mut self.instance else { return };
        // The state machine wants the time before each packet.
        let result = instance.handle_timeout(now).and_then(|()| instance.handle_packet(bytes));
        // Once connected, a packet that makes no sense must not end the call: anybody can forge one.
        if self.state == State::Handshaking {
            self.note(result);
        }
        self.drain();
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.state == State::Ended {
            return;
        }
        let Some(instance) = &mut self.instance else { return };
        let result = instance.handle_timeout(now);
        self.note(result);
        self.drain();
    }

    pub(super) fn close(&mut self, now: Instant) {
        if self.is_started
            && self.state != State::Ended
            && let Some(instance) = &mut self.instance
        {
            let result = instance.handle_timeout(now).and_then(|()| instance.close());
            if let Err(error) = result {
                tracing::debug!(%error, "no close_notify");
            }
            self.drain();
        }
        self.state = State::Ended;
    }

    /// Seals data for the peer; each record goes to `send`. Nothing before the handshake's end.
    pub(super) fn seal(&mut self, data: &[u8], mut send: impl FnMut(&[u8])) {
        let Some(instance) = &mut self.instance else { return };
        if self.state != State::Connected || instance.send_application_data(data).is_err() {
            return;
        }
        let mut buffer = [0; BUFFER];
        loop {
            match instance.poll_output(&mut buffer) {
                Output::Packet(bytes) => send(bytes),
                Output::Timeout(at) => {
                    self.next_timeout = Some(at);
                    return;
                }
                // Everything else was taken when it came; a record of ours never is too large.
                Output::BufferTooSmall { .. } => return,
                _ => {}
            }
        }
    }

    fn note(&mut self, result: Result<(), impl Display>) {
        if let Err(error) = result {
            self.fail(failed(error));
        }
    }

    fn fail(&mut self, error: HandshakeError) {
        if self.state != State::Ended {
            self.state = State::Ended;
            self.events.push_back(DtlsEvent::Failed(error));
        }
    }

    fn drain(&mut self) {
        // Out of its place meanwhile: what it yields changes the rest.
        let Some(mut instance) = self.instance.take() else { return };
        let mut buffer = vec![0; BUFFER];
        loop {
            match instance.poll_output(&mut buffer) {
                Output::Packet(bytes) => self.events.push_back(DtlsEvent::Packet(bytes.to_vec())),
                Output::PeerCert(der) => {
                    self.is_peer_verified = self.remote_fingerprints.iter().any(|f| f.matches(der));
                    if !self.is_peer_verified {
                        self.fail(HandshakeError::FingerprintMismatch);
                    }
                }
                Output::KeyingMaterial(material, profile) => match srtp_profile(profile) {
                    Some(profile) => self.keys = Some((profile, material.as_ref().to_vec())),
                    None => self.fail(failed(format!("unknown SRTP profile {profile}"))),
                },
                Output::Connected => self.is_complete = true,
                Output::CloseNotify if self.state != State::Ended => {
                    self.state = State::Ended;
                    self.events.push_back(DtlsEvent::PeerClosed);
                }
                Output::Timeout(at) => {
                    self.next_timeout = Some(at);
                    break;
                }
                Output::BufferTooSmall { needed } => buffer.resize(needed, 0),
                // The handshake's last flight may overtake nothing: data before its end is of nobody we know.
                Output::ApplicationData(data) if self.state == State::Connected => {
                    self.events.push_back(DtlsEvent::Data(data.to_vec()));
                }
                _ => {}
            }
        }
        self.instance = Some(instance);
        // Certificate, keys and completion come in an order that depends on the role.
        if self.is_complete && self.state == State::Handshaking {
            self.establish();
        }
    }

    /// Keys are given out only after the whole handshake with a verified peer.
    fn establish(&mut self) {
        match self.keys.take() {
            Some((profile, material)) if self.is_peer_verified => {
                self.state = State::Connected;
                self.events.push_back(DtlsEvent::Connected { profile, material });
            }
            Some(_) => self.fail(HandshakeError::FingerprintMismatch),
            None => self.fail(failed("the peer shares no SRTP profile")),
        }
    }
}

fn failed(error: impl Display) -> HandshakeError {
    HandshakeError::Dtls(error.to_string())
}

fn srtp_profile(profile: DtlsProfile) -> Option<SrtpProfile> {
    match profile {
        DtlsProfile::AES128_CM_SHA1_80 => Some(SrtpProfile::Aes128CmSha1_80),
        DtlsProfile::AEAD_AES_128_GCM => Some(SrtpProfile::AeadAes128Gcm),
        DtlsProfile::AEAD_AES_256_GCM => Some(SrtpProfile::AeadAes256Gcm),
        _ => None,
    }
}
