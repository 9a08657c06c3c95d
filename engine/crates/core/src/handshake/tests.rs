//! A whole str0m client against our side, in virtual time; the network between them is a pair of queues.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::*;
use crate::addr::CandidateAddr;
use crate::sdp::{Negotiated, Offer, negotiate};

const SERVER: &str = "192.0.2.1:5000";
const CLIENT: &str = "192.0.2.7:6000";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

struct Call {
    now: Instant,
    client: Rtc,
    /// Where the client sends from; a changed NAT binding changes it.
    client_seen_at: SocketAddr,
    server: Handshake,
    negotiated: Negotiated,
    client_connected: bool,
    outputs: Vec<HandshakeOutput>,
    /// DTLS datagrams to lose, counted down.
    lose: usize,
}

impl Call {
    fn new(change_offer: impl Fn(String) -> String) -> Self {
        let now = Instant::now();
        let mut client = Rtc::builder().build(now);
        client.add_local_candidate(Candidate::host(addr(CLIENT), "udp").unwrap());
        let mut changes = client.sdp_api();
        changes.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
        let (offer, pending) = changes.apply().unwrap();
        let offer = Offer::parse(&change_offer(offer.to_sdp_string())).unwrap();
        let negotiated = negotiate(&offer, None, &mut || mrtc_rtp::id::Ssrc(7)).unwrap();
        let certificate = Certificate::generate().unwrap();
        let server = Handshake::new(&certificate, negotiated.remote.clone(), now).unwrap();
        let candidate = CandidateAddr { proto: Proto::Udp, addr: addr(SERVER) };
        let answer = negotiated.answer(&server.local_params(), &[candidate]);
        client.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer).unwrap()).unwrap();
        Self {
            now,
            client,
            client_seen_at: addr(CLIENT),
            server,
            negotiated,
            client_connected: false,
            outputs: Vec::new(),
            lose: 0,
        }
    }

    fn connected() -> Self {
        let mut call = Self::new(|offer| offer);
        call.run_until(|call| call.client_connected && call.server.is_connected());
        call
    }

    fn run_until(&mut self, is_done: impl Fn(&Self) -> bool) {
        for _ in 0..3_000 {
            if is_done(self) {
                return;
            }
            self.step();
        }
        panic!("not reached: {:?}", self.outputs);
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        self.client.handle_input(Input::Timeout(self.now)).unwrap();
        self.server.handle_timeout(self.now);
        loop {
            match self.client.poll_output() {
                Ok(Output::Transmit(t)) => self.give_server(&t.contents),
                Ok(Output::Event(Event::Connected)) => self.client_connected = true,
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(_)) | Err(_) => break,
            }
        }
        while let Some(output) = self.server.poll() {
            if let HandshakeOutput::Transmit { dest, bytes } = &output {
                assert_eq!((dest.proto, dest.local), (Proto::Udp, addr(SERVER)));
                let is_stun_or_dtls = matches!(bytes[0], 0..=3 | 20..=63);
                assert!(is_stun_or_dtls);
                self.give_client(&bytes.clone());
            } else {
                self.outputs.push(output);
            }
        }
    }

    fn give_server(&mut self, bytes: &[u8]) {
        if (20..=63).contains(&bytes[0]) && self.lose > 0 {
            self.lose -= 1;
            return;
        }
        // SRTCP that the client sends once it is up is not the handshake's.
        if bytes[0] < 128 {
            self.server.handle_datagram(self.now, Proto::Udp, self.client_seen_at, addr(SERVER), bytes);
        }
    }

    fn give_client(&mut self, bytes: &[u8]) {
        let receive = Receive::new(Protocol::Udp, addr(SERVER), addr(CLIENT), bytes).unwrap();
        self.client.handle_input(Input::Receive(self.now, receive)).unwrap();
    }

    fn has(&self, wanted: impl Fn(&HandshakeOutput) -> bool) -> bool {
        self.outputs.iter().any(wanted)
    }

    /// A check as a browser sends it.
    fn check(&mut self, from: SocketAddr, is_nominated: bool) -> bool {
        let local = self.server.local_params().ice;
        let bytes = stun_check(&local, &self.negotiated.remote.ice.ufrag, is_nominated);
        self.server.handle_datagram(self.now, Proto::Udp, from, addr(SERVER), &bytes)
    }
}

fn stun_check(local: &IceCredentials, remote_ufrag: &str, is_nominated: bool) -> Vec<u8> {
    use str0m::ice::{StunMessage, TransId};
    let user = format!("{}:{remote_ufrag}", local.ufrag);
    let message = StunMessage::binding_request(&user, TransId::new(), true, 1, 99, is_nominated);
    let mut buf = [0; 400];
    let len = message.to_bytes(Some(local.pwd.as_bytes()), &mut buf, ice_lite::hmac_sha1).unwrap();
    buf[..len].to_vec()
}

