//! Who speaks in a room, from the audio levels that senders put into RTP (RFC 6464).
//!
//! Levels are smoothed with a fast attack and a slow decay, so that a word is seen at once and a breath between words
//! does not end it. The dominant speaker changes only when somebody is clearly louder, now and over the last second. One
//! [`ActiveSpeakers`] per room; see `docs/algorithms/active-speaker.md`.

use std::hash::Hash;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

/// Tracks of one room whose levels are followed; more are ignored (counted by the caller as it likes).
const MAX_TRACKS: usize = 1024;
/// Speakers that are reported.
pub const MAX_SPEAKERS: usize = 8;
/// Smoothed level (0..=127, 127 loudest) from which a track counts as speaking: -50 dBov, well above room noise (-60)
/// and below quiet speech (-40).
const START_LEVEL: f32 = 77.0;
/// A speaker stays one until it falls below this: 6 dB of hysteresis.
const STOP_LEVEL: f32 = 71.0;
/// Time constants of the smoothing.
const ATTACK: Duration = Duration::from_millis(40);
const DECAY: Duration = Duration::from_millis(500);
/// Time constant of the loudness over a longer time, which a door or a cough does not reach.
const LONG: Duration = Duration::from_secs(1);
/// A challenger must be this much louder (dB) than the dominant speaker, in level and over the longer time ...
const DOMINANT_MARGIN: f32 = 3.0;
/// ... for this long.
const DOMINANT_HOLD: Duration = Duration::from_millis(300);
/// Of those who speak at the same time, one passes another in [`ActiveSpeakers::order`] when it is this much louder (dB)
/// over the longer time.
const ORDER_MARGIN: f32 = 6.0;
/// Between two words one still counts as speaking, so that nobody takes the place meanwhile.
const WORD_GAP: Duration = Duration::from_millis(600);
/// Loudness of a track whose sender tells no levels, while it sends sound: quiet speech (-40 dBov).
const UNTOLD_LEVEL: f32 = 87.0;
/// A track without packets (DTX, loss) is silent after this.
const STALE_AFTER: Duration = Duration::from_millis(400);
/// Levels are ranked this often ...
const RANK_INTERVAL: Duration = Duration::from_millis(100);
/// ... and when somebody begins to speak, but not more often than this.
const ONSET_INTERVAL: Duration = Duration::from_millis(20);
/// Changes are told at most this often.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

#[derive(Clone, Copy, Debug)]
struct Voice<K> {
    key: K,
    level: f32,
    /// Over the longer time, pauses between words left out.
    long: f32,
    heard_at: Instant,
    /// When it was known to speak last.
    spoke_at: Option<Instant>,
    is_speaking: bool,
    is_muted: bool,
    /// Its packets tell levels; restored ones among them do not.
    has_levels: bool,
}

/// The speakers of one room. `K` names a track (an index or an id).
#[derive(Debug)]
pub struct ActiveSpeakers<K> {
    voices: Vec<Voice<K>>,
    /// Where in `voices` a track is.
    places: HashMap<K, usize>,
    dominant: Option<K>,
    challenger: Option<(K, Instant)>,
    ranked: Vec<(K, u8)>,
    reported: Vec<K>,
    /// All tracks, if they are kept in order.
    order: Option<Order<K>>,
    has_onset: bool,
    ranked_at: Option<Instant>,
    reported_at: Option<Instant>,
}

/// Tracks in the order in which they deserve to be heard.
#[derive(Debug)]
struct Order<K> {
    keys: Vec<K>,
    is_changed: bool,
    /// Reused: who speaks, with the loudness over the longer time; then who does not.
    speaking: Vec<(K, f32)>,
    silent: Vec<K>,
}

impl<K: Copy + Eq + Hash> Default for ActiveSpeakers<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Copy + Eq + Hash> ActiveSpeakers<K> {
    /// Silence.
    pub fn new() -> Self {
        Self {
            voices: Vec::new(),
            places: HashMap::new(),
            dominant: None,
            challenger: None,
            ranked: Vec::new(),
            reported: Vec::new(),
            order: None,
            has_onset: false,
            ranked_at: None,
            reported_at: None,
        }
    }

