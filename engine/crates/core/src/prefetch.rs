//! Hints to the processor's cache.
//!
//! A flush goes through hundreds of transports, and a batch of feedback comes from as many: each one's state is cold by
//! the time its turn comes, and waiting for memory costs more than the work itself. The order is known before, so the
//! state of the next ones is asked for while one is worked on. The core knows what is needed; the shell knows how a
//! processor is told.

/// Brings memory near. What does nothing is right too.
pub trait Prefetch {
    /// All of `value` is used soon. Follows no pointers.
    fn prefetch<T>(&self, _value: &T) {}

    /// The first `_len` bytes behind each pointer inside `_value` are used soon; for values that do not show where they
    /// keep their things.
    fn prefetch_behind<T>(&self, _value: &T, _len: usize) {}
}
