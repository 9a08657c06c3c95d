//! Of many who could be heard, the loudest few: places, changes, and what a listener's stream looks like over them.

use std::time::Duration;

use crate::support::media::{OpusSource, read_opus, run};
use crate::support::{ClientSpec, Net, ROOM, wanted};
use mrtc_core::command::{Codec, Command, Kind, Subscription};
use mrtc_core::event::{Event, SlotsReply};

const SECOND: Duration = Duration::from_secs(1);
const QUIET: i8 = -110;
const SPEECH: i8 = -30;

/// Speakers `s0`, `s1`, … on these nodes, all quiet; they publish tracks of their own names.
fn speakers(net: &mut Net, nodes: &[usize]) -> Vec<OpusSource> {
    let join = |(index, node): (usize, &usize)| {
        let name = format!("s{index}");
        let client = net.join(*node, &name, ClientSpec { sends_audio: true, ..ClientSpec::default() });
        net.publish(client, &name, 0);
        // Numbers tell whose packet it is.
        let seq = 500 + 5_000 * index as u64;
        OpusSource { level: QUIET, seq, ..OpusSource::new(client, 0) }
    };
    nodes.iter().enumerate().map(join).collect()
}

fn listener(net: &mut Net, node: usize, audio_slots: usize) -> usize {
    net.join(node, "ear", ClientSpec { audio_slots, ..ClientSpec::default() })
}

fn all(count: usize) -> Vec<Subscription> {
    (0..count).map(|n| wanted(&format!("s{n}"), Kind::Audio)).collect()
}

fn tracks(slots: &[(String, Kind, Option<mrtc_core::id::TrackId>)]) -> Vec<String> {
    slots.iter().map(|(_, _, track)| track.as_ref().map_or_else(String::new, ToString::to_string)).collect()
}

fn placed(reply: &SlotsReply) -> Vec<String> {
    tracks(&reply.slots)
}

/// What the listener was told last that its slots carry.
fn told(net: &Net, node: usize) -> Vec<String> {
    let slots = net.nodes[node].events.iter().rev().find_map(|e| match e {
        Event::SlotsChanged { transport, slots, .. } if transport.as_str() == "ear" => Some(tracks(slots)),
        _ => None,
    });
    slots.unwrap_or_default()
}

fn changes(net: &Net, node: usize) -> usize {
    net.nodes[node].events.iter().filter(|e| matches!(e, Event::SlotsChanged { .. })).count()
}

/// These speak for a time, the others are quiet.
fn speak(net: &mut Net, sources: &mut [OpusSource], who: &[usize], time: Duration) {
    for (index, source) in sources.iter_mut().enumerate() {
        source.level = if who.contains(&index) { SPEECH } else { QUIET };
    }
    run(net, time, sources, &mut []);
}

/// Each slot's stream is one without gaps, in numbers and in time.
fn assert_streams_are_whole(net: &Net, client: usize) {
    for ssrc in net.clients[client].ssrcs() {
        let packets = net.clients[client].sorted(ssrc);
        assert!(packets.windows(2).all(|w| *w[1].seq_no == *w[0].seq_no + 1), "a gap");
        for pair in packets.windows(2) {
            let step = pair[1].header.timestamp.wrapping_sub(pair[0].header.timestamp);
            assert!((960..48_000 * 30).contains(&step), "a step of {step}");
        }
    }
}

/// Numbers of `who` that the listener got, without their base.
fn heard_of(net: &Net, client: usize, who: usize) -> Vec<u64> {
    let numbers = net.clients[client].packets.iter().map(|p| read_opus(&p.payload));
    let mut own: Vec<u64> = numbers.filter(|n| n / 5_000 == who as u64).map(|n| n % 5_000).collect();
    own.sort_unstable();
    own
}

