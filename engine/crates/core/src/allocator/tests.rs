//! Scenarios and properties of the allocator.

use proptest::prelude::*;

use super::*;
use crate::meter::LayerMeter;

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn layer(height: u16, bps: u64) -> LayerInfo {
    LayerInfo { height, fps: 30, temporals: 1, bps: [bps; MAX_TEMPORAL], is_live: true }
}

fn demand(key: u32, kind: Kind, layers: &[LayerInfo]) -> Demand {
    let mut all = [LayerInfo::default(); MAX_SPATIAL];
    all[..layers.len()].copy_from_slice(layers);
    Demand {
        key,
        kind,
        priority: 0,
        is_speaker: false,
        is_paused: false,
        max_height: None,
        max_fps: None,
        layers: all,
        layer_count: layers.len() as u8,
    }
}

fn audio(key: u32) -> Demand {
    demand(key, Kind::Audio, &[layer(0, 40_000)])
}

fn simulcast(key: u32) -> Demand {
    demand(key, Kind::Video, &[layer(180, 150_000), layer(360, 500_000), layer(720, 1_700_000)])
}

/// Spatial layers; -1: paused.
fn spatials(allocation: &Allocation) -> Vec<i32> {
    let spatial = |target: &Target| match target {
        Target::Paused => -1,
        Target::Layer { spatial, .. } => i32::from(*spatial),
    };
    allocation.targets.iter().map(spatial).collect()
}

fn fresh(estimate_bps: u64, demands: &[Demand]) -> Vec<i32> {
    spatials(Allocator::new().allocate(Instant::now(), estimate_bps, demands))
}

#[test]
fn all_fits_when_there_is_plenty() {
    assert_eq!(fresh(10_000_000, &[audio(0), simulcast(1), simulcast(2)]), [0, 2, 2]);
}

#[test]
fn a_layer_that_has_not_come_yet_is_taken_for_twice_the_one_below() {
    let mut picture = demand(0, Kind::Video, &[layer(90, 90_000), layer(180, 350_000), LayerInfo::default()]);
    picture.max_height = Some(360);
    let mut allocator = Allocator::new();
    let allocation = allocator.allocate(Instant::now(), 3_000_000, &[picture]);
    assert_eq!(spatials(allocation), [2]);
    assert_eq!(allocation.desired_bps, 500_000);
    picture.max_height = Some(180);
    assert_eq!(fresh(3_000_000, &[picture]), [1]);
}

#[test]
fn sound_goes_first_and_pictures_get_their_lowest_layer_before_any_gets_more() {
    let demands = [simulcast(0), simulcast(1), audio(2)];
    assert_eq!(fresh(400_000, &demands), [0, 0, 0]);
    assert_eq!(fresh(850_000, &demands), [1, 0, 0]);
    assert_eq!(fresh(1_300_000, &demands), [1, 1, 0]);
    assert_eq!(fresh(2_600_000, &demands), [2, 1, 0]);
}

#[test]
fn the_less_important_picture_is_paused_first() {
    let mut demands = [simulcast(0), simulcast(1)];
    assert_eq!(fresh(200_000, &demands), [0, -1]);
    demands[1].priority = 1;
    assert_eq!(fresh(200_000, &demands), [-1, 0]);
    demands[1].priority = 0;
    demands[1].is_speaker = true;
    assert_eq!(fresh(200_000, &demands), [-1, 0]);
}

#[test]
fn sound_and_one_picture_are_never_paused_for_want_of_bandwidth() {
    assert_eq!(fresh(30_000, &[audio(0), audio(1), simulcast(2), simulcast(3)]), [0, 0, 0, -1]);
}

#[test]
fn paused_ones_cost_nothing() {
    let mut demands = [simulcast(0), simulcast(1)];
    demands[0].is_paused = true;
    assert_eq!(fresh(2_000_000, &demands), [-1, 2]);
}

#[test]
fn the_picture_asked_for_limits_the_layer() {
    for (height, spatial) in [(100, 0), (180, 0), (240, 0), (300, 1), (360, 1), (500, 1), (600, 2), (2000, 2)] {
        let wanted = Demand { max_height: Some(height), ..simulcast(0) };
        assert_eq!(fresh(10_000_000, &[wanted]), [spatial], "{height}");
    }
}

