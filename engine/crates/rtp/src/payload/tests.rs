//! Access units survive being split and put together; what is broken is refused.

use super::*;
use crate::codec::{PayloadInfo, av1, vp9};
use proptest::prelude::*;

fn split(codec: Codec, unit: &[u8], max: usize) -> Vec<Vec<u8>> {
    let payloads = Packetizer::new(codec, max).packetize(unit).unwrap();
    assert!(payloads.iter().all(|p| p.len() <= max && !p.is_empty()));
    payloads
}

fn join(codec: Codec, payloads: &[Vec<u8>]) -> Result<(Vec<u8>, bool), ParseError> {
    let mut out = Vec::new();
    let is_keyframe = depacketize(codec, payloads.iter().map(Vec::as_slice), &mut out)?;
    Ok((out, is_keyframe))
}

fn annex_b(units: &[Vec<u8>]) -> Vec<u8> {
    units.iter().flat_map(|u| [&[0, 0, 0, 1], &u[..]].concat()).collect()
}

/// A NAL unit without start codes in it and without a trailing zero.
fn nal_unit(header: u8, len: usize) -> Vec<u8> {
    let mut unit = vec![header];
    unit.extend((0..len).map(|i| (i % 251) as u8 | 1));
    unit
}

fn obu(kind: u8, len: usize) -> Vec<u8> {
    let mut unit = vec![kind << 3 | 2];
    av1::write_leb128(len as u64, &mut unit);
    unit.extend((0..len).map(|i| i as u8));
    unit
}

#[test]
fn h264_key_frame_uses_stap_and_fragments() {
    let unit = annex_b(&[nal_unit(0x67, 20), nal_unit(0x68, 4), nal_unit(0x65, 5000), nal_unit(0x06, 9)]);
    let payloads = split(Codec::H264, &unit, 1200);
    assert_eq!(payloads.iter().map(|p| p[0] & 31).collect::<Vec<_>>(), [24, 28, 28, 28, 28, 28, 6]);
    assert!(PayloadInfo::inspect(Codec::H264, &payloads[0], None).is_keyframe);
    assert_eq!(join(Codec::H264, &payloads).unwrap(), (unit, true));
}

#[test]
fn h264_drops_what_rtp_says_already() {
    let unit = annex_b(&[nal_unit(9, 1), nal_unit(0x41, 30)]);
    let payloads = split(Codec::H264, &unit, 1200);
    assert_eq!(join(Codec::H264, &payloads).unwrap(), (annex_b(&[nal_unit(0x41, 30)]), false));
    assert!(Packetizer::new(Codec::H264, 1200).packetize(&annex_b(&[nal_unit(9, 1)])).is_err());
    assert!(Packetizer::new(Codec::H264, 1200).packetize(b"no start code").is_err());
}

#[test]
fn missing_packets_are_noticed() {
    let h264 = split(Codec::H264, &annex_b(&[nal_unit(0x65, 5000)]), 1200);
    let vp8 = split(Codec::Vp8, &[0x10; 3000], 1200);
    let vp9 = split(Codec::Vp9, &[0x86; 3000], 1200);
    let av1 = split(Codec::Av1, &obu(6, 5000), 1200);
    for (codec, payloads) in [(Codec::H264, h264), (Codec::Vp8, vp8), (Codec::Vp9, vp9), (Codec::Av1, av1)] {
        assert!(join(codec, &payloads).is_ok());
        assert!(join(codec, &payloads[1..]).is_err(), "{codec:?}");
        assert!(join(codec, &[]).is_err());
        if codec != Codec::Vp8 {
            // VP8 cannot tell a missing end; sequence numbers and the marker do.
            assert!(join(codec, &payloads[..payloads.len() - 1]).is_err(), "{codec:?}");
        }
    }
}

#[test]
fn vp8_counts_pictures() {
    let mut packetizer = Packetizer::new(Codec::Vp8, 100);
    for n in 0..3u16 {
        let payloads = packetizer.packetize(&[0x10; 250]).unwrap();
        assert_eq!(payloads.len(), 3);
        for (i, payload) in payloads.iter().enumerate() {
            let info = PayloadInfo::inspect(Codec::Vp8, payload, None);
            assert_eq!((info.picture_id, info.is_frame_start, info.is_keyframe), (Some(n), i == 0, i == 0));
        }
    }
}

