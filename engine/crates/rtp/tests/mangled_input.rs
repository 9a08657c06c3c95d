//! The fuzz targets on the stable compiler: each parser gets seeded random bytes and mutations of good samples.
//!
//! `MANGLED_ROUNDS` and `MANGLED_SEED` make a run longer and different; a failure names the seed and the input.

use std::panic::{AssertUnwindSafe, catch_unwind};

use mrtc_netem::Rng;
use mrtc_rtp::codec::av1::write_leb128;
use mrtc_rtp::flexfec::RepairSum;
use mrtc_rtp::id::{SeqNo, Ssrc};
use mrtc_rtp::rtcp;

#[path = "../../../fuzz/src/parsers.rs"]
mod parsers;

const DEFAULT_ROUNDS: u64 = 4_000;
const DEFAULT_SEED: u64 = 1;

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

fn rtp_sample() -> Vec<u8> {
    let mut p =
        vec![0xb0, 0x80 | 96, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, 0xbe, 0xde, 0, 2, 0x10, 0xaa, 0x31, 1, 2, 0x42, 7, 7];
    p.extend([9; 40]);
    p.extend([0, 2]);
    p
}

fn rtcp_sample() -> Vec<u8> {
    let mut out = Vec::new();
    let block = rtcp::ReportBlock { ssrc: Ssrc(5), ..Default::default() };
    rtcp::write_sender_report(&mut out, &rtcp::SenderInfo::default(), &[block, block]);
    rtcp::write_sdes_cname(&mut out, Ssrc(1), "name");
    rtcp::write_nack(&mut out, Ssrc(1), Ssrc(2), [SeqNo(1), SeqNo(9), SeqNo(400)]);
    rtcp::write_pli(&mut out, Ssrc(1), Ssrc(2));
    rtcp::write_fir(&mut out, Ssrc(1), Ssrc(2), 3);
    rtcp::write_remb(&mut out, Ssrc(1), 1_000_000, &[Ssrc(2)]);
    rtcp::write_bye(&mut out, &[Ssrc(1)]);
    out.extend(twcc_packet());
    out
}

fn twcc_packet() -> Vec<u8> {
    let mut builder = rtcp::TransportCcBuilder::new(SeqNo(65_530), 1000, 1200);
    for (seq, ticks) in [(65_531, 1010), (3, 1500), (4, 1490), (60, 9000), (61, 9001)] {
        builder.push(SeqNo(seq), ticks);
    }
    let mut out = Vec::new();
    builder.write(&mut out, Ssrc(1), Ssrc(2), 1);
    out
}

fn stun_sample() -> Vec<u8> {
    let mut p = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    p.extend([1; 12]);
    p.extend([0, 6, 0, 7]);
    p.extend(b"abc:def\0");
    p
}

fn annex_b_sample() -> Vec<u8> {
    let sps = [0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d, 0x40, 0x28, 0x02, 0xdd, 0x00, 0xf0, 0x88, 0x45, 0x38];
    [&[0, 0, 0, 1][..], &sps, &[0, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 0x88], &[7; 150]].concat()
}

fn obu_sample() -> Vec<u8> {
    let mut out = vec![0x12, 0, 0x0a, 0x0b, 0, 0, 0, 0x04, 0x3c, 0xff, 0xbc, 0xff, 0x98, 0x08, 0x04, 0x32];
    write_leb128(200, &mut out);
    out.extend([5; 200]);
    out
}

fn pieces(payloads: &[&[u8]]) -> Vec<u8> {
    payloads.iter().flat_map(|p| [&[p.len() as u8], *p].concat()).collect()
}

/// L1T2 with two decode targets, a chain and a resolution, then two frames that use it.
fn descriptor_sample() -> Vec<u8> {
    let key = [0x85, 0, 100, 0x80, 0x28, 0x21, 0x35, 0x3e, 0x2a, 0x08, 0x81, 0x2c, 0x09, 0xf8, 0x05, 0x9c];
    pieces(&[&key, &[0xc7, 0, 101], &[0xc6, 0, 102, 0x3c, 0x80]])
}

fn repair_sample() -> Vec<u8> {
    let mut sum = RepairSum::default();
    sum.add(0, &rtp_sample());
    sum.add(17, &rtp_sample()[..50]);
    let mut out = Vec::new();
    sum.write(Ssrc(5), SeqNo(7), &mut out);
    out
}

