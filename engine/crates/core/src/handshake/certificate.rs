//! The DTLS certificate of a process and the fingerprints that stand for certificates in SDP (RFC 8122).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use dimpl::{Config, Dtls, DtlsCertificate};

use super::HandshakeError;

/// Records are kept below this, so that a handshake passes every path without IP fragments.
const MTU: usize = 1200;

/// A self-signed certificate with its key, and what all associations share. Making one costs some milliseconds: one per
/// process; clones share it.
#[derive(Clone)]
pub struct Certificate {
    cert: Arc<DtlsCertificate>,
    /// Made once: each time it is, the cryptography is put to the test, which costs a good part of a join.
    config: Arc<Config>,
    fingerprint: Fingerprint,
}

impl Certificate {
    /// Makes a new one (ECDSA P-256).
    pub fn generate() -> Result<Self, HandshakeError> {
        let failed = |error: &dyn fmt::Display| HandshakeError::Dtls(format!("no certificate could be made: {error}"));
        let cert = dimpl::certificate::generate_self_signed_certificate().map_err(|e| failed(&e))?;
        // ICE has shown by then that the client is where it says.
        let config = Config::builder().use_server_cookie(false).mtu(MTU).build().map_err(|e| failed(&e))?;
        let fingerprint = Fingerprint::of(HashFunction::Sha256, &cert.certificate);
        Ok(Self { cert: Arc::new(cert), config: Arc::new(config), fingerprint })
    }

    /// Its SHA-256 fingerprint.
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// A new association. DTLS 1.2: the version that every WebRTC client speaks; 1.3 saves a round trip and costs larger
    /// first flights.
    pub(super) fn associate(&self, now: Instant) -> Dtls {
        let cert =
            DtlsCertificate { certificate: self.cert.certificate.clone(), private_key: self.cert.private_key.clone() };
        Dtls::new_12(self.config.clone(), cert, now)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint)
    }
}

/// A hash function of RFC 8122 that we verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashFunction {
    /// Still sent by some old endpoints beside a better one.
    Sha1,
    /// What everybody sends.
    Sha256,
    /// Rare.
    Sha384,
    /// Rare.
    Sha512,
}

impl HashFunction {
    const ALL: [(Self, &'static str, &'static digest::Algorithm); 4] = [
        (Self::Sha1, "sha-1", &digest::SHA1_FOR_LEGACY_USE_ONLY),
        (Self::Sha256, "sha-256", &digest::SHA256),
        (Self::Sha384, "sha-384", &digest::SHA384),
        (Self::Sha512, "sha-512", &digest::SHA512),
    ];

    fn row(self) -> &'static (Self, &'static str, &'static digest::Algorithm) {
        &Self::ALL[self as usize]
    }
}

/// A certificate's hash as SDP carries it: `sha-256 AB:CD:...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    hash: HashFunction,
    bytes: Vec<u8>,
}

impl Fingerprint {
    /// The fingerprint of a DER certificate.
    pub fn of(hash: HashFunction, der: &[u8]) -> Self {
        Self { hash, bytes: digest::digest(hash.row().2, der).as_ref().to_vec() }
    }

    /// True if this is the fingerprint of the certificate; takes the same time whatever differs.
    pub fn matches(&self, der: &[u8]) -> bool {
        verify_slices_are_equal(&Self::of(self.hash, der).bytes, &self.bytes).is_ok()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.hash.row().1)?;
        for (at, byte) in self.bytes.iter().enumerate() {
            write!(f, "{}{byte:02X}", if at == 0 { ' ' } else { ':' })?;
        }
        Ok(())
    }
}

/// Why a fingerprint cannot be used.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FingerprintError {
    /// A hash function that we do not verify; another fingerprint may do.
    #[error("unknown hash function")]
    UnknownHash,
    /// Not `name HH:HH:...` of the function's length.
    #[error("malformed fingerprint")]
    Malformed,
}

impl FromStr for Fingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, hex) = text.trim().split_once(' ').ok_or(FingerprintError::Malformed)?;
        let (hash, _, algorithm) = HashFunction::ALL
            .iter()
            .find(|(_, known, _)| known.eq_ignore_ascii_case(name))
            .ok_or(FingerprintError::UnknownHash)?;
        let bytes: Option<Vec<u8>> = hex.trim().split(':').map(hex_byte).collect();
        match bytes {
            Some(bytes) if bytes.len() == algorithm.output_len() => Ok(Self { hash: *hash, bytes }),
            _ => Err(FingerprintError::Malformed),
        }
    }
}

fn hex_byte(text: &str) -> Option<u8> {
    let is_hex = text.len() == 2 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}
