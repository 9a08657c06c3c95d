//! Coalesces key-frame requests of all receivers of a track into few upstream requests per layer.
//!
//! A publisher pays for a key frame with several times the bits of a usual frame, so a hundred receivers that lose the
//! same packet must cost one request. A request is repeated until the key frame came, since PLI itself can be lost.

use std::time::{Duration, Instant};

/// Layers of one track (simulcast encodings); more are refused by SDP negotiation.
pub const MAX_LAYERS: usize = 8;

/// Least time between two upstream requests of a layer, however many receivers ask. Short enough that somebody who
/// joins right after a key frame waits little, long enough that a malicious receiver gets at most three key frames a
/// second out of a publisher.
const MIN_INTERVAL: Duration = Duration::from_millis(300);
/// First repeat of an unanswered request; at least this also on links with a tiny round trip, since the encoder needs
/// up to one frame interval plus its own time.
const MIN_REPEAT: Duration = Duration::from_millis(200);
/// Longest time between repeats: a publisher that does not answer (layer switched off) is asked this often.
const MAX_REPEAT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, Default)]
struct LayerState {
    is_pending: bool,
    last_sent_at: Option<Instant>,
    /// Requests sent since the last key frame.
    unanswered: u32,
}

impl LayerState {
    fn due_at(&self, rtt: Duration) -> Option<Instant> {
        let sent_at = self.last_sent_at?;
        if self.unanswered == 0 {
            return Some(sent_at + MIN_INTERVAL);
        }
        let first = (rtt + rtt / 2).clamp(MIN_REPEAT, MAX_REPEAT);
        let backed_off = first.saturating_mul(1 << self.unanswered.saturating_sub(1).min(4));
        Some(sent_at + backed_off.min(MAX_REPEAT))
    }

    fn is_due(&self, now: Instant, rtt: Duration) -> bool {
        self.is_pending && self.due_at(rtt).is_none_or(|at| now >= at)
    }
}

/// The key-frame requests of one track.
#[derive(Debug, Default)]
pub struct KeyframeThrottle {
    layers: [LayerState; MAX_LAYERS],
}

impl KeyframeThrottle {
    /// Nothing asked for.
    pub fn new() -> Self {
        Self::default()
    }

    /// A receiver needs a key frame of `layer`. Layers beyond [`MAX_LAYERS`] are ignored.
    pub fn request(&mut self, layer: usize) {
        if let Some(state) = self.layers.get_mut(layer) {
            state.is_pending = true;
        }
    }

    /// A key frame of `layer` began to arrive: its request is answered.
    pub fn on_keyframe(&mut self, layer: usize) {
        if let Some(state) = self.layers.get_mut(layer) {
            state.is_pending = false;
            state.unanswered = 0;
        }
    }

    /// Nobody wants `layer` any more.
    pub fn cancel(&mut self, layer: usize) {
        self.on_keyframe(layer);
    }

    /// No request has reached the publisher: what is pending is due at once.
    pub fn forget_sent(&mut self) {
        for state in &mut self.layers {
            (state.last_sent_at, state.unanswered) = (None, 0);
        }
    }

    /// The next layer whose request (PLI) is to be sent upstream now; call until `None`.
    ///
    /// `rtt` is the round trip to the publisher, zero if unknown.
    pub fn poll(&mut self, now: Instant, rtt: Duration) -> Option<usize> {
        let layer = self.layers.iter().position(|l| l.is_due(now, rtt))?;
        let state = &mut self.layers[layer];
        state.last_sent_at = Some(now);
        state.unanswered += 1;
        Some(layer)
    }

    /// When `poll` has something next, if nothing else happens. In the past: now.
    pub fn next_timeout(&self, now: Instant, rtt: Duration) -> Option<Instant> {
        let pending = self.layers.iter().filter(|l| l.is_pending);
        pending.map(|l| l.due_at(rtt).unwrap_or(now)).min()
    }

    /// True if some request waits to be sent or answered.
    pub fn is_pending(&self) -> bool {
        self.layers.iter().any(|l| l.is_pending)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(50);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn many_requests_become_one() {
        let now = Instant::now();
        let mut throttle = KeyframeThrottle::new();
        for _ in 0..100 {
            throttle.request(1);
        }
        assert_eq!(throttle.poll(now, RTT), Some(1));
        assert_eq!(throttle.poll(now, RTT), None);
        throttle.request(1);
        assert_eq!(throttle.poll(now + ms(100), RTT), None);
    }

    #[test]
    fn an_unanswered_request_is_repeated_with_back_off() {
        let start = Instant::now();
        let mut throttle = KeyframeThrottle::new();
        throttle.request(0);
        let sent: Vec<u64> = (0..6000).filter(|&t| throttle.poll(start + ms(t), RTT).is_some()).collect();
        assert_eq!(sent, [0, 200, 600, 1400, 3000, 5000]);
        throttle.on_keyframe(0);
        assert!(!throttle.is_pending());
        assert_eq!(throttle.next_timeout(start, RTT), None);
    }

    #[test]
    fn what_was_not_sent_is_sent_at_once() {
        let start = Instant::now();
        let mut throttle = KeyframeThrottle::new();
        throttle.request(0);
        assert!((0..1000).filter(|&t| throttle.poll(start + ms(t), RTT).is_some()).count() > 2);
        throttle.forget_sent();
        assert_eq!(throttle.poll(start + ms(1000), RTT), Some(0));
        throttle.on_keyframe(0);
        throttle.forget_sent();
        assert_eq!(throttle.poll(start + ms(1001), RTT), None);
    }

    #[test]
    fn a_request_soon_after_a_key_frame_waits_for_the_interval() {
        let start = Instant::now();
        let mut throttle = KeyframeThrottle::new();
        throttle.request(0);
        assert_eq!(throttle.poll(start, RTT), Some(0));
        throttle.on_keyframe(0);
        throttle.request(0);
        assert_eq!(throttle.poll(start + ms(60), RTT), None);
        assert_eq!(throttle.next_timeout(start, RTT), Some(start + MIN_INTERVAL));
        assert_eq!(throttle.poll(start + MIN_INTERVAL, RTT), Some(0));
    }

    #[test]
    fn layers_are_apart_and_foreign_layers_ignored() {
        let now = Instant::now();
        let mut throttle = KeyframeThrottle::new();
        throttle.request(2);
        throttle.request(0);
        throttle.request(MAX_LAYERS);
        assert_eq!(throttle.poll(now, RTT), Some(0));
        assert_eq!(throttle.poll(now, RTT), Some(2));
        assert_eq!(throttle.poll(now, RTT), None);
        throttle.cancel(0);
        assert_eq!(throttle.poll(now + ms(5000), RTT), Some(2));
        assert_eq!(throttle.poll(now + ms(5000), RTT), None);
    }
}
