//! What loss says about the rate.
//!
//! [`LossModel`] tells loss by a full path from loss that is there at any rate (radio), so that a usable call remains
//! at heavy random loss: libwebrtc's `LossBasedBweV2` in its essentials. [`ReportedLoss`] is the old rule (below 2 %
//! up, above 10 % down) for clients that send nothing but receiver reports.

use super::sent_packets::FeedbackSums;

/// An observation lasts at least this.
const OBSERVATION_US: i64 = 250_000;
const OBSERVATIONS: usize = 20;
/// Weight of an observation, per step into the past.
const AGING: f64 = 0.9;
const CANDIDATE_FACTORS: [f64; 3] = [1.02, 1.0, 0.95];
/// Of two rates that explain the loss as well, the higher one: weight of the rate and of its logarithm (kbit/s).
const HIGH_RATE_BIAS: f64 = 0.0002;
const HIGH_RATE_LOG_BIAS: f64 = 0.02;
const MIN_INHERENT: f64 = 1e-3;
/// Loss that is believed to be inherent: this much at any rate, and `balance / rate` more, since at low rates a full
/// path is unlikely. The balance is twice libwebrtc's: at 40 % of random loss it leaves 570 kbit/s (800 where the loss is known to be inherent), which is sound and a
/// small picture with their retransmissions.
const INHERENT_OFFSET: f64 = 0.05;
const BALANCE_BPS: f64 = 200e3;
/// Average loss may exceed the fitted inherent loss by this much before it counts as caused by the rate.
const INHERENT_SLACK: f64 = 1.15;
/// The bias to high rates never quite ends, else noise alone drives the rate down.
const MIN_BIAS_FACTOR: f64 = 0.5;
/// Newton's method starts at the average loss; three steps come close enough from there.
const NEWTON_STEPS: usize = 3;
/// What arrived lately proves that less than this share of it fits: loss at such rates, with an empty queue, is inherent.
const PROVEN_SHARE: f64 = 0.9;
/// The proof fades by this share with each observation.
const PROOF_FADING: f64 = 0.02;
/// Weight of an observation for the inherent loss that was seen so, upwards and downwards.
const SEEN_UP: f64 = 0.125;
const SEEN_DOWN: f64 = 0.25;
/// More of it than this is not trusted to lift the ceiling: where much is lost, pictures of few packets live longer, and
/// what they need again needs room.
const MAX_TRUSTED_INHERENT: f64 = 0.1;
/// Growth after a decrease: at most this factor per second.
const MAX_GROWTH_PER_S: f64 = 1.3;

/// Packets of one observation.
#[derive(Clone, Copy, Debug, Default)]
struct Observation {
    packets: f64,
    lost: f64,
    rate_bps: f64,
}

/// What may explain the loss.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    bps: f64,
    inherent: f64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct LossModel {
    observations: [Observation; OBSERVATIONS],
    count: usize,
    partial: FeedbackSums,
    partial_from_us: Option<i64>,
    best: Option<Candidate>,
    is_limiting: bool,
    growth_window: (i64, f64),
    /// Rate that arrived lately.
    proven_bps: f64,
    /// Loss at rates that were proven to fit.
    seen_inherent: f64,
}

impl LossModel {
    pub fn new() -> Self {
        Self {
            observations: [Observation::default(); OBSERVATIONS],
            count: 0,
            partial: FeedbackSums::default(),
            partial_from_us: None,
            best: None,
            is_limiting: false,
            growth_window: (0, f64::MAX),
            proven_bps: 0.0,
            seen_inherent: 0.0,
        }
    }

    /// True while loss, not delay, keeps the rate down.
    pub fn is_limiting(&self) -> bool {
        self.is_limiting
    }

    /// Share lost of late at rates that fit the path.
    pub fn seen_inherent(&self) -> f64 {
        self.seen_inherent
    }

    /// The rate as far as loss is concerned; `None` while it has no objection.
    pub fn limit_bps(&self) -> Option<f64> {
        self.best.filter(|_| self.is_limiting).map(|best| best.bps)
    }

    /// The path took this much in a probe, whatever was believed before.
    pub fn set_probed(&mut self, bps: f64) {
        if let Some(best) = &mut self.best {
            best.bps = best.bps.max(bps);
        }
    }