    /// Takes the level of one packet: `dbov` as on the wire, 0 loudest to 127 silent (minus dBov). `is_voice` is the
    /// sender's own voice-activity flag; false takes off 3 dB only, since many senders never set it.
    pub fn on_level(&mut self, key: K, dbov: u8, is_voice: bool, now: Instant) {
        let Some(index) = self.place_of(key, now) else { return };
        let loudness = f32::from(127 - dbov.min(127));
        let voice = &mut self.voices[index];
        voice.has_levels = true;
        voice.take(if is_voice { loudness } else { loudness - 3.0 }.max(0.0), now);
        self.has_onset |= !voice.is_speaking && voice.level >= START_LEVEL;
    }

    /// A packet that tells no level. A track that never tells any is no speaker that is reported, but has its place in the
    /// order while it sends sound.
    pub fn on_sound(&mut self, key: K, is_silence: bool, now: Instant) {
        let Some(index) = self.place_of(key, now) else { return };
        let voice = &mut self.voices[index];
        if !voice.has_levels && !voice.is_muted && !is_silence {
            voice.spoke_at = Some(now);
        }
    }

    /// Keeps all tracks in the order in which they deserve to be heard, from now on or no longer.
    pub fn keep_order(&mut self, is_wanted: bool) {
        if is_wanted == self.order.is_some() {
            return;
        }
        let keys = self.voices.iter().map(|v| v.key).collect();
        let order = || Order { keys, is_changed: true, speaking: Vec::new(), silent: Vec::new() };
        self.order = is_wanted.then(order);
    }

    /// Those who speak first, then those who spoke last. Who has a place near the front keeps it while he speaks, unless
    /// somebody behind him is clearly louder for a time; silence costs a place only when others speak. Empty if not kept.
    pub fn order(&self) -> &[K] {
        self.order.as_ref().map_or(&[], |order| &order.keys)
    }

    /// True if the order changed since the last call.
    pub fn take_order_change(&mut self) -> bool {
        self.order.as_mut().is_some_and(|order| std::mem::take(&mut order.is_changed))
    }

    /// Where the track is in `voices`; a new one gets a place while there is room.
    fn place_of(&mut self, key: K, now: Instant) -> Option<usize> {
        if let Some(&index) = self.places.get(&key) {
            return Some(index);
        }
        if self.voices.len() == MAX_TRACKS {
            return None;
        }
        self.voices.push(Voice {
            key,
            level: 0.0,
            long: 0.0,
            heard_at: now,
            spoke_at: None,
            is_speaking: false,
            is_muted: false,
            has_levels: false,
        });
        self.places.insert(key, self.voices.len() - 1);
        if let Some(order) = &mut self.order {
            order.keys.push(key);
            order.is_changed = true;
        }
        Some(self.voices.len() - 1)
    }

    fn voice(&self, key: K) -> Option<&Voice<K>> {
        self.places.get(&key).map(|&index| &self.voices[index])
    }

    /// A muted track is silent at once, whatever still arrives of it.
    pub fn set_muted(&mut self, key: K, is_muted: bool) {
        if let Some(&index) = self.places.get(&key) {
            let voice = &mut self.voices[index];
            voice.is_muted = is_muted;
            if is_muted {
                (voice.level, voice.long, voice.spoke_at) = (0.0, 0.0, None);
            }
        }
    }

    /// The same sound comes as another track from now on, which has the place of the former one in the order until its own
    /// levels say otherwise.
    pub fn succeed(&mut self, former: K, key: K) {
        if !self.places.contains_key(&former) {
            return;
        }
        self.remove(key);
        if let Some(index) = self.places.remove(&former) {
            self.voices[index].key = key;
            self.places.insert(key, index);
        }
        for key_before in self.order.iter_mut().flat_map(|order| &mut order.keys).chain(&mut self.dominant) {
            if *key_before == former {
                *key_before = key;
            }
        }
    }

    /// The track ended.
    pub fn remove(&mut self, key: K) {
        let Some(index) = self.places.remove(&key) else { return };
        self.voices.swap_remove(index);
        if let Some(moved) = self.voices.get(index) {
            self.places.insert(moved.key, index);
        }
        if let Some(order) = &mut self.order {
            order.keys.retain(|k| *k != key);
            order.is_changed = true;
        }
    }

