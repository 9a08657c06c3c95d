//! Bounds what a client's tracks bring in: what stays over a cap is not forwarded.
//!
//! A client is told its cap (`b=TIAS` in the answer, REMB once a second) and keeps to it by itself; libwebrtc does within a
//! second. This is for those who do not. A bucket is filled at the cap's rate and emptied by what comes; layers go one
//! after the other, the highest first and sound last, and come back at a key frame when the bucket is full again.

use std::time::{Duration, Instant};

use crate::command::Kind;
use crate::keys::TrackKey;

/// A client that was just told has so long to follow.
const GRACE: Duration = Duration::from_secs(5);
/// A bucket holds what flows in this time: key frames and a scene that changes are bursts, no excess.
const DEPTH_S: f64 = 3.0;
/// What a cap is exceeded by before anything is taken away: encoders miss their target by so much.
const TOLERANCE: f64 = 1.2;
/// A bucket counts as full from this share on: the lower layers go on taking of it.
const FULL: f64 = 0.9;
/// Of a bucket that is below this share all video has gone; the rest is sound's.
const SOUND_SHARE: f64 = 0.2;
/// A layer that was taken away stays away for so long: one that comes and goes is worse than none.
const HOLD: Duration = Duration::from_secs(5);
/// What REMB grants sound beside capped video: Opus at its best for speech, with redundancy.
const SOUND_BPS: u64 = 64_000;

/// A track as its caps see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CappedTrack {
    pub(crate) track: TrackKey,
    pub(crate) kind: Kind,
    /// The smallest cap that is set for it.
    pub(crate) max_bps: Option<u64>,
}

/// A packet that asks to come in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    pub(crate) track: TrackKey,
    pub(crate) layer: u8,
    /// Layers of the track.
    pub(crate) layers: u8,
    pub(crate) bytes: usize,
    /// It begins a key frame, or is sound.
    pub(crate) is_entry: bool,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It comes in.
    Passed,
    /// It comes in, as the first of its layer since that was taken away.
    Resumed,
    /// There is room for its layer again, from its next key frame on.
    AwaitsKeyframe,
    /// It is over the cap.
    Refused,
}

/// The caps of what one client sends.
#[derive(Debug)]
pub(crate) struct IngressCaps {
    total: Option<Bucket>,
    tracks: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    about: CappedTrack,
    bucket: Option<Bucket>,
    /// A bit for each layer that was taken away.
    shed: u8,
    shed_at: Option<Instant>,
}

impl IngressCaps {
    /// Of these tracks and of all together; `None` if nothing of it has a cap. Buckets of caps that stay are kept.
    pub(crate) fn settle(
        previous: Option<Box<Self>>,
        now: Instant,
        total_bps: Option<u64>,
        tracks: impl Iterator<Item = CappedTrack>,
    ) -> Option<Box<Self>> {
        let (mut old_total, mut old_tracks) = previous.map_or((None, Vec::new()), |p| (p.total, p.tracks));
        let mut has_cap = total_bps.is_some();
        let tracks = tracks
            .map(|about| {
                has_cap |= about.max_bps.is_some();
                let known = old_tracks.iter().position(|e| e.about.track == about.track);
                let old = known.map(|at| old_tracks.swap_remove(at));
                let (shed, shed_at) = old.as_ref().map_or((0, None), |e| (e.shed, e.shed_at));
                let bucket = Bucket::settle(old.and_then(|e| e.bucket), now, about.max_bps);
                Entry { about, bucket, shed, shed_at }
            })
            .collect();
        let total = Bucket::settle(old_total.take(), now, total_bps);
        has_cap.then(|| Box::new(Self { total, tracks }))
    }

    /// Whether a packet of media comes in.
    pub(crate) fn admit(&mut self, now: Instant, asking: &Asking) -> Admission {
        let Some(entry) = self.tracks.iter_mut().find(|e| e.about.track == asking.track) else {
            return Admission::Passed;
        };
        let floor = floor(entry.about.kind, asking.layer, asking.layers);
        let mut buckets = [self.total.as_mut(), entry.bucket.as_mut()];
        let fill = buckets.iter_mut().flatten().map(|b| b.fill(now)).fold(1.0, f64::min);
        let bit = 1 << asking.layer;
        let was_shed = entry.shed & bit != 0;
        if was_shed {
            let is_below_shed = entry.shed & (bit - 1) != 0;
            let is_held = entry.shed_at.is_some_and(|at| now < at + HOLD);
            if fill < FULL || is_below_shed || is_held {
                return Admission::Refused;
            }
            if !asking.is_entry {
                return Admission::AwaitsKeyframe;
            }
            entry.shed &= !bit;
        } else if fill < floor {
            entry.shed |= bit;
            entry.shed_at = Some(now);
            return Admission::Refused;
        }
        buckets.into_iter().flatten().for_each(|b| b.take(asking.bytes));
        if was_shed { Admission::Resumed } else { Admission::Passed }
    }

