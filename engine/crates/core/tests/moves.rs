//! A publisher moves to another transport: its tracks come as new ones, and those who receive them see nothing of it.

use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, read_vp8, run};
use crate::support::{ClientSpec, Net, wanted};
use mrtc_core::command::{Command, Kind, Subscription};
use mrtc_core::event::SlotsReply;
use mrtc_netem::LinkConfig;

const SECOND: Duration = Duration::from_secs(1);
const OLD: &str = "video";
const NEW: &str = "video-1";

/// Its own picture height tells what a packet is of.
const OLD_HEIGHT: u16 = 360;
const NEW_HEIGHT: u16 = 180;

struct Call {
    net: Net,
    alice: usize,
    bob: usize,
}

/// Alice publishes to node 0, which Bob receives at node `bob_at` of the same process.
fn call(seed: u64, shards: u16, bob_at: usize) -> Call {
    let mut net = Net::new(seed);
    net.add_process(shards);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let bob = net.join(bob_at, "bob", ClientSpec { audio_slots: 1, video_slots: 2, ..ClientSpec::default() });
    net.publish(alice, OLD, 1);
    net.publish(alice, "audio", 0);
    net.subscribe(bob, &[(OLD, Kind::Video), ("audio", Kind::Audio)]);
    Call { net, alice, bob }
}

fn video(client: usize, height: u16) -> Vp8Source {
    Vp8Source { packets_per_frame: 3, ..Vp8Source::new(client, 1, None, height) }
}

/// On which a key frame of 20 packets takes 200 ms.
fn slow() -> LinkConfig {
    LinkConfig { rate_bps: Some(800_000), queue_bytes: 100_000, ..LinkConfig::default() }
}

fn large_keyframe(client: usize) -> Vp8Source {
    Vp8Source { packets_per_keyframe: Some(20), packets_per_frame: 1, ..video(client, NEW_HEIGHT) }
}

fn moved() -> Subscription {
    Subscription { formers: vec![OLD.into()], ..wanted(NEW, Kind::Video) }
}

/// Alice's second transport, connected and announced, silent so far.
fn second_transport(call: &mut Call, node: usize) -> usize {
    let alice = call.net.join(node, "alice-2", ClientSpec::publisher());
    call.net.publish(alice, NEW, 1);
    call.net.publish(alice, "audio-1", 0);
    alice
}

fn tracks(reply: &SlotsReply) -> Vec<String> {
    let name = |track: &Option<mrtc_core::id::TrackId>| track.as_ref().map_or_else(String::new, ToString::to_string);
    reply.slots.iter().filter(|s| s.1 == Kind::Video).map(|(_, _, track)| name(track)).collect()
}

/// Heights in order of the stream of the first picture slot; fails if the stream has a gap in numbers, or in time one of
/// more than a frame.
fn heights(call: &Call) -> Vec<u16> {
    heights_within(call, Duration::from_millis(80))
}

fn heights_within(call: &Call, longest: Duration) -> Vec<u16> {
    let client = &call.net.clients[call.bob];
    let is_video = |ssrc: &&u32| {
        client.sorted(**ssrc).iter().any(|p| p.header.payload_type != crate::support::media::OPUS_PT.into())
    };
    let ssrcs = client.ssrcs();
    let pictures: Vec<&u32> = ssrcs.iter().filter(is_video).collect();
    assert_eq!(pictures.len(), 1, "the picture stays in its slot");
    let packets = client.sorted(*pictures[0]);
    for pair in packets.windows(2) {
        assert_eq!(*pair[1].seq_no, *pair[0].seq_no + 1, "a gap in the numbers");
    }
    let ends: Vec<_> = packets.iter().filter(|packet| packet.header.marker).collect();
    for pair in ends.windows(2) {
        let wait = pair[1].timestamp.saturating_duration_since(pair[0].timestamp);
        assert!(wait <= longest, "no picture came for {wait:?}");
    }
    let mut heights = vec![];
    for packet in packets {
        let seen = read_vp8(&packet.payload);
        if heights.last() != Some(&seen.height) {
            assert!(seen.is_keyframe, "went over without a key frame");
            heights.push(seen.height);
        }
    }
    heights
}