#[test]
fn a_client_connects_and_keys_come_before_connected() {
    let call = Call::connected();
    let at = |wanted: fn(&HandshakeOutput) -> bool| call.outputs.iter().position(wanted).unwrap();
    let keys = at(|o| matches!(o, HandshakeOutput::Keys { is_dtls_client: false, .. }));
    let connected = at(|o| matches!(o, HandshakeOutput::Connected));
    let path = at(|o| matches!(o, HandshakeOutput::PathSelected(_)));
    assert!(path < keys && keys + 1 == connected);
    let HandshakeOutput::Keys { profile, material, .. } = &call.outputs[keys] else { unreachable!() };
    let expected = match profile {
        SrtpProfile::AeadAes256Gcm => 88,
        SrtpProfile::AeadAes128Gcm => 56,
        _ => 60,
    };
    assert_eq!(material.len(), expected);
}

#[test]
fn we_are_dtls_client_of_a_passive_client() {
    let mut call = Call::new(|offer| offer.replace("a=setup:actpass", "a=setup:passive"));
    assert_eq!(call.server.local_params().setup, Setup::Active);
    call.run_until(|call| call.client_connected && call.server.is_connected());
    assert!(call.has(|o| matches!(o, HandshakeOutput::Keys { is_dtls_client: true, .. })));
}

#[test]
fn a_certificate_of_another_is_refused_before_any_key() {
    let mut call = Call::new(|offer| {
        let at = offer.find("a=fingerprint:sha-256 ").unwrap() + 22;
        let wrong = if &offer[at..at + 2] == "00" { "11" } else { "00" };
        format!("{}{wrong}{}", &offer[..at], &offer[at + 2..])
    });
    call.run_until(|call| call.has(|o| matches!(o, HandshakeOutput::Failed(HandshakeError::FingerprintMismatch))));
    assert!(!call.has(|o| matches!(o, HandshakeOutput::Keys { .. } | HandshakeOutput::Connected)));
}

#[test]
fn a_lost_flight_is_repeated() {
    let mut call = Call::new(|offer| offer);
    call.lose = 3;
    call.run_until(|call| call.client_connected && call.server.is_connected());
}

#[test]
fn closing_tells_the_client() {
    let mut call = Call::connected();
    call.server.close(call.now);
    for _ in 0..10 {
        call.step();
    }
    assert!(!call.client.is_alive());
}

#[test]
fn a_closing_client_is_noticed() {
    let mut call = Call::connected();
    call.client.close().unwrap();
    call.run_until(|call| call.has(|o| matches!(o, HandshakeOutput::PeerClosed)));
    assert_eq!(call.server.next_timeout(), None);
}

#[test]
fn the_nominated_path_is_followed() {
    let mut call = Call::connected();
    let moved = addr("198.51.100.3:7000");
    assert!(call.check(moved, false));
    assert_eq!(call.server.path().unwrap().remote, addr(CLIENT), "a check alone moves nothing");
    assert!(call.check(moved, true));
    assert_eq!(call.server.path().unwrap().remote, moved);
    call.step();
    assert!(call.has(|o| matches!(o, HandshakeOutput::PathSelected(path) if path.remote == moved)));
}

#[test]
fn a_path_that_fell_silent_gives_way_to_one_that_checks_without_nomination() {
    let mut call = Call::connected();
    assert!(call.check(addr(CLIENT), true));
    // The NAT has given the client another port, which the client cannot know.
    let rebound = addr("192.0.2.7:41000");
    call.now += Duration::from_millis(3_900);
    assert!(call.check(rebound, false));
    assert_eq!(call.server.path().unwrap().remote, addr(CLIENT), "its next check may still come");
    call.now += Duration::from_millis(100);
    assert!(call.check(rebound, false));
    assert_eq!(call.server.path().unwrap().remote, rebound);
    // The old path comes back and is nominated: nothing is lost by having tried.
    assert!(call.check(addr(CLIENT), true));
    assert_eq!(call.server.path().unwrap().remote, addr(CLIENT));
}

