//! Deadlines of many things in one heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// When one thing is next due; kept inside the thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alarm(Option<Instant>);

/// The heap. A thing whose alarm moves forward leaves a stale entry behind, which is skipped when it comes up; so a
/// thing has at most a few entries, and setting an alarm that is already earlier costs nothing.
#[derive(Debug)]
pub struct Timers<K: Ord> {
    heap: BinaryHeap<Reverse<(Instant, K)>>,
}

impl<K: Ord> Default for Timers<K> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Wakes `key` at `at` or earlier.
    pub fn set(&mut self, alarm: &mut Alarm, key: K, at: Instant) {
        if alarm.0.is_none_or(|armed| at < armed) {
            alarm.0 = Some(at);
            self.heap.push(Reverse((at, key)));
        }
    }

    /// When something is due next; it may turn out to be stale.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// The next entry that is due; `claim` says whether it is stale.
    pub fn pop(&mut self, now: Instant) -> Option<(K, Instant)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((at, key))| (key, at))
    }
}

impl Alarm {
    /// True if it rings at all.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// True if it rings after `at` or not at all.
    pub fn is_later_than(&self, at: Option<Instant>) -> bool {
        at.is_some_and(|at| self.0.is_none_or(|armed| at < armed))
    }

    /// True, once, if the entry popped with `at` is the current one.
    pub fn claim(&mut self, at: Instant) -> bool {
        let is_current = self.0 == Some(at);
        if is_current {
            self.0 = None;
        }
        is_current
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_earlier_alarm_makes_the_later_entry_stale() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut timers = Timers::default();
        let mut alarm = Alarm::default();
        timers.set(&mut alarm, 7u32, at(50));
        timers.set(&mut alarm, 7, at(20));
        timers.set(&mut alarm, 7, at(90));
        assert_eq!(timers.next(), Some(at(20)));
        assert_eq!(timers.pop(at(19)), None);
        let (key, due) = timers.pop(at(60)).expect("due");
        assert!(key == 7 && alarm.claim(due));
        let (_, due) = timers.pop(at(60)).expect("stale entry");
        assert!(!alarm.claim(due));
        assert_eq!(timers.pop(at(100)), None);
    }
}