    /// Takes the sums of a feedback. `delay_bps` is what the delay allows: never exceeded. `is_queue_empty`: no packet
    /// waits on the path.
    pub fn update(
        &mut self,
        sums: &FeedbackSums,
        delay_bps: f64,
        acked_bps: Option<f64>,
        is_queue_empty: bool,
        now_us: i64,
    ) {
        if !self.take(sums, now_us) {
            return;
        }
        self.see_inherent(acked_bps.unwrap_or(0.0), is_queue_empty);
        let current = self.best.unwrap_or(Candidate { bps: delay_bps, inherent: MIN_INHERENT });
        let average_loss = self.average_loss();
        if average_loss == 0.0 && !self.is_limiting {
            // The usual case, and nothing to explain.
            self.best = Some(Candidate { bps: delay_bps, inherent: MIN_INHERENT });
            return;
        }
        let mut best = self.search(current, average_loss, delay_bps, acked_bps);
        let is_explained = average_loss <= best.inherent * INHERENT_SLACK + MIN_INHERENT;
        if best.bps > current.bps && !is_explained && self.is_limiting {
            // The rate is not raised while more is lost than the path loses by nature.
            best.bps = current.bps;
        }
        best.bps = self.limit_growth(current, best.bps, now_us);
        // What arrives is proven to pass.
        let ceiling =
            ceiling_bps(average_loss - self.seen_inherent.min(MAX_TRUSTED_INHERENT)).max(acked_bps.unwrap_or(0.0));
        let bps = best.bps.min(ceiling);
        self.is_limiting = bps < delay_bps;
        best.bps = bps.min(delay_bps);
        self.best = Some(best);
    }

    /// Adds to the observation under way; true if that made it complete.
    fn take(&mut self, sums: &FeedbackSums, now_us: i64) -> bool {
        let from_us = *self.partial_from_us.get_or_insert(now_us);
        self.partial.received += sums.received;
        self.partial.lost = (self.partial.lost + sums.lost).saturating_sub(sums.recovered);
        self.partial.received_bytes += sums.received_bytes;
        self.partial.lost_bytes += sums.lost_bytes;
        let elapsed = now_us - from_us;
        let packets = self.partial.received + self.partial.lost;
        if elapsed < OBSERVATION_US || packets == 0 {
            return false;
        }
        let bytes = self.partial.received_bytes + self.partial.lost_bytes;
        self.observations.rotate_right(1);
        self.observations[0] = Observation {
            packets: f64::from(packets),
            lost: f64::from(self.partial.lost),
            rate_bps: bytes as f64 * 8e6 / elapsed as f64,
        };
        self.count = (self.count + 1).min(OBSERVATIONS);
        self.partial = FeedbackSums::default();
        self.partial_from_us = Some(now_us);
        true
    }

    /// Learns from the newest observation how much is lost at a rate that certainly fits.
    fn see_inherent(&mut self, acked_bps: f64, is_queue_empty: bool) {
        let newest = self.observations[0];
        let loss = newest.lost / newest.packets;
        if loss < self.seen_inherent {
            self.seen_inherent += SEEN_DOWN * (loss - self.seen_inherent);
        } else if is_queue_empty && newest.rate_bps <= self.proven_bps * PROVEN_SHARE {
            self.seen_inherent += SEEN_UP * (loss - self.seen_inherent);
        }
        self.proven_bps = (self.proven_bps * (1.0 - PROOF_FADING)).max(acked_bps);
    }

    fn weighted(&self) -> impl Iterator<Item = (f64, &Observation)> {
        let weights = std::iter::successors(Some(1.0), |w| Some(w * AGING));
        weights.zip(&self.observations[..self.count])
    }

    fn average_loss(&self) -> f64 {
        let (packets, lost) = self.weighted().fold((0.0, 0.0), |(p, l), (w, o)| (p + w * o.packets, l + w * o.lost));
        if packets > 0.0 { lost / packets } else { 0.0 }
    }

    /// The candidate that explains best what was seen.
    fn search(&self, current: Candidate, average_loss: f64, delay_bps: f64, acked_bps: Option<f64>) -> Candidate {
        let factors = CANDIDATE_FACTORS.iter().map(|f| f * current.bps);
        let proven = acked_bps.filter(|bps| *bps < current.bps);
        let untold = Some(delay_bps).filter(|bps| *bps > current.bps);
        let rates = factors.chain(proven).chain(untold);
        let scored = rates.map(|bps| {
            let candidate = self.fit_inherent(bps.min(delay_bps), average_loss);
            (self.objective(candidate, average_loss), candidate)
        });
        scored.max_by(|a, b| a.0.total_cmp(&b.0)).map_or(current, |(_, candidate)| candidate)
    }

