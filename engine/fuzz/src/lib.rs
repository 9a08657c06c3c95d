//! One function per parser of foreign bytes: it reads everything that the parser lends and checks what must hold.
//!
//! `fuzz_targets/` gives them to libFuzzer. `crates/rtp/tests/mangled_input.rs` runs those of `mrtc-rtp` on the stable
//! compiler over seeded random and mutated input.

#[path = "parsers.rs"]
mod parsers;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use mrtc_core::addr::{CandidateAddr, Proto};
use mrtc_core::command::Command;
use mrtc_core::config::{Limits, ShardConfig};
use mrtc_core::data::link::{Kind, LinkEvent, SctpLink};
use mrtc_core::data::{Delivery, dcep, frame, relay_frame};
use mrtc_core::directory::TrackDirectory;
use mrtc_core::event::{Event, Reply};
use mrtc_core::handover::HandoverKey;
use mrtc_core::handshake::{Certificate, Handshake, IceCredentials, LocalParams, RemoteParams, Setup};
use mrtc_core::id::{CommandId, ShardIndex};
use mrtc_core::outbox::VecOutbox;
use mrtc_core::sdp::{Offer, negotiate};
use mrtc_core::shard::Shard;
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

/// A message of a data channel, the opening of one, and one of another node. What is read can be written and read again.
pub fn data(data: &[u8]) {
    if let Ok(open) = dcep::Open::parse(data) {
        assert_eq!(dcep::Open::parse(&open.to_bytes()), Ok(open));
    }
    if let Ok((head, payload)) = frame::Head::parse(data) {
        assert_eq!(frame::Head::parse(&head.frame(payload)), Ok((head, payload)));
    }
    if let Ok((handle, message)) = relay_frame::decode(data) {
        assert_eq!(relay_frame::decode(&relay_frame::encode(handle, &message, false)), Ok((handle, message)));
    }
}

/// Chunks in the name of a client whose SCTP association is up. Each datagram is a length and its chunks.
pub fn sctp(mut data: &[u8]) {
    let mut now = Instant::now();
    let (mut client, mut server) = (SctpLink::new(true, 65_536), SctpLink::new(false, 65_536));
    let mut head = [0; 12];
    for round in 0..6 {
        while let Some(datagram) = client.poll_transmit(now) {
            head.copy_from_slice(&datagram[..12]);
            server.handle_input(now, &datagram);
        }
        while server.poll_event().is_some() {}
        while let Some(datagram) = server.poll_transmit(now) {
            client.handle_input(now, &datagram);
        }
        while client.poll_event().is_some() {}
        if round == 3 {
            assert!(client.open(2, Delivery::RELIABLE) && server.open(3, Delivery::LOSSY));
            assert!(client.write(2, Kind::Binary, b"hello") && server.write(3, Kind::Binary, b"hello"));
        }
    }
    assert!(server.is_connected());
    while let [len, step, rest @ ..] = data {
        let len = usize::from(*len).min(rest.len());
        let mut datagram = [&head, &rest[..len]].concat();
        datagram[8..12].fill(0);
        let checksum = crc32c(&datagram).to_le_bytes();
        datagram[8..12].copy_from_slice(&checksum);
        server.handle_input(now, &datagram);
        now += Duration::from_millis(u64::from(*step) * 8);
        if server.next_timeout().is_some_and(|at| at <= now) {
            server.handle_timeout(now);
        }
        while let Some(event) = server.poll_event() {
            if let LinkEvent::Readable(stream) = event {
                while server.read(stream).is_some() {}
            }
        }
        while server.poll_transmit(now).is_some() {}
        data = &rest[len..];
    }
}

/// Of SCTP (RFC 9260 appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1)))
    })
}

/// Datagrams of a client that has passed ICE, and of strangers: DTLS records, checks, RTP, RTCP, relay. Each is a length, a
/// sender, and its bytes. Nobody gets in, and nothing is kept of it.
pub fn datagrams(mut data: &[u8]) {
    let mut now = Instant::now();
    let (mut shard, check) = shard_with_client(now);
    let client = SocketAddr::new(ADDR.ip(), 40_000);
    let stranger = SocketAddr::new(ADDR.ip(), 40_001);
    assert!(shard.handle_datagram(now, Proto::Udp, client, ADDR, &mut check.clone()));
    while let [len, sender, rest @ ..] = data {
        // Lengths to 1,020: the long ones in steps, as DTLS flights are.
        let len = (usize::from(*len) * if sender & 4 == 0 { 1 } else { 4 }).min(rest.len());
        let mut datagram = rest[..len].to_vec();
        let proto = if sender & 2 == 0 { Proto::Udp } else { Proto::Tcp };
        let from = if sender & 1 == 0 { client } else { stranger };
        assert!(!shard.handle_datagram(now, proto, from, ADDR, &mut datagram));
        now += Duration::from_millis(1);
        shard.handle_timeout(now);
        shard.flush(now, &mut VecOutbox::default());
        data = &rest[len..];
    }
    assert!(shard.transport_count() <= 1);
    while let Some(event) = shard.poll_event() {
        assert!(!matches!(event, Event::TransportConnected { .. }));
    }
}

