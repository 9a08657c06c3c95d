use std::net::SocketAddr;

use mrtc_rtp::ext::ExtKind;
use proptest::prelude::*;

use super::*;
use crate::addr::{CandidateAddr, Proto};
use crate::handshake::{Certificate, IceCredentials, LocalParams, Setup};

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/vectors/sdp/", $name, ".sdp"))
    };
}

const VECTORS: [(&str, &str); 10] = [
    ("aiortc_both", vector!("aiortc_both")),
    ("aiortc_play", vector!("aiortc_play")),
    ("aiortc_publish", vector!("aiortc_publish")),
    ("chromium_data_channel_and_sendrecv", vector!("chromium_data_channel_and_sendrecv")),
    ("chromium_h264_only", vector!("chromium_h264_only")),
    ("chromium_simulcast_and_slots", vector!("chromium_simulcast_and_slots")),
    ("chromium_whep", vector!("chromium_whep")),
    ("ffmpeg_whip_form", vector!("ffmpeg_whip_form")),
    ("firefox_form", vector!("firefox_form")),
    ("gstreamer_whip_form", vector!("gstreamer_whip_form")),
];

fn text_of(name: &str) -> &'static str {
    VECTORS.iter().find(|(n, _)| *n == name).unwrap().1
}

fn counter() -> impl FnMut() -> Ssrc {
    let mut next = 1_000;
    move || {
        next += 1;
        Ssrc(next)
    }
}

fn negotiated(text: &str) -> Negotiated {
    negotiate(&Offer::parse(text).unwrap(), None, &mut counter()).unwrap()
}

fn again(text: &str, previous: &Negotiated) -> Result<Negotiated, SdpError> {
    let mut next = 50_000;
    negotiate(&Offer::parse(text).unwrap(), Some(previous), &mut || {
        next += 1;
        Ssrc(next)
    })
}

fn error_of(text: &str) -> SdpError {
    Offer::parse(text).and_then(|offer| negotiate(&offer, None, &mut counter())).unwrap_err()
}

fn local() -> LocalParams {
    LocalParams {
        ice: IceCredentials { ufrag: "ourfrag1".into(), pwd: "ourpasswordourpassword00".into() },
        fingerprint: Certificate::generate().unwrap().fingerprint().clone(),
        setup: Setup::Passive,
    }
}

fn candidates() -> [CandidateAddr; 3] {
    let addr = |text: &str| text.parse::<SocketAddr>().unwrap();
    [
        CandidateAddr { proto: Proto::Udp, addr: addr("192.0.2.9:5000") },
        CandidateAddr { proto: Proto::Udp, addr: addr("[2001:db8::9]:5000") },
        CandidateAddr { proto: Proto::Tcp, addr: addr("192.0.2.9:5001") },
    ]
}

fn answer(text: &str) -> String {
    negotiated(text).answer(&local(), &candidates())
}

/// The section of a mid, or the session part.
fn section<'a>(sdp: &'a str, mid: &str) -> &'a str {
    sdp.split("\r\nm=").find(|s| s.contains(&format!("\r\na=mid:{mid}\r\n"))).unwrap()
}

fn has_line(text: &str, line: &str) -> bool {
    text.split("\r\n").any(|l| l == line)
}

fn codecs(line: &NegotiatedLine) -> Vec<Codec> {
    let mut codecs: Vec<Codec> = line.codecs.iter().map(|c| c.codec).collect();
    codecs.dedup();
    codecs
}