    /// Ranks if due. `Some` at most twice a second, while somebody speaks and once when nobody does any more: the
    /// dominant speaker first, then the others by loudness; level 0 to 127, 127 loudest.
    pub fn poll(&mut self, now: Instant) -> Option<&[(K, u8)]> {
        let interval = if self.has_onset { ONSET_INTERVAL } else { RANK_INTERVAL };
        if self.ranked_at.is_none_or(|at| now >= at + interval) {
            let elapsed = self.ranked_at.map_or(RANK_INTERVAL, |at| now - at);
            self.ranked_at = Some(now);
            self.rank(now, elapsed);
        }
        let is_silence = self.ranked.is_empty() && self.reported.is_empty();
        if is_silence || self.reported_at.is_some_and(|at| now < at + REPORT_INTERVAL) {
            return None;
        }
        self.reported_at = Some(now);
        self.reported.clear();
        self.reported.extend(self.ranked.iter().map(|(k, _)| *k));
        Some(&self.ranked)
    }

    /// When to poll next; `None` while no track is followed.
    pub fn next_timeout(&self) -> Option<Instant> {
        let at = self.ranked_at? + if self.has_onset { ONSET_INTERVAL } else { RANK_INTERVAL };
        (!self.voices.is_empty() || !self.reported.is_empty()).then_some(at)
    }

    /// Who holds the floor: stays with the last speaker in silence.
    pub fn dominant(&self) -> Option<K> {
        self.dominant
    }

    /// True if the track was among the speakers when they were ranked last.
    pub fn is_speaker(&self, key: K) -> bool {
        self.ranked.iter().any(|(k, _)| *k == key)
    }

    fn rank(&mut self, now: Instant, elapsed: Duration) {
        self.has_onset = false;
        for voice in &mut self.voices {
            voice.age(now, elapsed);
        }
        self.choose_dominant(now);
        self.sort_order(now);
        self.ranked.clear();
        let speaking = self.voices.iter().filter(|v| v.is_speaking);
        self.ranked.extend(speaking.map(|v| (v.key, v.level.round() as u8)));
        let dominant = self.dominant;
        self.ranked.sort_by_key(|(k, level)| (Some(*k) != dominant, 127 - level));
        self.ranked.truncate(MAX_SPEAKERS);
        self.keep_order_of_near_equals();
    }

    fn sort_order(&mut self, now: Instant) {
        let Some(order) = &mut self.order else { return };
        order.speaking.clear();
        order.silent.clear();
        for key in &order.keys {
            let Some(voice) = self.places.get(key).map(|&index| &self.voices[index]) else { continue };
            match voice.is_between_words(now) {
                true => order.speaking.push((*key, voice.long)),
                false => order.silent.push(*key),
            }
        }
        // From the back, so that one who is by far the loudest gets to the front at once.
        for at in (1..order.speaking.len()).rev() {
            if order.speaking[at].1 > order.speaking[at - 1].1 + ORDER_MARGIN {
                order.speaking.swap(at, at - 1);
            }
        }
        let sorted = order.speaking.iter().map(|(key, _)| key).chain(&order.silent);
        if !sorted.clone().eq(&order.keys) {
            let sorted: Vec<K> = sorted.copied().collect();
            order.keys = sorted;
            order.is_changed = true;
        }
    }

    /// Two speakers that swap by less than the margin keep the reported order: a list that trembles helps nobody.
    fn keep_order_of_near_equals(&mut self) {
        let is_same_set = self.ranked.len() == self.reported.len()
            && self.reported.iter().all(|k| self.ranked.iter().any(|(r, _)| r == k));
        if !is_same_set || self.ranked.first().map(|(k, _)| *k) != self.reported.first().copied() {
            return;
        }
        let level_of = |key: &K| self.ranked.iter().find(|(k, _)| k == key).map_or(0, |(_, level)| *level);
        let old_order: Vec<(K, u8)> = self.reported.iter().map(|k| (*k, level_of(k))).collect();
        let is_near = old_order.get(1..).is_some_and(|rest| {
            rest.windows(2).all(|pair| f32::from(pair[1].1) <= f32::from(pair[0].1) + DOMINANT_MARGIN)
        });
        if is_near {
            self.ranked = old_order;
        }
    }

