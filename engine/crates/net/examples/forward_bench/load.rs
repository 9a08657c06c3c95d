//! The clients: a publisher of 30 frames/s of 7 packets of 1100 bytes, and subscribers that decrypt and count.

use std::error::Error;
use std::io::{BufRead, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const FRAMES_PER_S: u32 = 30;
const PACKETS_PER_FRAME: u64 = 7;
const PAYLOAD: usize = 1100;
const FRAMES_PER_KEYFRAME: u32 = 90;
/// Sockets are looked at this often and never waited for: else the sender would pay for waking the receiver, which no
/// client elsewhere costs it.
const NAP: Duration = Duration::from_millis(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const WARM_UP: Duration = Duration::from_secs(5);
/// Where the send time is in the payload: behind the VP8 descriptor and frame header.
const TIME_AT: usize = 20;

/// What a subscriber got in the window.
#[derive(Default)]
struct Counts {
    received: u64,
    first: Option<u64>,
    last: u64,
    delays_us: Vec<u32>,
}

struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    addr: SocketAddr,
    next: Instant,
    mid: Option<Mid>,
    is_connected: bool,
    counts: Counts,
}

/// A clock for delays.
#[derive(Clone, Copy)]
struct Clock {
    epoch: Instant,
    /// Packets are counted from here on.
    window: Option<Instant>,
}

impl Client {
    /// Opens a socket, offers, and takes the answer from standard input.
    fn join(direction: Direction, now: Instant) -> Result<Self> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        let addr = socket.local_addr()?;
        let mut rtc = Rtc::builder().set_rtp_mode(true).clear_codecs().enable_vp8(true).build(now);
        rtc.add_local_candidate(Candidate::host(addr, "udp")?);
        let mut changes = rtc.sdp_api();
        let mid = changes.add_media(MediaKind::Video, direction, None, None, None);
        let (offer, pending) = changes.apply().ok_or("no offer")?;
        say(&json!({ "offer": offer.to_sdp_string() }))?;
        let answer = hear()?;
        let answer = SdpAnswer::from_sdp_string(answer["answer"].as_str().ok_or("no answer")?)?;
        rtc.sdp_api().accept_answer(pending, answer)?;
        let mid = (direction == Direction::SendOnly).then_some(mid);
        Ok(Self { rtc, socket, addr, next: now, mid, is_connected: false, counts: Counts::default() })
    }

    fn step(&mut self, clock: Clock) -> Result<()> {
        let mut buffer = [0; 2000];
        while let Ok((len, from)) = self.socket.recv_from(&mut buffer) {
            let now = Instant::now();
            let Ok(receive) = Receive::new(Protocol::Udp, from, self.addr, &buffer[..len]) else { continue };
            self.rtc.handle_input(Input::Receive(now, receive))?;
            self.drain(clock)?;
        }
        let now = Instant::now();
        if now >= self.next {
            self.rtc.handle_input(Input::Timeout(now))?;
            self.drain(clock)?;
        }
        Ok(())
    }

    fn drain(&mut self, clock: Clock) -> Result<()> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.next = at;
                    return Ok(());
                }
                Output::Transmit(t) => {
                    let _ = self.socket.send_to(&t.contents, t.destination);
                }
                Output::Event(Event::Connected) => self.is_connected = true,
                Output::Event(Event::RtpPacket(packet)) => {
                    self.count(*packet.seq_no, packet.payload.get(TIME_AT..TIME_AT + 8), clock);
                }
                Output::Event(_) => {}
            }
        }
    }

    fn count(&mut self, seq: u64, sent_at: Option<&[u8]>, clock: Clock) {
        if clock.window.is_none() {
            return;
        }
        let counts = &mut self.counts;
        counts.received += 1;
        counts.first = Some(counts.first.map_or(seq, |first| first.min(seq)));
        counts.last = counts.last.max(seq);
        if let Some(Ok(bytes)) = sent_at.map(<[u8; 8]>::try_from) {
            let delay = (clock.epoch.elapsed().as_micros() as u64).saturating_sub(u64::from_be_bytes(bytes));
            counts.delays_us.push(delay as u32);
        }
    }

    fn send_frame(&mut self, frame: u32, first_seq: u64, clock: Clock) -> Result<()> {
        let Some(mid) = self.mid else { return Ok(()) };
        let now = Instant::now();
        for index in 0..PACKETS_PER_FRAME {
            let payload = payload(frame, index == 0, clock.epoch);
            let mut api = self.rtc.direct_api();
            let stream = api.stream_tx_by_mid(mid, None).ok_or("no stream")?;
            let seq = first_seq + index;
            let write = RtpWrite::new(96.into(), seq.into(), frame.wrapping_mul(3000), now, payload);
            stream.write_rtp(write.marker(index + 1 == PACKETS_PER_FRAME).nackable(true));
        }
        self.rtc.handle_input(Input::Timeout(now))?;
        self.drain(clock)
    }
}