    /// What the client is told that it may send in all, in bit/s.
    pub(crate) fn told_bps(&self) -> Option<u64> {
        let of_track = |e: &Entry| match e.about.kind {
            Kind::Audio => Some(e.about.max_bps.map_or(SOUND_BPS, |bps| bps.min(SOUND_BPS))),
            Kind::Video => e.about.max_bps,
        };
        let has_video = self.tracks.iter().any(|e| e.about.kind == Kind::Video);
        let sum = has_video.then(|| self.tracks.iter().map(of_track).sum::<Option<u64>>()).flatten();
        smaller(self.total.as_ref().map(|b| b.bps), sum)
    }
}

/// The smaller of two caps; one that is not set does not count.
pub(crate) fn smaller(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    [a, b].into_iter().flatten().min()
}

/// The fill below which a layer is taken away: the higher, the sooner.
fn floor(kind: Kind, layer: u8, layers: u8) -> f64 {
    match kind {
        Kind::Audio => 0.0,
        Kind::Video => SOUND_SHARE * (1.0 + f64::from(layer) / f64::from(layers.max(1))),
    }
}

#[derive(Debug)]
struct Bucket {
    bps: u64,
    /// Bits that it holds; below zero by at most a packet.
    bits: f64,
    filled_at: Instant,
    enforced_from: Instant,
}

impl Bucket {
    fn settle(old: Option<Self>, now: Instant, bps: Option<u64>) -> Option<Self> {
        let bps = bps?;
        let fresh = || Self { bps, bits: capacity(bps), filled_at: now, enforced_from: now + GRACE };
        Some(old.filter(|b| b.bps == bps).unwrap_or_else(fresh))
    }

    /// How full it is, 0 to 1; a little less than 0 is possible.
    fn fill(&mut self, now: Instant) -> f64 {
        let capacity = capacity(self.bps);
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        self.bits = match now < self.enforced_from {
            true => capacity,
            false => (self.bits + self.bps as f64 * TOLERANCE * elapsed).min(capacity),
        };
        self.bits / capacity
    }

    fn take(&mut self, bytes: usize) {
        self.bits -= bytes as f64 * 8.0;
    }
}