    fn choose_dominant(&mut self, now: Instant) {
        let loudest = self.voices.iter().filter(|v| v.is_speaking);
        let Some(loudest) = loudest.max_by(|a, b| a.level.total_cmp(&b.level)).copied() else {
            self.challenger = None;
            self.dominant = self.dominant.filter(|d| self.places.contains_key(d));
            return;
        };
        let current = self.dominant.and_then(|d| self.voice(d));
        let Some(current) = current.filter(|v| v.is_speaking) else {
            self.dominant = Some(loudest.key);
            self.challenger = None;
            return;
        };
        let is_louder = |ours: f32, theirs: f32| ours >= theirs + DOMINANT_MARGIN;
        if !is_louder(loudest.level, current.level) || !is_louder(loudest.long, current.long) {
            self.challenger = None;
            return;
        }
        match self.challenger {
            Some((key, since)) if key == loudest.key => {
                if now >= since + DOMINANT_HOLD {
                    self.dominant = Some(key);
                    self.challenger = None;
                }
            }
            _ => self.challenger = Some((loudest.key, now)),
        }
    }
}

impl<K> Voice<K> {
    fn take(&mut self, loudness: f32, now: Instant) {
        if self.is_muted {
            return;
        }
        // A first packet stands for the usual 20 ms.
        let elapsed = now.saturating_duration_since(self.heard_at).max(Duration::from_millis(20));
        self.heard_at = now;
        self.approach(loudness, elapsed);
    }

    fn approach(&mut self, loudness: f32, elapsed: Duration) {
        let constant = if loudness > self.level { ATTACK } else { DECAY };
        let weight = 1.0 - (-elapsed.as_secs_f32() / constant.as_secs_f32()).exp();
        self.level += weight * (loudness - self.level);
    }

    fn age(&mut self, now: Instant, elapsed: Duration) {
        if now.saturating_duration_since(self.heard_at) >= STALE_AFTER {
            self.approach(0.0, elapsed);
        }
        let threshold = if self.is_speaking { STOP_LEVEL } else { START_LEVEL };
        self.is_speaking = !self.is_muted && self.level >= threshold;
        if self.is_speaking {
            self.spoke_at = Some(now);
        }
        if self.has_levels && !self.is_speaking && self.is_between_words(now) {
            // A breath does not make a voice less loud.
            return;
        }
        let level = if !self.has_levels && self.is_between_words(now) { UNTOLD_LEVEL } else { self.level };
        self.long += (1.0 - (-elapsed.as_secs_f32() / LONG.as_secs_f32()).exp()) * (level - self.long);
    }

