//! A str0m client in RTP mode on a real socket.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive, TcpType};
use str0m::rtp::{ExtensionValues, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

/// How a client reaches the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Udp,
    Tcp,
}

enum Wire {
    Udp(UdpSocket),
    /// Not connected before the answer is known; bytes of an incomplete frame.
    Tcp(Option<TcpStream>, Vec<u8>),
}

pub struct Peer {
    rtc: Rtc,
    wire: Wire,
    local: SocketAddr,
    remote: Option<SocketAddr>,
    pending: Option<SdpPendingOffer>,
    mid: Mid,
    seq: u64,
    next_at: Instant,
    pub is_connected: bool,
    /// Numbers that came, each from a packet's payload.
    pub got: Vec<u64>,
}

impl Peer {
    pub fn new(via: Via, is_publisher: bool) -> (Self, String) {
        let now = Instant::now();
        let mut rtc = Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, false).build(now);
        let (wire, local) = match via {
            Via::Udp => {
                let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                let local = socket.local_addr().unwrap();
                rtc.add_local_candidate(Candidate::host(local, "udp").unwrap());
                (Wire::Udp(socket), local)
            }
            Via::Tcp => (Wire::Tcp(None, vec![]), "127.0.0.1:9".parse().unwrap()),
        };
        let mut changes = rtc.sdp_api();
        let direction = if is_publisher { Direction::SendOnly } else { Direction::RecvOnly };
        let mid = changes.add_media(MediaKind::Audio, direction, None, None, None);
        let (offer, pending) = changes.apply().unwrap();
        let peer = Self {
            rtc,
            wire,
            local,
            remote: None,
            pending: Some(pending),
            mid,
            seq: 1_000,
            next_at: now,
            is_connected: false,
            got: vec![],
        };
        (peer, offer.to_sdp_string())
    }

    pub fn mid(&self) -> String {
        self.mid.to_string()
    }

    pub fn is_alive(&self) -> bool {
        self.rtc.is_alive()
    }

    pub fn leave(&mut self) {
        self.rtc.close().unwrap();
    }

    /// Takes the answer; only the candidates of the own protocol are of use.
    pub fn accept(&mut self, answer: &str) {
        let wanted = if matches!(self.wire, Wire::Udp(_)) { " udp " } else { " tcp " };
        let candidate = answer.lines().find(|l| l.starts_with("a=candidate") && l.contains(wanted)).unwrap();
        let words: Vec<&str> = candidate.split(' ').collect();
        let remote: SocketAddr = format!("{}:{}", words[4], words[5]).parse().unwrap();
        self.remote = Some(remote);
        if let Wire::Tcp(stream, _) = &mut self.wire {
            let connected = TcpStream::connect(remote).unwrap();
            connected.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            self.local = connected.local_addr().unwrap();
            let local = Candidate::builder().tcp().host(self.local).tcptype(TcpType::Active).build().unwrap();
            self.rtc.add_local_candidate(local);
            *stream = Some(connected);
        }
        let is_own = |l: &&str| !l.starts_with("a=candidate") || l.contains(wanted);
        let answer: String = answer.lines().filter(is_own).map(|l| format!("{l}\r\n")).collect();
        let answer = SdpAnswer::from_sdp_string(&answer).unwrap();
        self.rtc.sdp_api().accept_answer(self.pending.take().unwrap(), answer).unwrap();
    }

    /// Sends the next packet when it is due (every 5 ms).
    pub fn speak(&mut self) {
        if Instant::now() < self.next_at {
            return;
        }
        self.next_at = Instant::now() + Duration::from_millis(5);
        self.seq += 1;
        let seq = self.seq;
        let params = self.rtc.codec_config().params().iter().find(|p| p.spec().codec == Codec::Opus).unwrap();
        let pt = params.pt();
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(self.mid, None).unwrap();
        let write = RtpWrite::new(pt, seq.into(), (seq * 240) as u32, Instant::now(), seq.to_be_bytes().to_vec())
            .ext_vals(ExtensionValues { audio_level: Some(-20), voice_activity: Some(true), ..Default::default() });
        stream.write_rtp(write);
    }

    /// One turn: what is due out, what is there in; waits for a millisecond at most.
    pub fn turn(&mut self) {
        self.rtc.handle_input(Input::Timeout(Instant::now())).unwrap();
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(_) => break,
                Output::Transmit(t) => self.send(&t.contents),
                Output::Event(Event::Connected) => self.is_connected = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    self.got.extend(packet.payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)));
                }
                Output::Event(_) => {}
            }
        }
        for datagram in self.receive() {
            let proto = if matches!(self.wire, Wire::Udp(_)) { Protocol::Udp } else { Protocol::Tcp };
            let receive = Receive::new(proto, self.remote.unwrap(), self.local, &datagram).unwrap();
            self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
        }
    }

    fn send(&mut self, datagram: &[u8]) {
        match &mut self.wire {
            Wire::Udp(socket) => drop(socket.send_to(datagram, self.remote.unwrap())),
            Wire::Tcp(Some(stream), _) => {
                let framed = [&(datagram.len() as u16).to_be_bytes(), datagram].concat();
                // The engine may have closed the connection.
                let _ = stream.write_all(&framed);
            }
            Wire::Tcp(None, _) => {}
        }
    }

    fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut buf = [0; 65_536];
        match &mut self.wire {
            Wire::Udp(socket) => socket.recv(&mut buf).map(|len| buf[..len].to_vec()).into_iter().collect(),
            Wire::Tcp(Some(stream), rest) => {
                match stream.read(&mut buf) {
                    Ok(len) => rest.extend_from_slice(&buf[..len]),
                    Err(e) => assert!(matches!(
                        e.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionReset
                    )),
                }
                let mut datagrams = vec![];
                while let Some(&[high, low]) = rest.first_chunk::<2>() {
                    let end = 2 + usize::from(u16::from_be_bytes([high, low]));
                    if rest.len() < end {
                        break;
                    }
                    datagrams.push(rest[2..end].to_vec());
                    rest.drain(..end);
                }
                datagrams
            }
            Wire::Tcp(None, _) => vec![],
        }
    }
}
