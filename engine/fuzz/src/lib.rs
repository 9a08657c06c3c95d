//! One function per parser of foreign bytes: it reads everything that the parser lends and checks what must hold.
//!
//! `fuzz_targets/` gives them to libFuzzer. `crates/rtp/tests/mangled_input.rs` runs those of `mrtc-rtp` on the stable
//! compiler over seeded random and mutated input.

#[path = "parsers.rs"]
mod parsers;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::time::Instant;

use mrtc_core::addr::{CandidateAddr, Proto};
use mrtc_core::handshake::{Certificate, Handshake, IceCredentials, LocalParams, RemoteParams, Setup};
use mrtc_core::sdp::{Offer, negotiate};
use mrtc_rtp::Ssrc;

pub use parsers::*;

const ADDR: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7000);

fn certificate() -> &'static Certificate {
    static CERTIFICATE: OnceLock<Certificate> = OnceLock::new();
    CERTIFICATE.get_or_init(|| Certificate::generate().expect("a certificate can be made"))
}

fn credentials() -> IceCredentials {
    IceCredentials { ufrag: "abcd".into(), pwd: "0123456789abcdefghijklmn".into() }
}

/// An offer of a client, its answer, and the same offer again as a later one.
pub fn sdp_offer(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(offer) = Offer::parse(text) else { return };
    let mut last_ssrc = 0;
    let mut new_ssrc = || {
        last_ssrc += 1;
        Ssrc(last_ssrc)
    };
    let Ok(first) = negotiate(&offer, None, &mut new_ssrc) else { return };
    let fingerprint = certificate().fingerprint().clone();
    let local = LocalParams { ice: credentials(), fingerprint, setup: Setup::Passive };
    let answer = first.answer(&local, &[CandidateAddr { proto: Proto::Udp, addr: ADDR }]);
    assert_eq!(answer.matches("\r\nm=").count(), first.lines.len());
    assert!(negotiate(&offer, Some(&first), &mut new_ssrc).is_ok());
}

/// STUN and DTLS of somebody who has no credentials: nothing is authentic.
pub fn handshake(data: &[u8]) {
    let remote = RemoteParams {
        ice: credentials(),
        fingerprints: vec![certificate().fingerprint().clone()],
        setup: Setup::Actpass,
    };
    let now = Instant::now();
    let Ok(mut handshake) = Handshake::new(certificate(), remote, now) else { return };
    assert!(!handshake.handle_datagram(now, Proto::Udp, ADDR, ADDR, data));
    while handshake.poll().is_some() {}
}
