//! A whole str0m client in RTP mode: publishes what the test writes, keeps what it gets.

use std::net::SocketAddr;
use std::time::Instant;

use mrtc_core::command::Caps;
use mrtc_core::event::Line;
use mrtc_netem::LinkConfig;
use str0m::bwe::BweKind;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Direction, Frequency, MediaKind, Mid, Rid, Simulcast, SimulcastLayer};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{ExtensionValues, RtpPacket, RtpWrite};
use str0m::{Candidate, Event, Input, Output, Rtc};

use super::Datagram;

/// What a client negotiates.
#[derive(Clone, Debug)]
pub struct ClientSpec {
    pub sends_audio: bool,
    pub sends_video: bool,
    /// Simulcast rids of the video, lowest first.
    pub rids: Vec<&'static str>,
    pub audio_slots: usize,
    pub video_slots: usize,
    pub codecs: Codecs,
    pub has_rtx: bool,
    /// Retransmissions of sound as a stream of their own.
    pub has_audio_rtx: bool,
    /// Redundant Opus (RFC 2198).
    pub has_red: bool,
    pub caps: Caps,
    /// Data channels that it opens.
    pub channels: Vec<ChannelConfig>,
    pub up: LinkConfig,
    pub down: LinkConfig,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codecs {
    All,
    Vp8Only,
    H264Only,
    Vp9Only,
}

impl Default for ClientSpec {
    fn default() -> Self {
        let link = LinkConfig { delay: std::time::Duration::from_millis(10), ..LinkConfig::default() };
        Self {
            sends_audio: false,
            sends_video: false,
            rids: vec![],
            audio_slots: 0,
            video_slots: 0,
            codecs: Codecs::Vp8Only,
            has_rtx: true,
            has_audio_rtx: false,
            has_red: false,
            caps: Caps::default(),
            channels: vec![],
            up: link,
            down: link,
        }
    }
}

impl ClientSpec {
    pub fn publisher() -> Self {
        Self { sends_audio: true, sends_video: true, ..Self::default() }
    }

    pub fn simulcast() -> Self {
        Self { rids: vec!["q", "h", "f"], ..Self::publisher() }
    }

    pub fn subscriber() -> Self {
        Self { audio_slots: 2, video_slots: 2, ..Self::default() }
    }

