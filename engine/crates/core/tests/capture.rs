//! A capture has every packet in the clear, of those whom it is about, as long as it goes on.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use crate::support::media::{OpusSource, Vp8Source, run};
use crate::support::{ClientSpec, Net, ROOM};
use mrtc_core::capture::{Capture, CaptureScope, CapturedPacket, Tap};
use mrtc_core::command::{Command, Kind};
use mrtc_core::event::Reply;

const SECOND: Duration = Duration::from_secs(1);

/// Alice sends to bob, who loses a tenth.
fn call() -> (Net, usize, usize) {
    let mut net = Net::new(7);
    net.add_process(1);
    let alice = net.join(0, "alice", ClientSpec::publisher());
    let bob = net.join(0, "bob", ClientSpec::subscriber().with_loss(0.1));
    net.publish(alice, "alice-audio", 0);
    net.publish(alice, "alice-video", 1);
    net.subscribe(bob, &[("alice-audio", Kind::Audio), ("alice-video", Kind::Video)]);
    (net, alice, bob)
}

fn set(net: &mut Net, capture: Option<Capture>) {
    assert!(matches!(net.command(0, Command::SetCapture { capture }), Ok(Reply::Done)));
}

fn is_rtcp(packet: &CapturedPacket) -> bool {
    (192..=223).contains(&packet.bytes[1])
}

/// RFC 3550 section 5.1.
fn without_padding(packet: &CapturedPacket) -> &[u8] {
    let bytes = &packet.bytes[..];
    let padding = if bytes[0] & 0x20 != 0 { bytes[bytes.len() - 1].into() } else { 0 };
    &bytes[..bytes.len() - padding]
}

fn talk(net: &mut Net, alice: usize) {
    run(net, 2 * SECOND, &mut [OpusSource::new(alice, 0)], &mut [Vp8Source::new(alice, 1, None, 360)]);
}

/// What was captured: all, and of it RTP.
fn take(packets: &Receiver<CapturedPacket>) -> (Vec<CapturedPacket>, usize) {
    let all: Vec<_> = packets.try_iter().collect();
    let rtp = all.iter().filter(|p| !is_rtcp(p)).count();
    (all, rtp)
}

#[test]
fn a_rooms_capture_misses_no_packet_of_either_direction() {
    let (mut net, alice, bob) = call();
    let before = net.nodes[0].shard.counters();
    let (tap, packets) = Tap::new(false);
    set(&mut net, Some(Capture { scope: CaptureScope::Room(ROOM.into()), tap: tap.clone() }));
    talk(&mut net, alice);
    let after = net.nodes[0].shard.counters();
    let (all, rtp) = take(&packets);
    let moved = (after.rx_rtp_packets + after.tx_rtp_packets) - (before.rx_rtp_packets + before.tx_rtp_packets);
    assert!(after.tx_retransmissions > 10);
    assert_eq!((rtp as u64, tap.dropped()), (moved, 0));
    let received_rtcp = all.iter().filter(|p| is_rtcp(p) && p.to == all[0].to).count() as u64;
    assert_eq!(received_rtcp, after.rx_rtcp_packets - before.rx_rtcp_packets);
    assert!(all.iter().any(|p| is_rtcp(p) && p.from == all[0].to), "our reports");
    // In the clear: what bob decoded is in it, header and all.
    let bob = &net.clients[bob];
    for packet in bob.ssrcs().into_iter().flat_map(|ssrc| bob.sorted(ssrc)) {
        assert!(all.iter().any(|p| without_padding(p).ends_with(&packet.payload)), "{}", packet.seq_no);
    }
    set(&mut net, None);
    talk(&mut net, alice);
    assert!(packets.try_recv().is_err());
}

#[test]
fn a_transports_capture_has_nothing_of_others_and_no_payload_unless_asked_for() {
    let (mut net, alice, _) = call();
    let before = net.nodes[0].shard.counters().tx_rtp_packets;
    let (tap, packets) = Tap::new(true);
    set(&mut net, Some(Capture { scope: CaptureScope::Transport("bob".into()), tap }));
    talk(&mut net, alice);
    let (all, rtp) = take(&packets);
    assert_eq!(rtp as u64, net.nodes[0].shard.counters().tx_rtp_packets - before);
    assert!(all.iter().all(|p| is_rtcp(p) || (p.bytes.len() < 60 && p.bytes.len() < p.len)));
    let ends: std::collections::HashSet<_> = all.iter().flat_map(|p| [p.from, p.to]).collect();
    assert_eq!(ends.len(), 2);
}

#[test]
fn who_joins_later_is_captured_too() {
    let mut net = Net::new(8);
    net.add_process(1);
    let (tap, packets) = Tap::new(false);
    set(&mut net, Some(Capture { scope: CaptureScope::Room(ROOM.into()), tap }));
    let alice = net.join(0, "alice", ClientSpec::publisher());
    net.publish(alice, "alice-audio", 0);
    talk(&mut net, alice);
    assert!(take(&packets).1 > 50);
}