    /// It speaks, or did a moment ago.
    fn is_between_words(&self, now: Instant) -> bool {
        self.spoke_at.is_some_and(|at| now < at + WORD_GAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A room in virtual time: each track sends a level each 20 ms.
    struct Room {
        start: Instant,
        now_ms: u64,
        speakers: ActiveSpeakers<u32>,
        reports: Vec<(u64, Vec<u32>)>,
    }

    impl Room {
        fn new() -> Self {
            Self { start: Instant::now(), now_ms: 0, speakers: ActiveSpeakers::new(), reports: Vec::new() }
        }

        /// `levels`: track and level in -dBov, 0 loudest.
        fn run(&mut self, for_ms: u64, levels: &[(u32, u8)]) -> &mut Self {
            for _ in 0..for_ms / 20 {
                self.now_ms += 20;
                let now = self.start + Duration::from_millis(self.now_ms);
                for &(key, dbov) in levels {
                    self.speakers.on_level(key, dbov, true, now);
                }
                if let Some(ranked) = self.speakers.poll(now) {
                    let keys: Vec<u32> = ranked.iter().map(|(k, _)| *k).collect();
                    if self.reports.last().map_or(&[][..], |(_, last)| last) != keys {
                        self.reports.push((self.now_ms, keys));
                    }
                }
            }
            self
        }

        fn last(&self) -> &[u32] {
            self.reports.last().map_or(&[], |(_, keys)| keys)
        }
    }

    #[test]
    fn a_speaker_is_seen_within_a_quarter_of_a_second_and_noise_is_not() {
        let mut room = Room::new();
        room.run(2000, &[(1, 70), (2, 127)]);
        assert!(room.reports.is_empty());
        room.run(1000, &[(1, 70), (2, 30)]);
        assert_eq!(room.last(), [2]);
        assert!(room.reports[0].0 <= 2250, "{:?}", room.reports);
    }

    #[test]
    fn silence_ends_it_but_a_breath_does_not() {
        let mut room = Room::new();
        room.run(1000, &[(1, 30)]).run(150, &[(1, 110)]).run(500, &[(1, 30)]);
        assert_eq!(room.reports.len(), 1);
        room.run(3000, &[(1, 127)]);
        assert!(room.last().is_empty());
        assert_eq!(room.speakers.dominant(), Some(1));
    }

    #[test]
    fn a_track_that_sends_nothing_falls_silent() {
        let mut room = Room::new();
        room.run(1000, &[(1, 30)]).run(3000, &[]);
        assert!(room.last().is_empty());
    }

    #[test]
    fn the_dominant_speaker_changes_only_for_somebody_clearly_louder() {
        let mut room = Room::new();
        room.run(1000, &[(1, 35)]).run(3000, &[(1, 35), (2, 33)]);
        assert_eq!(room.last(), [1, 2]);
        room.run(200, &[(1, 45), (2, 20)]);
        assert_eq!(room.speakers.dominant(), Some(1));
        room.run(1000, &[(1, 45), (2, 20)]);
        assert_eq!(room.last(), [2, 1]);
    }

    #[test]
    fn a_cough_does_not_take_the_floor() {
        let mut room = Room::new();
        room.run(2000, &[(1, 30), (2, 100)]);
        room.run(120, &[(1, 30), (2, 5)]).run(2000, &[(1, 30), (2, 100)]);
        assert_eq!(room.speakers.dominant(), Some(1));
    }

    #[test]
    fn a_slammed_door_does_not_take_the_floor_either() {
        let mut room = Room::new();
        room.run(5000, &[(1, 30), (2, 100)]);
        room.run(400, &[(1, 30), (2, 3)]).run(2000, &[(1, 30), (2, 100)]);
        assert_eq!(room.speakers.dominant(), Some(1));
        assert!(room.reports.iter().all(|(_, keys)| keys.first() == Some(&1)), "{:?}", room.reports);
    }

    #[test]
    fn while_somebody_speaks_it_is_told_again_and_again() {
        let mut speakers = ActiveSpeakers::new();
        let start = Instant::now();
        let mut told = 0;
        for step in 0..500u64 {
            let now = start + Duration::from_millis(20 * step);
            speakers.on_level(1, 30, true, now);
            told += u32::from(speakers.poll(now).is_some());
        }
        assert!((18..=21).contains(&told), "{told}");
    }

    /// Five people of whom the first `n` places of the order are heard.
    fn staged() -> Room {
        let mut room = Room::new();
        room.speakers.keep_order(true);
        room.run(200, &[(1, 110), (2, 110), (3, 110), (4, 110), (5, 110)]);
        assert_eq!(room.speakers.order(), [1, 2, 3, 4, 5]);
        room
    }

    #[test]
    fn who_begins_to_speak_is_heard_within_three_packets() {
        let mut room = staged();
        room.run(60, &[(1, 110), (2, 110), (3, 110), (4, 110), (5, 30)]);
        assert_eq!(room.speakers.order()[0], 5);
        assert!(room.speakers.take_order_change());
    }

    #[test]
    fn silence_alone_costs_no_place_and_the_last_speakers_are_next() {
        let mut room = staged();
        room.run(1000, &[(4, 30)]).run(1000, &[(5, 30)]).run(5000, &[(1, 110)]);
        assert_eq!(room.speakers.order(), [5, 4, 1, 2, 3]);
    }

    #[test]
    fn a_speaker_keeps_the_place_between_words() {
        let mut room = staged();
        room.run(2000, &[(1, 30), (2, 30)]);
        // 1 breathes while 3 speaks: 3 stands behind both.
        room.run(600, &[(1, 127), (2, 30), (3, 30)]);
        assert_eq!(room.speakers.order()[..3], [1, 2, 3]);
        // 1 says nothing more.
        room.run(1500, &[(1, 127), (2, 30), (3, 30)]);
        assert_eq!(room.speakers.order()[..3], [2, 3, 1]);
    }

    #[test]
    fn of_many_who_speak_only_a_clearly_louder_one_passes_and_not_at_once() {
        let mut room = staged();
        room.run(3000, &[(1, 40), (2, 40)]);
        room.run(5000, &[(1, 40), (2, 40), (3, 36)]);
        assert_eq!(room.speakers.order()[..3], [1, 2, 3]);
        room.run(200, &[(1, 40), (2, 40), (3, 20)]);
        assert_eq!(room.speakers.order()[..3], [1, 2, 3]);
        room.run(3000, &[(1, 40), (2, 40), (3, 20)]);
        assert_eq!(room.speakers.order()[..3], [3, 1, 2]);
    }

    #[test]
    fn a_track_that_tells_no_levels_has_its_place_while_it_sends_sound() {
        let mut room = staged();
        for step in 0..100 {
            let now = room.start + Duration::from_millis(room.now_ms + step * 20);
            room.speakers.on_sound(9, step >= 50, now);
            room.speakers.poll(now);
            if step == 40 {
                assert_eq!(room.speakers.order()[0], 9);
            }
        }
        assert!(room.reports.is_empty());
        room.now_ms += 2_000;
        room.run(3000, &[(2, 30)]);
        assert_eq!(room.speakers.order()[..2], [2, 9]);
    }

    #[test]
    fn muting_and_leaving_cost_the_place() {
        let mut room = staged();
        room.run(1000, &[(3, 30), (4, 30)]);
        room.speakers.set_muted(3, true);
        room.run(200, &[(4, 30)]);
        assert_eq!(room.speakers.order()[0], 4);
        room.speakers.remove(4);
        assert_eq!(room.speakers.order(), [3, 1, 2, 5]);
    }

    #[test]
    fn changes_are_told_at_most_twice_a_second() {
        let mut room = Room::new();
        for i in 0..40u32 {
            room.run(250, &[(i % 3, 20), ((i + 1) % 3, 120), ((i + 2) % 3, 120)]);
        }
        assert!(room.reports.len() > 3);
        assert!(room.reports.windows(2).all(|w| w[1].0 - w[0].0 >= 500), "{:?}", room.reports);
    }

    #[test]
    fn near_equals_do_not_swap_places() {
        let mut room = Room::new();
        room.run(1000, &[(1, 20)]);
        for i in 0..40u8 {
            room.run(300, &[(1, 20), (2, 30 + i % 2), (3, 31 - i % 2)]);
        }
        let mut orders: Vec<_> = room.reports.iter().map(|(_, keys)| keys.clone()).collect();
        orders.dedup();
        assert!(orders.len() <= 2, "{orders:?}");
    }

    #[test]
    fn muting_and_leaving_are_immediate() {
        let mut room = Room::new();
        room.run(1000, &[(1, 20), (2, 40)]);
        assert_eq!(room.last(), [1, 2]);
        room.speakers.set_muted(1, true);
        room.run(600, &[(1, 20), (2, 40)]);
        assert_eq!(room.last(), [2]);
        room.speakers.remove(2);
        room.run(600, &[(1, 20)]);
        assert!(room.last().is_empty());
        assert_eq!(room.speakers.dominant(), None);
    }

    #[test]
    fn the_list_and_the_memory_are_bounded() {
        let mut room = Room::new();
        let crowd: Vec<(u32, u8)> = (0..2000).map(|k| (k, 20)).collect();
        room.run(600, &crowd);
        assert_eq!(room.last().len(), MAX_SPEAKERS);
        assert_eq!(room.speakers.voices.len(), MAX_TRACKS);
    }
}