    pub fn with_loss(mut self, loss: f64) -> Self {
        (self.up.loss, self.down.loss) = (loss, loss);
        self
    }
}

pub struct Client {
    pub name: String,
    pub node: usize,
    pub addr: SocketAddr,
    pub rtc: Rtc,
    pub is_connected: bool,
    pub is_ended: bool,
    pub lines: Vec<Line>,
    pub packets: Vec<RtpPacket>,
    pub keyframe_requests: Vec<(String, Option<String>)>,
    pub outbox: Vec<Datagram>,
    uncapped: std::collections::HashSet<(usize, Option<String>)>,
    /// Data channels by label: what the client opened and what was opened to it.
    pub channels: Vec<(String, ChannelId)>,
    /// What it was told that it may send (REMB), in bit/s.
    pub rembs: Vec<u64>,
    /// What came on data channels: label and message.
    pub messages: Vec<(String, Vec<u8>)>,
    server: Option<SocketAddr>,
    /// The offer that it joined with.
    pub first_offer: String,
}

impl Client {
    pub fn new(
        now: Instant,
        name: &str,
        node: usize,
        addr: SocketAddr,
        spec: &ClientSpec,
    ) -> (Self, String, SdpPendingOffer) {
        let mut builder = Rtc::builder().set_rtp_mode(true).clear_codecs().enable_opus(true, spec.has_red);
        builder = match spec.codecs {
            Codecs::All => builder.enable_vp8(true).enable_h264(true).enable_vp9(true).enable_av1(true),
            Codecs::Vp8Only => builder.enable_vp8(true),
            Codecs::H264Only => builder.enable_h264(true),
            Codecs::Vp9Only => builder.enable_vp9(true),
        };
        if spec.has_audio_rtx {
            let config = builder.codec_config();
            config.enable_opus(false, false);
            let (hz, format) = (Frequency::FORTY_EIGHT_KHZ, FormatParams::default());
            config.add_config(111.into(), Some(112.into()), Codec::Opus, hz, Some(2), format);
        }
        let mut rtc = builder.build(now);
        rtc.add_local_candidate(Candidate::host(addr, "udp").unwrap());
        let mut changes = rtc.sdp_api();
        if spec.sends_audio {
            changes.add_media(MediaKind::Audio, Direction::SendOnly, None, None, None);
        }
        if spec.sends_video {
            let simulcast = (!spec.rids.is_empty()).then(|| {
                let mut simulcast = Simulcast::new();
                spec.rids.iter().for_each(|rid| simulcast.add_send_layer(SimulcastLayer::new(rid)));
                simulcast
            });
            changes.add_media(MediaKind::Video, Direction::SendOnly, None, None, simulcast);
        }
        for _ in 0..spec.audio_slots {
            changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        }
        for _ in 0..spec.video_slots {
            changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        }
        for channel in &spec.channels {
            changes.add_channel_with_config(channel.clone());
        }
        let (offer, pending) = changes.apply().expect("an offer");
        let client = Self {
            name: name.into(),
            node,
            addr,
            rtc,
            is_connected: false,
            is_ended: false,
            lines: vec![],
            packets: vec![],
            keyframe_requests: vec![],
            outbox: vec![],
            uncapped: Default::default(),
            channels: vec![],
            rembs: vec![],
            messages: vec![],
            server: None,
            first_offer: offer.to_sdp_string(),
        };
        (client, offer.to_sdp_string(), pending)
    }

    pub fn accept(&mut self, pending: SdpPendingOffer, answer: &str, lines: Vec<Line>) {
        let answer = SdpAnswer::from_sdp_string(answer).expect("str0m reads the answer");
        self.rtc.sdp_api().accept_answer(pending, answer).expect("str0m takes the answer");
        self.lines = lines;
    }

    pub fn step(&mut self, now: Instant) {
        if !self.is_ended {
            let _ = self.rtc.handle_input(Input::Timeout(now));
            self.drain();
        }
    }