#[test]
fn vp9_key_frame_tells_its_size() {
    let mut frame = vec![0x82, 0x49, 0x83, 0x42, 0x00, 0x13, 0xf0, 0x0e, 0xf6];
    frame.resize(2000, 7);
    let payloads = split(Codec::Vp9, &frame, 1200);
    let info = PayloadInfo::inspect(Codec::Vp9, &payloads[0], None);
    assert_eq!((info.is_keyframe, info.size, info.is_frame_end), (true, Some((320, 240)), false));
    assert!(PayloadInfo::inspect(Codec::Vp9, payloads.last().unwrap(), None).is_frame_end);
    assert_eq!(join(Codec::Vp9, &payloads).unwrap(), (frame, true));
}

#[test]
fn vp9_layers_become_a_superframe() {
    let layer = |sid: u8, d: u8, body: &[u8]| [&[0xac, 0x80, 5, sid << 1 | d, 1][..], body].concat();
    let payloads = [layer(0, 0, &[0x82, 1, 2]), layer(1, 1, &[0x86, 3])];
    let (unit, is_keyframe) = join(Codec::Vp9, &payloads).unwrap();
    assert!(is_keyframe && vp9::is_keyframe(&unit));
    assert_eq!(unit, [0x82, 1, 2, 0x86, 3, 0xd9, 3, 0, 0, 0, 2, 0, 0, 0, 0xd9]);
}

#[test]
fn av1_temporal_unit() {
    let unit = [vec![0x12, 0], obu(1, 11), obu(6, 4000), obu(5, 3)].concat();
    let payloads = split(Codec::Av1, &unit, 1200);
    assert!(payloads.len() >= 4);
    assert!(PayloadInfo::inspect(Codec::Av1, &payloads[0], None).is_keyframe);
    assert!(!PayloadInfo::inspect(Codec::Av1, &payloads[1], None).is_keyframe);
    assert_eq!(join(Codec::Av1, &payloads).unwrap(), (unit, true));
    assert!(Packetizer::new(Codec::Av1, 1200).packetize(&[0x32, 0x80]).is_err());
    assert!(Packetizer::new(Codec::Av1, 1200).packetize(&[0x12, 0]).is_err());
}

#[test]
fn sound_is_passed_through() {
    let payloads = split(Codec::Opus, &[1, 2, 3], 1200);
    assert_eq!(join(Codec::Opus, &payloads).unwrap(), (vec![1, 2, 3], true));
    assert!(Packetizer::new(Codec::Opus, 1200).packetize(&[]).is_err());
}

proptest! {
    #[test]
    fn h264_round_trip(lens in prop::collection::vec(1usize..4000, 1..8), max in 64usize..1400) {
        let units: Vec<Vec<u8>> = lens.iter().map(|&len| nal_unit(0x41, len)).collect();
        let unit = annex_b(&units);
        prop_assert_eq!(join(Codec::H264, &split(Codec::H264, &unit, max)).unwrap().0, unit);
    }

    #[test]
    fn av1_round_trip(lens in prop::collection::vec(1usize..4000, 1..8), max in 64usize..1400) {
        let unit: Vec<u8> = [vec![0x12, 0], lens.iter().flat_map(|&len| obu(6, len)).collect()].concat();
        prop_assert_eq!(join(Codec::Av1, &split(Codec::Av1, &unit, max)).unwrap().0, unit);
    }

    #[test]
    fn plain_frames_round_trip(frame in prop::collection::vec(any::<u8>(), 1..5000), max in 64usize..1400) {
        for codec in [Codec::Vp8, Codec::Vp9] {
            let (unit, _) = join(codec, &split(codec, &frame, max)).unwrap();
            prop_assert_eq!(unit, frame.clone());
        }
    }

    #[test]
    fn never_panics(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5)) {
        for codec in [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus] {
            let _ = join(codec, &payloads);
            for unit in &payloads {
                let _ = Packetizer::new(codec, 20).packetize(unit);
            }
        }
    }
}
