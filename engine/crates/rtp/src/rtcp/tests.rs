//! Round trips of every packet, and packets that other implementations sent.

use super::twcc::TICKS_PER_REFERENCE;
use super::*;
use crate::id::{SeqNo, Ssrc};
use proptest::prelude::*;

fn only(compound: &[u8]) -> Rtcp<'_> {
    let mut packets = parse(compound);
    let packet = packets.next().unwrap().unwrap();
    assert!(packets.next().is_none());
    packet
}

fn seqs(numbers: &[u16]) -> Vec<SeqNo> {
    numbers.iter().copied().map(SeqNo).collect()
}

const BLOCK: ReportBlock = ReportBlock {
    ssrc: Ssrc(7),
    fraction_lost: 64,
    cumulative_lost: -5,
    highest_seq: 0x1_0002,
    jitter: 33,
    last_sr: 0x1234_5678,
    delay_since_last_sr: 0x8000,
};

#[test]
fn compound_of_reports() {
    let info =
        SenderInfo { ssrc: Ssrc(9), ntp: 0xe000_0000_8000_0000, rtp_timestamp: 5, packet_count: 6, octet_count: 7 };
    let mut out = Vec::new();
    write_sender_report(&mut out, &info, &[BLOCK]);
    write_sdes_cname(&mut out, Ssrc(9), "some-name");
    write_receiver_report(&mut out, Ssrc(9), &[BLOCK, BLOCK]);
    write_bye(&mut out, &[Ssrc(1), Ssrc(2)]);
    let packets: Vec<_> = parse(&out).map(Result::unwrap).collect();
    let [Rtcp::SenderReport(sr), Rtcp::Sdes(sdes), Rtcp::ReceiverReport(rr), Rtcp::Bye(bye)] = &packets[..] else {
        panic!("{packets:?}");
    };
    assert_eq!((sr.info, sr.info.compact_ntp()), (info, 0x0000_8000));
    assert_eq!(sr.blocks().collect::<Vec<_>>(), [BLOCK]);
    assert_eq!(sdes.cnames().collect::<Vec<_>>(), [(Ssrc(9), &b"some-name"[..])]);
    assert_eq!((rr.ssrc, rr.blocks().count()), (Ssrc(9), 2));
    assert_eq!(bye.ssrcs().collect::<Vec<_>>(), [Ssrc(1), Ssrc(2)]);
}

#[test]
fn round_trip_time() {
    assert_eq!(BLOCK.round_trip(0x1234_5678 + 0x8000 + 100), Some(100));
    assert_eq!(BLOCK.round_trip(0x1234_5678), None);
    assert_eq!(ReportBlock::default().round_trip(100), None);
}

#[test]
fn nack_entries_are_shared_over_the_wrap() {
    let mut out = Vec::new();
    let lost = seqs(&[65_530, 65_535, 0, 10, 11, 40]);
    write_nack(&mut out, Ssrc(1), Ssrc(2), lost.clone());
    assert_eq!(out.len(), 12 + 3 * 4);
    let Rtcp::Nack(nack) = only(&out) else { panic!() };
    assert_eq!((nack.sender, nack.media), (Ssrc(1), Ssrc(2)));
    assert_eq!(nack.seqs().collect::<Vec<_>>(), lost);
    out.clear();
    write_nack(&mut out, Ssrc(1), Ssrc(2), []);
    assert!(out.is_empty());
}

#[test]
fn requests_and_remb() {
    let mut out = Vec::new();
    write_pli(&mut out, Ssrc(1), Ssrc(2));
    write_fir(&mut out, Ssrc(1), Ssrc(3), 77);
    write_remb(&mut out, Ssrc(1), 2_500_000, &[Ssrc(2), Ssrc(3)]);
    let packets: Vec<_> = parse(&out).map(Result::unwrap).collect();
    let [Rtcp::Pli(pli), Rtcp::Fir(fir), Rtcp::Remb(remb)] = &packets[..] else { panic!("{packets:?}") };
    assert_eq!(*pli, Pli { sender: Ssrc(1), media: Ssrc(2) });
    assert_eq!(fir.entries().collect::<Vec<_>>(), [(Ssrc(3), 77)]);
    assert_eq!((remb.bitrate_bps, remb.ssrcs().count()), (2_500_000, 2));
}