#[test]
fn unknown_heights_are_guessed_from_the_top() {
    let layers = [layer(0, 0), layer(0, 0), layer(0, 0)];
    let wanted = Demand { max_height: Some(360), ..demand(0, Kind::Video, &layers) };
    assert_eq!(fresh(10_000_000, &[wanted]), [1]);
    let mut allocator = Allocator::new();
    let unlimited = demand(0, Kind::Video, &layers);
    assert_eq!(allocator.allocate(Instant::now(), 10_000_000, &[unlimited]).desired_bps, 1_700_000);
}

#[test]
fn the_frame_rate_asked_for_limits_temporal_layers() {
    let three = LayerInfo { temporals: 3, bps: [60_000, 90_000, 150_000, 150_000], ..layer(360, 0) };
    for (fps, expected) in [(30, 2), (15, 1), (8, 0), (1, 0)] {
        let wanted = Demand { max_fps: Some(fps), ..demand(0, Kind::Video, &[three]) };
        let mut allocator = Allocator::new();
        let targets = &allocator.allocate(Instant::now(), 10_000_000, &[wanted]).targets;
        assert_eq!(targets[0], Target::Layer { spatial: 0, temporal: expected }, "{fps}");
    }
}

#[test]
fn down_at_once_and_up_after_a_while() {
    let start = Instant::now();
    let mut allocator = Allocator::new();
    let demands = [simulcast(0)];
    assert_eq!(spatials(allocator.allocate(start, 3_000_000, &demands)), [2]);
    assert_eq!(spatials(allocator.allocate(start + ms(200), 1_000_000, &demands)), [1]);
    let mut raised_at = None;
    for t in (400..10_000).step_by(200) {
        if spatials(allocator.allocate(start + ms(t), 3_000_000, &demands)) == [2] {
            raised_at = raised_at.or(Some(t));
        }
    }
    assert_eq!(raised_at, Some(1400));
}

#[test]
fn without_margin_it_does_not_go_up() {
    let start = Instant::now();
    let mut allocator = Allocator::new();
    let demands = [simulcast(0)];
    allocator.allocate(start, 1_000_000, &demands);
    for t in (0..20_000).step_by(200) {
        assert_eq!(spatials(allocator.allocate(start + ms(t), 1_750_000, &demands)), [1]);
    }
}

#[test]
fn a_larger_picture_is_given_at_once_when_asked_for() {
    let start = Instant::now();
    let mut allocator = Allocator::new();
    let small = Demand { max_height: Some(180), ..simulcast(0) };
    assert_eq!(spatials(allocator.allocate(start, 5_000_000, &[small])), [0]);
    assert_eq!(spatials(allocator.allocate(start + ms(200), 5_000_000, &[simulcast(0)])), [2]);
}

#[test]
fn failed_raises_make_it_patient() {
    let start = Instant::now();
    let mut allocator = Allocator::new();
    let demands = [simulcast(0)];
    let mut changes = 0;
    let mut last = Vec::new();
    for t in (0..120_000).step_by(200) {
        // Each time the top layer is sent, the path turns out not to take it.
        let estimate = if last == [2] { 1_000_000 } else { 3_000_000 };
        let now = spatials(allocator.allocate(start + ms(t), estimate, &demands));
        changes += u32::from(now != last);
        last = now;
    }
    assert!(changes <= 30, "{changes}");
}

#[test]
fn a_path_that_became_much_wider_is_not_held_back_by_what_failed() {
    let start = Instant::now();
    let mut allocator = Allocator::new();
    let mut at = |t: u64, estimate: u64| spatials(allocator.allocate(start + ms(t), estimate, &[simulcast(0)]))[0];
    // Each raise to the middle layer fails: the wait is at its longest.
    let mut t = 0;
    for _ in 0..6 {
        while at(t, 900_000) < 1 {
            t += 200;
        }
        at(t + 200, 300_000);
        t += 400;
    }
    let waited = (0..).step_by(200).find(|wait| at(t + wait, 900_000) == 1).expect("at last");
    assert!(waited >= 15_000, "{waited} ms");
    at(t + waited + 200, 300_000);
    t += waited + 400;
    let waited = (0..).step_by(200).find(|wait| at(t + wait, 5_000_000) == 2).expect("soon");
    assert!(waited <= 1_200, "{waited} ms");
}

#[test]
fn an_estimate_that_trembles_moves_nothing() {
    let start = Instant::now();
    let mut allocator = Allocator::new();
    let demands = [simulcast(0), simulcast(1), audio(2)];
    let mut seen = Vec::new();
    for t in (0..60_000).step_by(200) {
        let estimate = 2_700_000 + (t % 1000) * 100;
        seen.push(spatials(allocator.allocate(start + ms(t), estimate, &demands)));
    }
    seen.dedup();
    assert!(seen.len() <= 3, "{seen:?}");
}