#[test]
fn every_vector_is_answered_line_by_line() {
    for (name, text) in VECTORS {
        let negotiated = negotiated(text);
        let answer = negotiated.answer(&local(), &candidates());
        let media = |sdp: &str| {
            let lines = sdp.split("\r\n").filter_map(|l| l.strip_prefix("m="));
            lines.map(|l| l.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(media(text), media(&answer), "{name}");
        // An answer has the grammar of an offer.
        let parsed = Offer::parse(&answer).unwrap_or_else(|e| panic!("{name}: {e}\n{answer}"));
        let accepted = negotiated.lines.iter().filter(|l| l.usage != LineUse::Rejected);
        let mids: Vec<String> = accepted.map(|l| l.mid.to_string()).collect();
        assert_eq!(parsed.bundle.unwrap(), mids, "{name}");
        assert!(has_line(&answer, "a=ice-lite"));
        assert!(answer.ends_with("\r\n"));
        assert_eq!(answer.matches("a=end-of-candidates").count(), 1, "{name}");
    }
}

#[test]
fn every_answered_format_was_offered() {
    for (name, text) in VECTORS {
        let offer = Offer::parse(text).unwrap();
        for (line, offered) in negotiated(text).lines.iter().zip(&offer.lines) {
            for codec in &line.codecs {
                assert!(offered.formats.contains(&codec.pt.to_string()), "{name}");
                assert!(codec.rtx_pt.is_none_or(|rtx| offered.formats.contains(&rtx.to_string())), "{name}");
            }
            for (id, kind) in line.exts.iter() {
                assert!(offered.exts.iter().any(|(i, uri)| *i == id && uri == kind.uri()), "{name}");
            }
        }
    }
}

#[test]
fn chromium_publishes_simulcast_and_opens_slots() {
    let negotiated = negotiated(text_of("chromium_simulcast_and_slots"));
    let [audio, video, slots @ ..] = negotiated.lines.as_slice() else { panic!() };
    assert_eq!((audio.usage, audio.kind, codecs(audio)[0]), (LineUse::Inbound, Kind::Audio, Codec::Opus));
    assert_eq!((video.usage, video.kind), (LineUse::Inbound, Kind::Video));
    assert_eq!(codecs(video), [Codec::Vp8, Codec::H264, Codec::Av1, Codec::Vp9]);
    assert_eq!(video.rids.iter().map(Rid::as_str).collect::<Vec<_>>(), ["q", "h", "f"]);
    assert!(video.sources.is_empty());
    assert_eq!(audio.sources.len(), 1);
    assert_eq!(slots.len(), 12);
    assert!(slots.iter().all(|s| s.usage == LineUse::Slot && s.tx.is_some()));
    assert!(slots.iter().filter(|s| s.kind == Kind::Video).all(|s| s.tx.unwrap().rtx.is_some()));
    assert!(slots.iter().filter(|s| s.kind == Kind::Audio).all(|s| s.tx.unwrap().rtx.is_none()));
    assert!(slots[6].codecs.iter().all(|c| c.rtx_pt.is_some()));
    assert_eq!(negotiated.remote.setup, Setup::Actpass);
    assert!(negotiated.is_mixed_ext_allowed && !negotiated.is_ice_restart);
    for kind in [ExtKind::Mid, ExtKind::Rid, ExtKind::RepairedRid, ExtKind::TransportCc, ExtKind::AudioLevel] {
        assert!(negotiated.exts.id_of(kind).is_some(), "{kind:?}");
    }
}

#[test]
fn slots_have_distinct_ssrcs() {
    let negotiated = negotiated(text_of("chromium_simulcast_and_slots"));
    let sources = negotiated.lines.iter().filter_map(|l| l.tx);
    let mut all: Vec<u32> = sources.flat_map(|s| [Some(s.ssrc), s.rtx, s.fec]).flatten().map(|s| s.0).collect();
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn simulcast_answer_receives_what_is_sent() {
    let answer = answer(text_of("chromium_simulcast_and_slots"));
    let video = section(&answer, "1");
    for line in ["a=rid:q recv", "a=rid:h recv", "a=rid:f recv", "a=simulcast:recv q;h;f", "a=recvonly"] {
        assert!(has_line(video, line), "{line}");
    }
}

#[test]
fn slot_answer_tells_ssrcs_and_stream() {
    let answer = answer(text_of("chromium_whep"));
    let video = section(&answer, "1");
    assert!(has_line(video, "a=sendonly"));
    assert!(has_line(video, "a=msid:slot-1 slot-1"));
    let group = video.split("\r\n").find(|l| l.starts_with("a=ssrc-group:FID ")).unwrap();
    for ssrc in group.split(' ').skip(1) {
        assert!(has_line(video, &format!("a=ssrc:{ssrc} cname:{CNAME}")));
    }
}

#[test]
fn flexfec_is_a_stream_of_its_own_for_who_takes_it() {
    let text = text_of("chromium_whep");
    let offered = negotiated(text);
    let answer = offered.answer(&local(), &candidates());
    let video = section(&answer, "1");
    let source = offered.lines.iter().find(|l| l.kind == Kind::Video).and_then(|l| l.tx).unwrap();
    assert!(has_line(video, "a=rtpmap:49 flexfec-03/90000"));
    assert!(has_line(video, &format!("a=ssrc-group:FEC-FR {} {}", source.ssrc, source.fec.unwrap())));
    let again = again(text, &offered).unwrap();
    assert_eq!(again.lines.iter().find_map(|l| l.tx?.fec), source.fec);

    // A type that is not of the line's formats, another version, another direction.
    for text in [
        text.replace("a=rtpmap:49 flexfec-03", "a=rtpmap:50 flexfec-03"),
        text.replace("flexfec-03", "flexfec"),
        text.replace("a=recvonly", "a=sendonly"),
    ] {
        let answer = negotiated(&text).answer(&local(), &candidates());
        assert!(!answer.contains("flexfec") && !answer.contains("FEC-FR"), "{answer}");
    }
}

#[test]
fn feedback_is_transport_wide_where_it_works_and_remb_on_lines_that_come_in() {
    let chromium = negotiated(text_of("chromium_whep"));
    let feedback = chromium.lines[1].codecs[0].feedback;
    assert_eq!(feedback, Feedback { nack: true, pli: true, fir: true, remb: false, twcc: true });
    let aiortc = negotiated(text_of("aiortc_publish"));
    let feedback = aiortc.lines[1].codecs[0].feedback;
    assert_eq!(feedback, Feedback { nack: true, pli: true, fir: false, remb: true, twcc: false });
    // There it says what a client may send at most, beside its own estimate.
    let publisher = negotiated(text_of("chromium_simulcast_and_slots"));
    let video = publisher.lines.iter().find(|l| l.kind == Kind::Video && l.usage == LineUse::Inbound).unwrap();
    assert!(video.codecs[0].feedback.remb && video.codecs[0].feedback.twcc);
    let player = negotiated(text_of("aiortc_play"));
    assert!(!player.lines[1].codecs[0].feedback.remb);
    assert_eq!(player.lines[1].exts.id_of(ExtKind::AbsSendTime), None);
}

#[test]
fn a_line_of_video_says_its_cap() {
    let mut negotiated = negotiated(text_of("chromium_simulcast_and_slots"));
    assert!(!negotiated.answer(&local(), &candidates()).contains("\r\nb="));
    let video = negotiated.lines.iter().position(|l| l.kind == Kind::Video && l.usage == LineUse::Inbound).unwrap();
    negotiated.lines[video].max_bps = Some(640_500);
    let answer = negotiated.answer(&local(), &candidates());
    // RFC 8866 section 5: after the c= line, before attributes.
    assert!(answer.contains("c=IN IP4 0.0.0.0\r\nb=TIAS:640500\r\na="), "{answer}");
    assert_eq!(answer.matches("\r\nb=").count(), 1);
}

#[test]
fn h264_variants_are_told_apart() {
    let negotiated = negotiated(text_of("chromium_h264_only"));
    let variants: Vec<Variant> = negotiated.lines[0].codecs.iter().map(|c| c.variant).collect();
    let expected = Variant::H264 { profile_level_id: [0x42, 0xe0, 0x1f], packetization_mode: 1 };
    assert!(variants.contains(&expected), "{variants:?}");
    assert!(codecs(&negotiated.lines[0]) == [Codec::H264]);
}

#[test]
fn inbound_h264_prefers_non_interleaved_mode() {
    let line = &negotiated(text_of("firefox_form")).lines[1];
    let modes: Vec<Variant> = line.codecs.iter().filter(|c| c.codec == Codec::H264).map(|c| c.variant).collect();
    let mode = |packetization_mode| Variant::H264 { profile_level_id: [0x42, 0xe0, 0x1f], packetization_mode };
    assert_eq!(modes, [mode(1), mode(0)]);
}

#[test]
fn data_channels_are_taken_beside_the_rest() {
    let text = text_of("chromium_data_channel_and_sendrecv");
    let negotiated = negotiated(text);
    let data = negotiated.data_line().unwrap();
    assert_eq!(data.max_message_size, 262_144);
    assert_eq!(negotiated.lines.iter().filter(|l| l.usage == LineUse::Inbound).count(), 2);
    let answer = negotiated.answer(&local(), &candidates());
    assert!(answer.contains("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
    assert!(answer.contains("a=sctp-port:5000\r\n") && answer.contains("a=max-message-size:65536\r\n"));
    let group = answer.split("\r\n").find(|l| l.starts_with("a=group:BUNDLE")).unwrap();
    assert!(group.split(' ').any(|m| m == data.mid.to_string()));
}

#[test]
fn one_line_of_data_channels_is_enough_and_the_old_form_is_refused() {
    let text = text_of("chromium_data_channel_and_sendrecv");
    let data = negotiated(text).data_line().unwrap().mid.to_string();
    let (start, line) = (text.find("m=application").unwrap(), &text[text.find("m=application").unwrap()..]);
    let line = line.split_inclusive('\n').take_while(|l| !l.starts_with("m=") || l.starts_with("m=application"));
    let line: String = line.collect();
    let twice = text.replace(&line, &format!("{line}{}", line.replace(&format!("mid:{data}"), "mid:more")));
    let bundle = text.split("\r\n").find(|l| l.starts_with("a=group:BUNDLE")).unwrap();
    let twice = negotiated(&twice.replace(bundle, &format!("{bundle} more")));
    assert_eq!(twice.lines.iter().filter(|l| l.usage == LineUse::Data).count(), 1);
    assert_eq!(twice.line("more").unwrap().usage, LineUse::Rejected);
    let old = text[..start].to_owned() + &text[start..].replace("UDP/DTLS/SCTP webrtc-datachannel", "DTLS/SCTP 5000");
    assert!(negotiated(&old).data_line().is_none());
}

#[test]
fn ssrcs_and_their_retransmissions_are_read() {
    let negotiated = negotiated(text_of("aiortc_publish"));
    let offer = Offer::parse(text_of("aiortc_publish")).unwrap();
    let (media, rtx) = offer.lines[1].fid_groups[0];
    assert_eq!(negotiated.lines[1].sources, [LineSource { ssrc: media, rtx: Some(rtx) }]);
}

#[test]
fn firefox_rids_are_put_lowest_first_and_answered_in_its_order() {
    let text = text_of("firefox_form");
    let negotiated = negotiated(text);
    assert_eq!(negotiated.lines[1].rids.iter().map(Rid::as_str).collect::<Vec<_>>(), ["q", "h", "f"]);
    assert!(has_line(&answer(text), "a=simulcast:recv f;h;q"));
    assert_eq!(negotiated.lines[2].usage, LineUse::Slot, "bundle-only with port 0 is in use");
}

#[test]
fn a_passive_client_makes_us_active() {
    assert_eq!(negotiated(text_of("ffmpeg_whip_form")).remote.setup.answer(), Setup::Active);
    assert_eq!(negotiated(text_of("chromium_whep")).remote.setup.answer(), Setup::Passive);
}

#[test]
fn opus_parameters_are_mirrored() {
    let answer = answer(text_of("firefox_form"));
    assert!(has_line(&answer, "a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1"));
}

#[test]
fn candidates_prefer_udp_and_tell_tcp_passive() {
    let answer = answer(text_of("chromium_whep"));
    let lines: Vec<&str> = answer.split("\r\n").filter(|l| l.starts_with("a=candidate")).collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[2].ends_with("192.0.2.9 5001 typ host tcptype passive"), "{}", lines[2]);
    let priority = |line: &str| line.split(' ').nth(3).unwrap().parse::<u32>().unwrap();
    assert!(priority(lines[0]) > priority(lines[1]) && priority(lines[1]) > priority(lines[2]));
}

#[test]
fn reoffer_keeps_slots_and_adds_lines() {
    let text = text_of("chromium_whep");
    let first = negotiated(text);
    let more = format!(
        "{}m=video{}",
        text.replace("BUNDLE 0 1", "BUNDLE 0 1 2"),
        &video_line(text).replace("a=mid:1", "a=mid:2")
    );
    let second = again(&more, &first).unwrap();
    assert_eq!(second.lines.len(), 3);
    assert_eq!(second.lines[0].tx, first.lines[0].tx);
    assert_eq!(second.lines[1].tx, first.lines[1].tx);
    assert_ne!(second.lines[2].tx, first.lines[1].tx);
    assert!(!second.is_ice_restart);
    let version = |n: &Negotiated| n.answer(&local(), &[]).split(' ').nth(2).unwrap().to_owned();
    assert_eq!((version(&first), version(&second)), ("1".into(), "2".into()));
}

fn video_line(text: &str) -> String {
    text.split("\r\nm=video").nth(1).unwrap().to_owned()
}

#[test]
fn new_credentials_are_an_ice_restart() {
    let text = text_of("aiortc_play");
    let first = negotiated(text);
    let ufrag = first.remote.ice.ufrag.clone();
    let second = again(&text.replace(&format!("ice-ufrag:{ufrag}"), "ice-ufrag:changed"), &first).unwrap();
    assert!(second.is_ice_restart);
    assert_eq!(second.remote.ice.ufrag, "changed");
}

#[test]
fn a_new_certificate_is_refused_in_a_reoffer() {
    let text = text_of("ffmpeg_whip_form");
    let error = again(&text.replace("sha-256 5D", "sha-256 5E"), &negotiated(text)).unwrap_err();
    assert!(error.reason.contains("certificate"), "{error}");
}

#[test]
fn directions_change_and_lines_stop() {
    let text = text_of("ffmpeg_whip_form");
    let first = negotiated(text);
    let paused = again(&text.replace("a=sendonly", "a=inactive"), &first).unwrap();
    assert!(paused.lines.iter().all(|l| l.usage == LineUse::Idle));
    let answer = paused.answer(&local(), &[]);
    assert!(answer.contains("m=video 9 ") && !answer.contains("a=recvonly"));
    let stopped = again(&text.replace("m=video 9", "m=video 0"), &first).unwrap();
    assert_eq!(stopped.lines[1].usage, LineUse::Idle);
    let answer = stopped.answer(&local(), &[]);
    assert!(answer.contains("m=video 0 ") && answer.contains("a=group:BUNDLE 0\r\n"));
    let resumed = again(text, &stopped).unwrap();
    assert_eq!(resumed.lines[1].usage, LineUse::Inbound);
}

#[test]
fn lines_keep_their_place() {
    let text = text_of("ffmpeg_whip_form");
    let first = negotiated(text);
    let shorter = text.split("\r\nm=video").next().unwrap().replace("BUNDLE 0 1", "BUNDLE 0") + "\r\n";
    assert!(again(&shorter, &first).unwrap_err().reason.contains("2 m-lines"));
    let renamed = text.replace("a=mid:1", "a=mid:9").replace("BUNDLE 0 1", "BUNDLE 0 9");
    assert!(again(&renamed, &first).unwrap_err().reason.contains("was 1 before"));
}

#[test]
fn without_a_group_only_one_line_is_taken() {
    let text = text_of("ffmpeg_whip_form").replace("a=group:BUNDLE 0 1\r\n", "");
    let usages: Vec<LineUse> = negotiated(&text).lines.iter().map(|l| l.usage).collect();
    assert_eq!(usages, [LineUse::Inbound, LineUse::Rejected]);
    let audio_only = text.split("\r\nm=video").next().unwrap().to_owned() + "\r\n";
    assert_eq!(negotiated(&audio_only).lines[0].usage, LineUse::Inbound);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let text = text_of("ffmpeg_whip_form");
    for (from, to, reason) in [
        ("v=0", "v=1", "line 1: an offer begins with v=0"),
        ("a=rtcp-mux\r\n", "", "line 8: rtcp-mux is required"),
        ("a=mid:1", "a=mid:0", "mid 0 is there twice"),
        ("BUNDLE 0 1", "BUNDLE 0 1 7", "names mid 7"),
        ("a=setup:passive", "a=setup:holdconn", "setup must be"),
        ("a=rtpmap:111 opus/48000/2", "a=rtpmap:111 opus", "the clock rate is not a number"),
        ("a=rtpmap:111 ", "a=rtpmap:311 ", "payload type"),
        ("a=ice-ufrag:a174b3c1", "a=ice-ufrag:a", "ice-ufrag must have"),
        ("a=fingerprint:sha-256", "a=fingerprint:sha-256 zz", "malformed fingerprint"),
        ("a=fingerprint:sha-256", "a=fingerprint:md5", "no fingerprint"),
        ("m=audio 9", "m=audio x", "the port is not a number"),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=audio", "an m-line is"),
        ("opus/48000/2", "speex/16000", ""),
        ("c=IN IP4 0.0.0.0", "c IN", "line 9: not of the form type=value"),
        ("a=msid:FFmpeg audio", "a=msid:\u{1}", "control character"),
    ] {
        let changed = text.replace(from, to);
        assert_ne!(changed, text, "{from}");
        let result = Offer::parse(&changed).and_then(|offer| negotiate(&offer, None, &mut counter()));
        match result {
            Err(error) => assert!(!reason.is_empty() && error.to_string().contains(reason), "{from} -> {to}: {error}"),
            Ok(_) => assert!(reason.is_empty(), "{from} -> {to} was taken"),
        }
    }
}

#[test]
fn nothing_usable_is_an_error() {
    assert!(error_of("").reason.contains("empty"));
    assert!(error_of("v=0\r\n").reason.contains("no m-line"));
    let text = text_of("chromium_h264_only").replace("H264", "H265");
    assert!(error_of(&text).reason.contains("no m-line can be taken"));
}

#[test]
fn limits_hold() {
    let text = text_of("aiortc_play");
    let video = video_line(text);
    let mut many = text.to_owned();
    for _ in 0..MAX_LINES {
        many.push_str("m=video");
        many.push_str(&video[..60]);
        many.push_str("\r\n");
    }
    assert!(Offer::parse(&many).unwrap_err().reason.contains("m-lines"));
    let long = format!("v=0\r\n{}", "a=x\r\n".repeat(MAX_OFFER_BYTES / 5));
    assert!(Offer::parse(&long).unwrap_err().reason.contains("longer than"));
    let ssrcs: String = (0..500).map(|n| format!("a=ssrc:{n} cname:x\r\n")).collect();
    assert!(Offer::parse(&(text.to_owned() + &ssrcs)).unwrap_err().reason.contains("more than 128"));
}

#[test]
fn four_hundred_slots_are_answered() {
    let text = text_of("aiortc_play");
    let video = video_line(text);
    let mut offer = text.to_owned();
    let mut group = String::from("BUNDLE 0 1");
    for n in 2..400 {
        offer.push_str(&format!("m=video{}", video.replace("a=mid:1", &format!("a=mid:{n}"))));
        group.push_str(&format!(" {n}"));
    }
    let negotiated = negotiated(&offer.replace("BUNDLE 0 1", &group));
    assert_eq!(negotiated.lines.iter().filter(|l| l.usage == LineUse::Slot).count(), 400);
    assert!(Offer::parse(&negotiated.answer(&local(), &candidates())).is_ok());
}

/// A small generator for the mutation test: deterministic, no dependency.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

fn try_all(text: &str, previous: Option<&Negotiated>) {
    let Ok(offer) = Offer::parse(text) else { return };
    if let Ok(negotiated) = negotiate(&offer, previous, &mut counter()) {
        let answer = negotiated.answer(&local_once(), &candidates());
        assert_eq!(answer.matches("\r\nm=").count(), negotiated.lines.len());
        assert!(Offer::parse(&answer).is_ok(), "{answer}");
    }
}

fn local_once() -> LocalParams {
    static LOCAL: std::sync::OnceLock<LocalParams> = std::sync::OnceLock::new();
    LOCAL.get_or_init(local).clone()
}

#[test]
fn mutated_offers_never_panic() {
    let mut random = Random(42);
    for (_, text) in VECTORS {
        let previous = negotiated(text);
        let lines: Vec<&str> = text.split("\r\n").take(200).collect();
        for _ in 0..300 {
            let mut lines = lines.clone();
            for _ in 0..=random.below(4) {
                let (a, b) = (random.below(lines.len()), random.below(lines.len()));
                match random.below(4) {
                    0 => lines.swap(a, b),
                    1 => drop(lines.remove(a)),
                    2 => lines.insert(a, lines[b]),
                    _ => {
                        let cut =
                            lines[a].char_indices().map(|(at, _)| at).nth(random.below(lines[a].len())).unwrap_or(0);
                        lines[a] = &lines[a][..cut];
                    }
                }
            }
            try_all(&lines.join("\r\n"), Some(&previous).filter(|_| random.below(2) == 0));
        }
    }
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_panic(text in "\\PC{0,300}") {
        try_all(&text, None);
    }

    #[test]
    fn any_attributes_are_parsed_without_panic(
        attributes in prop::collection::vec(
            "(mid|rtpmap|fmtp|rtcp-fb|extmap|rid|simulcast|ssrc|ssrc-group|setup|fingerprint|ice-pwd|group):[ -~]{0,30}",
            0..30,
        ),
    ) {
        let head = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=rtpmap:96 VP8/90000\r\n";
        try_all(&format!("{head}a={}\r\n", attributes.join("\r\na=")), None);
    }
}