#[test]
fn endless_dtls_without_a_connection_is_not_read() {
    let mut call = Call::new(|offer| offer);
    assert!(call.check(addr(CLIENT), true));
    let hello = [22u8, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut read = 0;
    for _ in 0..1_000 {
        read += usize::from(call.server.handle_datagram(call.now, Proto::Udp, addr(CLIENT), addr(SERVER), &hello));
    }
    assert_eq!(read, 400);
}

#[test]
fn a_wrong_password_or_name_is_not_answered() {
    let mut call = Call::connected();
    let good = call.server.local_params().ice;
    let ufrag = call.negotiated.remote.ice.ufrag.clone();
    let wrong_pwd = IceCredentials { pwd: "x".repeat(24), ..good.clone() };
    let wrong_name = IceCredentials { ufrag: "someoneelse".into(), ..good.clone() };
    let from = addr("198.51.100.9:1");
    while call.server.poll().is_some() {}
    for bytes in
        [stun_check(&wrong_pwd, &ufrag, true), stun_check(&wrong_name, &ufrag, true), stun_check(&good, "other", true)]
    {
        assert!(!call.server.handle_datagram(call.now, Proto::Udp, from, addr(SERVER), &bytes));
    }
    assert!(call.server.poll().is_none());
}

#[test]
fn after_a_restart_only_new_credentials_count_and_the_old_path_serves() {
    let mut call = Call::connected();
    let old = call.server.local_params().ice;
    let new = call.server.restart_ice(&IceCredentials { ufrag: "fresh".into(), pwd: "p".repeat(24) });
    assert_ne!(new.ice.ufrag, old.ufrag);
    assert_eq!(call.server.path().unwrap().remote, addr(CLIENT));
    let moved = addr("198.51.100.3:7000");
    let mut send = |ice: &IceCredentials| {
        let bytes = stun_check(ice, "fresh", true);
        call.server.handle_datagram(call.now, Proto::Udp, moved, addr(SERVER), &bytes)
    };
    assert!(!send(&old));
    assert!(send(&new.ice));
    assert_eq!(call.server.path().unwrap().remote, moved);
}

#[test]
fn a_client_that_thinks_it_is_controlled_is_told() {
    use str0m::ice::{StunMessage, TransId};
    let mut call = Call::connected();
    let local = call.server.local_params().ice;
    let user = format!("{}:{}", local.ufrag, call.negotiated.remote.ice.ufrag);
    let message = StunMessage::binding_request(&user, TransId::new(), false, 1, 99, false);
    let mut buf = [0; 400];
    let len = message.to_bytes(Some(local.pwd.as_bytes()), &mut buf, ice_lite::hmac_sha1).unwrap();
    while call.server.poll().is_some() {}
    call.server.handle_datagram(call.now, Proto::Udp, addr(CLIENT), addr(SERVER), &buf[..len]);
    let Some(HandshakeOutput::Transmit { bytes, .. }) = call.server.poll() else { panic!() };
    assert_eq!(StunMessage::parse(&bytes).unwrap().error_code().unwrap().0, 487);
}

#[test]
fn garbage_changes_nothing() {
    let mut call = Call::connected();
    let path = call.server.path();
    for first in [0u8, 1, 20, 22, 23, 63, 64, 128, 255] {
        for len in [1usize, 2, 13, 19, 20, 21, 100, 1_400] {
            let bytes: Vec<u8> = (0..len).map(|n| if n == 0 { first } else { (n * 37) as u8 }).collect();
            for from in [CLIENT, "198.51.100.9:1"] {
                call.server.handle_datagram(call.now, Proto::Udp, addr(from), addr(SERVER), &bytes);
            }
        }
    }
    call.outputs.clear();
    for _ in 0..500 {
        call.step();
    }
    assert!(call.outputs.is_empty(), "{:?}", call.outputs);
    assert_eq!(call.server.path(), path);
    assert!(call.server.is_connected() && call.client.is_alive());
}

#[test]
fn dtls_of_a_stranger_is_not_read() {
    let mut call = Call::new(|offer| offer);
    let hello = [22u8, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert!(!call.server.handle_datagram(call.now, Proto::Udp, addr("198.51.100.9:1"), addr(SERVER), &hello));
    assert!(call.server.poll().is_none());
}

#[test]
fn silence_is_measured_from_the_last_check() {
    let mut call = Call::connected();
    let timeout = Duration::from_secs(15);
    let start = call.now;
    assert!(!call.server.is_silent(call.now, start, timeout));
    call.now += timeout;
    assert!(call.server.is_silent(call.now, start, timeout));
    assert!(call.check(addr(CLIENT), true));
    assert!(!call.server.is_silent(call.now, start, timeout));
}

#[test]
fn fingerprints_are_read_and_written() {
    let certificate = Certificate::generate().unwrap();
    let text = certificate.fingerprint().to_string();
    assert_eq!(text.parse::<Fingerprint>().as_ref(), Ok(certificate.fingerprint()));
    assert_eq!(text.to_lowercase().parse::<Fingerprint>().as_ref(), Ok(certificate.fingerprint()));
    assert_eq!("md5 00:11".parse::<Fingerprint>(), Err(FingerprintError::UnknownHash));
    for bad in ["", "sha-256", "sha-256 ", "sha-256 00", "sha-256 0:1", "sha-1 +1:02"] {
        assert_eq!(bad.parse::<Fingerprint>(), Err(FingerprintError::Malformed), "{bad}");
    }
}