    pub fn receive(&mut self, now: Instant, datagram: &Datagram) {
        self.server = Some(datagram.from);
        let Ok(receive) = Receive::new(Protocol::Udp, datagram.from, self.addr, &datagram.bytes) else { return };
        if !self.is_ended {
            let _ = self.rtc.handle_input(Input::Receive(now, receive));
            self.drain();
        }
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Transmit(t)) => {
                    self.outbox.push(Datagram { from: self.addr, to: t.destination, bytes: t.contents.to_vec() });
                }
                Ok(Output::Event(Event::Connected)) => self.is_connected = true,
                Ok(Output::Event(Event::RtpPacket(packet))) => self.packets.push(packet),
                Ok(Output::Event(Event::KeyframeRequest(request))) => {
                    self.keyframe_requests.push((request.mid.to_string(), request.rid.map(|r| r.to_string())));
                }
                Ok(Output::Event(Event::EgressBitrateEstimate(BweKind::Remb { estimate, .. }))) => {
                    self.rembs.push(estimate.as_u64());
                }
                Ok(Output::Event(Event::ChannelOpen(id, label))) => self.channels.push((label, id)),
                Ok(Output::Event(Event::ChannelClose(id))) => self.channels.retain(|(_, open)| *open != id),
                Ok(Output::Event(Event::ChannelData(data))) => {
                    let label = self.channels.iter().find(|(_, id)| *id == data.id).map(|(label, _)| label.clone());
                    self.messages.push((label.unwrap_or_default(), data.data));
                }
                Ok(Output::Event(_)) => {}
                Ok(Output::Timeout(_)) => return,
                Err(_) => {
                    self.is_ended = true;
                    return;
                }
            }
        }
    }

    /// Writes one RTP packet to a published line.
    pub fn write(&mut self, now: Instant, line: usize, rid: Option<&str>, packet: &super::media::Outgoing) {
        let mid: Mid = self.lines[line].mid.as_str().into();
        let rid_value: Option<Rid> = rid.map(Rid::from);
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, rid_value).expect("a stream of the line");
        if self.uncapped.insert((line, rid.map(str::to_owned))) {
            // As browsers do: str0m by itself stops to answer NACKs when they are more than 15 % of what it sends.
            stream.set_rtx_cache(1024, std::time::Duration::from_secs(3), None);
        }
        let ext_vals =
            ExtensionValues { audio_level: packet.audio_level, voice_activity: Some(true), ..Default::default() };
        let write = RtpWrite::new(packet.pt.into(), packet.seq.into(), packet.timestamp, now, packet.payload.clone())
            .marker(packet.marker)
            .ext_vals(ext_vals)
            .nackable(true);
        stream.write_rtp(write);
        let _ = self.rtc.handle_input(Input::Timeout(now));
        self.drain();
    }

    /// From now on NACKs are answered as browsers do: str0m by itself stops when retransmissions are more than 15 % of
    /// what it sends.
    pub fn answer_all_nacks(&mut self, line: usize) {
        let mid: Mid = self.lines[line].mid.as_str().into();
        let mut api = self.rtc.direct_api();
        let stream = api.stream_tx_by_mid(mid, None).expect("a stream of the line");
        stream.set_rtx_cache(1024, std::time::Duration::from_secs(3), None);
    }

    /// What was sent cannot be sent again.
    pub fn forget_sent(&mut self, line: usize) {
        self.answer_all_nacks(line);
    }

    /// Writes a message to the first channel of a label; false if it does not take it now.
    pub fn say(&mut self, label: &str, message: &[u8]) -> bool {
        let id = self.channels.iter().find(|(l, _)| l == label).expect("an open channel").1;
        let is_taken = self.rtc.channel(id).is_some_and(|mut c| c.write(true, message).unwrap_or(false));
        self.drain();
        is_taken
    }

    /// Packets that came on the stream of a slot, in order of sequence.
    pub fn sorted(&self, ssrc: u32) -> Vec<&RtpPacket> {
        let mut packets: Vec<&RtpPacket> = self.packets.iter().filter(|p| *p.header.ssrc == ssrc).collect();
        packets.sort_by_key(|p| *p.seq_no);
        packets
    }

    /// SSRCs that packets came on, in order of appearance.
    pub fn ssrcs(&self) -> Vec<u32> {
        let mut ssrcs = vec![];
        for packet in &self.packets {
            if !ssrcs.contains(&*packet.header.ssrc) {
                ssrcs.push(*packet.header.ssrc);
            }
        }
        ssrcs
    }

    /// An offer that restarts ICE.
    pub fn restart_offer(&mut self) -> (String, SdpPendingOffer) {
        let mut changes = self.rtc.sdp_api();
        changes.ice_restart(true);
        let (offer, pending) = changes.apply().expect("an offer");
        (offer.to_sdp_string(), pending)
    }

    /// From now on the client is elsewhere on the network.
    pub fn move_to(&mut self, addr: SocketAddr) {
        self.addr = addr;
        self.rtc.add_local_candidate(Candidate::host(addr, "udp").unwrap());
    }

    /// Sends NACKs for an SSRC also without RTX, as browsers do.
    pub fn enable_nacks(&mut self, ssrc: u32) {
        self.rtc.direct_api().stream_rx(&ssrc.into()).expect("a stream").suppress_nack(false);
    }

    /// Asks for a key frame of everything that comes on an SSRC.
    pub fn request_keyframe(&mut self, ssrc: u32) {
        use str0m::media::KeyframeRequestKind;
        if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }
}