type Target = (&'static str, fn(&[u8]), Vec<Vec<u8>>);

fn targets() -> Vec<Target> {
    let vp8 = vec![0x90, 0xf0, 0x81, 0x02, 7, 0x65, 0x10, 0, 0, 0x9d, 1, 0x2a, 0x80, 2, 0xe0, 1];
    let vp9 = vec![0xaa, 0x81, 0x23, 0, 9, 0x38, 1, 0x40, 0, 0xb4, 2, 0x80, 1, 0x68, 1, 4, 5, 0x82, 0x49, 0x83, 0x42];
    let stap = [&[0x78, 0, 3, 0x67, 1, 2, 0, 2, 0x68, 1][..]].concat();
    let fragments = pieces(&[&stap, &[0x7c, 0x85, 0x88, 1], &[0x7c, 0x05, 2], &[0x7c, 0x45, 3]]);
    let av1 = pieces(&[&[0x58, 2, 0x08, 0, 9, 9], &[0x90, 9, 9]]);
    let media = [&[1, 0, 0, 0, 9, 0, 0x61][..], &[7; 8], &[30, 3, 1, 2, 3], b"payload"].concat();
    vec![
        ("rtp_header", parsers::rtp_header, vec![rtp_sample()]),
        ("ext", parsers::ext, vec![rtp_sample()[16..].to_vec(), vec![1, 1, 1, 0x85, 3, 2, 1, 2, 7, 4, 1, 2, 3, 4]]),
        ("rtcp", parsers::rtcp, vec![rtcp_sample()]),
        ("twcc", parsers::twcc, vec![twcc_packet()[4..].to_vec()]),
        ("srtp_open", parsers::srtp_open, vec![rtp_sample(), rtcp_sample()]),
        ("vp8", parsers::vp8, vec![vp8.clone()]),
        ("vp9", parsers::vp9, vec![vp9.clone(), vec![0xf8, 3, 0x20, 7, 2, 0xff]]),
        ("h264", parsers::h264, vec![annex_b_sample(), stap, annex_b_sample()[4..19].to_vec(), b"42e01f".to_vec()]),
        ("av1", parsers::av1, vec![obu_sample()[2..].to_vec(), obu_sample()[4..].to_vec()]),
        ("av1_dd", parsers::av1_dd, vec![descriptor_sample()]),
        ("depacketize_h264", parsers::depacketize_h264, vec![fragments, annex_b_sample()]),
        ("depacketize_vp8", parsers::depacketize_vp8, vec![pieces(&[&vp8, &[0x80, 0x80, 5, 1]])]),
        ("depacketize_vp9", parsers::depacketize_vp9, vec![pieces(&[&vp9, &[0x84, 5, 1, 2]])]),
        ("depacketize_av1", parsers::depacketize_av1, vec![av1, obu_sample()]),
        ("relay", parsers::relay, vec![media, vec![2, 0, 0, 0, 1, 0, 1, 2, 3, 4], vec![0xc1; 60]]),
        ("red", parsers::red, vec![vec![111, 0xef, 0x1e, 0, 1, 0xef, 0x0f, 0, 3, 111, 9, 1, 2, 3, 4, 4]]),
        ("flexfec", parsers::flexfec, vec![pieces(&[&repair_sample(), &rtp_sample()])]),
        ("stun_name", parsers::stun_name, vec![stun_sample()]),
    ]
}

/// Random bytes, or a sample that is changed, cut, lengthened, doubled or spliced.
fn mangle(rng: &mut Rng, samples: &[Vec<u8>]) -> Vec<u8> {
    let pick = |rng: &mut Rng| samples[rng.below(samples.len() as u64) as usize].clone();
    if rng.chance(0.15) {
        let mut bytes = vec![0; rng.below(120) as usize];
        rng.fill(&mut bytes);
        return bytes;
    }
    let mut bytes = pick(rng);
    for _ in 0..rng.below(6) {
        let len = bytes.len() as u64;
        let at = rng.below(len) as usize;
        match rng.below(8) {
            _ if bytes.is_empty() => {}
            0..=2 => bytes[at] ^= 1 << rng.below(8),
            3 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.below(5) as usize],
            4 => bytes.truncate(at),
            5 => bytes.insert(at, rng.next_u64() as u8),
            6 => drop(bytes.remove(at)),
            _ => {
                let other = pick(rng);
                let from = rng.below(other.len() as u64) as usize;
                bytes.truncate(at);
                bytes.extend(&other[from..]);
            }
        }
    }
    bytes
}

#[test]
fn no_parser_minds_what_it_is_given() {
    let (rounds, seed) = (setting("MANGLED_ROUNDS", DEFAULT_ROUNDS), setting("MANGLED_SEED", DEFAULT_SEED));
    for (name, target, samples) in targets() {
        let mut rng = Rng::new(seed);
        for sample in &samples {
            target(sample);
        }
        for round in 0..rounds {
            let input = mangle(&mut rng, &samples);
            let outcome = catch_unwind(AssertUnwindSafe(|| target(&input)));
            assert!(outcome.is_ok(), "{name}, seed {seed}, round {round}: {input:02x?}");
        }
    }
}
