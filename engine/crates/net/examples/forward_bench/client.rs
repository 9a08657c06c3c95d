//! One str0m peer with a socket of its own.

use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use serde_json::json;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

use crate::pipe::say;
use crate::video::{LAYERS, age_us};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Slots of an idle participant, as the web SDK opens them.
const IDLE_AUDIO_SLOTS: usize = 6;
const IDLE_VIDEO_SLOTS: usize = 9;
/// Largest datagram.
const MAX_DATAGRAM: usize = 2000;

/// What a peer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Publish { is_simulcast: bool },
    Play,
    Idle,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Self::Publish { .. } => "publish",
            Self::Play => "play",
            Self::Idle => "idle",
        }
    }
}

/// What was received since the last reset. Packets count once, however often they come.
#[derive(Default)]
pub struct Counts {
    pub received: u64,
    pub delays_us: Vec<u32>,
    first: Option<u64>,
    last: u64,
    seen: Vec<u64>,
}

impl Counts {
    /// How many there should be.
    pub fn expected(&self) -> u64 {
        self.first.map_or(0, |first| self.last - first + 1)
    }

    fn take(&mut self, seq: u64, delay_us: Option<u32>) {
        let first = *self.first.get_or_insert(seq);
        let Some(at) = seq.checked_sub(first) else { return };
        let (word, bit) = ((at / 64) as usize, 1u64 << (at % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 64, 0);
        }
        if self.seen[word] & bit == 0 {
            self.seen[word] |= bit;
            self.received += 1;
            self.last = self.last.max(seq);
            self.delays_us.extend(delay_us);
        }
    }
}

pub struct Client {
    pub counts: Counts,
    pub is_connected: bool,
    /// Where its datagrams go.
    pub server: Option<SocketAddr>,
    /// First packet of media.
    pub received_at: Option<Instant>,
    /// A receiver cannot begin without a key frame.
    pub is_keyframe_wanted: bool,
    index: usize,
    role: Role,
    rtc: Rtc,
    socket: UdpSocket,
    addr: SocketAddr,
    next: Instant,
    epoch: Instant,
    mid: Mid,
    offer: Option<(String, SdpPendingOffer)>,
    pending: Option<SdpPendingOffer>,
    /// Share of what comes that is thrown away, in percent.
    loss_percent: u64,
    random: u64,
}

impl Client {
    pub fn new(index: usize, role: Role, loss_percent: usize, epoch: Instant) -> Result<Self> {
        let now = Instant::now();
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        let addr = socket.local_addr()?;
        let mut rtc =
            Rtc::builder().set_rtp_mode(true).clear_codecs().enable_vp8(true).enable_opus(true, false).build(now);
        rtc.add_local_candidate(Candidate::host(addr, "udp")?);
        let mut changes = rtc.sdp_api();
        let mut add = |kind, direction, simulcast| changes.add_media(kind, direction, None, None, simulcast);
        let mid = match role {
            Role::Publish { is_simulcast } => {
                let send = LAYERS.iter().map(|(rid, _)| SimulcastLayer::new(rid)).collect();
                let simulcast = is_simulcast.then_some(Simulcast { send, recv: vec![] });
                add(MediaKind::Video, Direction::SendOnly, simulcast)
            }
            Role::Play => add(MediaKind::Video, Direction::RecvOnly, None),
            Role::Idle => {
                add(MediaKind::Audio, Direction::SendOnly, None);
                for _ in 0..IDLE_AUDIO_SLOTS {
                    add(MediaKind::Audio, Direction::RecvOnly, None);
                }
                for _ in 0..IDLE_VIDEO_SLOTS {
                    add(MediaKind::Video, Direction::RecvOnly, None);
                }
                add(MediaKind::Video, Direction::SendOnly, None)
            }
        };
        let (offer, pending) = changes.apply().ok_or("no offer")?;
        Ok(Self {
            counts: Counts::default(),
            is_connected: false,
            server: None,
            received_at: None,
            is_keyframe_wanted: false,
            index,
            role,
            rtc,
            socket,
            addr,
            next: now,
            epoch,
            mid,
            offer: Some((offer.to_sdp_string(), pending)),
            pending: None,
            loss_percent: loss_percent as u64,
            random: 0x9e37_79b9_7f4a_7c15 ^ index as u64,
        })
    }

    pub fn mid(&self) -> Mid {
        self.mid
    }

    /// Says the offer; the answer comes some time.
    pub fn offer(&mut self) -> Result<()> {
        let (sdp, pending) = self.offer.take().ok_or("offered before")?;
        self.pending = Some(pending);
        say(&json!({ "client": self.index, "role": self.role.name(), "offer": sdp }))
    }

    pub fn take_answer(&mut self, answer: &str) -> Result<()> {
        let pending = self.pending.take().ok_or("an answer without an offer")?;
        self.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(answer)?)?;
        self.flush()
    }

    pub fn write(&mut self, mid: Mid, rid: Option<Rid>, packet: RtpWrite) -> Result<()> {
        let mut api = self.rtc.direct_api();
        // A layer that the server paused, or has not agreed to yet, has no stream.
        if let Some(stream) = api.stream_tx_by_mid(mid, rid) {
            stream.write_rtp(packet);
        }
        Ok(())
    }

    /// Sends what `write` queued.
    pub fn flush(&mut self) -> Result<()> {
        self.rtc.handle_input(Input::Timeout(Instant::now()))?;
        self.drain()
    }

    pub fn step(&mut self) -> Result<()> {
        if self.offer.is_some() || self.pending.is_some() {
            return Ok(());
        }
        let mut buffer = [0; MAX_DATAGRAM];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            if self.is_lost(buffer[0]) {
                continue;
            }
            let now = Instant::now();
            let Ok(receive) = Receive::new(Protocol::Udp, from, self.addr, &buffer[..len]) else { continue };
            self.rtc.handle_input(Input::Receive(now, receive))?;
            self.drain()?;
        }
        if Instant::now() >= self.next {
            self.flush()?;
        }
        Ok(())
    }

    /// Media and its reports may be lost; the handshake is not what is measured.
    fn is_lost(&mut self, first_byte: u8) -> bool {
        if self.loss_percent == 0 || !(128..192).contains(&first_byte) {
            return false;
        }
        // xorshift64
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100 < self.loss_percent
    }

    fn drain(&mut self) -> Result<()> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.next = at;
                    return Ok(());
                }
                Output::Transmit(t) => {
                    self.server = Some(t.destination);
                    let _ = self.socket.send_to(&t.contents, t.destination);
                }
                Output::Event(Event::Connected) => self.is_connected = true,
                Output::Event(Event::KeyframeRequest(_)) => self.is_keyframe_wanted = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    self.received_at.get_or_insert_with(Instant::now);
                    self.counts.take(*packet.seq_no, age_us(&packet.payload, self.epoch));
                }
                Output::Event(_) => {}
            }
        }
    }
}