    /// How much of the loss may be inherent at a rate.
    fn inherent_bound(&self, bps: f64) -> f64 {
        (self.seen_inherent.min(MAX_TRUSTED_INHERENT) + INHERENT_OFFSET + BALANCE_BPS / bps.max(1.0)).min(0.9)
    }

    /// Newton's method towards the inherent loss that explains the observations best at this rate.
    fn fit_inherent(&self, bps: f64, average_loss: f64) -> Candidate {
        let bound = self.inherent_bound(bps);
        let mut candidate = Candidate { bps, inherent: average_loss.clamp(MIN_INHERENT, bound) };
        for _ in 0..NEWTON_STEPS {
            let (first, second) = self.slope_and_curvature(candidate);
            if second != 0.0 {
                candidate.inherent = (candidate.inherent - first / second).clamp(MIN_INHERENT, bound);
            }
        }
        candidate
    }

    /// Derivatives of the log likelihood by the inherent loss.
    fn slope_and_curvature(&self, candidate: Candidate) -> (f64, f64) {
        self.weighted().fold((0.0, 0.0), |(first, second), (weight, o)| {
            let p = loss_probability(candidate, o.rate_bps);
            let received = o.packets - o.lost;
            let d1 = o.lost / p - received / (1.0 - p);
            let d2 = -o.lost / (p * p) - received / ((1.0 - p) * (1.0 - p));
            (first + weight * d1, second + weight * d2)
        })
    }

    /// Log likelihood of what was seen, with the bias to high rates.
    fn objective(&self, candidate: Candidate, average_loss: f64) -> f64 {
        let kbps = candidate.bps / 1e3;
        // The bias fades as loss nears what cannot be inherent.
        let factor = (1.0 - average_loss / self.inherent_bound(candidate.bps)).clamp(MIN_BIAS_FACTOR, 1.0);
        let bias = factor * HIGH_RATE_BIAS * kbps + HIGH_RATE_LOG_BIAS * factor * (1.0 + kbps).ln();
        self.weighted()
            .map(|(weight, o)| {
                let p = loss_probability(candidate, o.rate_bps);
                weight * (o.lost * p.ln() + (o.packets - o.lost) * (1.0 - p).ln() + bias * o.packets)
            })
            .sum()
    }

    /// While recovering from a limit, growth per second is bounded.
    fn limit_growth(&mut self, current: Candidate, bps: f64, now_us: i64) -> f64 {
        if !self.is_limiting || bps < current.bps {
            self.growth_window = (now_us, current.bps.max(bps) * MAX_GROWTH_PER_S);
            return bps;
        }
        if now_us - self.growth_window.0 >= 1_000_000 {
            self.growth_window = (now_us, current.bps * MAX_GROWTH_PER_S);
        }
        bps.min(self.growth_window.1)
    }
}

/// Inherent loss, and what does not fit through the path.
fn loss_probability(candidate: Candidate, rate_bps: f64) -> f64 {
    let excess = ((rate_bps - candidate.bps) / rate_bps.max(1.0)).max(0.0);
    (candidate.inherent + (1.0 - candidate.inherent) * excess).clamp(1e-6, 1.0 - 1e-6)
}

/// The rate at which so much loss can still be inherent.
fn ceiling_bps(average_loss: f64) -> f64 {
    if average_loss <= INHERENT_OFFSET {
        return f64::MAX;
    }
    BALANCE_BPS / (average_loss - INHERENT_OFFSET)
}

/// The rule for receiver reports without transport-wide feedback (draft-ietf-rmcat-gcc-02 section 6).
#[derive(Debug)]
pub(super) struct ReportedLoss {
    bps: f64,
    start_bps: f64,
    raised_us: i64,
    lowered_us: i64,
}

impl ReportedLoss {
    /// Up by this a second below 2 % of loss.
    const GROWTH_PER_S: f64 = 0.08;
    /// What is not used is not proven: at most this multiple of the rate sent. Simulcast layers lie a factor of 3 to 4
    /// apart, and nothing but sending tells a client without feedback that the next one fits.
    const MAX_OVER_SENT: f64 = 4.0;

    pub fn new(start_bps: f64) -> Self {
        Self { bps: start_bps, start_bps, raised_us: 0, lowered_us: i64::MIN / 2 }
    }

    pub fn bps(&self) -> f64 {
        self.bps
    }