/// A VP8 packet with a 15-bit picture id (RFC 7741) and nothing to decode.
fn payload(frame: u32, is_first: bool, epoch: Instant) -> Vec<u8> {
    let mut bytes = vec![0x5a; PAYLOAD];
    let picture_id = 0x8000 | (frame as u16 & 0x7fff);
    bytes[0] = if is_first { 0x90 } else { 0x80 };
    bytes[1] = 0x80;
    bytes[2..4].copy_from_slice(&picture_id.to_be_bytes());
    if is_first && frame.is_multiple_of(FRAMES_PER_KEYFRAME) {
        bytes[4..14].copy_from_slice(&[0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x00, 0x05, 0xd0, 0x02]);
    } else if is_first {
        bytes[4..7].copy_from_slice(&[0x11, 0x02, 0x00]);
    }
    let sent_at = epoch.elapsed().as_micros() as u64;
    bytes[TIME_AT..TIME_AT + 8].copy_from_slice(&sent_at.to_be_bytes());
    bytes
}

fn say(value: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

fn hear() -> Result<Value> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

/// Joins all clients, then publishes; says when the window begins, and what was counted in it.
pub fn run(subscribers: usize, seconds: u64) -> Result<()> {
    let epoch = Instant::now();
    let mut clock = Clock { epoch, window: None };
    let mut clients = Vec::new();
    for index in 0..=subscribers {
        let direction = if index == 0 { Direction::SendOnly } else { Direction::RecvOnly };
        clients.push(Client::join(direction, Instant::now())?);
        clients.iter_mut().try_for_each(|c| c.step(clock))?;
    }
    let give_up_at = Instant::now() + CONNECT_TIMEOUT;
    while !clients.iter().all(|c| c.is_connected) {
        if Instant::now() > give_up_at {
            let connected = clients.iter().filter(|c| c.is_connected).count();
            return Err(format!("only {connected} of {} clients connected", clients.len()).into());
        }
        clients.iter_mut().try_for_each(|c| c.step(clock))?;
        std::thread::sleep(NAP);
    }
    publish(&mut clients, &mut clock, Instant::now(), seconds)?;
    say(&result(&mut clients[1..]))
}

fn publish(clients: &mut [Client], clock: &mut Clock, began: Instant, seconds: u64) -> Result<()> {
    let interval = Duration::from_secs(1) / FRAMES_PER_S;
    let begin_at = began + WARM_UP;
    let end_at = begin_at + Duration::from_secs(seconds);
    let (mut frame, mut next_frame) = (0, began);
    while Instant::now() < end_at {
        if clock.window.is_none() && Instant::now() >= begin_at {
            clock.window = Some(Instant::now());
            say(&json!({ "begin": true }))?;
        }
        if Instant::now() >= next_frame {
            clients[0].send_frame(frame, 1000 + u64::from(frame) * PACKETS_PER_FRAME, *clock)?;
            frame += 1;
            next_frame += interval;
        }
        clients.iter_mut().try_for_each(|c| c.step(*clock))?;
        std::thread::sleep(NAP.min(next_frame.saturating_duration_since(Instant::now())));
    }
    Ok(())
}

fn result(subscribers: &mut [Client]) -> Value {
    let received: u64 = subscribers.iter().map(|c| c.counts.received).sum();
    let expected: u64 = subscribers.iter().map(|c| c.counts.first.map_or(0, |first| c.counts.last - first + 1)).sum();
    let receiving = subscribers.iter().filter(|c| c.counts.received > 0).count();
    let mut delays: Vec<u32> = subscribers.iter_mut().flat_map(|c| std::mem::take(&mut c.counts.delays_us)).collect();
    delays.sort_unstable();
    let quantile = |q: f64| delays.get((delays.len() as f64 * q) as usize).map_or(0.0, |us| f64::from(*us) / 1e3);
    json!({
        "received": received,
        "receiving": receiving,
        "loss_pct": if expected == 0 { 100.0 } else { 100.0 * (1.0 - received as f64 / expected as f64) },
        "delay_ms": [quantile(0.5), quantile(0.95), quantile(0.99)],
    })
}