fn go_over(shards: u16, bob_at: usize, alice_moves_to: usize) {
    let mut call = call(7, shards, bob_at);
    let mut old = [video(call.alice, OLD_HEIGHT)];
    run(&mut call.net, SECOND, &mut [], &mut old);
    let again = second_transport(&mut call, alice_moves_to);
    let reply = call.net.subscribe_to(call.bob, vec![moved(), wanted("audio", Kind::Audio)]);
    assert_eq!(tracks(&reply), [NEW, ""], "{reply:?}");
    assert!(reply.missing.is_empty(), "{reply:?}");
    // It has not sent anything yet: the former goes on.
    run(&mut call.net, SECOND / 2, &mut [], &mut old);
    assert_eq!(heights(&call), [OLD_HEIGHT]);
    let [former] = old;
    let mut both = [former, video(again, NEW_HEIGHT)];
    run(&mut call.net, SECOND, &mut [], &mut both);
    assert_eq!(heights(&call), [OLD_HEIGHT, NEW_HEIGHT]);
    // The former transport ends: nothing of it was needed.
    call.net.command(0, Command::CloseTransport { transport: "alice".into() }).expect("closed");
    let [_, fresh] = both;
    run(&mut call.net, SECOND, &mut [], &mut [fresh]);
    assert_eq!(heights(&call), [OLD_HEIGHT, NEW_HEIGHT]);
}

#[test]
fn the_picture_goes_over_at_a_key_frame() {
    go_over(1, 0, 0);
}

/// A client that just connected sends slowly, and its first picture is large: the others see no pause in between.
#[test]
fn a_key_frame_that_takes_its_time_is_waited_for() {
    for (shards, bob_at) in [(1, 0), (2, 1)] {
        let mut call = call(12, shards, bob_at);
        let mut old = [video(call.alice, OLD_HEIGHT)];
        run(&mut call.net, SECOND, &mut [], &mut old);
        let again = second_transport(&mut call, 0);
        call.net.uplinks[again].set_config(slow());
        call.net.subscribe_to(call.bob, vec![moved(), wanted("audio", Kind::Audio)]);
        run(&mut call.net, SECOND / 20, &mut [], &mut old);
        let [former] = old;
        run(&mut call.net, SECOND, &mut [], &mut [former, large_keyframe(again)]);
        assert_eq!(heights(&call), [OLD_HEIGHT, NEW_HEIGHT]);
    }
}

#[test]
fn a_former_that_ends_amid_the_key_frame_of_its_heir_is_followed_by_all_of_it() {
    let mut call = call(13, 1, 0);
    let mut old = [video(call.alice, OLD_HEIGHT)];
    run(&mut call.net, SECOND, &mut [], &mut old);
    let again = second_transport(&mut call, 0);
    call.net.uplinks[again].set_config(slow());
    call.net.subscribe_to(call.bob, vec![moved()]);
    run(&mut call.net, SECOND / 20, &mut [], &mut old);
    let [former] = old;
    let mut both = [former, large_keyframe(again)];
    run(&mut call.net, SECOND / 10, &mut [], &mut both);
    assert_eq!(heights(&call), [OLD_HEIGHT]);
    call.net.command(0, Command::CloseTransport { transport: "alice".into() }).expect("closed");
    let [_, mut fresh] = both.map(|source| [source]);
    run(&mut call.net, SECOND, &mut [], &mut fresh);
    assert_eq!(heights_within(&call, SECOND / 4), [OLD_HEIGHT, NEW_HEIGHT]);
    assert_eq!(fresh[0].keyframes, 1, "the one on its way was enough");
}

#[test]
fn it_goes_over_between_workers_too() {
    go_over(2, 1, 0);
    go_over(2, 0, 1);
    go_over(2, 1, 1);
}