#[test]
fn remb_of_any_size() {
    for bitrate in [0, 1, 262_143, 262_144, 1 << 40, u64::MAX] {
        let mut out = Vec::new();
        write_remb(&mut out, Ssrc(1), bitrate, &[]);
        let Rtcp::Remb(remb) = only(&out) else { panic!() };
        assert!(remb.bitrate_bps <= bitrate && remb.bitrate_bps >= bitrate - (bitrate >> 17));
    }
    let huge = [0x8f, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0, 0xff, 0xff, 0xff];
    let Rtcp::Remb(remb) = only(&huge) else { panic!() };
    assert_eq!(remb.bitrate_bps, u64::MAX);
}

#[test]
fn broken_body_does_not_end_the_walk() {
    let mut out = vec![0x81, 201, 0, 1, 0, 0, 0, 1]; // one block promised, none there
    write_pli(&mut out, Ssrc(1), Ssrc(2));
    out.extend([0x80, 210, 0, 0]);
    out.extend([0x80, 201, 0, 9]);
    let results: Vec<_> = parse(&out).collect();
    assert!(results[0].is_err());
    assert!(matches!(results[1], Ok(Rtcp::Pli(_))));
    assert!(matches!(results[2], Ok(Rtcp::Unknown { packet_type: 210, count: 0 })));
    assert!(results[3].is_err() && results.len() == 4);
}

/// Captured by aiortc's and pion's authors from Chromium: run-length, two-bit vector and padding.
#[test]
fn twcc_of_chromium() {
    let packet = [
        0xaf, 0xcd, 0x00, 0x05, 0xfa, 0x17, 0xfa, 0x17, 0x43, 0x03, 0x2f, 0xa0, 0x00, 0x99, 0x00, 0x01, 0x3d, 0xe8,
        0x02, 0x17, 0x20, 0x01, 0x94, 0x01,
    ];
    let Rtcp::TransportCc(fb) = only(&packet) else { panic!() };
    assert_eq!((fb.base_seq, fb.status_count, fb.reference_time, fb.feedback_count), (SeqNo(153), 1, 4_057_090, 23));
    assert_eq!(fb.statuses().collect::<Vec<_>>(), [(SeqNo(153), Some(0x94))]);
    let mut builder = TransportCcBuilder::new(SeqNo(153), fb.reference_ticks() + 0x94, 1200);
    assert_eq!((builder.status_count(), builder.next_seq()), (1, SeqNo(154)));
    let mut out = Vec::new();
    builder.write(&mut out, fb.sender, fb.media, 23);
    assert_eq!(out, packet);
    assert!(!builder.push(SeqNo(152), 0) && !builder.push(SeqNo(153), 0));
}

#[test]
fn twcc_gaps_and_negative_deltas() {
    let arrivals = [(10u16, 1000i64), (11, 1001), (13, 900), (14, 2000), (5000, 2001), (5001, 2002), (5040, 2300)];
    let mut builder = TransportCcBuilder::new(SeqNo(10), 1000, 1200);
    for (seq, ticks) in &arrivals[1..] {
        assert!(builder.push(SeqNo(*seq), *ticks));
    }
    let mut out = Vec::new();
    builder.write(&mut out, Ssrc(1), Ssrc(2), 5);
    assert!(out.len() < 60);
    assert_eq!(arrivals_of(&out), arrivals);
    assert!(!builder.push(SeqNo(5041), 2300 + 40_000));
}

#[test]
fn twcc_reference_time_wraps_to_negative() {
    let ticks = -3 * TICKS_PER_REFERENCE + 7;
    let builder = TransportCcBuilder::new(SeqNo(1), ticks, 1200);
    let mut out = Vec::new();
    builder.write(&mut out, Ssrc(1), Ssrc(2), 0);
    assert_eq!(arrivals_of(&out), [(1, ticks)]);
}