#[test]
fn two_of_six_are_heard_and_places_go_to_those_who_speak() {
    let mut net = Net::new(1);
    net.add_process(1);
    let mut sources = speakers(&mut net, &[0; 6]);
    let ear = listener(&mut net, 0, 4);
    let reply = net.listen(ear, all(6), 2);
    assert_eq!(placed(&reply), ["s0", "s1", "", ""]);
    assert!(reply.unplaced.is_empty());
    speak(&mut net, &mut sources, &[], SECOND);
    // Silence alone moves nobody.
    assert_eq!(changes(&net, 0), 0);
    let began = sources[4].seq % 5_000;
    speak(&mut net, &mut sources, &[4], SECOND);
    let first = told(&net, 0);
    assert!(first.contains(&"s4".into()) && first.iter().filter(|t| !t.is_empty()).count() == 2, "{first:?}");
    // Not a packet of the first word is missing, though it took some to notice it.
    assert!(heard_of(&net, ear, 4)[0] <= began, "{:?} {began}", &heard_of(&net, ear, 4)[..3]);
    speak(&mut net, &mut sources, &[5], SECOND);
    let mut second = told(&net, 0);
    second.retain(|t| !t.is_empty());
    second.sort();
    assert_eq!(second, ["s4", "s5"]);
    assert_streams_are_whole(&net, ear);
}

#[test]
fn nobody_is_cut_off_while_speaking_and_a_quieter_third_waits() {
    let mut net = Net::new(2);
    net.add_process(1);
    let mut sources = speakers(&mut net, &[0; 4]);
    let ear = listener(&mut net, 0, 2);
    net.listen(ear, all(4), 2);
    speak(&mut net, &mut sources, &[2, 3], 2 * SECOND);
    let before = changes(&net, 0);
    // A third speaks at the same time; one of the two breathes.
    speak(&mut net, &mut sources, &[1, 2, 3], 2 * SECOND);
    speak(&mut net, &mut sources, &[1, 2], SECOND / 2);
    speak(&mut net, &mut sources, &[1, 2, 3], SECOND);
    assert_eq!(changes(&net, 0), before);
    // He has finished.
    speak(&mut net, &mut sources, &[1, 2], 3 * SECOND);
    let mut now = told(&net, 0);
    now.sort();
    assert_eq!(now, ["s1", "s2"]);
    assert_streams_are_whole(&net, ear);
}

#[test]
fn levels_count_across_shards_and_nodes() {
    let mut net = Net::new(3);
    let (a, b) = (net.add_process(2), net.add_process(1));
    // Two of the other shard, two of the other node.
    let mut sources = speakers(&mut net, &[a + 1, a + 1, b, b]);
    net.open_relay(b, a, "b-a");
    net.run_until(2 * SECOND, |net| [a, b].iter().all(|n| net.has_event(*n, |e| matches!(e, Event::RelayUp { .. }))));
    for (handle, track) in [(7, "s2"), (8, "s3")] {
        let (relay, room) = ("b-a".into(), ROOM.into());
        let (codec, rids) = (Codec::Opus, vec![]);
        let import = Command::ImportTrack { relay, track: track.into(), room, handle, codec, rids };
        net.command(a, import).unwrap();
        net.command(b, Command::ExportTrack { relay: "b-a".into(), track: track.into(), handle }).unwrap();
    }
    let ear = listener(&mut net, a, 1);
    net.listen(ear, all(4), 1);
    for who in [3, 1, 2, 0] {
        let began = sources[who].seq % 5_000;
        speak(&mut net, &mut sources, &[who], 3 * SECOND);
        assert_eq!(told(&net, a), [format!("s{who}")]);
        // The only place is held a moment for the one before, who might go on.
        assert!(heard_of(&net, ear, who).iter().any(|n| *n <= began + 50), "the first word of s{who}");
    }
    assert_streams_are_whole(&net, ear);
    // What nobody listens to no longer crosses.
    net.listen(ear, vec![], 1);
    net.run(SECOND / 10);
    let shared = net.nodes[a + 1].shard.counters().tx_shard_packets;
    speak(&mut net, &mut sources, &[1], SECOND);
    assert_eq!(net.nodes[a + 1].shard.counters().tx_shard_packets, shared);
    // Speakers are told where their sound comes in, and only there.
    let speakers_of = |node: usize| {
        let told = net.nodes[node].events.iter().filter_map(|e| match e {
            Event::ActiveSpeakers { speakers, .. } => Some(speakers.iter().map(|(track, _)| track.to_string())),
            _ => None,
        });
        let mut names: Vec<String> = told.flatten().collect();
        names.sort();
        names.dedup();
        names
    };
    assert_eq!([speakers_of(a), speakers_of(a + 1), speakers_of(b)], [vec![], vec!["s0", "s1"], vec!["s2", "s3"]]);
}