/// The state of a transport as another node could have sealed it, to open a transport and to go on with one: taken and lived
/// with for a while, or refused.
pub fn handover(data: &[u8]) {
    let mut now = Instant::now();
    let (mut shard, _) = shard_with_client(now);
    let key = HandoverKey::new(&[7; 32]);
    let command = Command::ImportTransport {
        transport: "newcomer".into(),
        room: "room".into(),
        offer: OFFER.into(),
        caps: Default::default(),
        state: key.seal(data),
        key: key.clone(),
    };
    shard.handle_command(now, CommandId(2), command);
    let Some(Event::Reply { result, .. }) = shard.poll_event() else { panic!("no reply") };
    assert_eq!(shard.transport_count(), 1 + usize::from(result.is_ok()));
    // Also as the final state of one that was opened with a sound one.
    let open = Command::ImportTransport {
        transport: "awaited".into(),
        room: "room".into(),
        offer: OFFER.into(),
        caps: Default::default(),
        state: key.seal(MEETING),
        key: key.clone(),
    };
    shard.handle_command(now, CommandId(3), open);
    let complete = Command::CompleteTransport { transport: "awaited".into(), state: key.seal(data), key };
    shard.handle_command(now, CommandId(4), complete);
    for _ in 0..4 {
        now += Duration::from_secs(1);
        shard.handle_timeout(now);
        shard.flush(now, &mut VecOutbox::default());
    }
}

const MEETING: &[u8] = include_bytes!("../../../tests/vectors/handover/meeting.json");
const OFFER: &str = include_str!("../../../tests/vectors/sdp/chromium_simulcast_and_slots.sdp");

/// A shard with a transport, and a check that its client could send.
fn shard_with_client(now: Instant) -> (Shard, Vec<u8>) {
    let config = ShardConfig {
        index: ShardIndex(0),
        shard_count: 1,
        candidates: vec![CandidateAddr { proto: Proto::Udp, addr: ADDR }],
        certificate: certificate().clone(),
        directory: Arc::new(TrackDirectory::new()),
        limits: Limits::default(),
        wall_clock_offset_us: 1_800_000_000_000_000,
        seed: 1,
    };
    let mut shard = Shard::new(config, now);
    let command = Command::CreateTransport {
        transport: "client".into(),
        room: "room".into(),
        offer: OFFER.into(),
        caps: Default::default(),
    };
    shard.handle_command(now, CommandId(1), command);
    let Some(Event::Reply { result: Ok(Reply::Answer { answer, .. }), .. }) = shard.poll_event() else {
        panic!("no answer")
    };
    let ours = |name: &str| attribute(&answer, name);
    let check = check(&format!("{}:{}", ours("ice-ufrag"), attribute(OFFER, "ice-ufrag")), ours("ice-pwd"));
    (shard, check)
}

fn attribute<'a>(sdp: &'a str, name: &str) -> &'a str {
    let of_line = |line: &'a str| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':');
    sdp.lines().find_map(of_line).expect("the attribute is there")
}

/// A binding request with user name, controlling role, nomination and integrity (RFC 8489 section 14.5).
fn check(user: &str, password: &str) -> Vec<u8> {
    let mut attributes = Vec::new();
    let mut put = |kind: u16, value: &[u8]| {
        attributes.extend(kind.to_be_bytes());
        attributes.extend((value.len() as u16).to_be_bytes());
        attributes.extend(value);
        attributes.resize(attributes.len().next_multiple_of(4), 0);
    };
    put(0x0006, user.as_bytes());
    put(0x0024, &[0, 0, 0, 1]);
    put(0x802a, &[0; 8]);
    put(0x0025, &[]);
    // The length covers the integrity attribute already.
    let mut message = vec![0, 1];
    message.extend((attributes.len() as u16 + 24).to_be_bytes());
    message.extend([0x21, 0x12, 0xa4, 0x42]);
    message.extend([7; 12]);
    message.extend(attributes);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let tag = hmac::sign(&key, &message);
    message.extend([0, 0x08, 0, 20]);
    message.extend(tag.as_ref());
    message
}