fn capacity(bps: u64) -> f64 {
    // Not zero: a cap of nothing lets nothing in.
    bps as f64 * TOLERANCE * DEPTH_S + 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: usize = 1_000;

    fn key(n: usize) -> TrackKey {
        TrackKey::from(n)
    }

    fn track(n: usize, kind: Kind, max_bps: Option<u64>) -> CappedTrack {
        CappedTrack { track: key(n), kind, max_bps }
    }

    fn caps(now: Instant, total: Option<u64>, tracks: &[CappedTrack]) -> Box<IngressCaps> {
        IngressCaps::settle(None, now, total, tracks.iter().copied()).expect("a cap")
    }

    /// A stream of packets of equal spacing; what of it came in, in bit/s, from second to second.
    struct Stream {
        track: usize,
        layer: u8,
        layers: u8,
        bps: u64,
        passed: Vec<u64>,
        asked_for_keyframe: bool,
    }

    impl Stream {
        fn new(track: usize, layer: u8, layers: u8, bps: u64) -> Self {
            Self { track, layer, layers, bps, passed: vec![], asked_for_keyframe: false }
        }
    }

    fn run(caps: &mut IngressCaps, start: Instant, seconds: u64, streams: &mut [Stream]) {
        for ms in 0..seconds * 1000 {
            for stream in streams.iter_mut() {
                let packets = |ms: u64| stream.bps * ms / 1000 / (PACKET as u64 * 8);
                if ms % 1000 == 0 {
                    stream.passed.push(0);
                }
                for _ in packets(ms)..packets(ms + 1) {
                    let asking = Asking {
                        track: key(stream.track),
                        layer: stream.layer,
                        layers: stream.layers,
                        bytes: PACKET,
                        is_entry: std::mem::take(&mut stream.asked_for_keyframe),
                    };
                    match caps.admit(start + Duration::from_millis(ms), &asking) {
                        Admission::Passed | Admission::Resumed => {
                            *stream.passed.last_mut().unwrap() += PACKET as u64 * 8
                        }
                        Admission::AwaitsKeyframe => stream.asked_for_keyframe = true,
                        Admission::Refused => {}
                    }
                }
            }
        }
    }

    fn mean(passed: &[u64]) -> u64 {
        passed.iter().sum::<u64>() / passed.len() as u64
    }

    #[test]
    fn who_keeps_to_the_cap_is_never_touched() {
        let start = Instant::now();
        let mut caps = caps(start, Some(1_000_000), &[track(0, Kind::Video, None)]);
        let mut streams = [Stream::new(0, 0, 1, 1_100_000)];
        run(&mut caps, start, 60, &mut streams);
        assert!(mean(&streams[0].passed) >= 1_090_000);
    }

    #[test]
    fn a_flood_is_bounded_after_a_grace() {
        let start = Instant::now();
        for (total, own) in [(Some(500_000), None), (None, Some(500_000)), (Some(9_000_000), Some(500_000))] {
            let mut caps = caps(start, total, &[track(0, Kind::Video, own)]);
            let mut streams = [Stream::new(0, 0, 1, 5_000_000)];
            run(&mut caps, start, 65, &mut streams);
            assert!(mean(&streams[0].passed[..5]) > 4_500_000, "{:?}", &streams[0].passed[..5]);
            assert!(mean(&streams[0].passed[5..]) < 600_000, "{:?}", &streams[0].passed[5..]);
            assert!(mean(&streams[0].passed[5..]) > 100_000, "it comes back");
        }
    }

    #[test]
    fn the_highest_layer_goes_first_and_sound_stays() {
        let start = Instant::now();
        let tracks = [track(0, Kind::Audio, None), track(1, Kind::Video, None)];
        let mut caps = caps(start, Some(1_000_000), &tracks);
        let mut streams = [
            Stream::new(0, 0, 1, 40_000),
            Stream::new(1, 0, 3, 150_000),
            Stream::new(1, 1, 3, 500_000),
            Stream::new(1, 2, 3, 2_500_000),
        ];
        run(&mut caps, start, 60, &mut streams);
        let means = streams.map(|s| mean(&s.passed[6..]));
        assert!(means[0] >= 39_000 && means[1] >= 145_000 && means[2] >= 490_000, "{means:?}");
        assert!(means[3] < 700_000, "{means:?}");
    }

    #[test]
    fn a_cap_that_stays_is_not_begun_anew_by_another_track() {
        let start = Instant::now();
        let late = start + Duration::from_secs(20);
        let first = track(0, Kind::Video, Some(100_000));
        let mut caps = caps(start, None, &[first]);
        let mut streams = [Stream::new(0, 0, 1, 3_000_000)];
        run(&mut caps, start, 20, &mut streams);
        let both = [first, track(1, Kind::Audio, None)];
        let mut caps = IngressCaps::settle(Some(caps), late, None, both.into_iter()).expect("a cap");
        let asking = Asking { track: key(0), layer: 0, layers: 1, bytes: PACKET, is_entry: true };
        assert_eq!(caps.admit(late, &asking), Admission::Refused);
        assert!(IngressCaps::settle(Some(caps), late, None, [track(0, Kind::Video, None)].into_iter()).is_none());
    }

    #[test]
    fn the_client_is_told_the_smaller_of_all_and_of_the_sum() {
        let now = Instant::now();
        let (audio, video) = (track(0, Kind::Audio, None), |n, bps| track(n, Kind::Video, bps));
        let told = |total, tracks: &[CappedTrack]| caps(now, total, tracks).told_bps();
        assert_eq!(told(Some(2_000_000), &[audio, video(1, None)]), Some(2_000_000));
        assert_eq!(told(Some(2_000_000), &[audio, video(1, Some(500_000))]), Some(564_000));
        assert_eq!(told(None, &[audio, video(1, Some(500_000)), video(2, Some(300_000))]), Some(864_000));
        assert_eq!(told(None, &[audio, video(1, Some(500_000)), video(2, None)]), None);
        assert_eq!(told(None, &[track(0, Kind::Audio, Some(20_000))]), None);
    }
}