#[test]
fn twcc_packet_length_is_bounded() {
    let mut builder = TransportCcBuilder::new(SeqNo(0), 0, 200);
    let mut n = 1u16;
    while builder.push(SeqNo(n * 3), i64::from(n) * 300) {
        n += 1;
    }
    let mut out = Vec::new();
    builder.write(&mut out, Ssrc(1), Ssrc(2), 0);
    assert!((150..=200).contains(&out.len()), "{}", out.len());
    builder.begin(SeqNo(9), 77);
    assert_eq!(builder.status_count(), 1);
}

fn arrivals_of(packet: &[u8]) -> Vec<(u16, i64)> {
    let Rtcp::TransportCc(fb) = only(packet) else { panic!() };
    assert_eq!(fb.statuses().count(), usize::from(fb.status_count));
    let mut ticks = fb.reference_ticks();
    let mut arrivals = Vec::new();
    for (seq, delta) in fb.statuses() {
        if let Some(delta) = delta {
            ticks += i64::from(delta);
            arrivals.push((seq.0, ticks));
        }
    }
    arrivals
}

proptest! {
    #[test]
    fn twcc_round_trip(start: u16, first in -100_000i64..100_000_000,
                       steps in prop::collection::vec((1u16..40, -300i64..700), 0..300)) {
        let mut builder = TransportCcBuilder::new(SeqNo(start), first, 1200);
        let (mut seq, mut ticks, mut arrivals) = (start, first, vec![(start, first)]);
        for (step, delta) in steps {
            seq = seq.wrapping_add(step);
            ticks += delta;
            if !builder.push(SeqNo(seq), ticks) {
                break;
            }
            arrivals.push((seq, ticks));
        }
        let mut out = Vec::new();
        builder.write(&mut out, Ssrc(1), Ssrc(2), 3);
        prop_assert!(out.len() <= 1200);
        prop_assert_eq!(arrivals_of(&out), arrivals);
    }

    #[test]
    fn nack_round_trip(start: u16, steps in prop::collection::vec(1u16..60, 1..100)) {
        let mut seq = SeqNo(start);
        let lost: Vec<SeqNo> = steps.into_iter().map(|s| { seq = seq + s; seq }).collect();
        let mut out = Vec::new();
        write_nack(&mut out, Ssrc(1), Ssrc(2), lost.clone());
        let Rtcp::Nack(nack) = only(&out) else { panic!() };
        prop_assert_eq!(nack.seqs().collect::<Vec<_>>(), lost);
    }

    #[test]
    fn never_panics(head in prop_oneof![Just([0x8fu8, 205]), Just([0x81, 200]), Just([0x82, 202]), Just([0xaf, 206]), any::<[u8; 2]>()],
                    words in prop::collection::vec(any::<u32>(), 0..30), length: Option<u16>) {
        let mut packet = head.to_vec();
        packet.extend(length.unwrap_or(words.len() as u16).to_be_bytes());
        packet.extend(words.iter().flat_map(|w| w.to_be_bytes()));
        walk(&packet);
    }
}

/// Reads everything that the views lend.
fn walk(compound: &[u8]) {
    for packet in parse(compound).flatten() {
        match packet {
            Rtcp::SenderReport(p) => drop(p.blocks().count()),
            Rtcp::ReceiverReport(p) => drop(p.blocks().count()),
            Rtcp::Sdes(p) => drop(p.cnames().count()),
            Rtcp::Bye(p) => drop(p.ssrcs().count()),
            Rtcp::Nack(p) => drop(p.seqs().count()),
            Rtcp::Fir(p) => drop(p.entries().count()),
            Rtcp::Remb(p) => drop(p.ssrcs().count()),
            Rtcp::TransportCc(p) => drop(p.statuses().count()),
            Rtcp::Extended(p) => drop(p.blocks().count()),
            Rtcp::Pli(_) | Rtcp::Unknown { .. } => {}
        }
    }
}