    /// Takes one report; `sent_bps` is the rate sent lately.
    pub fn update(&mut self, fraction_lost: f64, sent_bps: f64, rtt_us: i64, now_us: i64) {
        let elapsed_s = ((now_us - self.raised_us) as f64 / 1e6).clamp(0.0, 1.0);
        self.raised_us = now_us;
        if fraction_lost <= 0.02 {
            let cap = (sent_bps * Self::MAX_OVER_SENT).max(self.start_bps);
            let grown = self.bps * (1.0 + Self::GROWTH_PER_S * elapsed_s);
            self.bps = if self.bps < cap { grown.min(cap) } else { self.bps };
        } else if fraction_lost > 0.1 && now_us - self.lowered_us >= 300_000 + rtt_us {
            self.lowered_us = now_us;
            self.bps *= 1.0 - 0.5 * fraction_lost;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds feedback each 50 ms for `seconds` at `rate_bps`, of which `loss(rate)` is lost.
    fn feed(model: &mut LossModel, from_s: f64, seconds: f64, loss: impl Fn(f64) -> f64, delay_bps: f64) -> f64 {
        let steps = (seconds * 20.0) as i64;
        let mut rate = model.limit_bps().unwrap_or(delay_bps);
        for i in 0..steps {
            let packets = (rate / 8.0 / 1000.0 / 20.0).max(1.0);
            let lost = (packets * loss(rate)).round() as u32;
            let received = packets as u32 - lost.min(packets as u32);
            let sums = FeedbackSums {
                received,
                lost,
                received_bytes: u64::from(received) * 1000,
                lost_bytes: u64::from(lost) * 1000,
                recovered: 0,
            };
            let now_us = (from_s * 1e6) as i64 + i * 50_000;
            model.update(&sums, delay_bps, Some(rate * (1.0 - loss(rate))), true, now_us);
            rate = model.limit_bps().unwrap_or(delay_bps);
        }
        rate
    }

    #[test]
    fn no_loss_no_objection() {
        let mut model = LossModel::new();
        assert_eq!(feed(&mut model, 0.0, 10.0, |_| 0.0, 3e6), 3e6);
        assert!(!model.is_limiting());
    }

    #[test]
    fn a_little_random_loss_is_taken_as_inherent() {
        let mut model = LossModel::new();
        let rate = feed(&mut model, 0.0, 10.0, |_| 0.03, 3e6);
        assert!(rate > 2e6, "{rate}");
    }

    #[test]
    fn loss_by_a_full_path_brings_the_rate_near_its_capacity() {
        let mut model = LossModel::new();
        let capacity = 1e6;
        let full = |rate: f64| ((rate - capacity) / rate).max(0.0);
        feed(&mut model, 0.0, 10.0, full, 3e6);
        let rates: Vec<f64> = (0..40).map(|i| feed(&mut model, 10.0 + f64::from(i) / 2.0, 0.5, full, 3e6)).collect();
        let mean = rates.iter().sum::<f64>() / 40.0;
        assert!((0.8e6..1.2e6).contains(&mean), "{mean} {rates:?}");
    }

    #[test]
    fn forty_percent_of_random_loss_leaves_room_for_sound_and_a_small_picture() {
        let mut model = LossModel::new();
        let rate = feed(&mut model, 0.0, 20.0, |_| 0.4, 2e6);
        assert!((200e3..850e3).contains(&rate), "{rate}");
    }

    #[test]
    fn recovers_when_the_loss_ends() {
        let mut model = LossModel::new();
        feed(&mut model, 0.0, 10.0, |_| 0.4, 2e6);
        let rate = feed(&mut model, 10.0, 15.0, |_| 0.0, 2e6);
        assert!(rate > 1.5e6, "{rate}");
    }

    #[test]
    fn reports_raise_and_lower() {
        let mut loss = ReportedLoss::new(1e6);
        for s in 1..=5 {
            loss.update(0.0, 1e6, 50_000, s * 1_000_000);
        }
        assert!((1.4e6..1.5e6).contains(&loss.bps()), "{}", loss.bps());
        loss.update(0.05, 1e6, 50_000, 6_000_000);
        let held = loss.bps();
        loss.update(0.2, 1e6, 50_000, 7_000_000);
        assert!((loss.bps() / held - 0.9).abs() < 1e-6);
    }

    #[test]
    fn an_idle_sender_does_not_raise_without_limit() {
        let mut loss = ReportedLoss::new(3e5);
        for s in 1..=200 {
            loss.update(0.0, 1e5, 50_000, s * 1_000_000);
        }
        assert!(loss.bps() <= 4.1e5, "{}", loss.bps());
    }
}