#[test]
fn a_track_that_is_not_here_yet_is_told_missing_while_its_former_is_sent() {
    let mut call = call(8, 1, 0);
    let mut old = [video(call.alice, OLD_HEIGHT)];
    run(&mut call.net, SECOND, &mut [], &mut old);
    let reply = call.net.subscribe_to(call.bob, vec![moved()]);
    assert_eq!(tracks(&reply), [NEW, ""]);
    assert_eq!(reply.missing.iter().map(ToString::to_string).collect::<Vec<_>>(), [NEW]);
    run(&mut call.net, SECOND / 2, &mut [], &mut old);
    let again = second_transport(&mut call, 0);
    let reply = call.net.subscribe_to(call.bob, vec![moved()]);
    assert!(reply.missing.is_empty(), "{reply:?}");
    let [former] = old;
    run(&mut call.net, SECOND, &mut [], &mut [former, video(again, NEW_HEIGHT)]);
    assert_eq!(heights(&call), [OLD_HEIGHT, NEW_HEIGHT]);
}

#[test]
fn a_former_that_ends_leaves_its_slot_to_its_heir() {
    let mut call = call(9, 1, 0);
    let mut old = [video(call.alice, OLD_HEIGHT)];
    run(&mut call.net, SECOND, &mut [], &mut old);
    let again = second_transport(&mut call, 0);
    call.net.subscribe_to(call.bob, vec![moved()]);
    call.net.command(0, Command::CloseTransport { transport: "alice".into() }).expect("closed");
    run(&mut call.net, SECOND, &mut [], &mut [video(again, NEW_HEIGHT)]);
    assert_eq!(heights(&call), [OLD_HEIGHT, NEW_HEIGHT]);
    // The heir ends too, and nothing is left.
    call.net.command(0, Command::CloseTransport { transport: "alice-2".into() }).expect("closed");
    let reply = call.net.subscribe_to(call.bob, vec![moved()]);
    assert_eq!(tracks(&reply), ["", ""]);
}

#[test]
fn who_is_no_longer_wanted_waits_for_nothing() {
    let mut call = call(10, 2, 1);
    let mut old = [video(call.alice, OLD_HEIGHT)];
    run(&mut call.net, SECOND, &mut [], &mut old);
    let again = second_transport(&mut call, 0);
    call.net.subscribe_to(call.bob, vec![moved()]);
    let reply = call.net.subscribe_to(call.bob, vec![]);
    assert_eq!(tracks(&reply), ["", ""]);
    let before = call.net.clients[call.bob].packets.len();
    run(&mut call.net, SECOND, &mut [], &mut [video(again, NEW_HEIGHT)]);
    assert_eq!(call.net.clients[call.bob].packets.len(), before);
}

#[test]
fn sound_goes_over_with_its_first_packet_also_where_only_the_loudest_are_heard() {
    for top_n in [0, 1] {
        let mut call = call(11, 1, 0);
        let listen = |call: &mut Call, name: &str, formers: &[&str]| {
            let formers = formers.iter().map(|&f| f.into()).collect();
            let subscription = Subscription { formers, ..wanted(name, Kind::Audio) };
            call.net.listen(call.bob, vec![subscription], top_n)
        };
        listen(&mut call, "audio", &[]);
        let again = second_transport(&mut call, 0);
        let mut old = [OpusSource::new(call.alice, 0)];
        run(&mut call.net, SECOND, &mut old, &mut []);
        listen(&mut call, "audio-1", &["audio"]);
        let [former] = old;
        let fresh = OpusSource { seq: 20_000, ..OpusSource::new(again, 0) };
        run(&mut call.net, SECOND, &mut [former, fresh], &mut []);
        let client = &call.net.clients[call.bob];
        let ssrcs = client.ssrcs();
        assert_eq!(ssrcs.len(), 1, "the sound stays in its slot");
        let packets = client.sorted(ssrcs[0]);
        for pair in packets.windows(2) {
            assert_eq!(*pair[1].seq_no, *pair[0].seq_no + 1);
            assert!(pair[1].timestamp.saturating_duration_since(pair[0].timestamp) < Duration::from_millis(60));
        }
        let newest = crate::support::media::read_opus(&packets.last().expect("sound").payload);
        assert!(newest >= 20_000, "top {top_n}: {newest}");
    }
}