#[test]
fn slots_that_lack_are_asked_for_and_the_mode_can_be_left() {
    let mut net = Net::new(4);
    net.add_process(1);
    let mut sources = speakers(&mut net, &[0; 5]);
    let ear = listener(&mut net, 0, 2);
    let reply = net.listen(ear, all(5), 3);
    assert_eq!((placed(&reply), reply.unplaced.len()), (vec!["s0".into(), "s1".into()], 1));
    speak(&mut net, &mut sources, &[3, 4], SECOND);
    // Whoever has a place keeps it when all are to be heard again.
    let mut seated = told(&net, 0);
    let reply = net.listen(ear, all(5), 0);
    let mut now = placed(&reply);
    now.sort();
    seated.sort();
    assert_eq!((now, reply.unplaced.len()), (seated, 3));
    let before = changes(&net, 0);
    speak(&mut net, &mut sources, &[0], SECOND);
    assert_eq!(changes(&net, 0), before);
    // What is paused has no place.
    let mut some = all(5);
    some[3].is_paused = true;
    let reply = net.listen(ear, some, 3);
    assert!(!placed(&reply).contains(&"s3".into()));
    assert_streams_are_whole(&net, ear);
}

#[test]
fn a_place_is_given_on_when_its_track_ends_and_a_listener_may_leave() {
    let mut net = Net::new(5);
    net.add_process(2);
    let mut sources = speakers(&mut net, &[1, 1, 1]);
    let ear = listener(&mut net, 0, 1);
    let reply = net.listen(ear, [all(3), vec![wanted("nobody", Kind::Audio)]].concat(), 1);
    assert_eq!(reply.missing, ["nobody".into()]);
    speak(&mut net, &mut sources, &[2], SECOND);
    assert_eq!(told(&net, 0), ["s2"]);
    net.command(1, Command::UnpublishTrack { track: "s2".into() }).unwrap();
    speak(&mut net, &mut sources, &[], SECOND / 10);
    assert_ne!(told(&net, 0), ["s2"]);
    assert_ne!(told(&net, 0), [""]);
    net.command(0, Command::CloseTransport { transport: "ear".into() }).unwrap();
    net.run(SECOND / 10);
    let shared = net.nodes[1].shard.counters().tx_shard_packets;
    speak(&mut net, &mut sources, &[0, 1], SECOND);
    assert_eq!(net.nodes[1].shard.counters().tx_shard_packets, shared);
}

#[test]
fn silence_by_dtx_is_no_loss_and_keeps_its_time() {
    let mut net = Net::new(6);
    net.add_process(1);
    let mut sources = speakers(&mut net, &[0]);
    let ear = listener(&mut net, 0, 1);
    net.listen(ear, all(1), 3);
    net.command(0, Command::CreateSink { sink: "sink".into(), track: "s0".into() }).unwrap();
    for _ in 0..3 {
        speak(&mut net, &mut sources, &[0], SECOND);
        sources[0].is_silent = true;
        run(&mut net, 4 * SECOND, &mut sources, &mut []);
        sources[0].is_silent = false;
    }
    speak(&mut net, &mut sources, &[0], SECOND);
    assert_streams_are_whole(&net, ear);
    let ssrc = net.clients[ear].ssrcs()[0];
    let packets = net.clients[ear].sorted(ssrc);
    let (first, last) = (packets[0], packets[packets.len() - 1]);
    let spanned = last.header.timestamp.wrapping_sub(first.header.timestamp);
    let expected = (sources[0].seq + sources[0].skipped - 500) * 960;
    assert!(u64::from(spanned).abs_diff(expected) <= 10 * 960, "{spanned} of {expected}");
    assert_eq!(packets.iter().filter(|p| p.payload.len() == 1).count(), 30);
    let frames = &net.nodes[0].frames;
    assert!(frames.iter().all(|f| !f.is_discontinuous));
    let recorded = frames[frames.len() - 1].rtp_time - frames[0].rtp_time;
    assert!(recorded.abs_diff(expected) <= 40 * 960, "{recorded} of {expected}");
}