#[test]
fn a_key_frame_in_the_measurement_moves_nothing() {
    let start = Instant::now();
    let mut allocator = Allocator::new();
    let mut meter = LayerMeter::new();
    for t in (0..10_000).step_by(100) {
        let bps = if (4_000..4_500).contains(&t) { 2_500_000 } else { 300_000 };
        meter.on_packet(start + ms(t), 0, bps / 8 / 10, true);
        if t < 600 || t % 200 > 0 {
            continue;
        }
        let measured = LayerInfo { bps: meter.bps(), ..layer(1080, 0) };
        let demands = [simulcast(0), Demand { priority: 0, ..demand(1, Kind::Video, &[measured]) }];
        assert_eq!(spatials(allocator.allocate(start + ms(t), 1_500_000, &demands)), [1, 0], "{t}");
    }
}

#[test]
fn desired_is_what_all_could_use() {
    let mut allocator = Allocator::new();
    let allocation = allocator.allocate(Instant::now(), 100_000, &[audio(0), simulcast(1), simulcast(2)]);
    assert_eq!(allocation.desired_bps, 3_440_000);
    assert_eq!(allocation.allocated_bps, 190_000);
}

prop_compose! {
    fn any_demand(key: u32)(
        heights in prop::collection::vec((90u16..1200, 0u64..4_000_000, 1u8..=3), 1..=4),
        priority in 0u8..3,
        is_speaker in any::<bool>(),
        is_paused in prop::bool::weighted(0.1),
        max_height in prop::option::of(1u32..2000),
        max_fps in prop::option::of(1u32..60),
    ) -> Demand {
        let layers: Vec<LayerInfo> = heights
            .into_iter()
            .map(|(height, bps, temporals)| LayerInfo { temporals, ..layer(height, bps) })
            .collect();
        Demand { priority, is_speaker, is_paused, max_height, max_fps, ..demand(key, Kind::Video, &layers) }
    }
}

fn any_demands() -> impl Strategy<Value = Vec<Demand>> {
    (1u32..8).prop_flat_map(|count| (0..count).map(any_demand).collect::<Vec<_>>())
}

/// The lowest layer of the most important picture may exceed the estimate.
fn exempt_bps(demands: &[Demand]) -> u64 {
    let one =
        |d: &Demand| Allocator::new().allocate(Instant::now(), 0, &[Demand { is_paused: false, ..*d }]).allocated_bps;
    demands.iter().map(one).max().unwrap_or(0)
}

proptest! {
    #[test]
    fn never_exceeds_the_estimate(
        demands in any_demands(),
        estimates in prop::collection::vec(30_000u64..20_000_000, 1..20),
    ) {
        let start = Instant::now();
        let mut allocator = Allocator::new();
        let exempt = exempt_bps(&demands);
        for (i, estimate) in estimates.into_iter().enumerate() {
            let now = start + ms(i as u64 * 700);
            let allocation = allocator.allocate(now, estimate, &demands);
            prop_assert!(allocation.allocated_bps <= estimate.max(exempt));
            prop_assert!(allocation.allocated_bps <= allocation.desired_bps);
            prop_assert_eq!(allocation.targets.len(), demands.len());
            for (target, demand) in allocation.targets.iter().zip(&demands) {
                prop_assert!(!demand.is_paused || *target == Target::Paused);
            }
        }
    }

    #[test]
    fn higher_priority_never_gets_less(estimate in 30_000u64..8_000_000, priorities in prop::collection::vec(0u8..4, 2..8)) {
        let demands: Vec<Demand> = priorities
            .iter()
            .enumerate()
            .map(|(key, &priority)| Demand { priority, ..simulcast(key as u32) })
            .collect();
        let given = fresh(estimate, &demands);
        for i in 0..demands.len() {
            for j in 0..demands.len() {
                prop_assert!(priorities[i] <= priorities[j] || given[i] >= given[j]);
            }
        }
    }

    #[test]
    fn a_steady_estimate_settles(demands in any_demands(), estimate in 30_000u64..20_000_000) {
        let start = Instant::now();
        let mut allocator = Allocator::new();
        let mut seen: Vec<Vec<Target>> = Vec::new();
        for t in 0..200 {
            seen.push(allocator.allocate(start + ms(t * 200), estimate, &demands).targets.clone());
        }
        let last = seen[199].clone();
        prop_assert!(seen[150..].iter().all(|s| *s == last));
    }
}
